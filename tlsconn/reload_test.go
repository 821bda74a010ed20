package tlsconn

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// pemPair returns a certificate of ca for localhost, as files hold it.
func pemPair(t testing.TB, ca *DevCA) (certPEM, keyPEM []byte, serial string) {
	t.Helper()
	cert, err := ca.Server()
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		cert.Leaf.SerialNumber.String()
}

func writeFile(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace renames a new file over name, as certificate tools do.
func replace(t testing.TB, name string, data []byte) {
	t.Helper()
	writeFile(t, name+".new", data)
	err := os.Rename(name+".new", name)
	for range 100 { // Windows refuses while a handshake reads the old file
		if err == nil {
			return
		}
		time.Sleep(time.Millisecond)
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		t.Fatal(err)
	}
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

type reloadFixture struct {
	*Reloader
	t                 *testing.T
	ca                *DevCA
	certFile, keyFile string
	log               logBuffer
	first             string
}

func newReloadFixture(t *testing.T) *reloadFixture {
	t.Helper()
	ca, err := NewDevCA()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f := &reloadFixture{t: t, ca: ca, certFile: filepath.Join(dir, "tls.crt"), keyFile: filepath.Join(dir, "tls.key")}
	cert, key, serial := pemPair(t, ca)
	writeFile(t, f.certFile, cert)
	writeFile(t, f.keyFile, key)
	f.first = serial
	if f.Reloader, err = NewReloader(f.certFile, f.keyFile); err != nil {
		t.Fatal(err)
	}
	f.Interval = 1 // every handshake looks
	f.Logger = slog.New(slog.NewTextHandler(&f.log, nil))
	return f
}

// serial is that of the certificate a handshake would get now.
func (f *reloadFixture) serial() string {
	f.t.Helper()
	time.Sleep(time.Microsecond)
	cert, err := f.GetCertificate(nil)
	if err != nil {
		f.t.Fatal(err)
	}
	client, err := f.GetClientCertificate(nil)
	if err != nil || client != cert {
		f.t.Error("GetClientCertificate differs", err)
	}
	return cert.Leaf.SerialNumber.String()
}

func (f *reloadFixture) want(serial string) {
	f.t.Helper()
	if got := f.serial(); got != serial {
		f.t.Errorf("serial %s, want %s; %v", got, serial, f.Err())
	}
}

func TestL10_ReloadAfterRenames(t *testing.T) {
	f := newReloadFixture(t)
	f.want(f.first)
	for range 3 {
		old := f.serial()
		cert, key, serial := pemPair(t, f.ca)
		replace(t, f.certFile, cert)
		// The moment at which the two do not belong together.
		for range 3 {
			f.want(old)
		}
		if err := f.Err(); err == nil || !strings.Contains(err.Error(), f.certFile) {
			t.Errorf("Err is %v", err)
		}
		replace(t, f.keyFile, key)
		f.want(serial)
		if err := f.Err(); err != nil {
			t.Error(err)
		}
	}
	if n := f.log.count("level=ERROR"); n != 3 {
		t.Errorf("%d errors were logged, want one for each change", n)
	}
	if n := f.log.count("new certificate\""); n != 3 {
		t.Errorf("%d new certificates were logged, want 3", n)
	}
}

func TestL10_BadFilesKeepTheOldCertificate(t *testing.T) {
	f := newReloadFixture(t)
	writeFile(t, f.certFile, []byte("no PEM at all"))
	for range 5 {
		f.want(f.first)
	}
	if f.Err() == nil || f.log.count("level=ERROR") != 1 {
		t.Errorf("Err is %v, logged %d times", f.Err(), f.log.count("level=ERROR"))
	}
	os.Remove(f.certFile)
	for range 5 {
		f.want(f.first)
	}
	if !errors.Is(f.Err(), fs.ErrNotExist) || f.log.count("level=ERROR") != 2 {
		t.Errorf("Err is %v, logged %d times", f.Err(), f.log.count("level=ERROR"))
	}
	cert, key, serial := pemPair(t, f.ca)
	writeFile(t, f.certFile, cert)
	writeFile(t, f.keyFile, key)
	f.want(serial)
	if f.Err() != nil {
		t.Error(f.Err())
	}
}

// Rewritten in place with the same size and, on a coarse clock, the same time.
func TestL10_ReloadAfterARewriteInPlace(t *testing.T) {
	f := newReloadFixture(t)
	stat := func(name string) os.FileInfo {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	oldCert, oldKey := stat(f.certFile), stat(f.keyFile)
	cert, key, serial := pemPair(t, f.ca)
	for int64(len(cert)) != oldCert.Size() || int64(len(key)) != oldKey.Size() {
		cert, key, serial = pemPair(t, f.ca) // a signature is a byte longer or shorter by chance
	}
	writeFile(t, f.certFile, cert)
	writeFile(t, f.keyFile, key)
	os.Chtimes(f.certFile, time.Time{}, oldCert.ModTime())
	os.Chtimes(f.keyFile, time.Time{}, oldKey.ModTime())
	f.want(serial)
}

// Kubernetes mounts a secret as links through ..data, and swaps that link.
func TestL10_ReloadAfterASymlinkSwap(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symbolic links need privileges on Windows")
	}
	ca, err := NewDevCA()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	swap := func(version string) (serial string) {
		t.Helper()
		cert, key, serial := pemPair(t, ca)
		os.Mkdir(filepath.Join(dir, version), 0o700)
		writeFile(t, filepath.Join(dir, version, "tls.crt"), cert)
		writeFile(t, filepath.Join(dir, version, "tls.key"), key)
		if err := os.Symlink(version, filepath.Join(dir, "..tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
		return serial
	}
	first := swap("v1")
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := NewReloader(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	r.Interval = 1
	f := &reloadFixture{Reloader: r, t: t}
	f.want(first)
	second := swap("v2")
	f.want(second)
	if f.Err() != nil {
		t.Error(f.Err())
	}
}

// Files that have not changed for a while are not read again, and not looked at more often
// than Interval says.
func TestReloaderReadsOnlyWhatChanged(t *testing.T) {
	f := newReloadFixture(t)
	old := time.Now().Add(-time.Hour)
	os.Chtimes(f.certFile, old, old)
	os.Chtimes(f.keyFile, old, old)
	f.want(f.first) // reads: the time stamps changed
	if !f.seen.unchanged(f.certFile, f.keyFile) {
		t.Error("old files are read again")
	}
	f.Interval = time.Hour
	cert, key, _ := pemPair(t, f.ca)
	writeFile(t, f.certFile, cert)
	writeFile(t, f.keyFile, key)
	f.want(f.first)
	if n := testing.AllocsPerRun(100, func() { f.GetCertificate(nil) }); n != 0 {
		t.Errorf("%v allocations between two looks", n)
	}
	f.Interval = 0
	if f.want(f.first); DefaultReloadInterval < 100*time.Millisecond {
		t.Error("the default interval is too short for this test")
	}
}

func TestNewReloaderFailsAtOnce(t *testing.T) {
	f := newReloadFixture(t)
	if _, err := NewReloader(f.certFile, f.keyFile+".missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	_, other, _ := pemPair(t, f.ca)
	writeFile(t, f.keyFile, other)
	if _, err := NewReloader(f.certFile, f.keyFile); err == nil || !strings.Contains(err.Error(), f.keyFile) {
		t.Error(err)
	}
}

// Certificates change while handshakes go on: none fails, an open connection lives on, and
// the last certificate wins.
func TestL10_ReloadUnderLiveTraffic(t *testing.T) {
	f := newReloadFixture(t)
	sc := ServerConfig(&tls.Config{GetCertificate: f.GetCertificate, SessionTicketsDisabled: true})
	cc := ClientConfig(&tls.Config{RootCAs: f.ca.Pool()}, "localhost:443")

	cn, sn := tcpPair(t)
	c, s := connectWith(t, cn, sn, sc, cc)

	stop := make(chan bool)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					roundTrip(t, sc, cc)
				}
			}
		})
	}
	var last string
	for range 10 {
		cert, key, serial := pemPair(t, f.ca)
		replace(t, f.certFile, cert)
		time.Sleep(2 * time.Millisecond)
		replace(t, f.keyFile, key)
		time.Sleep(2 * time.Millisecond)
		last = serial
	}
	close(stop)
	wg.Wait()
	if got := roundTrip(t, sc, cc).PeerCertificates[0].SerialNumber.String(); got != last {
		t.Errorf("a new connection got serial %s, want %s", got, last)
	}
	if got := c.ConnectionState().PeerCertificates[0].SerialNumber.String(); got != f.first {
		t.Errorf("the open connection has serial %s", got)
	}
	go s.Write([]byte("still here"))
	if b, err := readAll(c, 10); string(b) != "still here" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
}

// What Reloader's comment says: a resumed session shows the old certificate, until the
// ticket keys are replaced by GetConfigForClient.
func TestL10_NewTicketKeysEndSessions(t *testing.T) {
	f := newReloadFixture(t)
	var current atomic.Pointer[tls.Config]
	renew := func(key byte) {
		c := &tls.Config{GetCertificate: f.GetCertificate}
		c.SetSessionTicketKeys([][32]byte{{key}})
		current.Store(c)
	}
	renew(1)
	sc := ServerConfig(&tls.Config{
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.Load(), nil },
	})
	cc := ClientConfig(&tls.Config{RootCAs: f.ca.Pool(), ClientSessionCache: tls.NewLRUClientSessionCache(4)}, "localhost:443")
	expect := func(what string, resumed bool, serial string) {
		t.Helper()
		st := roundTrip(t, sc, cc)
		if got := st.PeerCertificates[0].SerialNumber.String(); st.DidResume != resumed || got != serial {
			t.Errorf("%s: resumed %v with serial %s, want %v with %s", what, st.DidResume, got, resumed, serial)
		}
	}
	expect("the first connection", false, f.first)
	expect("the second", true, f.first)
	cert, key, second := pemPair(t, f.ca)
	replace(t, f.certFile, cert)
	replace(t, f.keyFile, key)
	expect("after a new certificate", true, f.first)
	renew(2)
	expect("with new keys", false, second)
	expect("and again", true, second)
}

// What ServerConfig's comment says.
func TestL10_TicketKeysOfTheOriginalHaveNoEffect(t *testing.T) {
	original, cc := devConfigs(t)
	sc := ServerConfig(original)
	cc.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for i := range 3 {
		if st := roundTrip(t, sc, cc); st.DidResume != (i > 0) {
			t.Errorf("connection %d: resumed is %v", i, st.DidResume)
		}
		original.SetSessionTicketKeys([][32]byte{{byte(i)}})
	}
}

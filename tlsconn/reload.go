package tlsconn

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultReloadInterval is the default of Interval of a [Reloader].
const DefaultReloadInterval = time.Second

// racyAge is how old a file must be when it is read for its time stamp to prove, later on,
// that it is still the same: file systems stamp as coarsely as two seconds.
const racyAge = 3 * time.Second

// Reloader serves a certificate from files, and loads it anew when they change, so that a
// certificate is replaced under live traffic without a restart [L10]. Make it with
// [NewReloader], set the fields before its first use, and give its methods to a tls.Config.
// They may be called concurrently.
//
// It looks at the files during handshakes and owns no goroutine: no handshakes, no work. A
// changed pair is loaded and checked; while it is bad, or the two files do not belong
// together because only one was replaced so far, the old certificate stays in use. Files
// may be rewritten, renamed over, or reached through a symbolic link that is swapped, as
// Kubernetes does for mounted secrets.
//
// Connections that are open keep the certificate they have shaken hands with, and so does a
// session: a client that resumes one is shown no certificate and goes on to see the old one,
// for up to a week. After a key was stolen a new certificate is therefore not enough.
// Sessions end with the ticket keys of the server, which it makes anew when it is restarted.
// While it runs, GetConfigForClient replaces them, by a config with keys of its own:
//
//	var current atomic.Pointer[tls.Config]
//	renew := func() {
//		c := &tls.Config{GetCertificate: reloader.GetCertificate}
//		var key [32]byte
//		rand.Read(key[:]) // of crypto/rand
//		c.SetSessionTicketKeys([][32]byte{key})
//		current.Store(c)
//	}
//	renew() // and again to end all sessions
//	config := tlsconn.ServerConfig(&tls.Config{
//		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.Load(), nil },
//	})
//
// Keys that were set so are not replaced by crypto/tls: renew them every day.
type Reloader struct {
	// Interval is the least time between two looks at the files, which are taken at the
	// beginning of a handshake. Zero or less: [DefaultReloadInterval].
	Interval time.Duration

	// Logger is told of every new certificate, at level Info, and of every bad change,
	// once, at level Error. Nil: nobody.
	Logger *slog.Logger

	certFile, keyFile string

	current atomic.Pointer[tls.Certificate]
	checked atomic.Int64 // time of the last look, in nanoseconds since born
	born    time.Time

	mu   sync.Mutex // held by the handshake that looks; others go on with current
	seen files      // the last that was loaded, or found bad
	err  atomic.Pointer[error]
}

// NewReloader loads the PEM files once, and fails if they cannot be used: certFile with the
// certificate and its chain, keyFile with the private key, as for [tls.LoadX509KeyPair].
func NewReloader(certFile, keyFile string) (*Reloader, error) {
	r := &Reloader{certFile: certFile, keyFile: keyFile, born: time.Now()}
	f, err := r.read()
	if err != nil {
		return nil, err
	}
	cert, err := r.parse(f)
	if err != nil {
		return nil, err
	}
	r.seen = f
	r.current.Store(cert)
	return r, nil
}

// GetCertificate is for the GetCertificate of a server's tls.Config. It never fails.
func (r *Reloader) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	r.look()
	return r.current.Load(), nil
}

// GetClientCertificate is for the GetClientCertificate of a client's tls.Config. It never
// fails, and leaves it to the server whether the certificate will do.
func (r *Reloader) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	r.look()
	return r.current.Load(), nil
}

// Err says why the files could not be used when they were last looked at, or nil.
func (r *Reloader) Err() error {
	if err := r.err.Load(); err != nil {
		return *err
	}
	return nil
}

// look checks the files if it is time to. Only one handshake waits for the disk.
func (r *Reloader) look() {
	interval := r.Interval
	if interval <= 0 {
		interval = DefaultReloadInterval
	}
	now := int64(time.Since(r.born))
	last := r.checked.Load()
	if now-last < int64(interval) || !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	if !r.checked.CompareAndSwap(last, now) {
		return // another handshake has looked in the meantime
	}
	if r.seen.unchanged(r.certFile, r.keyFile) {
		return
	}
	f, err := r.read()
	if err != nil {
		// Nothing was read that could be recognized the next time, so compare the errors.
		if old := r.Err(); old == nil || old.Error() != err.Error() {
			r.report(err)
		}
		r.seen = files{}
		return
	}
	same := r.seen.equal(f)
	r.seen = f // with fresh time stamps
	if same {
		return
	}
	cert, err := r.parse(f)
	if err != nil {
		r.report(err)
		return
	}
	r.err.Store(nil)
	if old := r.current.Swap(cert); r.Logger != nil && !bytes.Equal(old.Certificate[0], cert.Certificate[0]) {
		r.Logger.LogAttrs(context.Background(), slog.LevelInfo, "tlsconn: new certificate",
			slog.String("file", r.certFile), slog.Time("not_after", cert.Leaf.NotAfter))
	}
}

func (r *Reloader) report(err error) {
	r.err.Store(&err)
	if r.Logger != nil {
		r.Logger.LogAttrs(context.Background(), slog.LevelError,
			"tlsconn: the new certificate cannot be used, the old one stays",
			slog.String("file", r.certFile), slog.Any("error", err))
	}
}

// files is one state of the two files.
type files struct {
	cert, key file
}

type file struct {
	data []byte
	info os.FileInfo
	racy bool // too young when read for info to prove that it is the same later on
}

func (r *Reloader) read() (f files, err error) {
	if f.cert, err = readFile(r.certFile); err == nil {
		f.key, err = readFile(r.keyFile)
	}
	if err != nil {
		err = fmt.Errorf("tlsconn: load certificate: %w", err)
	}
	return f, err
}

// readFile takes the stamp before the data: a change in between is then seen as one the
// next time.
func readFile(name string) (f file, err error) {
	if f.info, err = os.Stat(name); err != nil {
		return f, err
	}
	f.racy = time.Since(f.info.ModTime()) < racyAge
	f.data, err = os.ReadFile(name)
	return f, err
}

func (r *Reloader) parse(f files) (*tls.Certificate, error) {
	cert, err := tls.X509KeyPair(f.cert.data, f.key.data)
	if err != nil {
		return nil, fmt.Errorf("tlsconn: load certificate from %s and %s: %w", r.certFile, r.keyFile, err)
	}
	if cert.Leaf == nil { // GODEBUG=x509keypairleaf=0
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil, fmt.Errorf("tlsconn: load certificate from %s: %w", r.certFile, err)
		}
	}
	return &cert, nil
}

func (f files) equal(g files) bool {
	return bytes.Equal(f.cert.data, g.cert.data) && bytes.Equal(f.key.data, g.key.data)
}

// unchanged says that nothing needs to be read: same inode, size and time of change.
func (f files) unchanged(certFile, keyFile string) bool {
	return f.cert.unchanged(certFile) && f.key.unchanged(keyFile)
}

func (f file) unchanged(name string) bool {
	if f.info == nil || f.racy {
		return false
	}
	info, err := os.Stat(name)
	return err == nil && os.SameFile(f.info, info) &&
		f.info.Size() == info.Size() && f.info.ModTime().Equal(info.ModTime())
}

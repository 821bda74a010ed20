package networktest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

// kitHost is the name that the kit's servers have, besides the loopback's addresses
// and kitOtherHost. It is in no DNS, so a config with it tells a name that was
// given from one that was taken from the address.
const (
	kitHost      = "localhost"
	kitOtherHost = "server.networktest.example"
)

// authority issues certificates, and is trusted by who trusts pool.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

// kitCerts are made once for each process: two authorities that know nothing of
// each other, and what they have issued.
type kitCerts struct {
	pool, strangers *x509.CertPool

	server    tls.Certificate // for kitHost, kitOtherHost and the loopback
	renewed   tls.Certificate // the same, with another serial number
	elsewhere tls.Certificate // for kitOtherHost alone
	client    tls.Certificate // for kitClientName
	stranger  tls.Certificate // as server, by the other authority
}

// kitClientName is the common name in the client's certificate.
const kitClientName = "gopher"

var makeKitCerts = sync.OnceValues(func() (*kitCerts, error) {
	ca, err := newAuthority("networktest")
	if err != nil {
		return nil, err
	}
	other, err := newAuthority("networktest, another one")
	if err != nil {
		return nil, err
	}
	certs := &kitCerts{pool: ca.pool, strangers: other.pool}
	for _, c := range []struct {
		to     *tls.Certificate
		from   *authority
		name   string
		usage  x509.ExtKeyUsage
		serial int64
	}{
		{&certs.server, ca, kitHost, x509.ExtKeyUsageServerAuth, 2},
		{&certs.renewed, ca, kitHost, x509.ExtKeyUsageServerAuth, 3},
		{&certs.client, ca, kitClientName, x509.ExtKeyUsageClientAuth, 4},
		{&certs.stranger, other, kitHost, x509.ExtKeyUsageServerAuth, 5},
		{&certs.elsewhere, ca, kitOtherHost, x509.ExtKeyUsageServerAuth, 6},
	} {
		if *c.to, err = c.from.issue(c.name, c.usage, c.serial); err != nil {
			return nil, err
		}
	}
	return certs, nil
})

// certsOf returns the kit's certificates.
func certsOf(t testing.TB) *kitCerts {
	c, err := makeKitCerts()
	if err != nil {
		t.Fatal("the kit cannot make its certificates: ", err)
	}
	return c
}

// kitServerConfig is complete: a config of its own with the kit's certificate.
func kitServerConfig(t testing.TB) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certsOf(t).server}}
}

// kitClientConfig is complete: a config of its own that trusts the kit's servers.
func kitClientConfig(t testing.TB) *tls.Config {
	return &tls.Config{RootCAs: certsOf(t).pool, ServerName: kitHost}
}

// kitStrangerConfig is that of a client that does not trust the kit's servers.
func kitStrangerConfig(t testing.TB) *tls.Config {
	return &tls.Config{RootCAs: certsOf(t).strangers, ServerName: kitHost}
}

func newAuthority(name string) (*authority, error) {
	template := certTemplate(name, 1)
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert, key, pool}, nil
}

// issue returns a certificate with its key.
func (a *authority) issue(name string, usage x509.ExtKeyUsage, serial int64) (tls.Certificate, error) {
	template := certTemplate(name, serial)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{usage}
	if usage == x509.ExtKeyUsageServerAuth {
		template.DNSNames = []string{kitOtherHost}
	}
	if name == kitHost {
		template.DNSNames = append(template.DNSNames, kitHost)
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("a certificate for %s: %w", name, err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

func certTemplate(name string, serial int64) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour), // clocks are set back, too
		NotAfter:     now.AddDate(1, 0, 0),
	}
}

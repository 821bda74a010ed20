package tlsconn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

const (
	devLifetime = 7 * 24 * time.Hour
	devBackdate = time.Hour // for peers whose clock is behind
)

// SelfSigned makes a certificate for development and tests, in memory: ECDSA P-256, valid
// for a week, for the given DNS names ("*.example.test" as well) and IP addresses. Without
// any it is for localhost, 127.0.0.1 and ::1. The certificate is for a server's
// tls.Config.Certificates; the pool, which trusts it and nothing else, for a client's
// RootCAs.
//
// It fails for a host that is neither a name nor an address, such as "localhost:8443". For
// mutual TLS see [NewDevCA].
func SelfSigned(hosts ...string) (tls.Certificate, *x509.CertPool, error) {
	template, err := serverTemplate(hosts)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	cert, err := issue(template, nil)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	return cert, pool, nil
}

// DevCA is a certificate authority for development and tests that lives in memory; make it
// with [NewDevCA]. Its certificates, and its own, are valid for a week, as [SelfSigned]'s
// are, and any number of them is trusted through one pool, which is what mutual TLS needs.
// Its methods may be called concurrently. Never use it in production: nothing can be
// revoked.
type DevCA struct {
	cert tls.Certificate
}

// NewDevCA makes an authority with a key of its own.
func NewDevCA() (*DevCA, error) {
	template := baseTemplate("hertznet development CA")
	template.IsCA = true
	template.MaxPathLenZero = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	cert, err := issue(template, nil)
	if err != nil {
		return nil, err
	}
	return &DevCA{cert}, nil
}

// Pool returns a new pool that trusts the authority: RootCAs for clients, and the argument
// of [MutualTLS] for servers.
func (ca *DevCA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert.Leaf)
	return pool
}

// PEM returns the authority's own certificate, for clients that read it from a file:
// curl --cacert, say. The key stays in memory. The slice is the caller's.
func (ca *DevCA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Leaf.Raw})
}

// Server issues a server's certificate for hosts, with the defaults and errors of
// [SelfSigned].
func (ca *DevCA) Server(hosts ...string) (tls.Certificate, error) {
	template, err := serverTemplate(hosts)
	if err != nil {
		return tls.Certificate{}, err
	}
	return issue(template, &ca.cert)
}

// Client issues a client's certificate. The server finds name in
// ConnectionState().PeerCertificates[0].Subject.CommonName.
func (ca *DevCA) Client(name string) (tls.Certificate, error) {
	template := baseTemplate(name)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return issue(template, &ca.cert)
}

func baseTemplate(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		// A nil SerialNumber makes CreateCertificate choose a random one.
		Subject:               pkix.Name{CommonName: name, Organization: []string{"hertznet development"}},
		NotBefore:             now.Add(-devBackdate),
		NotAfter:              now.Add(devLifetime),
		BasicConstraintsValid: true,
	}
}

func serverTemplate(hosts []string) (*x509.Certificate, error) {
	if len(hosts) == 0 {
		hosts = []string{"localhost", "127.0.0.1", "::1"}
	}
	t := baseTemplate(hosts[0])
	if len(hosts[0]) > 64 {
		t.Subject.CommonName = "" // its upper bound (RFC 5280, appendix A.1); clients look at the SANs only
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, h := range hosts {
		bare := strings.TrimSuffix(strings.TrimPrefix(h, "["), "]")
		if ip, err := netip.ParseAddr(bare); err == nil {
			t.IPAddresses = append(t.IPAddresses, net.IP(ip.Unmap().WithZone("").AsSlice()))
			continue
		}
		name := strings.TrimSuffix(h, ".")
		if name == "" || strings.ContainsAny(name, ":/[]@ ") {
			return nil, fmt.Errorf("tlsconn: certificate for %q: neither a DNS name nor an IP address", h)
		}
		t.DNSNames = append(t.DNSNames, name)
	}
	return t, nil
}

// issue makes a key and a certificate signed by parent, or by that key itself.
func issue(template *x509.Certificate, parent *tls.Certificate) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tlsconn: development key: %w", err)
	}
	issuer, signer := template, any(key)
	if parent != nil {
		issuer, signer = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, signer)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tlsconn: development certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tlsconn: development certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

package gateway

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// pki is an authority.
type pki struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	b[0] = 1
	return new(big.Int).SetBytes(b)
}

func newPKI(t testing.TB, name string) *pki {
	t.Helper()
	return rootOf(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}})
}

// rootOf makes an authority of what is special about it.
func rootOf(t testing.TB, template *x509.Certificate) *pki {
	t.Helper()
	key := ecKey(t)
	template.SerialNumber = serial(t)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &pki{t: t, cert: cert, key: key}
}

// client is a certificate for a client, with what is changed about it.
func (p *pki) client(change ...func(*x509.Certificate)) tls.Certificate {
	p.t.Helper()
	return p.issue(ecKey(p.t), append([]func(*x509.Certificate){func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "alice"}
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/user/alice"}}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}}, change...)...)
}

// server is a certificate for a gateway on loopback.
func (p *pki) server() tls.Certificate {
	p.t.Helper()
	return p.issue(ecKey(p.t), func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "gateway"}
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
}

// under makes an authority between this one and its clients.
func (p *pki) under(name string) *pki {
	p.t.Helper()
	c := p.issue(ecKey(p.t), func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: name}
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	})
	return &pki{t: p.t, cert: c.Leaf, key: c.PrivateKey.(crypto.Signer)}
}

func (p *pki) issue(key crypto.Signer, change ...func(*x509.Certificate)) tls.Certificate {
	p.t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(p.t), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	for _, f := range change {
		f(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, p.cert, key.Public(), p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		p.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// keyHash names an authority in what is revoked.
func (p *pki) keyHash() []byte {
	h := sha256.Sum256(p.cert.RawSubjectPublicKeyInfo)
	return h[:]
}

// pool is of the authority alone.
func (p *pki) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.cert)
	return pool
}

// pemOf are certificates, and a key, in PEM.
func pemOf(t testing.TB, key crypto.Signer, chain ...[]byte) []byte {
	t.Helper()
	var text []byte
	for _, der := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if key == nil {
		return text
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
}

// remoteCredentials makes a folder of credentials; of what is nil there is none.
func remoteCredentials(t testing.TB, key, cert []byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range map[string][]byte{"remote.key": key, "remote.cert": cert} {
		if b == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

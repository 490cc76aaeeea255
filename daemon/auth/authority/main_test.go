package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/url"
	"testing"
	"time"
)

const domain = "example.org"

// opened returns an authority in a folder of its own, and its key.
func opened(t *testing.T) (*Authority, []byte) {
	t.Helper()
	a := reopened(t, t.TempDir())
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Init(domain, key); err != nil {
		t.Fatal(err)
	}
	return a, key
}

func reopened(t *testing.T, dir string) *Authority {
	t.Helper()
	a, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func newP256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newEd25519(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// csrOf is a request, in PEM.
func csrOf(t testing.TB, key crypto.Signer, template *x509.CertificateRequest) []byte {
	t.Helper()
	if template == nil {
		template = &x509.CertificateRequest{}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// leafOf is the certificate that was issued.
func leafOf(t testing.TB, i Issued) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(i.Certificate)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// issued issues a certificate for a new key.
func issued(t testing.TB, a *Authority, g Grant) *x509.Certificate {
	t.Helper()
	i, err := a.Issue(csrOf(t, newP256(t), nil), g)
	if err != nil {
		t.Fatal(err)
	}
	return leafOf(t, i)
}

// wantRefusal fails unless err is a refusal of a kind.
func wantRefusal(t testing.TB, err error, kind string) {
	t.Helper()
	r, ok := errors.AsType[*Refusal](err)
	if !ok || r.Kind != kind {
		t.Helper()
		t.Errorf("the error is %v, want a refusal of kind %s", err, kind)
	}
}

// other is another authority.
type other struct {
	cert *x509.Certificate
	key  crypto.Signer
	t    testing.TB
}

func newOther(t testing.TB, change func(*x509.Certificate)) *other {
	t.Helper()
	o := &other{key: newP256(t), t: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Corp CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if change != nil {
		change(template)
	}
	o.cert = o.create(template, template, o.key.Public(), o.key)
	return o
}

func (o *other) create(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	o.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		o.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		o.t.Fatal(err)
	}
	return c
}

// under makes an authority that this one vouches for.
func (o *other) under(serial int64) *other {
	o.t.Helper()
	next := &other{key: newP256(o.t), t: o.t}
	next.cert = o.create(&x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "Corp CA " + big.NewInt(serial).String()}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(900 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, o.cert, next.key.Public(), o.key)
	return next
}

// leaf makes a client's certificate.
func (o *other) leaf(change func(*x509.Certificate)) *x509.Certificate {
	o.t.Helper()
	return o.leafFor(newP256(o.t).Public(), change)
}

func (o *other) leafFor(key crypto.PublicKey, change func(*x509.Certificate)) *x509.Certificate {
	o.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "ops", Organization: []string{"Example"}}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	if change != nil {
		change(template)
	}
	return o.create(template, o.cert, key, o.key)
}

// list makes a list of revoked certificates.
func (o *other) list(next time.Duration, serials ...int64) []byte {
	o.t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(next)}
	for _, s := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: time.Now().Add(-time.Hour)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, o.cert, o.key)
	if err != nil {
		o.t.Fatal(err)
	}
	return der
}

func pemOf(all ...*x509.Certificate) []byte {
	var text []byte
	for _, c := range all {
		text = append(text, inPEM(c.Raw)...)
	}
	return text
}

func uri(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

package contexts

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rtask/rtask/ctl/client"
)

// afterEnd is how long the key of a machine is kept after its certificate has ended: that may be renewed for as long, if the server's
// renew_expired is the default.
const afterEnd = 72 * time.Hour

// ReadCertificate reads a certificate of somebody's own, without its key.
func ReadCertificate(file string) (*tls.Certificate, error) {
	text, err := readFile(file)
	if err != nil {
		return nil, err
	}
	cert, err := chain(string(text))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", file, err)
	}
	return cert, nil
}

// chain reads a certificate with those behind it, in PEM.
func chain(text string) (*tls.Certificate, error) {
	all, err := client.ParseCertificates(text)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("there is no certificate in PEM")
	}
	cert := &tls.Certificate{Leaf: all[0]}
	for _, c := range all {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

// WithKey returns the certificate of a chain in PEM with its key.
func WithKey(text string, key crypto.Signer) (*tls.Certificate, error) {
	cert, err := chain(text)
	if err != nil {
		return nil, err
	}
	if !samePublic(key.Public(), cert.Leaf.PublicKey) {
		return nil, errors.New("the server has issued a certificate for another key")
	}
	cert.PrivateKey = key
	return cert, nil
}

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// Request returns a certificate signing request for a key, in PEM. It has no names: the server decides on them.
func Request(key crypto.Signer) (string, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return "", fmt.Errorf("cannot make a certificate request: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// Machine reports whether a certificate is one that renews itself: of a machine or a host, by its SPIFFE ID.
func Machine(c *x509.Certificate) bool {
	if len(c.URIs) != 1 || c.URIs[0].Scheme != "spiffe" {
		return false
	}
	return strings.HasPrefix(c.URIs[0].Path, "/machine/") || strings.HasPrefix(c.URIs[0].Path, "/host/")
}

// KeyUntil is how long the key of a certificate is of use.
func KeyUntil(c *x509.Certificate) time.Time {
	if Machine(c) {
		return c.NotAfter.Add(afterEnd)
	}
	return c.NotAfter
}

func life(c *x509.Certificate) time.Duration { return c.NotAfter.Sub(c.NotBefore) }

// due reports whether a certificate should be renewed: that of a machine from two thirds of its life on, a tenth of its life earlier or
// later, so that those which were issued together do not come together. Its serial number says which.
func due(c *x509.Certificate, now time.Time) bool {
	if !Machine(c) {
		return false
	}
	sum := sha256.Sum256(c.SerialNumber.Bytes())
	spread := life(c) / 5 * time.Duration(sum[0]) / 255
	return !now.Before(c.NotBefore.Add(life(c)*2/3 - life(c)/10 + spread))
}

func fingerprint(cert *tls.Certificate) string {
	sum := sha256.Sum256(cert.Certificate[0])
	return hex.EncodeToString(sum[:])
}

package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// The credentials of HTTPS: the certificate with those between it and the root, and its private key, both in PEM.
const (
	credentialCert = "https.cert"
	credentialKey  = "https.key"
)

// certificate reads what HTTPS is served with.
func (o Options) certificate() (tls.Certificate, error) {
	cert, key, err := o.credentials()
	if err != nil {
		return tls.Certificate{}, err
	}
	c, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("cannot use the certificate (%s) with the key (%s): %w", credentialCert, credentialKey, err)
	}
	return c, nil
}

// credentials are the certificate and the key in PEM.
func (o Options) credentials() (cert, key []byte, err error) {
	if o.Certificate != nil {
		both, err := io.ReadAll(o.Certificate)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot read certificate and key: %w", err)
		}
		return both, both, nil
	}
	if o.CredentialsDir == "" {
		return nil, nil, fmt.Errorf("there are no credentials, %s and %s are needed", credentialCert, credentialKey)
	}
	for _, c := range []struct {
		name string
		to   *[]byte
	}{{credentialCert, &cert}, {credentialKey, &key}} {
		*c.to, err = os.ReadFile(filepath.Join(o.CredentialsDir, c.name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("there is no credential %s", c.name)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("cannot read the credential %s: %w", c.name, err)
		}
	}
	return cert, key, nil
}

// untimely returns why clients refuse the certificate of a credential at a time, nil if they do not.
func untimely(c tls.Certificate, credential string, now time.Time) error {
	switch {
	case now.After(c.Leaf.NotAfter):
		return fmt.Errorf("the certificate (%s) has expired, on %s; clients refuse it", credential, c.Leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.Leaf.NotBefore):
		return fmt.Errorf("the certificate (%s) is not valid before %s; clients refuse it", credential, c.Leaf.NotBefore.UTC().Format(time.RFC3339))
	default:
		return nil
	}
}

// tlsConfig is how HTTPS is spoken. Where there is no certificate that can be used, each handshake ends with the alert
// internal_error (RFC 8446, section 6.2), so that who connects to a socket of systemd's does not wait for ever.
//
// Sessions are not resumed: what a ticket can be decrypted with would outlive the connection, and its keys.
func (o Options) tlsConfig() *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true}
	cert, err := o.certificate()
	if err != nil {
		o.Logger.Error("HTTPS is not served", "error", err)
		c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, err }
		return c
	}
	o.check(cert)
	c.Certificates = []tls.Certificate{cert}
	return c
}

// check logs it if clients refuse a certificate now.
func (o Options) check(c tls.Certificate) {
	if err := untimely(c, credentialCert, time.Now()); err != nil {
		o.Logger.Error("HTTPS is served with a bad certificate", "error", err)
	}
}

// watch looks at the certificates of a service again when they expire, until stop.
func (o Options) watch(s service) (stop func()) {
	if s.tls == nil || len(s.tls.Certificates) == 0 {
		return func() {}
	}
	cert := s.tls.Certificates[0]
	left := time.Until(cert.Leaf.NotAfter)
	if left <= 0 { // that is logged
		return func() {}
	}
	t := time.AfterFunc(left+time.Second, func() { o.check(cert) })
	return func() { t.Stop() }
}

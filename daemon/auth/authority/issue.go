package authority

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// maxEnrolments is how many certificates are on record, and maxOfIdentity how many of one identity that have not ended, revoked ones
	// among them, which count until they are in no list any more: whoever gets and revokes certificates in turn uses up what is theirs,
	// and nothing of others.
	maxEnrolments, maxOfIdentity = 10_000, 256
	// maxEndedOfIdentity is how many certificates of one identity stay on record after their end.
	maxEndedOfIdentity = 16
	// keepEnded is how long a certificate stays on record after its end, so that `ca list` shows it and the CRL has it once more
	// (RFC 5280, section 3.3).
	keepEnded = 7 * 24 * time.Hour
	// maxText is how many bytes of a text of others a record has.
	maxText = 256
)

// Issued is a new certificate.
type Issued struct {
	// Certificate is in PEM, and Authorities are all own certificates of the authority, the one that signed it first.
	Certificate, Authorities []byte
	Identity                 Identity
}

// Issue makes a certificate for the key of a request. Its errors are a *Refusal for what the request is not, ErrNone, ErrLocked,
// ErrBadName and ErrFull.
func (a *Authority) Issue(csr []byte, g Grant) (Issued, error) {
	r, err := ParseRequest(csr)
	if err != nil {
		return Issued{}, err
	}
	a.change.Lock()
	defer a.change.Unlock()
	return a.issue(r, g, nil)
}

// issue makes a certificate and commits it together with other changes. before is the record of the one that it renews; nil: it renews
// none. a.change is held.
func (a *Authority) issue(r Request, g Grant, before *Enrolment, also ...put) (Issued, error) {
	by, err := a.newest()
	if err != nil {
		return Issued{}, err
	}
	g.Remote = g.Remote[:min(len(g.Remote), maxText)]
	path, err := g.path(a.Name())
	if err != nil {
		return Issued{}, err
	}
	uri := &url.URL{Scheme: "spiffe", Host: a.Name(), Path: "/" + path}
	now := time.Now()
	over, err := a.room(uri.String(), now)
	if err != nil {
		return Issued{}, err
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(), NotBefore: now.Add(-skew).UTC(), NotAfter: a.until(now, g, by).UTC(), URIs: []*url.URL{uri},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	if name := path[strings.LastIndexByte(path, '/')+1:]; len(name) <= 64 { // ub-common-name (RFC 5280, appendix A.1)
		template.Subject = pkix.Name{CommonName: name}
	}
	if g.Kind == Host {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		template.DNSNames, template.IPAddresses = hostNames([]string{g.Name})
	}
	cert, err := by.sign(template, r.public)
	if err != nil {
		return Issued{}, err
	}
	e := &Enrolment{
		Serial: serialText(cert.SerialNumber.Bytes()), URI: uri.String(), Issuer: by.issuer, Key: r.Key, Issued: now.UTC(), Until: cert.NotAfter, Grant: g,
	}
	changed := []*Enrolment{e}
	if before != nil && !slices.Contains(over, before) {
		renewed := *before
		renewed.RenewedBy = e.Serial
		changed = append(changed, &renewed)
	}
	for _, old := range over {
		also = append(also, put{bucketEnrolments, old.number(), nil})
	}
	if err := a.replace(changed, also...); err != nil {
		return Issued{}, err
	}
	a.mu.Lock()
	for _, old := range over {
		delete(a.records, old.Serial)
	}
	a.mu.Unlock()
	return Issued{Certificate: inPEM(cert.Raw), Authorities: a.PEM(), Identity: e.identity(cert.NotAfter)}, nil
}

// until is when a certificate ends.
func (a *Authority) until(now time.Time, g Grant, by *generation) time.Time {
	a.mu.RLock()
	s := a.settings
	a.mu.RUnlock()
	life := s.UserLife
	switch g.Kind {
	case Machine:
		life = s.MachineLife
	case Host:
		life = s.HostLife
	}
	if g.Life > 0 {
		life = min(life, g.Life)
	}
	if end := now.Add(life); end.Before(by.cert.NotAfter) {
		return end
	}
	return by.cert.NotAfter
}

// room returns ErrFull if there may be no further certificate of an identity, or else the records that go for it: those that have
// ended, first of the same identity, then the oldest of all.
func (a *Authority) room(uri string, now time.Time) (over []*Enrolment, err error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	n, after := 0, a.settings.RenewExpired
	var own, others []*Enrolment
	for _, e := range a.records {
		switch {
		case e.URI == uri && e.over(now, 0):
			own = append(own, e)
		case e.URI == uri: // it has not ended, or was revoked and a list may still need it
			n++
		case e.over(now, after):
			others = append(others, e)
		}
	}
	if n >= maxOfIdentity {
		return nil, fmt.Errorf("%w: %d of %s have not ended, or were revoked and ended less than 24 hours ago", ErrFull, n, uri)
	}
	slices.SortFunc(own, func(a, b *Enrolment) int { return a.Until.Compare(b.Until) })
	over = own[:max(len(own)-maxEndedOfIdentity+1, 0)]
	if short := len(a.records) - len(over) + 1 - maxEnrolments; short > 0 {
		others = append(others, own[len(over):]...)
		slices.SortFunc(others, func(a, b *Enrolment) int { return a.Until.Compare(b.Until) })
		if len(others) < short {
			return nil, fmt.Errorf("%w: %d", ErrFull, maxEnrolments)
		}
		over = append(over, others[:short]...)
	}
	return over, nil
}

// over reports whether nothing depends on the record any more. A certificate that was revoked stays for one more list after its end (RFC
// 5280, section 3.3), and a machine's for as long as it can be renewed after it.
func (e *Enrolment) over(now time.Time, renewExpired time.Duration) bool {
	switch {
	case !e.Revoked.IsZero():
		return now.After(e.Until.Add(crlLife))
	case e.Grant.Kind == User:
		return now.After(e.Until)
	default:
		return now.After(e.Until.Add(renewExpired))
	}
}

// sign makes a certificate.
func (g *generation) sign(template *x509.Certificate, key crypto.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, g.cert, key, g.signer)
	if err != nil {
		return nil, fmt.Errorf("cannot make a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// identity is whose the certificate of a record is.
func (e *Enrolment) identity(until time.Time) Identity {
	return Identity{
		URI: e.URI, Serial: e.Serial, Until: until, Provider: e.Grant.Provider, ProviderSubject: e.Grant.ProviderSubject, Groups: e.Grant.Groups,
		Roles: e.Grant.Roles, Machine: e.Grant.Kind != User, Own: true,
	}
}

// serialBytes is the opposite of serialText; nil for what is none.
func serialBytes(text string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	if err != nil {
		return nil
	}
	return b
}

// SetServer names the gateway's key, for which the authority makes a certificate and keeps it new. The key is shown by a request. That
// of a key that it has named before changes nothing.
func (a *Authority) SetServer(csr []byte) error {
	r, err := ParseRequest(csr)
	if err != nil {
		return err
	}
	a.change.Lock()
	defer a.change.Unlock()
	if a.db == nil {
		return ErrNone
	}
	if bytes.Equal(a.server.Key, r.Key) { // only who holds change writes it
		return nil
	}
	s := serverRecord{Key: r.Key}
	if err := a.db.commit(putServer(s)); err != nil {
		return err
	}
	a.mu.Lock()
	a.server = s
	a.mu.Unlock()
	a.renewServer()
	a.tell()
	return nil
}

// chain is the gateway's certificate and that of its authority; nil: there is none.
func (s serverRecord) chain(own []*generation) []*x509.Certificate {
	if s.Certificate == nil {
		return nil
	}
	cert, err := x509.ParseCertificate(s.Certificate)
	if err != nil {
		return nil
	}
	for _, g := range own {
		if cert.CheckSignatureFrom(g.cert) == nil {
			return []*x509.Certificate{cert, g.cert}
		}
	}
	return nil
}

// renewServer makes the gateway's certificate anew where that is due: its names have changed, two thirds of its life are over, or
// another authority is to sign it. It reports whether it did. a.change is held.
//
// The oldest authority signs it: who enrolled before a rotation knows no other.
func (a *Authority) renewServer() bool {
	a.mu.RLock()
	s, own, names, life := a.server, a.own, a.settings.ServerNames, a.settings.HostLife
	a.mu.RUnlock()
	if s.Key == nil || len(own) == 0 || len(names) == 0 {
		return false
	}
	by := own[len(own)-1]
	now := time.Now()
	if c := s.chain(own); c != nil && c[1] == by.cert && sameNames(c[0], names) && now.Before(c[0].NotBefore.Add(c[0].NotAfter.Sub(c[0].NotBefore)*2/3)) {
		return false
	}
	err := ErrLocked
	if by.signer != nil {
		err = a.makeServer(&s, by, names, now.Add(life))
	}
	if err != nil {
		if !errors.Is(err, ErrLocked) {
			a.logger.Error("cannot make the gateway's certificate", "error", err)
		}
		return false
	}
	a.mu.Lock()
	a.server = s
	a.mu.Unlock()
	return true
}

func (a *Authority) makeServer(s *serverRecord, by *generation, names []string, until time.Time) error {
	key, err := x509.ParsePKIXPublicKey(s.Key)
	if err != nil {
		return err
	}
	if until.After(by.cert.NotAfter) {
		until = by.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(), NotBefore: time.Now().Add(-skew).UTC(), NotAfter: until.UTC(), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	template.DNSNames, template.IPAddresses = hostNames(names)
	if len(names[0]) <= 64 {
		template.Subject = pkix.Name{CommonName: names[0]}
	}
	cert, err := by.sign(template, key)
	if err != nil {
		return err
	}
	s.Certificate = cert.Raw
	return a.db.commit(putServer(*s))
}

// hostNames tells names and addresses of hosts apart.
func hostNames(all []string) (names []string, addresses []net.IP) {
	for _, name := range all {
		if ip := net.ParseIP(name); ip != nil {
			addresses = append(addresses, ip)
		} else {
			names = append(names, name)
		}
	}
	return names, addresses
}

// sameNames reports whether a certificate is for these names and no others.
func sameNames(c *x509.Certificate, names []string) bool {
	if len(c.DNSNames)+len(c.IPAddresses) != len(names) {
		return false
	}
	has := map[string]bool{}
	for _, n := range c.DNSNames {
		has[n] = true
	}
	for _, ip := range c.IPAddresses {
		has[ip.String()] = true
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			n = ip.String()
		}
		if !has[n] {
			return false
		}
	}
	return true
}

// numberOf is a serial number as Revoked has it.
func numberOf(n *big.Int) string { return string(n.Bytes()) }

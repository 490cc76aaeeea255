package authority

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// maxJWS is how many bytes a request to renew has: a CSR and a certificate in base64.
const maxJWS = 48 << 10

// Renew makes a machine's next certificate, for a new key. What it has now was shown and verified: id is what Verify said of it. Its
// errors are a *Refusal and those of Issue.
func (a *Authority) Renew(id Identity, csr []byte, remote string) (Issued, error) {
	r, err := ParseRequest(csr)
	if err != nil {
		return Issued{}, err
	}
	if !id.Own {
		return Issued{}, refuse(KindUnknown, "another authority made this certificate: renew it there")
	}
	a.change.Lock()
	defer a.change.Unlock()
	return a.renew(a.record(id.Serial), r, remote)
}

// RenewExpired makes a machine's next certificate when its last one has recently expired. The key of that one is the only proof.
// The proof is a JWS in its compact form (RFC 7515), signed by that key: its payload is the CSR in DER, and its header has the last
// certificate in x5c (RFC 7515, section 4.1.6).
func (a *Authority) RenewExpired(jws, remote string) (Issued, error) {
	bad := func() (Issued, error) {
		return Issued{}, refuse(KindBadRequest, "this is not a compact JWS with the last certificate in x5c, signed by its key")
	}
	if len(jws) > maxJWS || strings.Count(jws, ".") != 2 {
		return bad()
	}
	head, _, _ := strings.Cut(jws, ".")
	leaf := certificateOf(head)
	if leaf == nil {
		return bad()
	}
	e := a.record(serialText(leaf.SerialNumber.Bytes()))
	if e == nil {
		return Issued{}, refuse(KindUnknown, "this authority has no record of the certificate")
	}
	// Of the certificate, only its number counts: the key is the one on record.
	key, err := x509.ParsePKIXPublicKey(e.Key)
	if err != nil {
		return Issued{}, err
	}
	signed, err := jose.ParseSignedCompact(jws, []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA})
	if err != nil {
		return bad()
	}
	csr, err := signed.Verify(key)
	if err != nil {
		return bad()
	}
	r, err := ParseRequest(csr)
	if err != nil {
		return Issued{}, err
	}
	a.change.Lock()
	defer a.change.Unlock()
	return a.renew(a.record(e.Serial), r, remote)
}

// record is what is on record of a certificate now; nil: nothing.
func (a *Authority) record(serial string) *Enrolment {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.records[serial]
}

// certificateOf returns the first certificate of a JWS's header, nil if there is none.
func certificateOf(head string) *x509.Certificate {
	text, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		return nil
	}
	var h struct {
		X5c []string `json:"x5c"`
	}
	if json.Unmarshal(text, &h) != nil || len(h.X5c) == 0 {
		return nil
	}
	der, err := base64.StdEncoding.DecodeString(h.X5c[0])
	if err != nil {
		return nil
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	return c
}

// renew makes the next certificate after one on record; nil: it is not. a.change is held.
func (a *Authority) renew(e *Enrolment, r Request, remote string) (Issued, error) {
	a.mu.RLock()
	after := a.settings.RenewExpired
	a.mu.RUnlock()
	now := time.Now()
	switch {
	case e == nil:
		return Issued{}, refuse(KindUnknown, "this authority has no record of the certificate")
	case !e.Revoked.IsZero():
		return Issued{}, refuse(KindRevoked, "the certificate was revoked on %s", e.Revoked.UTC().Format(time.RFC3339))
	case e.Grant.Kind == User:
		return Issued{}, refuse(KindExpired, "a person's certificate is not renewed: log in again")
	case e.over(now, after):
		return Issued{}, refuse(KindExpired, "the certificate expired on %s, which is too long ago to renew it: join again", e.Until.UTC().Format(time.RFC3339))
	}
	g := e.Grant
	g.Proof, g.Remote = "renewal", remote
	return a.issue(r, g, e)
}

// Again makes a new certificate for the key and the identity of the newest one on record that ref names (see Revoke): of a machine that
// cannot call. Its errors are those of Revoke, and of Renew.
func (a *Authority) Again(ref string) (Issued, error) {
	a.change.Lock()
	defer a.change.Unlock()
	a.mu.RLock()
	uri, serial, err := a.find(ref)
	newest := a.records[serial]
	for _, e := range a.records {
		if e.URI == uri && (newest == nil || e.Issued.After(newest.Issued)) {
			newest = e
		}
	}
	a.mu.RUnlock()
	if err == nil && newest == nil {
		err = fmt.Errorf("%w: %.80q is neither a name nor a serial number of one", ErrNoSuch, ref)
	}
	if err != nil {
		return Issued{}, err
	}
	key, err := x509.ParsePKIXPublicKey(newest.Key)
	if err != nil {
		return Issued{}, err
	}
	return a.renew(newest, Request{Key: newest.Key, public: key}, "")
}

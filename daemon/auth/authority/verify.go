package authority

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"sync"
	"time"
)

// MaxChain is how many certificates a client may show beside its own.
const MaxChain = 4

// minRSA is the least size of an RSA key, in bits (NIST SP 800-131A, section 3).
const minRSA = 2048

// Verify says whose a client certificate is. It looks at the way to an authority, at dates, at the extended key usage, and whether it
// was revoked, as all of that is now; chain is what the client showed beside it. Its error is a *Refusal.
func (a *Authority) Verify(leaf *x509.Certificate, chain []*x509.Certificate) (Identity, error) {
	now := time.Now()
	if len(chain) > MaxChain {
		return Identity{}, refuse(KindUnknown, "the certificate came with %d others: at most %d are looked at", len(chain), MaxChain)
	}
	key, epoch := a.verified.key(leaf, chain), a.verified.now()
	if id, ok := a.verified.get(key, now); ok {
		a.use(id, now)
		return id, nil
	}
	a.mu.RLock()
	id, from, until, err := a.verify(leaf, chain, now)
	a.mu.RUnlock()
	if err != nil {
		return Identity{}, err
	}
	a.verified.put(key, epoch, result{id, from, until})
	a.use(id, now)
	return id, nil
}

// use notes that an own certificate was used.
func (a *Authority) use(id Identity, now time.Time) {
	if id.Own {
		a.used.note(id.Serial, now)
	}
}

// verify returns an identity and the time in which that holds, if nothing changes. a.mu is held.
func (a *Authority) verify(leaf *x509.Certificate, chain []*x509.Certificate, now time.Time) (id Identity, from, until time.Time, err error) {
	fail := func(err error) (Identity, time.Time, time.Time, error) { return Identity{}, from, until, err }
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	if a.settings.Own {
		for _, g := range a.own {
			roots.AddCert(g.cert)
		}
	}
	for _, r := range a.roots {
		roots.AddCert(r)
	}
	for _, c := range chain {
		middle.AddCert(c)
	}
	if leaf.IsCA {
		return fail(refuse(KindUnknown, "the certificate is an authority's, not a client's"))
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middle, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return fail(verifyError(leaf, err, now))
	}
	for _, way := range chains { // the first that is good, else the last one's error
		if id, from, until, err = a.along(way, now); err == nil {
			return id, from, until, nil
		}
	}
	return fail(err)
}

// along looks at one way from a leaf to a root. a.mu is held.
func (a *Authority) along(way []*x509.Certificate, now time.Time) (id Identity, from, until time.Time, err error) {
	leaf, root := way[0], way[len(way)-1]
	from, until = leaf.NotBefore, leaf.NotAfter
	for _, c := range way {
		if err := checkStrength(c); err != nil {
			return id, from, until, err
		}
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
		if c.NotBefore.After(from) {
			from = c.NotBefore
		}
	}
	if a.settings.Own {
		for _, g := range a.own {
			if g.cert.Equal(root) {
				id, err = a.enrolled(g, way, until)
				return id, from, until, err
			}
		}
	}
	stale, err := a.notRevoked(way, now)
	if err != nil {
		return id, from, until, err
	}
	if !stale.IsZero() && stale.Before(until) {
		until = stale
	}
	id, err = a.others(leaf, until)
	return id, from, until, err
}

// enrolled is the identity of an own certificate, which must be on record. a.mu is held.
func (a *Authority) enrolled(g *generation, way []*x509.Certificate, until time.Time) (Identity, error) {
	leaf := way[0]
	e := a.records[serialText(leaf.SerialNumber.Bytes())]
	if e == nil || e.Issuer != g.issuer || len(way) != 2 || len(leaf.URIs) != 1 || leaf.URIs[0].String() != e.URI {
		return Identity{}, refuse(KindUnknown, "this authority has no record of the certificate")
	}
	// A certificate that somebody made with the authority's key, in the name of one on record, has another key.
	if key, err := x509.MarshalPKIXPublicKey(leaf.PublicKey); err != nil || !bytes.Equal(key, e.Key) {
		return Identity{}, refuse(KindUnknown, "this authority has made another certificate with this number")
	}
	if !e.Revoked.IsZero() {
		return Identity{}, refuse(KindRevoked, "the certificate was revoked on %s", e.Revoked.UTC().Format(time.RFC3339))
	}
	return e.identity(until), nil
}

// others is the identity of another authority's certificate. a.mu is held.
func (a *Authority) others(leaf *x509.Certificate, until time.Time) (Identity, error) {
	id := Identity{Subject: subjectOf(leaf), Serial: serialText(leaf.SerialNumber.Bytes()), Until: until}
	if len(leaf.URIs) > 1 { // X.509-SVID, section 2
		return Identity{}, refuse(KindUnknown, "the certificate has more than one URI, so that it does not say whose it is")
	}
	if len(leaf.URIs) == 1 {
		uri, domain, ok := spiffeID(leaf.URIs[0])
		if ok && domain == a.name {
			return Identity{}, refuse(KindUnknown, "the certificate names an identity of %s, and another authority made it", a.name)
		}
		if ok {
			id.URI = uri
		}
	}
	if id.Name() == "" {
		return Identity{}, refuse(KindUnknown, "the certificate has neither a SPIFFE ID nor a subject")
	}
	return id, nil
}

// subjectOf is the subject of a certificate (RFC 4514), all of it and in its order; "": it has none. Subject.String() has the last of
// several common names alone.
func subjectOf(c *x509.Certificate) string {
	var all pkix.RDNSequence
	if rest, err := asn1.Unmarshal(c.RawSubject, &all); err != nil || len(rest) > 0 {
		return ""
	}
	return all.String()
}

// checkStrength refuses keys that others can find out.
func checkStrength(c *x509.Certificate) error {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSA {
			return refuse(KindUnknown, "a certificate has an RSA key of %d bits: the least is %d", k.N.BitLen(), minRSA)
		}
		return nil
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return nil
	default:
		return refuse(KindUnknown, "a certificate has a key of a kind that is not used here")
	}
}

// verifyError puts an error of the library into a sentence.
func verifyError(leaf *x509.Certificate, err error, now time.Time) error {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch {
		case invalid.Reason == x509.Expired && now.Before(leaf.NotBefore):
			return refuse(KindExpired, "the certificate is not valid before %s: here it is %s", leaf.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		case invalid.Reason == x509.Expired && now.After(leaf.NotAfter):
			return refuse(KindExpired, "the certificate expired on %s: here it is %s", leaf.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		case invalid.Reason == x509.Expired:
			return refuse(KindExpired, "the certificate of the client's authority has expired")
		case invalid.Reason == x509.IncompatibleUsage:
			return refuse(KindUnknown, "the certificate is not for clients (extended key usage)")
		}
		return refuse(KindUnknown, "the certificate breaks a rule of its authority")
	}
	return refuse(KindUnknown, "the certificate's authority is not known here")
}

// maxVerified is how many certificates are remembered as good, for the calls that come next.
const maxVerified = 1024

// verified are certificates that were good, with the time in which they are if nothing changes; forget is called when something does.
type verified struct {
	mu    sync.Mutex // guards what follows
	epoch uint64
	of    map[[sha256.Size]byte]result
}

type result struct {
	id          Identity
	from, until time.Time
}

// key names what a client showed.
func (v *verified) key(leaf *x509.Certificate, chain []*x509.Certificate) (key [sha256.Size]byte) {
	h := sha256.New()
	h.Write(leaf.Raw) // DER says its own length
	for _, c := range chain {
		h.Write(c.Raw)
	}
	h.Sum(key[:0])
	return key
}

func (v *verified) now() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.epoch
}

func (v *verified) get(key [sha256.Size]byte, now time.Time) (Identity, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	r, ok := v.of[key]
	return r.id, ok && !now.Before(r.from) && !now.After(r.until)
}

// put remembers a result, unless something has changed since the epoch in which it was begun.
func (v *verified) put(key [sha256.Size]byte, epoch uint64, r result) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if epoch != v.epoch {
		return
	}
	if v.of == nil || len(v.of) >= maxVerified {
		v.of = map[[sha256.Size]byte]result{}
	}
	v.of[key] = r
}

func (v *verified) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.epoch++
	v.of = nil
}

// usage is when certificates were used, since that was last written down.
type usage struct {
	mu sync.Mutex // guards of
	of map[string]time.Time
}

func (u *usage) note(serial string, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of == nil {
		u.of = map[string]time.Time{}
	}
	u.of[serial] = at
}

func (u *usage) take() map[string]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := u.of
	u.of = nil
	return all
}

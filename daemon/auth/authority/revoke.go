package authority

import (
	"fmt"
	"strings"
	"time"
)

// List returns the certificates on record, in no order.
func (a *Authority) List() []Enrolment {
	used := a.used.copy()
	a.mu.RLock()
	defer a.mu.RUnlock()
	all := make([]Enrolment, 0, len(a.records))
	for _, e := range a.records {
		one := *e
		if at, ok := used[e.Serial]; ok {
			one.LastUsed = at
		}
		all = append(all, one)
	}
	return all
}

// uriOf is URI. a.mu is held.
func (a *Authority) uriOf(g Grant) string {
	return "spiffe://" + a.name + "/" + string(g.Kind) + "/" + g.Name
}

// URI is the URI of the identity that a grant without a provider is for.
func (a *Authority) URI(g Grant) string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.uriOf(g)
}

// means reports whether a text names an identity: by its whole URI, its path, such as "machine/ci-1", or the name in that, "ci-1"; or by
// what its provider calls it.
func means(ref, uri, subject string) bool {
	_, path, _ := strings.Cut(strings.TrimPrefix(uri, "spiffe://"), "/")
	_, name, _ := strings.Cut(path, "/")
	return ref == uri || ref == path || ref == name || ref != "" && ref == subject
}

// find returns the one identity that a text names, or otherwise the one certificate: by its serial number or the beginning of that, of
// at least two bytes, with or without colons and an ellipsis. Both "": there is none. ErrAmbiguous: there are several. a.mu is held.
func (a *Authority) find(ref string) (uri, serial string, err error) {
	uris := map[string]bool{}
	for _, e := range a.records {
		if means(ref, e.URI, e.Grant.ProviderSubject) {
			uris[e.URI] = true
		}
	}
	for _, j := range a.joins {
		if of := a.uriOf(j.Grant); j.Used.IsZero() && means(ref, of, "") {
			uris[of] = true
		}
	}
	for _, g := range a.devices.approvedAs() {
		if of := a.uriOf(g); means(ref, of, "") {
			uris[of] = true
		}
	}
	for of := range uris {
		if uri != "" {
			return "", "", fmt.Errorf("%w: %s and %s", ErrAmbiguous, min(uri, of), max(uri, of))
		}
		uri = of
	}
	if uri != "" {
		return uri, "", nil
	}
	digits := strings.ReplaceAll(strings.TrimSuffix(strings.ToLower(ref), "…"), ":", "")
	for _, e := range a.records {
		if len(digits) < 4 || !strings.HasPrefix(strings.ReplaceAll(e.Serial, ":", ""), digits) {
			continue
		}
		if serial != "" {
			return "", "", fmt.Errorf("%w: %s and %s", ErrAmbiguous, min(serial, e.Serial), max(serial, e.Serial))
		}
		serial = e.Serial
	}
	return "", serial, nil
}

// Revocation is what Revoke did.
type Revocation struct {
	// URI is the identity, and Whole says that all of it was revoked, not one certificate.
	URI   string
	Whole bool
	// Certificates are those that were good, and Joins how many join tokens were.
	Certificates []Enrolment
	Joins        int
}

// Revoke revokes an identity or one certificate: ref is a name or a serial number, see find. With an identity go its join tokens, and
// devices that were approved as it. When Revoke returns, the record and the new CRL are on disk, and Changed was called; the caller ends
// what is under way for them. Its errors are ErrNoSuch and ErrAmbiguous.
func (a *Authority) Revoke(ref, by string) (Revocation, error) {
	a.change.Lock()
	a.mu.RLock()
	uri, serial, err := a.find(ref)
	a.mu.RUnlock()
	if err == nil && uri == "" && serial == "" {
		err = fmt.Errorf("%w: %.80q is neither a name nor a serial number", ErrNoSuch, ref)
	}
	var r Revocation
	if err == nil {
		r, err = a.revoke(uri, serial, by)
	}
	a.change.Unlock()
	if err == nil {
		a.tell()
	}
	return r, err
}

// RevokeOwn revokes the one certificate that a client has shown.
func (a *Authority) RevokeOwn(id Identity, by string) (Revocation, error) {
	if !id.Own {
		return Revocation{}, ErrNoSuch
	}
	a.change.Lock()
	r, err := a.revoke("", id.Serial, by)
	a.change.Unlock()
	if err == nil {
		a.tell()
	}
	return r, err
}

// revoke revokes all of an identity, or one certificate. a.change is held.
func (a *Authority) revoke(uri, serial, by string) (Revocation, error) {
	now := time.Now().UTC()
	r := Revocation{URI: uri, Whole: uri != ""}
	var puts []put
	var changed []*Enrolment
	var gone []joinID
	a.mu.RLock()
	for _, e := range a.records {
		// One that has ended is revoked, too: it could still be renewed.
		if e.URI != uri && e.Serial != serial || !e.Revoked.IsZero() {
			continue
		}
		next := *e
		next.Revoked, next.RevokedBy = now, by[:min(len(by), maxText)]
		changed = append(changed, &next)
		if e.live(now) {
			r.Certificates = append(r.Certificates, next)
		}
	}
	for id, j := range a.joins {
		if uri != "" && j.Used.IsZero() && a.uriOf(j.Grant) == uri {
			gone, puts = append(gone, id), append(puts, put{bucketJoins, j.Hash[:], nil})
		}
	}
	if e := a.records[serial]; e != nil {
		r.URI = e.URI
	}
	if uri != "" {
		a.devices.forget(func(g Grant) bool { return a.uriOf(g) == uri })
	}
	a.mu.RUnlock()
	if len(changed) == 0 && len(puts) == 0 {
		return r, nil
	}
	if err := a.replace(changed, puts...); err != nil {
		return Revocation{}, err
	}
	a.mu.Lock()
	for _, id := range gone {
		delete(a.joins, id)
	}
	a.mu.Unlock()
	r.Joins = len(gone)
	a.makeLists(true)
	return r, nil
}

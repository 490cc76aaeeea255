package authority

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"math/big"
	"time"
)

// CRL returns the revocation list of the newest of the authority's certificates (RFC 5280, section 5), in DER.
func (a *Authority) CRL() ([]byte, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	switch {
	case len(a.own) == 0:
		return nil, ErrNone
	case a.own[0].crl == nil:
		return nil, ErrLocked
	}
	return a.own[0].crl, nil
}

// CRLs returns the revocation lists of all of the authority's certificates, the newest first, in PEM.
func (a *Authority) CRLs() []byte {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var all []byte
	for _, g := range a.own {
		if g.crl != nil {
			all = append(all, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: g.crl})...)
		}
	}
	return all
}

// makeLists makes the revocation lists of all own certificates whose keys are there, those that are recent only if anew says so. It
// logs what fails: whether a certificate is good does not hang on it. a.change is held.
func (a *Authority) makeLists(anew bool) {
	now := time.Now()
	a.mu.RLock()
	var due []*generation
	for _, g := range a.own {
		if g.signer != nil && (anew || now.Sub(g.crlAt) >= crlEvery || now.Before(g.crlAt)) {
			due = append(due, g)
		}
	}
	a.mu.RUnlock()
	for _, g := range due {
		if err := a.makeList(g, now); err != nil {
			a.logger.Error("cannot make the list of revoked certificates", "error", err)
		}
	}
}

func (a *Authority) makeList(g *generation, now time.Time) error {
	a.mu.RLock()
	list := &x509.RevocationList{Number: big.NewInt(g.record.Number + 1), ThisUpdate: now.UTC(), NextUpdate: now.Add(crlLife).UTC()}
	for _, e := range a.records {
		if e.Issuer == g.issuer && !e.Revoked.IsZero() {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
				SerialNumber: new(big.Int).SetBytes(e.number()), RevocationTime: e.Revoked,
			})
		}
	}
	record := g.record
	a.mu.RUnlock()
	record.Number++
	der, err := x509.CreateRevocationList(rand.Reader, list, g.cert, g.signer)
	if err != nil {
		return err
	}
	if err := a.db.commit(put{bucketOwn, g.cert.SerialNumber.Bytes(), &record}); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	g.record, g.crl, g.crlAt = record, der, now
	return nil
}

// sweep forgets what is over: certificates, join tokens, and own certificates of which no client certificate is good any more. It
// reports whether one of the last is gone. a.change is held.
func (a *Authority) sweep() bool {
	now := time.Now()
	var puts []put
	var ended []string
	var gone []joinID
	a.mu.RLock()
	needed := map[[32]byte]bool{}
	keep := max(keepEnded, a.settings.RenewExpired)
	for serial, e := range a.records {
		if now.After(e.Until.Add(keep)) {
			ended, puts = append(ended, serial), append(puts, put{bucketEnrolments, e.number(), nil})
		} else if e.Until.After(now) {
			needed[e.Issuer] = true
		}
	}
	for id, j := range a.joins {
		if now.After(j.Until.Add(keepJoins)) {
			gone, puts = append(gone, id), append(puts, put{bucketJoins, j.Hash[:], nil})
		}
	}
	own := a.own
	for len(own) > 1 && !needed[own[len(own)-1].issuer] { // the oldest first: the key of each opens that of the one before
		puts = append(puts, put{bucketOwn, own[len(own)-1].cert.SerialNumber.Bytes(), nil})
		own = own[:len(own)-1]
	}
	fewer := len(own) < len(a.own)
	a.mu.RUnlock()
	if len(puts) == 0 {
		return false
	}
	if err := a.db.commit(puts...); err != nil {
		a.logger.Error("cannot remove certificates that are over from the records", "error", err)
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, serial := range ended {
		delete(a.records, serial)
	}
	for _, id := range gone {
		delete(a.joins, id)
	}
	a.own = own
	return fewer
}

// flushUsed writes down when certificates were used. a.change is held.
func (a *Authority) flushUsed() error {
	used := a.used.take()
	var changed []*Enrolment
	a.mu.RLock()
	for serial, at := range used {
		if e := a.records[serial]; e != nil {
			next := *e
			next.LastUsed = at.UTC()
			changed = append(changed, &next)
		}
	}
	a.mu.RUnlock()
	return a.replace(changed)
}

func (u *usage) copy() map[string]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return maps.Clone(u.of)
}

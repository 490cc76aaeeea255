package authority

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/rtask/rtask/daemon/auth/join"
)

const (
	// joinLife is how long a join token is good, and keepJoins how long after that the engine knows that it was.
	joinLife, keepJoins = time.Hour, 24 * time.Hour
	// maxJoins is how many join tokens are on record.
	maxJoins = 1000
)

// joinID is the SHA-256 of a token's secret. The secret is 128 random bits, so nothing slower is needed.
type joinID [sha256.Size]byte

// joinRecord is what is on record of a join token.
type joinRecord struct {
	Hash  joinID
	Grant Grant
	Until time.Time
	// Used is zero while it was not; UsedFrom is the address from which it was.
	Used     time.Time
	UsedFrom string
}

func (j *joinRecord) id() joinID { return j.Hash }

// NewJoin makes a join token: whoever shows it first, within an hour, gets a certificate of the identity that g names. address is where
// to enrol, host:port. Its errors are ErrNone, ErrBadName and ErrFull.
func (a *Authority) NewJoin(g Grant, address string) (join.Token, time.Time, error) {
	if err := CheckName(g.Name); err != nil {
		return join.Token{}, time.Time{}, err
	}
	if err := join.CheckAddress(address); err != nil {
		return join.Token{}, time.Time{}, err
	}
	g.Provider, g.ProviderSubject, g.Proof = "", "", "join"
	a.change.Lock()
	defer a.change.Unlock()
	a.mu.RLock()
	own, n := a.own, len(a.joins)
	a.mu.RUnlock()
	switch {
	case len(own) == 0:
		return join.Token{}, time.Time{}, ErrNone
	case n >= maxJoins:
		return join.Token{}, time.Time{}, fmt.Errorf("%w: %d join tokens of today", ErrFull, n)
	}
	// That of the gateway's certificate: see renewServer.
	t := join.Token{Address: address, Pin: join.PinOf(own[len(own)-1].cert)}
	_, _ = rand.Read(t.Secret[:]) // never fails (crypto/rand)
	j := &joinRecord{Hash: sha256.Sum256(t.Secret[:]), Grant: g, Until: time.Now().Add(joinLife).UTC()}
	if err := a.db.commit(putJoin(j)); err != nil {
		return join.Token{}, time.Time{}, err
	}
	a.mu.Lock()
	a.joins[j.Hash] = j
	a.mu.Unlock()
	return t, j.Until, nil
}

// Join makes a certificate for a client with a join token. A successful call uses up the token; a refused one does not. Its errors are a
// *Refusal and those of Issue.
func (a *Authority) Join(token string, csr []byte, remote string) (Issued, error) {
	t, err := join.Parse(token)
	if err != nil {
		return Issued{}, refuse(KindJoinUnknown, "this is not a join token of this authority")
	}
	if _, err := a.joinOf(t); err != nil {
		return Issued{}, err
	}
	r, err := ParseRequest(csr)
	if err != nil {
		return Issued{}, err
	}
	a.change.Lock()
	defer a.change.Unlock()
	j, err := a.joinOf(t) // again: now nobody else uses it
	if err != nil {
		return Issued{}, err
	}
	used := *j
	used.Used, used.UsedFrom = time.Now().UTC(), remote[:min(len(remote), maxText)]
	g := j.Grant
	g.Remote = remote
	issued, err := a.issue(r, g, nil, putJoin(&used))
	if err != nil {
		return Issued{}, err
	}
	a.mu.Lock()
	a.joins[used.Hash] = &used
	a.mu.Unlock()
	return issued, nil
}

// joinOf returns what is on record of a token that can be used.
func (a *Authority) joinOf(t join.Token) (*joinRecord, error) {
	a.mu.RLock()
	j := a.joins[sha256.Sum256(t.Secret[:])]
	a.mu.RUnlock()
	const form = "01-02 15:04 UTC"
	switch {
	case j == nil:
		return nil, refuse(KindJoinUnknown, "this is not a join token of this authority")
	case !j.Used.IsZero():
		return nil, refuse(KindJoinUsed, "this join token was used on %s from %s; if that was not you, tell your administrator", j.Used.UTC().Format(form), cmp.Or(j.UsedFrom, "this machine"))
	case !time.Now().Before(j.Until):
		return nil, refuse(KindJoinExpired, "this join token expired on %s", j.Until.UTC().Format(form))
	}
	return j, nil
}

package token

import (
	"maps"
	"time"
)

// maxRevoked is how many tokens can be revoked one by one at a time.
const maxRevoked = 1000

// revoked are tokens that are not taken though they have not expired.
type revoked struct {
	// ids are those of single tokens, with when they expire.
	ids map[string]time.Time
	// since: every token that was issued at this time or before is revoked. It takes over when there are too many ids.
	since time.Time
}

// with returns what is revoked after one more token. Beyond maxRevoked all tokens made until now are: clients get new ones by
// themselves, and nothing that was revoked comes back.
func (r revoked) with(c Claims, now time.Time) revoked {
	next := revoked{ids: maps.Clone(r.ids), since: r.since}
	if next.ids == nil {
		next.ids = map[string]time.Time{}
	}
	maps.DeleteFunc(next.ids, func(_ string, expires time.Time) bool { return !now.Before(expires) })
	if next.ids[c.ID] = c.Expires; len(next.ids) > maxRevoked {
		next = revoked{since: now}
	}
	return next
}

func (r revoked) has(c Claims) bool {
	_, single := r.ids[c.ID]
	return single || !r.since.IsZero() && !c.IssuedAt.After(r.since)
}

// Revoke makes a verified token useless (RFC 7009). Once it returns, that is on disk; with an error the token is useless until the
// engine ends.
func (i *Issuer) Revoke(c Claims) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.secret == nil {
		return ErrLocked
	}
	if i.saved.revoked.has(c) {
		return nil
	}
	s := i.saved
	s.revoked = s.revoked.with(c, time.Now())
	err := i.save(s)
	i.saved = s
	return err
}

func (i *Issuer) revoked(c Claims) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.saved.revoked.has(c)
}

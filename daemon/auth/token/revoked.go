package token

import (
	"maps"
	"time"
)

const (
	// maxRevoked is how many tokens can be revoked one by one at a time, and for how many clients all of them.
	maxRevoked = 1000
	// maxRevokedOfClient is how many tokens of one client can be.
	maxRevokedOfClient = 16
	// longestLife is the longest that token_ttl can be.
	longestLife = 24 * time.Hour
)

// revoked are tokens that are not taken though they have not expired.
type revoked struct {
	// ids are those of single tokens.
	ids map[string]revokedToken
	// clients are those of whom every token is revoked that was issued at this time or before. It takes over where there are too many
	// ids of one client.
	clients map[string]time.Time
	// all: every token that was issued at this time or before is revoked. It takes over when there are too many clients.
	all time.Time
}

type revokedToken struct {
	Client  string    `json:"client"`
	Expires time.Time `json:"expires"`
}

// with returns what is revoked after one more token. Beyond maxRevokedOfClient all tokens of its client made until now are: clients get
// new ones by themselves, and nothing that was revoked comes back. What one client does costs others nothing.
func (r revoked) with(c Claims, now time.Time) revoked {
	next := revoked{ids: maps.Clone(r.ids), clients: maps.Clone(r.clients), all: r.all}
	if next.ids == nil {
		next.ids = map[string]revokedToken{}
	}
	if next.clients == nil {
		next.clients = map[string]time.Time{}
	}
	maps.DeleteFunc(next.ids, func(_ string, t revokedToken) bool { return !now.Before(t.Expires) })
	maps.DeleteFunc(next.clients, func(_ string, since time.Time) bool { return now.After(since.Add(longestLife)) })
	next.ids[c.ID] = revokedToken{c.ClientID, c.Expires}
	n := 0
	for _, t := range next.ids {
		if t.Client == c.ClientID {
			n++
		}
	}
	if n > maxRevokedOfClient || len(next.ids) > maxRevoked {
		maps.DeleteFunc(next.ids, func(_ string, t revokedToken) bool { return t.Client == c.ClientID })
		next.clients[c.ClientID] = now
	}
	if len(next.clients) > maxRevoked {
		next = revoked{all: now}
	}
	return next
}

func (r revoked) has(c Claims) bool {
	_, single := r.ids[c.ID]
	since, client := r.clients[c.ClientID]
	return single || client && !c.IssuedAt.After(since) || !r.all.IsZero() && !c.IssuedAt.After(r.all)
}

// Revoke makes a verified token useless (RFC 7009). When it returns, that is on disk. With an error the token stays good: if it were refused,
// the next request to revoke it would be answered that it is revoked, and a restart would bring it back.
func (i *Issuer) Revoke(c Claims) error {
	i.change.Lock()
	defer i.change.Unlock()
	s := i.saved.Load()
	if s == nil {
		return ErrLocked
	}
	if s.revoked.has(c) {
		return nil
	}
	next := saved{generations: s.generations, revoked: s.revoked.with(c, time.Now())}
	if err := writeKeysFile(i.path, i.secret, next); err != nil {
		return err
	}
	i.saved.Store(&next)
	return nil
}

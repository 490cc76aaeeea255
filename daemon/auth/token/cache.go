package token

import (
	"crypto/sha256"
	"sync"
)

// maxGood is how many good tokens are remembered. One entry takes about 1 KiB.
const maxGood = 4096

// goodID is a token together with the certificate that it was presented with.
type goodID struct {
	token, leaf [sha256.Size]byte
}

// good remembers tokens that have passed under one configuration, so a client's next call needs no signature verified. It has no
// failures in it: strangers cannot fill it.
type good struct {
	mu     sync.Mutex // guards claims
	claims map[goodID]Claims
}

func (g *good) get(id goodID) (Claims, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c, ok := g.claims[id]
	return c, ok
}

func (g *good) add(id goodID, c Claims) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for old := range g.claims {
		if len(g.claims) < maxGood {
			break
		}
		delete(g.claims, old) // any one: its next call verifies it again
	}
	g.claims[id] = c
}

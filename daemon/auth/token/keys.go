package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	_ "crypto/sha256" // crypto.SHA256 of Thumbprint
	"encoding/base64"
	"encoding/json"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// keyLife is how long a signing key is used before the next one takes its place.
const keyLife = 30 * 24 * time.Hour

// Algorithms are those that rtask signs its tokens with: Ed25519 (RFC 8037), and ECDSA with P-256 for those that lack it.
func Algorithms() []jose.SignatureAlgorithm { return []jose.SignatureAlgorithm{jose.EdDSA, jose.ES256} }

// signingKey is one key with the name under which it is published.
type signingKey struct {
	id        string // RFC 7638
	algorithm jose.SignatureAlgorithm
	private   crypto.Signer
}

// generation is a key of each algorithm, which are used for the same time.
type generation struct {
	from time.Time // when they are used first; they are published before
	keys []signingKey
}

func newGeneration(from time.Time) (generation, error) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return generation{}, err
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return generation{}, err
	}
	g := generation{from: from.UTC().Truncate(time.Second)}
	for _, private := range []crypto.Signer{ed, ec} {
		k, err := newSigningKey(private)
		if err != nil {
			return generation{}, err
		}
		g.keys = append(g.keys, k)
	}
	return g, nil
}

func newSigningKey(private crypto.Signer) (signingKey, error) {
	k := signingKey{algorithm: jose.EdDSA, private: private}
	if _, ok := private.(*ecdsa.PrivateKey); ok {
		k.algorithm = jose.ES256
	}
	public := jose.JSONWebKey{Key: private.Public()}
	sum, err := public.Thumbprint(crypto.SHA256)
	k.id = base64.RawURLEncoding.EncodeToString(sum)
	return k, err
}

// current is the generation that signs now: the last one that may, or else the first one, since the clock was set back.
func current(generations []generation, now time.Time) generation {
	at := 0
	for i, g := range generations {
		if !now.Before(g.from) {
			at = i
		}
	}
	return generations[at]
}

// nextDue reports whether it is time for the generation after the last one, and firstOver whether the first one is not needed any more:
// see rotated.
func nextDue(generations []generation, now time.Time, ttl time.Duration) bool {
	return len(generations) == 0 || !now.Before(generations[len(generations)-1].from.Add(keyLife-2*ttl))
}

func firstOver(generations []generation, now time.Time, ttl time.Duration) bool {
	return len(generations) > 1 && now.After(generations[1].from.Add(2*ttl))
}

// due reports whether there should be other generations.
func due(generations []generation, now time.Time, ttl time.Duration) bool {
	return nextDue(generations, now, ttl) || firstOver(generations, now, ttl)
}

// rotated returns the generations that there should be now. The next generation is published for twice the life of a token before it
// signs, so that nobody who keeps a copy of the keys meets an unknown one; an old one is kept for as long after its end, when its last
// token is long out.
func rotated(generations []generation, now time.Time, ttl time.Duration) ([]generation, error) {
	generations = slices.Clone(generations)
	if nextDue(generations, now, ttl) {
		from := now
		if n := len(generations); n > 0 {
			from = now.Add(2 * ttl)
			if end := generations[n-1].from.Add(keyLife); end.After(from) {
				from = end
			}
		}
		next, err := newGeneration(from)
		if err != nil {
			return nil, err
		}
		generations = append(generations, next)
	}
	for firstOver(generations, now, ttl) {
		generations = generations[1:]
	}
	return generations, nil
}

// jwks returns the public keys as a JWK set (RFC 7517, section 5).
func jwks(generations []generation) []byte {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, g := range generations {
		for _, k := range g.keys {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id, Algorithm: string(k.algorithm), Use: "sig"})
		}
	}
	text, err := json.Marshal(set)
	if err != nil {
		return []byte(`{"keys":[]}`) // does not happen: the keys are ours
	}
	return text
}

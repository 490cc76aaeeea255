package token

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	// tokenType is the typ of an access token (RFC 9068, section 2.1).
	tokenType = "at+jwt"
	// retryWrite is how long an Issuer goes on with the keys it has when it could not write the next ones.
	retryWrite = time.Minute
)

// Issuer makes and verifies tokens for one engine. Many goroutines may use it.
type Issuer struct {
	path     string
	settings atomic.Pointer[settings]
	saved    atomic.Pointer[saved] // nil: locked. change is held where it is replaced

	// change guards what follows, and is held over a write of the keys file. When other keys are due, the one who gets it by TryLock
	// writes them, also one who verifies, and the others go on with the old ones. Only Revoke and the first Make wait for it.
	change  sync.Mutex
	secret  []byte
	retryAt time.Time
}

// settings are one configuration with the tokens that were good under it.
type settings struct {
	url  string
	ttl  time.Duration
	good good
}

// New returns an Issuer that keeps its keys in a file, whose folder has to be there and must be the engine's own. It can do nothing
// before Configure and Unlock.
func New(path string) *Issuer {
	i := &Issuer{path: path}
	i.Configure("", time.Hour)
	return i
}

// Configure sets the engine's URL, which is issuer and audience of its tokens, and how long new tokens are good. What was made for
// another URL, or for longer, is no longer taken.
func (i *Issuer) Configure(url string, ttl time.Duration) {
	i.settings.Store(&settings{url: url, ttl: ttl, good: good{claims: map[goodID]Claims{}}})
}

// Unlock takes the secret of SecretLen bytes that the keys are encrypted with, and reads them. ErrKeysLost is a warning: the Issuer
// works, and makes new keys. With any other error it stays as it was.
func (i *Issuer) Unlock(secret []byte) error {
	if len(secret) != SecretLen {
		return fmt.Errorf("the secret of the signing keys has %d bytes, and must have %d", len(secret), SecretLen)
	}
	s, err := readKeysFile(i.path, secret)
	if err != nil && !errors.Is(err, ErrKeysLost) {
		return fmt.Errorf("cannot read the signing keys: %w", err)
	}
	i.change.Lock()
	defer i.change.Unlock()
	i.secret = append([]byte(nil), secret...)
	i.saved.Store(&s)
	old := i.settings.Load()
	i.Configure(old.url, old.ttl) // forget what passed with other keys
	return err
}

// Life returns the engine's URL, empty without one, and how long the tokens that Make makes are good.
func (i *Issuer) Life() (url string, ttl time.Duration) {
	s := i.settings.Load()
	return s.url, s.ttl
}

// Make makes a token. It fills in issuer, audience and id; IssuedAt is now if it is zero, and Expires the longest there may be if it
// is zero or later than that. It returns ErrNotConfigured, ErrLocked, ErrTooLong, and an error if the first
// key cannot be written.
func (i *Issuer) Make(c Claims) (string, error) {
	now, s := time.Now(), i.settings.Load()
	if s.url == "" {
		return "", ErrNotConfigured
	}
	if c.IssuedAt.IsZero() {
		c.IssuedAt = now
	}
	if end := c.IssuedAt.Truncate(time.Second).Add(s.ttl); c.Expires.IsZero() || c.Expires.After(end) {
		c.Expires = end
	}
	generations, err := i.generations(now, s.ttl, true)
	if err != nil {
		return "", err
	}
	algorithm := jose.EdDSA
	if c.P256 {
		algorithm = jose.ES256
	}
	for _, k := range current(generations, now).keys {
		if k.algorithm == algorithm {
			return k.sign(s.url, c)
		}
	}
	return "", fmt.Errorf("there is no signing key for %s", algorithm)
}

func (k signingKey) sign(url string, c Claims) (string, error) {
	claims := map[string]any{
		"iss": url, "aud": url, "sub": c.Subject, "client_id": c.ClientID, "jti": rand.Text(),
		"iat": c.IssuedAt.Unix(), "exp": c.Expires.Unix(),
		"cnf":   map[string]string{"x5t#S256": base64.RawURLEncoding.EncodeToString(c.Thumbprint[:])},
		"roles": append([]string{}, c.Roles...),
	}
	if len(c.Groups) > 0 {
		claims["groups"] = c.Groups
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	options := (&jose.SignerOptions{}).WithType(tokenType).WithHeader("kid", k.id)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: k.algorithm, Key: k.private}, options)
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	text, err := jws.CompactSerialize()
	if err == nil && len(text) > MaxLen {
		return "", fmt.Errorf("%w: it would have %d bytes, and %d are taken", ErrTooLong, len(text), MaxLen)
	}
	return text, err
}

// Verify checks a token that a client presented over a connection with a certificate, and returns what it says. It makes every check
// of RFC 9068, section 4, and RFC 8705, section 3, that is about the token. The caller checks, at each call, that the certificate is
// good and what of the roles the configuration still grants. The error is a *Refusal, ErrLocked or ErrNotConfigured.
func (i *Issuer) Verify(raw []byte, leaf *x509.Certificate) (Claims, error) {
	now, s := time.Now(), i.settings.Load()
	if s.url == "" {
		return Claims{}, ErrNotConfigured
	}
	if len(raw) > MaxLen { // before it is hashed
		return Claims{}, invalid("", "the token is longer than %d bytes", MaxLen)
	}
	id := goodID{token: sha256.Sum256(raw), leaf: sha256.Sum256(leaf.Raw)}
	c, known := s.good.get(id)
	if !known {
		var err error
		if c, err = i.verify(raw, s, id.leaf, now); err != nil {
			return Claims{}, err
		}
	}
	if !now.Before(c.Expires) {
		return Claims{}, expired(c.Expires)
	}
	if s := i.saved.Load(); s != nil && s.revoked.has(c) {
		// Of the same kind as one that has expired: the client is to fetch another one.
		return Claims{}, &Refusal{Kind: Expired, Claim: "jti", Text: "the token has been revoked"}
	}
	if !known {
		s.good.add(id, c)
	}
	return c, nil
}

func (i *Issuer) verify(raw []byte, s *settings, leaf [sha256.Size]byte, now time.Time) (Claims, error) {
	signed, err := Parse(raw, MaxLen, Algorithms())
	if err != nil {
		return Claims{}, err
	}
	for _, name := range signed.Parameters {
		if name != "alg" && name != "typ" && name != "kid" {
			return Claims{}, invalid(shown(name), "%s in the token's header is not accepted", shown(name))
		}
	}
	if refusal := CheckType(signed.Type); refusal != nil {
		return Claims{}, refusal
	}
	generations, err := i.generations(now, s.ttl, false)
	if err != nil {
		return Claims{}, err
	}
	key, refusal := find(generations, signed)
	if refusal != nil {
		return Claims{}, refusal
	}
	all, err := signed.Claims(key.private.Public())
	if err != nil {
		return Claims{}, err
	}
	c, err := Check(all, Rules{Issuer: s.url, Audience: s.url, MaxLife: s.ttl}, leaf, now)
	if err != nil {
		return Claims{}, err
	}
	if c.Roles, refusal = texts(all, "roles"); refusal != nil {
		return Claims{}, refusal
	}
	if c.Groups, refusal = texts(all, "groups"); refusal != nil {
		return Claims{}, refusal
	}
	return c, nil
}

// find returns the key that a token names, if it is of the token's algorithm.
func find(generations []generation, signed *Signed) (signingKey, *Refusal) {
	for _, g := range generations {
		for _, k := range g.keys {
			switch {
			case k.id != signed.KeyID:
			case k.algorithm != signed.Algorithm:
				return signingKey{}, invalid("alg", "algorithm is %s, and the key that kid names is for %s", signed.Algorithm, k.algorithm)
			default:
				return k, nil
			}
		}
	}
	return signingKey{}, invalid("kid", "the token was signed with an unknown key (kid)")
}

// JWKS returns the public keys as a JWK set (RFC 7517), those of the next and the last generation among them while they matter. It
// has no key before the first token.
func (i *Issuer) JWKS() []byte {
	generations, err := i.generations(time.Now(), i.settings.Load().ttl, false)
	if err != nil {
		return jwks(nil)
	}
	return jwks(generations)
}

// generations returns the keys that there are now. It makes the next ones in time, and the first ones if they are needed. If the next
// ones cannot be written, or somebody else is writing, the old ones go on.
func (i *Issuer) generations(now time.Time, ttl time.Duration, first bool) ([]generation, error) {
	s := i.saved.Load()
	switch {
	case s == nil:
		return nil, ErrLocked
	case len(s.generations) == 0 && !first, len(s.generations) > 0 && !due(s.generations, now, ttl):
		return s.generations, nil
	case len(s.generations) == 0:
		i.change.Lock()
	case !i.change.TryLock():
		return s.generations, nil
	}
	defer i.change.Unlock()
	s = i.saved.Load()
	had := s.generations
	if len(had) > 0 && (now.Before(i.retryAt) || !due(had, now, ttl)) {
		return had, nil
	}
	next := saved{revoked: s.revoked}
	var err error
	if next.generations, err = rotated(had, now, ttl); err == nil {
		err = writeKeysFile(i.path, i.secret, next)
	}
	if err == nil {
		i.saved.Store(&next)
		return next.generations, nil
	}
	i.retryAt = now.Add(retryWrite)
	if len(had) > 0 {
		err = nil
	}
	return had, err
}

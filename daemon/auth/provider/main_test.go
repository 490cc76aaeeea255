package provider

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/rtask/rtask/daemon/auth/provider/handover"
)

const (
	testIssuer = "https://sso.example.org/realms/corp"
	testURL    = "https://build.example.org:8843"
)

// world is a Set with the files around it.
type world struct {
	*Set
	dir  string
	rsa  *rsa.PrivateKey
	ec   *ecdsa.PrivateKey
	spki []byte
}

func newWorld(t testing.TB, all ...Settings) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), spki: []byte("the public key of a client")}
	var err error
	if w.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if w.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	w.Set = w.open(t, all...)
	w.publish(t, "corp", testIssuer, time.Now())
	return w
}

// open opens a Set over the world's files, as the next engine does.
func (w *world) open(t testing.TB, all ...Settings) *Set {
	t.Helper()
	s, err := Open(Options{Fetched: w.dir, Again: filepath.Join(w.dir, handover.AgainName), Used: filepath.Join(w.dir, "used"), Read: os.ReadFile})
	if err != nil {
		t.Fatal(err)
	}
	s.Configure(all)
	return s
}

// corp is a provider with everything at its default.
func corp() Settings {
	return Settings{
		Name: "corp", Issuer: testIssuer, ClientID: "rtaskctl", Audience: "rtaskctl", Algorithms: []string{"RS256", "ES256"},
		Session: 16 * time.Hour, KeysMaxAge: 24 * time.Hour,
	}
}

// jwks is the key set of the world's two keys, named 1 and 2.
func (w *world) jwks(t testing.TB) []byte {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: w.rsa.Public(), KeyID: "1", Algorithm: "RS256", Use: "sig"}, {Key: w.ec.Public(), KeyID: "2", Use: "sig"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// publish writes the keys as the fetcher does.
func (w *world) publish(t testing.TB, name, issuer string, fetched time.Time) {
	t.Helper()
	text, err := json.Marshal(handover.Keys{Issuer: issuer, Fetched: fetched, JWKS: w.jwks(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, handover.KeysName(name)), text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// claims are those of a good ID token.
func (w *world) claims() map[string]any {
	now := time.Now().Unix()
	return map[string]any{
		"iss": testIssuer, "aud": "rtaskctl", "azp": "rtaskctl", "sub": "7f1c", "iat": now, "exp": now + 300, "nonce": Nonce(w.spki),
		"email": "admin1@example.org", "email_verified": true, "groups": []string{"ops", "dev"},
	}
}

// sign signs claims, or a text, with a key of an id and an algorithm.
func sign(t testing.TB, key crypto.Signer, kid string, a jose.SignatureAlgorithm, typ string, claims any) []byte {
	t.Helper()
	payload, ok := claims.(string)
	if !ok {
		text, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		payload = string(text)
	}
	options := &jose.SignerOptions{}
	if typ != "" {
		options.WithType(jose.ContentType(typ))
	}
	if kid != "" {
		options.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: a, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return []byte(text)
}

func (w *world) token(t testing.TB, claims any) []byte {
	t.Helper()
	return sign(t, w.rsa, "1", jose.RS256, "JWT", claims)
}

// refusalOf returns a refusal, or an empty one with another error's text.
func refusalOf(err error) Refusal {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return *r
	}
	if err != nil {
		return Refusal{Text: err.Error()}
	}
	return Refusal{}
}

package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const testURL = "https://build.example.org:8843"

// secret returns a secret for the keys file, of one byte many times.
func secret(b byte) []byte { return []byte(strings.Repeat(string(b), SecretLen)) }

// newIssuer returns an Issuer with tokens of an hour.
func newIssuer(t testing.TB) *Issuer {
	t.Helper()
	i := New(filepath.Join(t.TempDir(), "token.keys"))
	i.Configure(testURL, time.Hour)
	if err := i.Unlock(secret('a')); err != nil {
		t.Fatal(err)
	}
	return i
}

// newLeaf returns a certificate. Who signed it does not matter here.
func newLeaf(t testing.TB) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "admin1"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// draft is a token before it is signed, which a test changes.
type draft struct {
	header, claims map[string]any
	// rawClaims are signed instead of claims, if there are any.
	rawClaims string
	key       crypto.Signer
	hmac      []byte // sign with HS256 and this key instead
	// finish changes the finished text.
	finish func(string) string
}

// newDraft returns a good token for a certificate, with the Ed25519 key of an Issuer that has made a token.
func newDraft(t testing.TB, i *Issuer, leaf *x509.Certificate) *draft {
	t.Helper()
	if _, err := i.Make(Claims{Subject: "spiffe://example.org/user/admin1"}); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.Raw)
	k := i.saved.Load().generations[0].keys[0]
	now := time.Now().Unix()
	return &draft{
		header: map[string]any{"alg": "EdDSA", "typ": "at+jwt", "kid": k.id},
		claims: map[string]any{
			"iss": testURL, "aud": testURL, "sub": "spiffe://example.org/user/admin1", "client_id": "spiffe://example.org/user/admin1",
			"jti": "1", "iat": now, "exp": now + 3600, "roles": []string{"operator", "viewer"},
			"cnf": map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])},
		},
		key: k.private,
	}
}

func (d *draft) copy() *draft {
	c := *d
	c.header, c.claims = maps.Clone(d.header), maps.Clone(d.claims)
	return &c
}

// sign signs the token without the library that verifies it.
func (d *draft) sign(t testing.TB) string {
	t.Helper()
	encode := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	input := encode(d.header) + "." + encode(d.claims)
	if d.rawClaims != "" {
		input = encode(d.header) + "." + base64.RawURLEncoding.EncodeToString([]byte(d.rawClaims))
	}
	var sig []byte
	var err error
	digest := sha256.Sum256([]byte(input))
	switch key := d.key.(type) {
	case ed25519.PrivateKey:
		sig = ed25519.Sign(key, []byte(input))
	case *ecdsa.PrivateKey:
		r, s, e := ecdsa.Sign(rand.Reader, key, digest[:])
		sig, err = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), e
	default:
		sig, err = key.Sign(rand.Reader, digest[:], crypto.SHA256)
	}
	if err != nil {
		t.Fatal(err)
	}
	if d.hmac != nil {
		mac := hmac.New(sha256.New, d.hmac)
		mac.Write([]byte(input))
		sig = mac.Sum(nil)
	}
	text := input + "." + base64.RawURLEncoding.EncodeToString(sig)
	if d.finish != nil {
		text = d.finish(text)
	}
	return text
}

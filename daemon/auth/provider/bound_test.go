package provider

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/rtask/rtask/daemon/auth/token"
)

func newLeaf(t testing.TB) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
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

// TestBound takes access tokens of a provider that binds them, and nothing else of any provider.
func TestBound(t *testing.T) {
	s := corp()
	s.Bound, s.GroupsClaim, s.Audience = true, "groups", testURL
	w, leaf := newWorld(t, s), newLeaf(t)
	own := token.New(filepath.Join(t.TempDir(), "keys"))
	own.Configure(testURL, time.Hour)
	if err := own.Unlock(make([]byte, token.SecretLen)); err != nil {
		t.Fatal(err)
	}
	tokens := Tokens{Own: own, Providers: w.Set}
	sum := sha256.Sum256(leaf.Raw)
	now := time.Now().Unix()
	for _, tt := range []struct {
		name        string
		typ         string
		change      func(*Settings, map[string]any)
		kind, claim string
	}{
		{"nothing", "at+jwt", func(*Settings, map[string]any) {}, "", ""},
		{"a clock that is ahead", "at+jwt", func(_ *Settings, c map[string]any) { c["iat"], c["nbf"] = now+30, now+30 }, "", ""},
		{"an ID token", "JWT", func(*Settings, map[string]any) {}, token.Invalid, "typ"},
		{"of a provider that is not bound", "at+jwt", func(s *Settings, _ map[string]any) { s.Bound = false }, token.Invalid, ""},
		{"an ID token of one that is not bound", "JWT", func(s *Settings, _ map[string]any) { s.Bound = false }, token.Invalid, ""},
		{"with an algorithm that is not its own", "at+jwt", func(s *Settings, _ map[string]any) { s.Algorithms = []string{"RS256"} }, token.Invalid, ""},
		{"of another issuer", "at+jwt", func(_ *Settings, c map[string]any) { c["iss"] = "https://sso.example.com" }, token.Invalid, ""},
		{"for another engine", "at+jwt", func(_ *Settings, c map[string]any) { c["aud"] = "https://other.example.org:8843" }, token.Invalid, "aud"},
		{"not bound", "at+jwt", func(_ *Settings, c map[string]any) { delete(c, "cnf") }, token.Invalid, "cnf"},
		{"bound to another certificate", "at+jwt", func(_ *Settings, c map[string]any) {
			c["cnf"] = map[string]string{"x5t#S256": base64.RawURLEncoding.EncodeToString(make([]byte, 32))}
		}, token.Binding, "cnf"},
		{"expired", "at+jwt", func(_ *Settings, c map[string]any) { c["exp"] = now }, token.Expired, "exp"},
		{"good for ten years", "at+jwt", func(_ *Settings, c map[string]any) { c["exp"] = now + 10*365*86400 }, token.Invalid, "exp"},
		{"without what is required", "at+jwt", func(s *Settings, _ map[string]any) { s.Require = map[string]string{"tier": "1"} }, token.Invalid, "tier"},
	} {
		settings := s
		claims := map[string]any{
			"iss": testIssuer, "aud": testURL, "sub": "7f1c", "client_id": "ci", "jti": "1", "iat": now, "exp": now + 3600, "groups": []string{"ops"},
			"cnf": map[string]string{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}, "roles": map[string]any{"of": "theirs"},
		}
		tt.change(&settings, claims)
		w.Configure([]Settings{settings})
		got, err := tokens.Verify(sign(t, w.ec, "2", jose.ES256, tt.typ, claims), leaf)
		r, _ := errors.AsType[*token.Refusal](err)
		switch {
		case tt.kind == "" && (err != nil || got.Subject != "corp:7f1c" || got.ClientID != "ci" || !slices.Equal(got.Groups, []string{"corp", "corp:ops"}) || got.Roles != nil || !got.AnyRole):
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		case tt.kind != "" && (r == nil || r.Kind != tt.kind || tt.claim != "" && r.Claim != tt.claim):
			t.Errorf("%s: %+v (%v), want %s about %q", tt.name, r, err, tt.kind, tt.claim)
		}
	}

	// rtask's own tokens are verified by their own key beside them, also if a provider names itself as rtask does.
	raw, err := own.Make(token.Claims{Subject: "s", ClientID: "s", Thumbprint: sum, Groups: []string{"corp"}, Roles: []string{"operator"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tokens.Verify([]byte(raw), leaf); err != nil || got.Subject != "s" || !slices.Equal(got.Groups, []string{"corp"}) || !slices.Equal(got.Roles, []string{"operator"}) || got.AnyRole {
		t.Errorf("an own token: %+v, %v", got, err)
	}
	forged := strings.Split(raw, ".")
	if _, err := tokens.Verify([]byte(forged[0]+"."+forged[1]+".AAAA"), leaf); err == nil {
		t.Error("a forged own token is good")
	}
	w.publish(t, "corp", testIssuer, time.Now().Add(-25*time.Hour))
	w.Configure(nil)
	w.Configure([]Settings{s})
	if _, err := tokens.Verify(sign(t, w.ec, "2", jose.ES256, "at+jwt", w.claims()), leaf); refusalOf(err).Kind != KindKeys {
		t.Errorf("with old keys: %v", err)
	}
}

// TestBoundSameIssuer has providers with one issuer that bind their tokens, and ask for other claims; of one, the keys are missing.
func TestBoundSameIssuer(t *testing.T) {
	one, two := corp(), corp()
	two.Name = "two"
	one.Require, two.Require = map[string]string{"tier": "1"}, map[string]string{"tier": "2"}
	w, leaf := newWorld(t, one, two), newLeaf(t)
	w.publish(t, "two", testIssuer, time.Now())
	sum := sha256.Sum256(leaf.Raw)
	now := time.Now().Unix()
	tokens := Tokens{Own: token.New(filepath.Join(t.TempDir(), "keys")), Providers: w.Set}
	verify := func(tier string) (token.Claims, error) {
		return tokens.Verify(sign(t, w.ec, "2", jose.ES256, "at+jwt", map[string]any{
			"iss": testIssuer, "aud": testURL, "sub": "7f1c", "client_id": "ci", "jti": "1", "iat": now, "exp": now + 3600, "tier": tier,
			"cnf": map[string]string{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])},
		}), leaf)
	}
	bound := func(all ...Settings) {
		for i := range all {
			all[i].Bound, all[i].Audience = true, testURL
		}
		w.Configure(all)
	}
	bound(one, two)
	for tier, want := range map[string]string{"1": "corp:7f1c", "2": "two:7f1c", "3": ""} {
		got, err := verify(tier)
		if r, _ := errors.AsType[*token.Refusal](err); got.Subject != want || want == "" && (r == nil || r.Claim != "tier") {
			t.Errorf("%s: %q, and not %q: %v", tier, got.Subject, want, err)
		}
	}
	three := corp()
	three.Name = "three"
	bound(three, one)
	if got, err := verify("1"); got.Subject != "corp:7f1c" {
		t.Errorf("beside one without keys: %q, %v", got.Subject, err)
	}
	if _, err := verify("3"); refusalOf(err).Kind != KindKeys {
		t.Errorf("it could be a token of the one without keys: %v", err)
	}
}

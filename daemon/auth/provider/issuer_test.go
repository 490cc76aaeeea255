package provider

import (
	"crypto/sha256"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/rtask/rtask/daemon/auth/provider/handover"
	"github.com/rtask/rtask/daemon/auth/token"
)

// TestSameIssuer has two providers with one issuer, which ask for other claims.
func TestSameIssuer(t *testing.T) {
	one, two := corp(), corp()
	two.Name = "two"
	one.Require, two.Require = map[string]string{"repository_id": "1"}, map[string]string{"repository_id": "2"}
	w := newWorld(t, one, two)
	w.publish(t, "two", testIssuer, time.Now())
	for id, want := range map[string]string{"1": "corp", "2": "two", "3": ""} {
		claims := w.claims()
		claims["repository_id"], claims["jti"] = id, id
		if l, err := w.UseOf(w.token(t, claims), w.spki); l.Provider != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, and not %q: %v", id, l.Provider, want, err)
		}
	}
}

// TestSameIssuerEngineFails has the engine fail at the first of two providers with one issuer: that is the answer, whether the second
// would refuse the token or take it.
func TestSameIssuerEngineFails(t *testing.T) {
	one, two := corp(), corp()
	one.Name, two.Name = "one", "two"
	w, leaf := newWorld(t), newLeaf(t)
	block := func(name string) { // nothing can be written there
		t.Helper()
		if err := os.Mkdir(filepath.Join(w.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	block(handover.AgainName)
	w.publish(t, "two", testIssuer, time.Now())
	failed := func(what string, err error) {
		t.Helper()
		if err == nil || refuses(err) {
			t.Errorf("%s: %v, and not what the engine could not do", what, err)
		}
	}
	for what, tier := range map[string]string{"the second refuses": "2", "the second takes it": "1"} {
		two.Require = map[string]string{"tier": tier}
		claims := w.claims()
		claims["tier"] = "1"
		raw := w.token(t, claims)

		// The keys of the first are missing, and it cannot be said that they are.
		_, err := w.open(t, one, two).UseOf(raw, w.spki)
		failed(what+", without keys of the first", err)
		one, two := one, two
		one.Bound, two.Bound, one.Audience, two.Audience = true, true, testURL, testURL
		now, sum := time.Now().Unix(), sha256.Sum256(leaf.Raw)
		bound := Tokens{Own: token.New(filepath.Join(w.dir, "keys")), Providers: w.open(t, one, two)}
		_, err = bound.Verify(sign(t, w.rsa, "1", jose.RS256, "at+jwt", map[string]any{
			"iss": testIssuer, "aud": testURL, "sub": "7f1c", "client_id": "ci", "jti": "1", "iat": now, "exp": now + 3600, "tier": "1",
			"cnf": map[string]string{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])},
		}), leaf)
		failed(what+", bound", err)
	}

	// The first takes it, and that cannot be noted.
	block("used.new")
	one.Name, two.Require = "corp", map[string]string{"tier": "2"}
	_, err := w.open(t, one, two).UseOf(w.token(t, w.claims()), w.spki)
	failed("the first takes it", err)
}

// TestOtherAlgorithm has a good key sign with an algorithm that its provider is not configured with.
func TestOtherAlgorithm(t *testing.T) {
	s := corp()
	s.Algorithms = []string{"RS256"}
	w := newWorld(t, s)
	if l, err := w.UseOf(sign(t, w.ec, "2", jose.ES256, "JWT", w.claims()), w.spki); refusalOf(err).Kind != KindToken {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := w.UseOf(w.token(t, w.claims()), w.spki); err != nil {
		t.Errorf("with its own algorithm: %v", err)
	}
}

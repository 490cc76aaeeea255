package provider

import (
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
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

package webhook

import (
	"strings"
	"testing"
)

// Each row says who it is, where that is documented, and nothing that would verify nothing.
func TestTable(t *testing.T) {
	seen := map[Kind]bool{}
	for _, s := range Senders() {
		if seen[s.Kind] || s.Kind == "" || s.Title == "" {
			t.Errorf("%s is there twice, or has no name", s.Kind)
		}
		seen[s.Kind] = true
		if s.Kind != Token && s.Kind != HMACSHA256 && s.Kind != HMAC && len(s.Docs) == 0 {
			t.Errorf("%s: which documentation says so?", s.Kind)
		}
		for _, d := range s.Docs {
			if !strings.HasPrefix(d, "https://") {
				t.Errorf("%s: %s", s.Kind, d)
			}
		}
		if row, ok := SenderOf(s.Kind); !ok || row.Title != s.Title {
			t.Errorf("%s: %v, %v", s.Kind, row, ok)
		}
		sig := s.Signature
		if sig == nil {
			continue
		}
		if sig.Place.IsZero() || sig.Encoding == "" || sig.Signed == "" {
			t.Errorf("%s: %+v", s.Kind, sig)
		}
		// What is in the template stands somewhere, and where a time stands it is signed.
		signed := s.signs("{timestamp}") || len(s.Time.Body) > 0 && s.signs("{body}")
		if signed == s.Time.IsZero() || s.signs("{id}") && len(s.ID) != 1 && s.Kind != GitLab {
			t.Errorf("%s signs %s with %v, %v", s.Kind, sig.Signed, s.Time, s.ID)
		}
	}
	if _, ok := SenderOf("none"); ok || Kind("none").Signed() == false {
		t.Error("a kind that is none is signed by nobody")
	}
}

func TestPlaces(t *testing.T) {
	o := bodyObject([]byte(` {"a":{"b":[ {"c":"x","n":-1.50} , {"c":"y"} ],"e":[]},"d":"z"} `))
	for _, c := range []struct {
		place      Place
		text, want string
	}{
		{body("d"), "body.d", "z"}, {body("a", "b", "[0]", "c"), "body.a.b[0].c", "x"}, {body("a", "b", "[0]", "n"), "body.a.b[0].n", "-1.50"},
		{body("a", "e", "[0]"), "body.a.e[0]", ""}, {body("d", "[0]"), "body.d[0]", ""}, {body("a"), "body.a", ""},
		{header("X-A", "X-B"), `header("X-A") or header("X-B")`, "h"},
	} {
		got, err := c.place.in(Headers{{"x-b", "h"}}, o)
		if err != nil || got != c.want || c.place.String() != c.text {
			t.Errorf("%s: %q, %v; want %q", c.place, got, err, c.want)
		}
	}
}

package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// TestThumbprint has the certificate of RFC 8705, figure 6, and the token's confirmation of figure 5.
func TestThumbprint(t *testing.T) {
	text, err := os.ReadFile("testdata/rfc8705/figure6.pem")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	const want = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"
	i := newIssuer(t)
	raw, err := i.Make(Claims{Subject: "s", ClientID: "s", Thumbprint: sha256.Sum256(leaf.Raw)})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Cnf map[string]string `json:"cnf"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil || len(claims.Cnf) != 1 || claims.Cnf["x5t#S256"] != want {
		t.Errorf("cnf is %v (%v), want %s", claims.Cnf, err, want)
	}
	if _, err := i.Verify([]byte(raw), leaf); err != nil {
		t.Errorf("with the certificate of the RFC: %v", err)
	}
}

// TestVerify changes one thing of a good token at a time.
func TestVerify(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, otherEd, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i, leaf := newIssuer(t), newLeaf(t)
	good := newDraft(t, i, leaf)
	keys := i.saved.Load().generations[0].keys
	now := time.Now().Unix()
	header := func(name string, v any) func(*draft) { return func(d *draft) { d.header[name] = v } }
	claim := func(name string, v any) func(*draft) { return func(d *draft) { d.claims[name] = v } }
	without := func(name string) func(*draft) { return func(d *draft) { delete(d.claims, name) } }
	finish := func(f func(string) string) func(*draft) { return func(d *draft) { d.finish = f } }
	sum := sha256.Sum256(leaf.Raw)
	thumbprint := base64.RawURLEncoding.EncodeToString(sum[:])
	elsewhere := sha256.Sum256([]byte("another"))
	text := func(d *draft) string {
		b, err := json.Marshal(d.claims)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	public, err := x509.MarshalPKIXPublicKey(keys[0].private.Public())
	if err != nil {
		t.Fatal(err)
	}

	for _, tt := range []struct {
		name        string
		change      func(*draft)
		kind, claim string
	}{
		{"nothing", func(*draft) {}, "", ""},
		{"ES256 with its key", func(d *draft) { d.header["alg"], d.header["kid"], d.key = "ES256", keys[1].id, keys[1].private }, "", ""},
		{"typ in other letters", header("typ", "AT+JWT"), "", ""},
		{"typ in full", header("typ", "application/at+jwt"), "", ""},
		{"aud as a list of one", claim("aud", []string{testURL}), "", ""},
		{"iat 50 s ahead", func(d *draft) { d.claims["iat"] = now + 50 }, "", ""},
		{"a claim that nobody knows", claim("scope", "x"), "", ""},
		{"nbf in the past", claim("nbf", now-1), "", ""},

		{"alg none", func(d *draft) {
			d.header["alg"] = "none"
			d.finish = func(s string) string { return s[:strings.LastIndex(s, ".")+1] }
		}, Invalid, ""},
		{"alg none with a signature", header("alg", "none"), Invalid, "alg"},
		{"alg None", header("alg", "None"), Invalid, "alg"},
		{"no alg", func(d *draft) { delete(d.header, "alg") }, Invalid, "alg"},
		{"alg no text", header("alg", 1), Invalid, "alg"},
		{"HS256 with the public key", func(d *draft) { d.header["alg"], d.hmac = "HS256", public }, Invalid, "alg"},
		{"HS256 with the raw public key", func(d *draft) { d.header["alg"], d.hmac = "HS256", keys[0].private.Public().(ed25519.PublicKey) }, Invalid, "alg"},
		{"ES256 with a kid of EdDSA", func(d *draft) { d.header["alg"], d.key = "ES256", keys[1].private }, Invalid, "alg"},
		{"EdDSA with a kid of ES256", header("kid", keys[1].id), Invalid, "alg"},
		{"RS256", func(d *draft) { d.header["alg"], d.key = "RS256", rsaKey }, Invalid, "alg"},
		{"empty signature", finish(func(s string) string { return s[:strings.LastIndex(s, ".")+1] }), Invalid, ""},
		{"no signature", finish(func(s string) string { return s[:strings.LastIndex(s, ".")] }), Invalid, ""},
		{"signature of another key", func(d *draft) { d.key = otherEd }, Invalid, ""},
		{"signature of zeros", finish(func(s string) string { return s[:strings.LastIndex(s, ".")+1] + strings.Repeat("A", 86) }), Invalid, ""},
		{"short signature", finish(func(s string) string { return s[:len(s)-8] }), Invalid, ""},
		{"signature with padding", finish(func(s string) string { return s + "==" }), Invalid, ""},
		{"signature with other bits that mean nothing", finish(func(s string) string {
			return s[:len(s)-1] + map[string]string{"A": "B", "Q": "R", "g": "h", "w": "x"}[s[len(s)-1:]]
		}), Invalid, ""},
		{"four parts", finish(func(s string) string { return s + ".e30" }), Invalid, ""},
		{"a line break in a part", finish(func(s string) string { return s[:10] + "\n" + s[10:] }), Invalid, ""},
		{"a space behind", finish(func(s string) string { return s + " " }), Invalid, ""},
		{"JSON serialization", finish(func(s string) string {
			p := strings.Split(s, ".")
			return `{"payload":"` + p[1] + `","protected":"` + p[0] + `","signature":"` + p[2] + `"}`
		}), Invalid, ""},
		{"two signatures", finish(func(s string) string {
			p := strings.Split(s, ".")
			one := `{"protected":"` + p[0] + `","signature":"` + p[2] + `"}`
			return `{"payload":"` + p[1] + `","signatures":[` + one + "," + one + `]}`
		}), Invalid, ""},
		{"crit", header("crit", []string{"exp"}), Invalid, "crit"},
		{"b64", header("b64", true), Invalid, "b64"},
		{"jwk", func(d *draft) {
			d.header["jwk"], d.key = jose.JSONWebKey{Key: otherEd.Public()}, otherEd
		}, Invalid, "jwk"},
		{"jku", header("jku", "https://example.org/keys"), Invalid, "jku"},
		{"x5u", header("x5u", "https://example.org/cert"), Invalid, "x5u"},
		{"x5c", header("x5c", []string{base64.StdEncoding.EncodeToString(leaf.Raw)}), Invalid, "x5c"},
		{"cty in the header", header("cty", "JWT"), Invalid, "cty"},
		{"typ JWT", header("typ", "JWT"), Invalid, "typ"},
		{"no typ", func(d *draft) { delete(d.header, "typ") }, Invalid, "typ"},
		{"typ no text", header("typ", []string{"at+jwt"}), Invalid, "typ"},
		{"unknown kid", func(d *draft) { d.header["kid"], d.key = "unknown", otherEd }, Invalid, "kid"},
		{"no kid", func(d *draft) { delete(d.header, "kid") }, Invalid, "kid"},
		{"kid of a path", header("kid", "../../etc/passwd"), Invalid, "kid"},
		{"key of somebody else", func(d *draft) { d.header["alg"], d.header["kid"], d.key = "ES256", "sso-1", other }, Invalid, "kid"},

		{"claims are a list", func(d *draft) { d.rawClaims = "[" + text(d) + "]" }, Invalid, ""},
		{"claims are not JSON", func(d *draft) { d.rawClaims = text(d) + "x" }, Invalid, ""},
		{"claims are not UTF-8", func(d *draft) { d.rawClaims = strings.Replace(text(d), "admin1", "admin\xff", 1) }, Invalid, ""},
		{"two claims of a name", func(d *draft) {
			d.rawClaims = strings.Replace(text(d), "{", `{"sub":"spiffe://example.org/user/root",`, 1)
		}, Invalid, ""},
		{"two names in cnf", func(d *draft) { d.rawClaims = strings.Replace(text(d), `{"x5t#S256"`, `{"x5t#S256":"x","x5t#S256"`, 1) }, Invalid, ""},
		{"a claim in other letters", func(d *draft) { d.rawClaims = strings.Replace(text(d), `"sub"`, `"Sub"`, 1) }, Invalid, "sub"},

		{"other iss", claim("iss", "https://other.example.org:8843"), Invalid, "iss"},
		{"iss with a slash", claim("iss", testURL+"/"), Invalid, "iss"},
		{"no iss", without("iss"), Invalid, "iss"},
		{"iss no text", claim("iss", 1), Invalid, "iss"},
		{"other aud", claim("aud", "https://other.example.org:8843"), Invalid, "aud"},
		{"aud with others", claim("aud", []string{testURL, "https://other.example.org:8843"}), Invalid, "aud"},
		{"aud twice", claim("aud", []string{testURL, testURL}), Invalid, "aud"},
		{"aud of none", claim("aud", []string{}), Invalid, "aud"},
		{"aud null", claim("aud", nil), Invalid, "aud"},
		{"no aud", without("aud"), Invalid, "aud"},
		{"no exp", without("exp"), Invalid, "exp"},
		{"no iat", without("iat"), Invalid, "iat"},
		{"no sub", without("sub"), Invalid, "sub"},
		{"empty sub", claim("sub", ""), Invalid, "sub"},
		{"no client_id", without("client_id"), Invalid, "client_id"},
		{"no jti", without("jti"), Invalid, "jti"},
		{"exp as a text", claim("exp", "99999999999"), Invalid, "exp"},
		{"exp null", claim("exp", nil), Invalid, "exp"},
		{"exp far off", claim("exp", 1e300), Invalid, "exp"},
		{"exp negative", claim("exp", -1), Invalid, "exp"},
		{"iat as a text", claim("iat", "1"), Invalid, "iat"},
		{"exp now", claim("exp", now), Expired, "exp"},
		{"exp in ten years", claim("exp", now+10*365*86400), Invalid, "exp"},
		{"exp a second too late", claim("exp", now+3601), Invalid, "exp"},
		{"exp before iat", func(d *draft) { d.claims["iat"], d.claims["exp"] = now+50, now+40 }, Invalid, "exp"},
		{"iat in ten minutes", claim("iat", now+600), Invalid, "iat"},
		{"nbf in the future", claim("nbf", now+60), Invalid, "nbf"},
		{"nbf as a text", claim("nbf", "1"), Invalid, "nbf"},
		{"no cnf", without("cnf"), Invalid, "cnf"},
		{"cnf no object", claim("cnf", thumbprint), Invalid, "cnf"},
		{"cnf empty", claim("cnf", map[string]any{}), Invalid, "cnf"},
		{"cnf with jkt only", claim("cnf", map[string]any{"jkt": thumbprint}), Invalid, "cnf"},
		{"cnf with jkt beside it", claim("cnf", map[string]any{"x5t#S256": thumbprint, "jkt": thumbprint}), Invalid, "cnf"},
		{"cnf padded", claim("cnf", map[string]any{"x5t#S256": thumbprint + "="}), Invalid, "cnf"},
		{"cnf in hex", claim("cnf", map[string]any{"x5t#S256": strings.ToUpper(hex.EncodeToString(sum[:]))}), Invalid, "cnf"},
		{"cnf with a line break", claim("cnf", map[string]any{"x5t#S256": thumbprint[:20] + "\n" + thumbprint[20:]}), Invalid, "cnf"},
		{"cnf short", claim("cnf", map[string]any{"x5t#S256": thumbprint[:42]}), Invalid, "cnf"},
		{"cnf no text", claim("cnf", map[string]any{"x5t#S256": sum[:]}), Invalid, "cnf"},
		{"another certificate", claim("cnf", map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(elsewhere[:])}), Binding, "cnf"},
		{"roles no list", claim("roles", "operator"), Invalid, "roles"},
		{"roles of numbers", claim("roles", []int{1}), Invalid, "roles"},
		{"long", claim("scope", strings.Repeat("x", MaxLen)), Invalid, ""},
	} {
		d := good.copy()
		tt.change(d)
		raw := d.sign(t)
		got, err := i.Verify([]byte(raw), leaf)
		if tt.kind == "" {
			if err != nil || got.Subject != "spiffe://example.org/user/admin1" || got.ClientID != got.Subject || got.ID != "1" || !slices.Equal(got.Roles, []string{"operator", "viewer"}) {
				t.Errorf("%s: %+v, %v", tt.name, got, err)
			}
			continue
		}
		refusal, ok := errors.AsType[*Refusal](err)
		if !ok || refusal.Kind != tt.kind || refusal.Claim != tt.claim {
			t.Errorf("%s: %+v (%v), want %s about %q", tt.name, refusal, err, tt.kind, tt.claim)
			continue
		}
		if refusal.Text == "" || tt.claim != "" && tt.kind == Invalid && !strings.Contains(refusal.Text, map[string]string{
			"iss": "issuer", "aud": "audience", "alg": "algorithm", "typ": "typ", "cnf": "cnf",
		}[tt.claim]) && !strings.Contains(refusal.Text, tt.claim) {
			t.Errorf("%s: the text %q does not name the claim", tt.name, refusal.Text)
		}
	}
}

// TestEveryByte changes two bits of each byte of a token.
func TestEveryByte(t *testing.T) {
	i, leaf := newIssuer(t), newLeaf(t)
	raw := []byte(newDraft(t, i, leaf).sign(t))
	if _, err := i.Verify(raw, leaf); err != nil {
		t.Fatal(err)
	}
	for at := range raw {
		for _, bit := range []int{0, 5} {
			raw[at] ^= 1 << bit
			if _, err := i.Verify(raw, leaf); err == nil {
				t.Errorf("a token with bit %d of byte %d changed is good", bit, at)
			}
			raw[at] ^= 1 << bit
		}
	}
}

// TestOtherCertificate presents a token with the certificate of somebody else, before and after it was good with its own.
func TestOtherCertificate(t *testing.T) {
	i, leaf, other := newIssuer(t), newLeaf(t), newLeaf(t)
	raw := []byte(newDraft(t, i, leaf).sign(t))
	for range 2 {
		if _, err := i.Verify(raw, other); kindOf(err) != Binding {
			t.Errorf("with another certificate: %v", err)
		}
		if _, err := i.Verify(raw, leaf); err != nil {
			t.Error(err)
		}
	}
}

func kindOf(err error) string {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Kind
	}
	return ""
}

// TestExpiry presents the same token until it expires, so also from memory.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, leaf := newIssuer(t), newLeaf(t)
		raw, err := i.Make(Claims{Subject: "s", ClientID: "s", Thumbprint: sha256.Sum256(leaf.Raw)})
		if err != nil {
			t.Fatal(err)
		}
		short, err := i.Make(Claims{Subject: "s", ClientID: "s", Thumbprint: sha256.Sum256(leaf.Raw), Expires: time.Now().Add(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			wait       time.Duration
			raw, short string
		}{{0, "", ""}, {time.Minute - 1, "", ""}, {1, "", Expired}, {59*time.Minute - 1, "", Expired}, {1, Expired, Expired}} {
			time.Sleep(step.wait)
			if _, err := i.Verify([]byte(raw), leaf); kindOf(err) != step.raw {
				t.Errorf("at %v: %v, want %q", time.Now(), err, step.raw)
			}
			if _, err := i.Verify([]byte(short), leaf); kindOf(err) != step.short {
				t.Errorf("at %v: %v, want %q", time.Now(), err, step.short)
			}
		}
	})
}

// TestConfigure takes away what was good under an earlier configuration.
func TestConfigure(t *testing.T) {
	i, leaf := newIssuer(t), newLeaf(t)
	raw := []byte(newDraft(t, i, leaf).sign(t))
	verify := func(want string) {
		t.Helper()
		if _, err := i.Verify(raw, leaf); kindOf(err) != want {
			t.Errorf("%v, want %q", err, want)
		}
	}
	verify("")
	i.Configure(testURL, 10*time.Minute)
	verify(Invalid)
	i.Configure("https://other.example.org:8843", time.Hour)
	verify(Invalid)
	i.Configure("", time.Hour)
	if _, err := i.Verify(raw, leaf); !errors.Is(err, ErrNotConfigured) {
		t.Errorf("without a URL: %v", err)
	}
	if _, err := i.Make(Claims{}); !errors.Is(err, ErrNotConfigured) {
		t.Errorf("without a URL: %v", err)
	}
	i.Configure(testURL, time.Hour)
	verify("")
}

// TestGoodIsBounded fills the memory of good tokens.
func TestGoodIsBounded(t *testing.T) {
	g := good{claims: map[goodID]Claims{}}
	for n := range 2 * maxGood {
		id := goodID{token: sha256.Sum256([]byte{byte(n), byte(n >> 8)})}
		g.add(id, Claims{})
		if _, ok := g.get(id); !ok || len(g.claims) > maxGood {
			t.Fatalf("after %d: %d are remembered", n, len(g.claims))
		}
	}
}

func TestBearer(t *testing.T) {
	for _, tt := range []struct {
		headers     []string
		token, kind string
	}{
		{[]string{"Bearer a.b.c"}, "a.b.c", ""},
		{[]string{"bearer a.b.c"}, "a.b.c", ""},
		{[]string{"BEARER a.b.c"}, "a.b.c", ""},
		{nil, "", Missing},
		{[]string{"Bearer"}, "", Missing},
		{[]string{"Bearer "}, "", Missing},
		{[]string{"Bearer a.b.c", "Bearer a.b.c"}, "", Invalid},
		{[]string{"Bearer a.b.c", "Basic eA=="}, "", Invalid},
		{[]string{"Basic eA=="}, "", Invalid},
		{[]string{"Bearr a.b.c"}, "", Invalid},
		{[]string{"Bearera.b.c"}, "", Invalid},
		{[]string{""}, "", Invalid},
		{[]string{"DPoP a.b.c"}, "", Invalid},
		{[]string{"Bearer rtk_0123"}, "", Invalid},
	} {
		got, err := Bearer(tt.headers)
		if string(got) != tt.token || kindOf(err) != tt.kind || err == nil && tt.kind != "" {
			t.Errorf("%q: %q, %v; want %q, %q", tt.headers, got, err, tt.token, tt.kind)
		}
	}
}

func FuzzVerify(f *testing.F) {
	i, leaf := newIssuer(f), newLeaf(f)
	d := newDraft(f, i, leaf)
	raw := d.sign(f)
	f.Add([]byte(raw))
	f.Add([]byte(`{"payload":"e30","protected":"e30","signature":"e30"}`))
	f.Add([]byte("eyJhbGciOiJub25lIn0.e30."))
	f.Fuzz(func(t *testing.T, got []byte) {
		claims, err := i.Verify(got, leaf)
		if err == nil && (string(got) != raw || claims.Subject == "") {
			t.Errorf("a token that was not made here is good: %q", got)
		}
		if err != nil && kindOf(err) == "" {
			t.Errorf("%v is no refusal", err)
		}
	})
}

// FuzzClaims has what a key of the issuer signed, but nobody wrote.
func FuzzClaims(f *testing.F) {
	i, leaf := newIssuer(f), newLeaf(f)
	d := newDraft(f, i, leaf)
	text, err := json.Marshal(d.claims)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add(`{"iss":"https://build.example.org:8843","aud":[[]],"exp":1e999}`)
	f.Fuzz(func(t *testing.T, claims string) {
		d := d.copy()
		d.rawClaims = claims
		got, err := i.Verify([]byte(d.sign(t)), leaf)
		if err == nil && (got.Subject == "" || got.ID == "" || got.Expires.Sub(got.IssuedAt) > time.Hour) {
			t.Errorf("%q is good: %+v", claims, got)
		}
		if err != nil && kindOf(err) == "" {
			t.Errorf("%v is no refusal", err)
		}
	})
}

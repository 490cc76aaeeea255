package provider

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/rtask/rtask/daemon/auth/provider/handover"
)

// TestUse changes one thing of a good login at a time.
func TestUse(t *testing.T) {
	w := newWorld(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	type login struct {
		settings Settings
		claims   map[string]any
		raw      []byte // instead of claims
		spki     []byte
	}
	now := time.Now().Unix()
	claim := func(name string, v any) func(*login) { return func(l *login) { l.claims[name] = v } }
	without := func(names ...string) func(*login) {
		return func(l *login) {
			for _, n := range names {
				delete(l.claims, n)
			}
		}
	}
	signed := func(key crypto.Signer, kid string, a jose.SignatureAlgorithm, typ string) func(*login) {
		return func(l *login) { l.raw = sign(t, key, kid, a, typ, l.claims) }
	}
	email := func(v any) func(*login) {
		return func(l *login) { l.settings.SubjectClaim = "email"; l.claims["email_verified"] = v }
	}
	// gitHub is a job of GitHub Actions, whose token says what it runs for.
	gitHub := func(require map[string]string, change map[string]any) func(*login) {
		return func(l *login) {
			l.settings = Settings{
				Name: "corp", Issuer: "https://token.actions.githubusercontent.com", Audience: testURL, Algorithms: []string{"RS256"}, Require: require,
				JWKSFile: filepath.Join(w.dir, "github.jwks"),
			}
			l.claims = map[string]any{
				"iss": l.settings.Issuer, "aud": testURL, "sub": "repo:example@12/site@456789:ref:refs/heads/main", "iat": now, "exp": now + 300, "nbf": now,
				"jti": "1", "repository_id": "456789", "repository": "example/site", "event_name": "push", "ref": "refs/heads/main", "run_attempt": "1",
			}
			maps.Copy(l.claims, change)
		}
	}
	if err := os.WriteFile(filepath.Join(w.dir, "github.jwks"), w.jwks(t), 0o644); err != nil {
		t.Fatal(err)
	}
	groups := func(claim string, v any) func(*login) {
		return func(l *login) {
			delete(l.claims, "groups")
			l.claims[claim], l.settings.GroupsClaim = v, "groups"
		}
	}
	many := strings.Split(strings.Repeat("g ", maxGroups)+"g", " ")
	require := func(name, want string) func(*login) {
		return func(l *login) { l.settings.Require = map[string]string{name: want} }
	}
	both := func(all ...func(*login)) func(*login) {
		return func(l *login) {
			for _, f := range all {
				f(l)
			}
		}
	}

	for _, tt := range []struct {
		name        string
		change      func(*login)
		kind, claim string
	}{
		{"nothing", func(*login) {}, "", ""},
		{"ES256", signed(w.ec, "2", jose.ES256, "JWT"), "", ""},
		{"no typ", signed(w.rsa, "1", jose.RS256, ""), "", ""},
		{"no kid", signed(w.rsa, "", jose.RS256, "JWT"), "", ""},
		{"aud as a list of one", claim("aud", []string{"rtaskctl"}), "", ""},
		{"no azp", without("azp"), "", ""},
		{"no nonce, of a device", without("nonce"), "", ""},
		{"the clock of the provider ahead", both(claim("iat", now+30), claim("nbf", now+30)), "", ""},
		{"a verified address", email(true), "", ""},
		{"a claim that is required", require("groups_id", "7"), KindToken, "groups_id"},
		{"a number that is required", both(claim("n", 7), require("n", "7")), "", ""},
		{"a truth that is required", both(claim("n", true), require("n", "true")), "", ""},
		{"an audience beside the client", func(l *login) { l.settings.Audience = testURL; l.claims["aud"] = testURL }, "", ""},

		{"another provider's name", func(l *login) { l.settings.Name = "other" }, KindToken, ""},
		{"another key", signed(other, "1", jose.RS256, "JWT"), KindToken, ""},
		{"another key without kid", signed(other, "", jose.RS256, "JWT"), KindToken, ""},
		{"unknown kid", signed(w.rsa, "3", jose.RS256, "JWT"), KindToken, "kid"},
		{"kid of a key of another kind", signed(w.ec, "1", jose.ES256, "JWT"), KindToken, "kid"},
		{"an algorithm that the key is not for", signed(w.rsa, "1", jose.PS256, "JWT"), KindToken, "alg"},
		{"PS256 allowed, and the key is for RS256", func(l *login) {
			l.settings.Algorithms = []string{"RS256", "PS256"}
			l.raw = sign(t, w.rsa, "1", jose.PS256, "JWT", l.claims)
		}, KindToken, "kid"},
		{"HS256 though it is configured", func(l *login) {
			l.settings.Algorithms = []string{"HS256", "none", "RS256"}
			l.raw = hs256(t, w.jwks(t), l.claims)
		}, KindToken, "alg"},
		{"none though it is configured", func(l *login) {
			l.settings.Algorithms = []string{"HS256", "none", "RS256"}
			l.raw = []byte("eyJhbGciOiJub25lIn0." + strings.Split(string(w.token(t, l.claims)), ".")[1] + ".")
		}, KindToken, ""},
		{"an access token", signed(w.rsa, "1", jose.RS256, "at+jwt"), KindToken, "typ"},
		{"a logout token", signed(w.rsa, "1", jose.RS256, "logout+jwt"), KindToken, "typ"},
		{"no JWT", func(l *login) { l.raw = []byte("x") }, KindToken, ""},
		{"long", func(l *login) { l.claims["x"] = strings.Repeat("x", maxToken) }, KindToken, ""},
		{"a claim twice", func(l *login) {
			text, err := json.Marshal(l.claims)
			if err != nil {
				t.Fatal(err)
			}
			l.raw = w.token(t, strings.Replace(string(text), "{", `{"sub":"root",`, 1))
		}, KindToken, ""},

		{"other iss", claim("iss", "https://sso.example.com"), KindToken, "iss"},
		{"iss with a slash", claim("iss", testIssuer+"/"), KindToken, "iss"},
		{"no iss", without("iss"), KindToken, "iss"},
		{"aud of another client", claim("aud", "wiki"), KindToken, "aud"},
		{"two audiences", claim("aud", []string{"rtaskctl", "wiki"}), KindToken, "aud"},
		{"no aud", without("aud"), KindToken, "aud"},
		{"client_id as aud, and the audience is another", func(l *login) { l.settings.Audience = testURL }, KindToken, "aud"},
		{"azp of another client", claim("azp", "wiki"), KindToken, "azp"},
		{"azp no text", claim("azp", 1), KindToken, "azp"},
		{"no exp", without("exp"), KindToken, "exp"},
		{"expired", claim("exp", now), KindToken, "exp"},
		{"exp as a text", claim("exp", "9999999999"), KindToken, "exp"},
		{"no iat", without("iat"), KindToken, "iat"},
		{"iat six minutes ago", claim("iat", now-360), KindToken, "iat"},
		{"iat in two minutes", claim("iat", now+120), KindToken, "iat"},
		{"nbf in two minutes", claim("nbf", now+120), KindToken, "nbf"},
		{"nonce of another key", func(l *login) { l.spki = []byte("another key") }, KindToken, "nonce"},
		{"nonce no text", claim("nonce", 1), KindToken, "nonce"},
		{"empty nonce", claim("nonce", ""), KindToken, "nonce"},
		{"no nonce, of a browser", both(without("nonce"), func(l *login) { l.settings.Nonce = true }), KindToken, "nonce"},
		{"no sub", without("sub"), KindToken, "sub"},
		{"sub with a line break", claim("sub", "a\nb"), KindToken, "sub"},
		{"long sub", claim("sub", strings.Repeat("x", 257)), KindToken, "sub"},
		{"sub a list", claim("sub", []string{"a"}), KindToken, "sub"},
		{"an address that nobody verified", email(false), KindToken, "email_verified"},
		{"verified as a text", email("true"), KindToken, "email_verified"},
		{"verified is not said", both(email(true), without("email_verified")), KindToken, "email_verified"},
		{"no address", both(email(true), without("email")), KindToken, "email"},
		{"another value than required", both(claim("n", "8"), require("n", "7")), KindToken, "n"},
		{"a list with what is required", both(claim("n", []string{"7"}), require("n", "7")), KindToken, "n"},
		{"a fraction", both(claim("n", 7.5), require("n", "7")), KindToken, "n"},
		{"groups of numbers", groups("groups", []int{1}), KindToken, "groups"},
		{"no groups", groups("n", 1), "", ""},
		{"as many groups as there may be", groups("groups", many[1:]), "", ""},
		{"one group more", groups("groups", many), KindToken, "groups"},
		{"groups that are elsewhere", groups("_claim_names", map[string]string{"groups": "src1"}), KindToken, "groups"},
		{"something else that is elsewhere", groups("_claim_names", map[string]string{"photo": "src1"}), "", ""},

		{"GitHub", gitHub(map[string]string{"repository_id": "456789"}, nil), "", ""},
		{"GitHub, another repository", gitHub(map[string]string{"repository_id": "456789"}, map[string]any{"repository_id": "1"}), KindToken, "repository_id"},
		{"GitHub, a fork of the same name", gitHub(map[string]string{"repository_id": "456789"}, map[string]any{"repository_id": "457000"}), KindToken, "repository_id"},
		{"GitHub, another environment", gitHub(map[string]string{"repository_id": "456789", "environment": "production"}, nil), KindToken, "environment"},
		{"GitHub, a pull request", gitHub(map[string]string{"repository_id": "456789"}, map[string]any{"event_name": "pull_request", "ref": "refs/pull/7/merge"}), KindToken, "event_name"},
		{"GitHub, a fork's pull request", gitHub(map[string]string{"repository_id": "456789"}, map[string]any{"event_name": "pull_request_target"}), KindToken, "event_name"},
		{"GitHub, a pull request to another ref", gitHub(map[string]string{"repository_id": "456789", "ref": "refs/heads/main"}, map[string]any{"event_name": "pull_request", "ref": "refs/pull/7/merge"}), KindToken, "ref"},
		{"GitHub, a pull request as wanted", gitHub(map[string]string{"repository_id": "456789", "event_name": "pull_request"}, map[string]any{"event_name": "pull_request"}), "", ""},
		{"GitHub, for another engine", gitHub(map[string]string{"repository_id": "456789"}, map[string]any{"aud": "https://other.example.org:8843"}), KindToken, "aud"},
	} {
		l := login{settings: corp(), claims: w.claims(), spki: w.spki}
		l.claims["jti"] = tt.name // so that no two are the same token
		tt.change(&l)
		if l.raw == nil {
			l.raw = w.token(t, l.claims)
		}
		w.Configure([]Settings{l.settings})
		got, err := w.Use("corp", l.raw, l.spki)
		if tt.kind == "" {
			if err != nil || got.Provider != "corp" || got.Subject == "" {
				t.Errorf("%s: %+v, %v", tt.name, got, err)
			}
			continue
		}
		if r := refusalOf(err); r.Kind != tt.kind || r.Claim != tt.claim || r.Text == "" {
			t.Errorf("%s: %+v (%v), want %s about %q", tt.name, r, err, tt.kind, tt.claim)
		}
	}
}

// hs256 signs with a public text as a shared key.
func hs256(t *testing.T, key []byte, claims map[string]any) []byte {
	t.Helper()
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return []byte(raw)
}

// TestLogin looks at what is read out of a token.
func TestLogin(t *testing.T) {
	s := corp()
	s.SubjectClaim, s.GroupsClaim = "email", "groups"
	w := newWorld(t, s)
	l, err := w.UseOf(w.token(t, w.claims()), w.spki)
	if err != nil || l.Subject != "admin1@example.org" || !l.Email || l.Session != 16*time.Hour || !slices.Equal(l.Names(), []string{"corp", "corp:ops", "corp:dev"}) {
		t.Errorf("%+v, %v", l, err)
	}
	claims := w.claims()
	claims["groups"] = "one"
	if l, err := w.Use("corp", w.token(t, claims), w.spki); err != nil || !slices.Equal(l.Groups, []string{"one"}) {
		t.Errorf("one group: %+v, %v", l, err)
	}
	claims["iss"] = "https://sso.example.com"
	if _, err := w.UseOf(w.token(t, claims), w.spki); refusalOf(err).Claim != "iss" {
		t.Errorf("of nobody: %v", err)
	}
	if _, err := w.UseOf([]byte("x"), w.spki); refusalOf(err).Kind != KindToken {
		t.Errorf("no token: %v", err)
	}
}

// TestOnce uses a token twice: with the same engine, the next one, and one that does not know what was used before.
func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, corp())
		raw := w.token(t, func() map[string]any {
			c := w.claims()
			c["exp"] = time.Now().Add(365 * 24 * time.Hour).Unix()
			return c
		}())
		if _, err := w.Use("corp", raw, w.spki); err != nil {
			t.Fatal(err)
		}
		for _, until := range w.used.tokens { // then it is refused for its age, and nobody needs to remember it
			if most := time.Now().Add(6 * time.Minute).Unix(); until > most {
				t.Errorf("a used token is remembered until %d, not %d at most", until, most)
			}
		}
		next := w.open(t, corp())
		for _, s := range []*Set{w.Set, next} {
			if _, err := s.Use("corp", raw, w.spki); refusalOf(err).Kind != KindToken || !strings.Contains(err.Error(), "used before") {
				t.Errorf("the second time: %v", err)
			}
		}
		later := w.token(t, func() map[string]any { c := w.claims(); c["jti"] = "later"; return c }())
		if err := os.WriteFile(filepath.Join(w.dir, "used"), []byte(`{"x":`), 0o600); err != nil {
			t.Fatal(err)
		}
		damaged, err := Open(w.opts)
		if err == nil {
			t.Error("a damaged file is no error")
		}
		damaged.Configure([]Settings{corp()})
		for _, raw := range [][]byte{raw, later} {
			if _, err := damaged.Use("corp", raw, w.spki); refusalOf(err).Kind != KindToken {
				t.Errorf("when it is not known what was used: %v", err)
			}
		}
		time.Sleep(2 * time.Minute)
		if _, err := damaged.Use("corp", w.token(t, w.claims()), w.spki); err != nil {
			t.Errorf("later: %v", err)
		}
		// What cannot be noted is not used.
		if err := os.Mkdir(filepath.Join(w.dir, "used.new"), 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if _, err := w.Use("corp", w.token(t, w.claims()), w.spki); err == nil || refusalOf(err).Kind != "" {
			t.Errorf("with the disk full: %v", err)
		}
	})
}

// TestUsedWithAnotherSignature uses a token a second time with the other signature that is as good (r, n-s of ECDSA).
func TestUsedWithAnotherSignature(t *testing.T) {
	now := time.Now()
	u := used{path: filepath.Join(t.TempDir(), "used"), tokens: map[string]int64{}}
	if err := u.use([]byte("head.claims.one"), now, now.Add(time.Hour), now); err != nil {
		t.Fatal(err)
	}
	if err := u.use([]byte("head.claims.two"), now, now.Add(time.Hour), now); !errors.Is(err, errUsed) {
		t.Errorf("with another signature: %v", err)
	}
	if err := u.use([]byte("head.others.two"), now, now.Add(time.Hour), now); err != nil {
		t.Errorf("with other claims: %v", err)
	}
}

func TestUsedIsBounded(t *testing.T) {
	now := time.Now()
	// It is remembered no longer than its age lets it in.
	if got := tooOld(now, now.Add(365*24*time.Hour)); !got.Equal(now.Add(maxAge + late)) {
		t.Errorf("a token of a year is remembered until %v", got)
	}
	if got := tooOld(now, now.Add(time.Minute)); !got.Equal(now.Add(time.Minute)) {
		t.Errorf("a token of a minute is remembered until %v", got)
	}
	u := used{path: filepath.Join(t.TempDir(), "used"), tokens: map[string]int64{}}
	for n := range maxUsed {
		u.tokens[base64.RawURLEncoding.EncodeToString([]byte{byte(n), byte(n >> 8), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30})] = now.Add(time.Hour).Unix()
	}
	if err := u.use([]byte("one more"), now, now.Add(time.Hour), now); err == nil {
		t.Error("there is no bound")
	}
	later := now.Add(2 * time.Hour)
	if err := u.use([]byte("one more"), later, later.Add(time.Hour), later); err != nil || len(u.tokens) != 1 {
		t.Errorf("%d tokens after the others expired: %v", len(u.tokens), err)
	}
	if text, err := json.Marshal(u.tokens); err != nil || len(text)*maxUsed > maxUsedFile {
		t.Errorf("the file may become %d bytes long, and only %d are read (%v)", len(text)*maxUsed, maxUsedFile, err)
	}
}

// TestKeys goes through what can become of the fetched keys.
func TestKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, corp())
		keysFile := filepath.Join(w.dir, handover.KeysName("corp"))
		want := filepath.Join(w.dir, handover.AgainName)
		use := func(kid string) Refusal {
			t.Helper()
			claims := w.claims()
			claims["jti"] = rand.Text()
			_, err := w.Use("corp", sign(t, w.rsa, kid, jose.RS256, "JWT", claims), w.spki)
			return refusalOf(err)
		}
		asked := func() bool {
			t.Helper()
			err := os.Remove(want)
			return err == nil
		}
		expect := func(what string, got Refusal, kind string, ask bool) {
			t.Helper()
			if got.Kind != kind {
				t.Errorf("%s: %+v, want %q", what, got, kind)
			}
			if asked() != ask {
				t.Errorf("%s: asked for the keys: %v, want %v", what, !ask, ask)
			}
		}
		expect("at first", use("1"), "", false)
		expect("an unknown key right after a fetch", use("9"), KindToken, false)
		time.Sleep(2 * time.Minute)
		expect("an unknown key", use("9"), KindKeys, true)
		time.Sleep(30 * time.Second)
		expect("an unknown key within a minute", use("9"), KindKeys, false)
		time.Sleep(31 * time.Second)
		expect("an unknown key after a minute", use("9"), KindKeys, true)

		w.publish(t, "corp", testIssuer, time.Now())
		time.Sleep(2 * time.Second)
		expect("an unknown key after it was fetched", use("9"), KindToken, false)
		expect("a known key", use("1"), "", false)

		time.Sleep(24 * time.Hour)
		w.publish(t, "corp", "https://sso.example.com", time.Now())
		if got := w.States(); !got[0].Expired || got[0].Problem == nil {
			t.Errorf("what is known of it: %+v", got)
		}
		got := use("1")
		expect("keys that are too old, and others of another issuer", got, KindKeys, true)
		if !strings.Contains(got.Text, "24 h old") {
			t.Errorf("the text is %q", got.Text)
		}
		w.publish(t, "corp", testIssuer, time.Now())
		time.Sleep(lookEvery)
		expect("new keys", use("1"), "", false)

		// What cannot be read leaves the last good keys.
		for _, bad := range []string{"", "{", `{"issuer":"` + testIssuer + `","fetched_at":"2026-11-30T00:00:00Z","jwks":{"keys":[]}}`, strings.Repeat(" ", handover.MaxKeys+1)} {
			if err := os.WriteFile(keysFile, []byte(bad), 0o644); err != nil {
				t.Fatal(err)
			}
			time.Sleep(lookEvery)
			expect("a file that cannot be used", use("1"), "", false)
		}
		if got := w.States(); len(got) != 1 || got[0].Keys != 2 || got[0].Problem == nil || got[0].Expired || got[0].Fetched.IsZero() {
			t.Errorf("what is known of it: %+v", got)
		}
		if err := os.Remove(keysFile); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/dev/zero", keysFile); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lookEvery)
		expect("a link", use("1"), "", false)
		w.Configure([]Settings{corp()})
		expect("after a reload", use("1"), "", false)
		w.Configure([]Settings{func() Settings { s := corp(); s.Issuer = "https://sso.example.com"; return s }()})
		expect("of another provider", use("1"), KindKeys, true)
	})
}

// TestJWKSFile has keys that nobody fetches.
func TestJWKSFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := corp()
		w := newWorld(t)
		s.JWKSFile = filepath.Join(w.dir, "corp.jwks")
		w.Configure([]Settings{s})
		use := func(kid string) Refusal {
			t.Helper()
			claims := w.claims()
			claims["jti"] = rand.Text()
			_, err := w.Use("corp", sign(t, w.rsa, kid, jose.RS256, "JWT", claims), w.spki)
			return refusalOf(err)
		}
		if r := use("1"); r.Kind != KindKeys || !strings.Contains(r.Text, "jwks_file") {
			t.Errorf("without the file: %+v", r)
		}
		if err := os.WriteFile(s.JWKSFile, w.jwks(t), 0o644); err != nil {
			t.Fatal(err)
		}
		time.Sleep(365 * 24 * time.Hour)
		if r := use("1"); r.Kind != "" {
			t.Errorf("a year later: %+v", r)
		}
		if r := use("9"); r.Kind != KindToken {
			t.Errorf("an unknown key: %+v", r)
		}
		if _, err := os.Stat(w.opts.Again); err == nil {
			t.Error("it asked for keys that nobody fetches")
		}
	})
}

// TestStuckFile has a file system that never answers: a login waits for a while only, and there is one question at a time.
func TestStuckFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var reads atomic.Int32
		w := newWorld(t)
		w.opts.Read = func(string) ([]byte, error) { reads.Add(1); <-release; return w.jwks(t), nil }
		s := corp()
		s.JWKSFile = "/nowhere"
		w.Configure([]Settings{s})
		for range 3 {
			start := time.Now()
			_, err := w.Use("corp", w.token(t, w.claims()), w.spki)
			if r := refusalOf(err); r.Kind != KindKeys || time.Since(start) > 2*patience {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		}
		if n := reads.Load(); n != 1 {
			t.Errorf("%d reads are under way", n)
		}
		close(release)
		synctest.Wait()
		if _, err := w.Use("corp", w.token(t, w.claims()), w.spki); err != nil {
			t.Errorf("once it answers: %v", err)
		}
	})
}

// TestReadFetched takes a regular file of its own name only: the folder is the fetcher's.
func TestReadFetched(t *testing.T) {
	dir := t.TempDir()
	secret, link, fifo := filepath.Join(dir, "secret"), filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, link); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, fifo, dir, "/dev/zero"} {
		if got, err := readFetched(path); err == nil {
			t.Errorf("%s is read: %d bytes", path, len(got))
		}
	}
	if got, err := readFetched(secret); err != nil || string(got) != "secret" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestParseJWKS passes over what cannot verify a signature.
func TestParseJWKS(t *testing.T) {
	w := newWorld(t)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := func(k jose.JSONWebKey) string {
		text, err := k.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	set := func(keys ...string) []byte { return []byte(`{"keys":[` + strings.Join(keys, ",") + `]}`) }
	good := key(jose.JSONWebKey{Key: w.ec.Public(), KeyID: "2"})
	for _, tt := range []struct {
		name string
		text []byte
		want int
	}{
		{"two", w.jwks(t), 2},
		{"an Ed25519 key", set(key(jose.JSONWebKey{Key: ed.Public(), KeyID: "3"})), 1},
		{"a private key", set(good, key(jose.JSONWebKey{Key: w.rsa, KeyID: "3"})), 1},
		{"a shared key", set(good, `{"kty":"oct","k":"c2VjcmV0","kid":"3"}`), 1},
		{"a key for encryption", set(good, key(jose.JSONWebKey{Key: w.rsa.Public(), KeyID: "3", Use: "enc"})), 1},
		{"a short key", set(good, key(jose.JSONWebKey{Key: small.Public(), KeyID: "3"})), 1},
		{"a key of the future", set(good, `{"kty":"XYZ","kid":"3"}`), 1},
		{"no object among them", set(good, `7`), 1},
		{"many", set(slices.Repeat([]string{good}, 100)...), maxKeys},
		{"only useless ones", set(`{"kty":"oct","k":"c2VjcmV0"}`), 0},
		{"none", set(), 0},
		{"no set", []byte(`[]`), 0},
		{"nothing", nil, 0},
	} {
		got, err := parseJWKS(tt.text)
		if len(got.keys) != tt.want || (err == nil) != (tt.want > 0) {
			t.Errorf("%s: %d keys, %v; want %d", tt.name, len(got.keys), err, tt.want)
		}
	}
}

func FuzzUse(f *testing.F) {
	w, s := newWorld(f), corp()
	_, ed, err := ed25519.GenerateKey(rand.Reader) // whose signatures take the same way each time
	if err != nil {
		f.Fatal(err)
	}
	jwks, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: ed.Public(), KeyID: "1"}}})
	if err != nil {
		f.Fatal(err)
	}
	s.Algorithms, s.JWKSFile = []string{"EdDSA"}, filepath.Join(w.dir, "fuzz.jwks")
	if err := os.WriteFile(s.JWKSFile, jwks, 0o600); err != nil {
		f.Fatal(err)
	}
	w.Configure([]Settings{s})
	f.Add(sign(f, ed, "1", jose.EdDSA, "JWT", w.claims()))
	f.Add([]byte("eyJhbGciOiJub25lIn0.e30."))
	claims, err := json.Marshal(w.claims())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(claims)
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, raw := range [][]byte{text, sign(t, ed, "1", jose.EdDSA, "JWT", string(text))} {
			l, err := w.Use("corp", raw, w.spki)
			if err == nil && (l.Subject == "" || l.Provider != "corp") {
				t.Errorf("%+v", l)
			}
			if err != nil && refusalOf(err).Kind == "" {
				t.Errorf("%v is no refusal", err)
			}
		}
	})
}

func FuzzJWKS(f *testing.F) {
	w := newWorld(f)
	f.Add(w.jwks(f))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQ","e":"AQ"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := parseJWKS(text)
		if err == nil && len(set.keys) == 0 {
			t.Error("a set without keys is no error")
		}
		for _, k := range set.keys {
			if !usable(&k) {
				t.Errorf("%+v", k)
			}
		}
		if _, err := handover.ParseKeys(text); err == nil && len(text) > handover.MaxKeys {
			t.Error("a long file")
		}
	})
}

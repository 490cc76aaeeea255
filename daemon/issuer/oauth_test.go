package issuer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/auth/provider"
	"github.com/rtask/rtask/daemon/auth/token"
)

const (
	testURL    = "https://build.example.org:8843"
	testIssuer = "https://sso.example.org/realms/corp"
)

// place is an issuer over a real authority, with a client of each kind.
type place struct {
	*OAuth
	t             testing.TB
	dir           string
	user, machine Client
	sso           *ecdsa.PrivateKey // the provider's
	audited       []Reply
	rechecked     int
	ended         []authority.Revocation
}

func newPlace(t testing.TB) *place {
	t.Helper()
	p := &place{t: t, dir: t.TempDir()}
	a, err := authority.Open(p.dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	key, err := authority.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Init("example.org", key); err != nil {
		t.Fatal(err)
	}
	tokens := token.New(filepath.Join(p.dir, "token.keys"))
	tokens.Configure(testURL, time.Hour)
	if err := tokens.Unlock(make([]byte, token.SecretLen)); err != nil {
		t.Fatal(err)
	}
	providers, err := provider.Open(provider.Options{Again: filepath.Join(p.dir, "want"), Used: filepath.Join(p.dir, "used"), Read: os.ReadFile})
	if err != nil {
		t.Fatal(err)
	}
	if p.sso, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	jwks, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: p.sso.Public(), KeyID: "1"}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(p.dir, "corp.jwks")
	if err := os.WriteFile(file, jwks, 0o600); err != nil {
		t.Fatal(err)
	}
	providers.Configure([]provider.Settings{{
		Name: "corp", Issuer: testIssuer, ClientID: "rtaskctl", Audience: "rtaskctl", GroupsClaim: "groups", Algorithms: []string{"ES256"},
		JWKSFile: file, Session: 10 * time.Minute,
	}})
	p.OAuth = &OAuth{
		Authority: a, Tokens: tokens, Providers: providers,
		Roles: func(_ authority.Identity, groups []string) []string {
			if slices.Contains(groups, "corp:ops") {
				return []string{"operator", "viewer"}
			}
			return []string{"viewer"}
		},
		Ended:        func(_ context.Context, r authority.Revocation) { p.ended = append(p.ended, r) },
		TokenRevoked: func() { p.rechecked++ },
		Audit:        func(_ Client, r Reply) { p.audited = append(p.audited, r) },
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p.user, p.machine = p.client(authority.User, "admin1", ec), p.client(authority.Machine, "ci-1", ed)
	return p
}

func (p *place) csr(key crypto.Signer) []byte {
	p.t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		p.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// client enrols a key, and verifies the certificate as the engine does for each request.
func (p *place) client(kind authority.Kind, name string, key crypto.Signer) Client {
	p.t.Helper()
	issued, err := p.Authority.Issue(p.csr(key), authority.Grant{Kind: kind, Name: name})
	if err != nil {
		p.t.Fatal(err)
	}
	block, _ := pem.Decode(issued.Certificate)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		p.t.Fatal(err)
	}
	id, err := p.Authority.Verify(leaf, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return Client{Identity: id, Leaf: leaf, Remote: "192.0.2.7"}
}

// ask makes a request as a client over HTTP, and returns the JSON of the answer.
func (p *place) ask(c *Client, method, path, contentType, body string) (*http.Response, map[string]any) {
	p.t.Helper()
	handler := p.Handler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c != nil {
			r = r.WithContext(WithClient(r.Context(), *c))
		}
		handler.ServeHTTP(w, r)
	}))
	defer server.Close()
	r, err := http.NewRequestWithContext(p.t.Context(), method, server.URL+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	reply, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer reply.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(reply.Body); err != nil {
		p.t.Fatal(err)
	}
	var answer map[string]any
	if strings.Contains(reply.Header.Get("Content-Type"), "json") && json.Unmarshal(text.Bytes(), &answer) != nil {
		p.t.Fatalf("%s %s answers %q", method, path, text.String())
	}
	return reply, answer
}

func (p *place) token(c *Client, values url.Values) (*http.Response, map[string]any) {
	p.t.Helper()
	return p.ask(c, "POST", PathToken, formType, values.Encode())
}

// idToken is one of the provider's, for the key of a client.
func (p *place) idToken(c Client, change func(map[string]any)) string {
	p.t.Helper()
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": testIssuer, "aud": "rtaskctl", "sub": "7f1c", "iat": now, "exp": now + 300, "groups": []string{"ops"}, "jti": rand.Text(),
		"nonce": provider.Nonce(c.Leaf.RawSubjectPublicKeyInfo),
	}
	if change != nil {
		change(claims)
	}
	text, err := json.Marshal(claims)
	if err != nil {
		p.t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: p.sso}, (&jose.SignerOptions{}).WithHeader("kid", "1"))
	if err != nil {
		p.t.Fatal(err)
	}
	jws, err := signer.Sign(text)
	if err != nil {
		p.t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		p.t.Fatal(err)
	}
	return raw
}

// TestClientCredentials gets a token with a certificate alone, and looks at what it says.
func TestClientCredentials(t *testing.T) {
	p := newPlace(t)
	for _, tt := range []struct {
		c   Client
		alg jose.SignatureAlgorithm
	}{{p.user, jose.ES256}, {p.machine, jose.EdDSA}} {
		name := tt.c.Identity.URI
		reply, answer := p.token(&tt.c, url.Values{"grant_type": {"client_credentials"}, "client_id": {name}})
		raw, _ := answer["access_token"].(string)
		if reply.StatusCode != http.StatusOK || answer["token_type"] != "Bearer" || answer["expires_in"] != 3600.0 || answer["scope"] != "viewer" ||
			reply.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %s, %v, %v", name, reply.Status, reply.Header, answer)
		}
		got, err := p.Tokens.Verify([]byte(raw), tt.c.Leaf)
		if err != nil || got.Subject != name || got.ClientID != name || !slices.Equal(got.Roles, []string{"viewer"}) || got.Thumbprint != sha256.Sum256(tt.c.Leaf.Raw) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if signed, err := token.Parse([]byte(raw), token.MaxLen, token.Algorithms()); err != nil || signed.Algorithm != tt.alg {
			t.Errorf("%s: %+v, %v; want %s", name, signed, err, tt.alg)
		}
	}
	// Nothing is good for longer than the certificate.
	short := p.user
	short.Identity.Until = time.Now().Add(10 * time.Minute)
	if _, answer := p.token(&short, url.Values{"grant_type": {"client_credentials"}}); answer["expires_in"].(float64) > 600 {
		t.Errorf("with a certificate of 10 minutes: %v", answer)
	}
	for _, r := range p.audited {
		if r.Identity == nil || r.Proof != "token" || r.Kind != "" {
			t.Errorf("the audit has %+v", r)
		}
	}
}

// TestTokenRefusals has requests that get no token, and what they are told.
func TestTokenRefusals(t *testing.T) {
	p := newPlace(t)
	with := func(change ...string) url.Values {
		v := url.Values{"grant_type": {"client_credentials"}}
		for i := 0; i < len(change); i += 2 {
			v.Add(change[i], change[i+1])
		}
		return v
	}
	exchange := func(change ...string) url.Values {
		v := url.Values{"grant_type": {grantExchange}, "subject_token": {p.idToken(p.user, nil)}, "subject_token_type": {typeID}}
		for i := 0; i < len(change); i += 2 {
			v.Set(change[i], change[i+1])
		}
		return v
	}
	for _, tt := range []struct {
		name   string
		form   url.Values
		status int
		kind   string
	}{
		{"no grant_type", url.Values{}, 400, kindRequest},
		{"a password", url.Values{"grant_type": {"password"}, "username": {"admin1"}}, 400, kindGrantType},
		{"a refresh token", url.Values{"grant_type": {"refresh_token"}}, 400, kindGrantType},
		{"another client_id", with("client_id", p.machine.Identity.URI), 401, kindClient},
		{"a secret", with("client_secret", "x"), 401, kindClient},
		{"an assertion", with("client_assertion", "x", "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"), 401, kindClient},
		{"grant_type twice", with("grant_type", "client_credentials"), 400, kindRequest},
		{"another resource", with("resource", "https://other.example.org"), 400, kindTarget},
		{"another audience", with("audience", "https://other.example.org"), 400, kindTarget},
		{"a role that it does not have", with("scope", "viewer operator"), 400, kindScope},
		{"no subject_token", exchange("subject_token", ""), 400, kindRequest},
		{"a subject of another type", exchange("subject_token_type", typeAccess), 400, kindRequest},
		{"another type of token", exchange("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"), 400, kindRequest},
		{"an actor", exchange("actor_token", "x"), 400, kindRequest},
		{"no token", exchange("subject_token", "x"), 401, provider.KindToken},
		{"one's own access token", exchange("subject_token", p.own(t)), 401, provider.KindToken},
		{"a token of another client", exchange("subject_token", p.idToken(p.user, func(c map[string]any) { c["aud"] = "wiki" })), 401, provider.KindToken},
		{"a token of somebody else's login", exchange("subject_token", p.idToken(p.machine, nil)), 401, provider.KindToken},
	} {
		p.audited = nil
		reply, answer := p.token(&p.user, tt.form)
		text, _ := answer["error_description"].(string)
		if reply.StatusCode != tt.status || answer["error"] != tt.kind || text == "" || answer["access_token"] != nil {
			t.Errorf("%s: %s, %v; want %d %s", tt.name, reply.Status, answer, tt.status, tt.kind)
		}
		if len(p.audited) != 1 || p.audited[0].Kind != tt.kind || p.audited[0].Identity != nil {
			t.Errorf("%s: the audit has %+v", tt.name, p.audited)
		}
	}
	for _, tt := range []struct{ name, path, contentType, body string }{
		{"JSON", PathToken, "application/json", `{"grant_type":"client_credentials"}`},
		{"no type", PathToken, "", "grant_type=client_credentials"},
		{"in the URL", PathToken + "?grant_type=client_credentials", formType, "grant_type=client_credentials"},
		{"no form", PathToken, formType, "grant_type=%zz"},
		{"long", PathToken, formType, "grant_type=client_credentials&x=" + strings.Repeat("x", maxBody)},
	} {
		if reply, answer := p.ask(&p.user, "POST", tt.path, tt.contentType, tt.body); reply.StatusCode != 400 || answer["error"] != kindRequest {
			t.Errorf("%s: %s, %v", tt.name, reply.Status, answer)
		}
	}
}

// own is an access token of rtask's own for the user.
func (p *place) own(t *testing.T) string {
	t.Helper()
	_, answer := p.token(&p.user, url.Values{"grant_type": {"client_credentials"}})
	return answer["access_token"].(string)
}

// TestScope narrows a token to some of the roles (RFC 6749, section 3.3).
func TestScope(t *testing.T) {
	p := newPlace(t)
	p.Roles = func(authority.Identity, []string) []string { return []string{"operator", "viewer"} }
	for scope, want := range map[string]string{"": "operator viewer", "viewer": "viewer", "viewer operator": "operator viewer"} {
		if _, answer := p.token(&p.user, url.Values{"grant_type": {"client_credentials"}, "scope": {scope}}); answer["scope"] != want {
			t.Errorf("scope %q: %v, want %q", scope, answer, want)
		}
	}
}

// TestExchange turns a provider's ID token into one that is bound to the client's certificate, once.
func TestExchange(t *testing.T) {
	p := newPlace(t)
	form := url.Values{"grant_type": {grantExchange}, "subject_token": {p.idToken(p.machine, nil)}, "subject_token_type": {typeID}, "requested_token_type": {typeAccess}}
	reply, answer := p.token(&p.machine, form)
	raw, _ := answer["access_token"].(string)
	if reply.StatusCode != 200 || answer["issued_token_type"] != typeAccess || answer["scope"] != "operator viewer" || answer["expires_in"] != 600.0 {
		t.Errorf("%s, %v", reply.Status, answer)
	}
	got, err := p.Tokens.Verify([]byte(raw), p.machine.Leaf)
	if err != nil || got.Subject != "corp:7f1c" || got.ClientID != p.machine.Identity.URI || !slices.Equal(got.Groups, []string{"corp", "corp:ops"}) {
		t.Errorf("%+v, %v", got, err)
	}
	if reply, answer := p.token(&p.machine, form); reply.StatusCode != 401 || answer["error"] != provider.KindToken {
		t.Errorf("the same again: %s, %v", reply.Status, answer)
	}
	if err := os.Remove(filepath.Join(p.dir, "corp.jwks")); err != nil {
		t.Fatal(err)
	}
	p.Providers.Configure(nil)
	p.Providers.Configure([]provider.Settings{{Name: "corp", Issuer: testIssuer, Audience: "rtaskctl", Algorithms: []string{"ES256"}, JWKSFile: filepath.Join(p.dir, "corp.jwks")}})
	form.Set("subject_token", p.idToken(p.machine, nil))
	if reply, answer := p.token(&p.machine, form); reply.StatusCode != 503 || answer["error"] != provider.KindKeys {
		t.Errorf("without keys: %s, %v", reply.Status, answer)
	}
}

// TestManyGroups exchanges a login with more groups than a token can name, and with as many as it can.
func TestManyGroups(t *testing.T) {
	p := newPlace(t)
	exchange := func(n int) (*http.Response, map[string]any) {
		subject := p.idToken(p.user, func(c map[string]any) {
			var groups []string
			for range n {
				groups = append(groups, strings.ToLower(rand.Text() + rand.Text())[:36]) // as long as a UUID
			}
			c["groups"] = groups
		})
		return p.token(&p.user, url.Values{"grant_type": {grantExchange}, "subject_token": {subject}, "subject_token_type": {typeID}})
	}
	reply, answer := exchange(120)
	raw, _ := answer["access_token"].(string)
	if got, err := p.Tokens.Verify([]byte(raw), p.user.Leaf); reply.StatusCode != 200 || err != nil || len(got.Groups) != 121 {
		t.Errorf("%s: %d groups, %v", reply.Status, len(got.Groups), err)
	}
	reply, answer = exchange(200)
	if text, _ := answer["error_description"].(string); reply.StatusCode != 400 || answer["error"] != kindRequest || !strings.Contains(text, "201 groups") {
		t.Errorf("%s, %v", reply.Status, answer)
	}
}

// TestPublished reads what everybody with a certificate may read, as others' programs do.
func TestPublished(t *testing.T) {
	p := newPlace(t)
	raw := p.own(t)
	_, m := p.ask(&p.user, "GET", PathMetadata, "", "")
	aliases, _ := m["mtls_endpoint_aliases"].(map[string]any)
	if m["issuer"] != testURL || m["tls_client_certificate_bound_access_tokens"] != true || m["token_endpoint"] != testURL+PathToken ||
		m["jwks_uri"] != testURL+PathJWKS || aliases["token_endpoint"] != m["token_endpoint"] || aliases["revocation_endpoint"] != m["revocation_endpoint"] {
		t.Errorf("the metadata: %v", m)
	}
	_, keys := p.ask(&p.user, "GET", PathJWKS, "", "")
	text, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(text, &set); err != nil || len(set.Keys) != 2 {
		t.Fatalf("%s: %v", text, err)
	}
	signed, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signed.Verify(&set); err != nil {
		t.Errorf("a token does not verify by the published keys: %v", err)
	}
	reply, _ := p.ask(&p.user, "GET", PathCRL, "", "")
	if reply.StatusCode != 200 || reply.Header.Get("Content-Type") != "application/pkix-crl" {
		t.Errorf("the list of revoked certificates: %s, %v", reply.Status, reply.Header)
	}
	for _, path := range []string{PathMetadata, PathJWKS, PathCRL} {
		if reply, _ := p.ask(&p.user, "POST", path, "", ""); reply.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %s", path, reply.Status)
		}
	}
	for _, path := range []string{PathToken, PathRenew, PathRevoke} {
		if reply, _ := p.ask(&p.user, "GET", path, "", ""); reply.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %s", path, reply.Status)
		}
		if reply, _ := p.ask(nil, "POST", path, formType, "grant_type=client_credentials"); reply.StatusCode != http.StatusUnauthorized {
			t.Errorf("POST %s without a client: %s", path, reply.Status)
		}
	}
}

// TestRenew gives a machine its next certificate, and a person none.
func TestRenew(t *testing.T) {
	p := newPlace(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]string{"csr": string(p.csr(key))})
	if err != nil {
		t.Fatal(err)
	}
	reply, answer := p.ask(&p.machine, "POST", PathRenew, "application/json", string(body))
	if reply.StatusCode != 200 || answer["identity"] != "spiffe://example.org/machine/ci-1" || answer["certificate"] == "" {
		t.Errorf("%s, %v", reply.Status, answer)
	}
	if reply, answer := p.ask(&p.user, "POST", PathRenew, "application/json", string(body)); reply.StatusCode != 401 || answer["error"] != authority.KindExpired {
		t.Errorf("a person: %s, %v", reply.Status, answer)
	}
	for _, bad := range []string{"", "{", `{"csr":"x"}`, `[]`} {
		if reply, answer := p.ask(&p.machine, "POST", PathRenew, "application/json", bad); reply.StatusCode != 400 {
			t.Errorf("%q: %s, %v", bad, reply.Status, answer)
		}
	}
	if reply, _ := p.ask(&p.machine, "POST", PathRenew, formType, string(body)); reply.StatusCode != 400 {
		t.Errorf("a form: %s", reply.Status)
	}
}

// TestRevoke revokes a token (RFC 7009), then the certificate.
func TestRevoke(t *testing.T) {
	p := newPlace(t)
	one, two := p.own(t), p.own(t)
	revoke := func(raw string) int {
		t.Helper()
		reply, _ := p.ask(&p.user, "POST", PathRevoke, formType, url.Values{"token": {raw}}.Encode())
		return reply.StatusCode
	}
	blocked := filepath.Join(p.dir, "token.keys.new")
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := revoke(one); got != 503 || p.rechecked != 0 {
			t.Errorf("where it cannot be written: %d, and calls were looked at %d times", got, p.rechecked)
		}
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	for _, raw := range []string{one, one, "nonsense"} {
		if got := revoke(raw); got != 200 {
			t.Errorf("revoking %.20s…: %d", raw, got)
		}
	}
	if _, err := p.Tokens.Verify([]byte(one), p.user.Leaf); err == nil {
		t.Error("a revoked token is good")
	}
	if _, err := p.Tokens.Verify([]byte(two), p.user.Leaf); err != nil {
		t.Errorf("another token: %v", err)
	}
	if len(p.ended) != 0 || p.rechecked != 1 {
		t.Errorf("revoking a token ended %+v, and calls were looked at %d times", p.ended, p.rechecked)
	}
	if reply, answer := p.ask(&p.user, "POST", PathRevoke, "application/json", "{}"); reply.StatusCode != 200 {
		t.Errorf("%s, %v", reply.Status, answer)
	}
	if _, err := p.Authority.Verify(p.user.Leaf, nil); err == nil {
		t.Error("a revoked certificate is good")
	}
	if len(p.ended) != 1 || len(p.ended[0].Certificates) != 1 || p.ended[0].Certificates[0].Serial != p.user.Identity.Serial {
		t.Errorf("ended: %+v", p.ended)
	}
	foreign := p.machine
	foreign.Identity.Own = false
	if reply, _ := p.ask(&foreign, "POST", PathRevoke, "application/json", "{}"); reply.StatusCode != 400 {
		t.Errorf("a certificate of another authority: %s", reply.Status)
	}
}

// FuzzForm has anything for a form.
func FuzzForm(f *testing.F) {
	f.Add("grant_type=client_credentials")
	f.Add("grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token=x&subject_token_type=")
	f.Add("a=1&a=2&%zz")
	c := Client{Identity: authority.Identity{URI: "spiffe://example.org/user/admin1"}}
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest(http.MethodPost, PathToken, strings.NewReader(body))
		r.Header.Set("Content-Type", formType)
		got, reply, ok := parseForm(r, []byte(body))
		if !ok {
			if reply.Status != http.StatusBadRequest || reply.Kind == "" {
				t.Errorf("%+v", reply)
			}
			return
		}
		if r, ok := checkClient(c, got); !ok && r.Status != http.StatusUnauthorized {
			t.Errorf("%+v", r)
		}
	})
}

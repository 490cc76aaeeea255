package issuer

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/auth/provider"
)

// enroller is one of a place.
func (p *place) enroller() *Enroller {
	return &Enroller{Authority: p.Authority, URL: func() string { return testURL }, Logins: p.Providers}
}

// newRequest is a signing request in PEM, and its key (SubjectPublicKeyInfo).
func newRequest(t testing.TB) (csr string, key []byte) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), spki
}

// TestLogins enrols users of a provider, and those whom it does not vouch for.
func TestLogins(t *testing.T) {
	p := newPlace(t)
	e := p.enroller()
	csr, key := newRequest(t)
	of := Client{Leaf: &x509.Certificate{RawSubjectPublicKeyInfo: key}}
	login := func(change func(map[string]any)) (Reply, map[string]any) {
		t.Helper()
		body, err := json.Marshal(map[string]string{"csr": csr, "provider": "corp", "id_token": p.idToken(of, change)})
		if err != nil {
			t.Fatal(err)
		}
		r := e.Serve(PathEnroll, body, "192.0.2.7")
		var answer map[string]any
		if err := json.Unmarshal(r.Body, &answer); err != nil || r.Proof != "provider" {
			t.Errorf("%s, %q: %v", r.Body, r.Proof, err)
		}
		return r, answer
	}
	refused := func(about string, change func(map[string]any), status int, kind, text string) {
		t.Helper()
		if r, answer := login(change); r.Status != status || r.Kind != kind || answer["error"] != kind || answer["error_description"] != text || (r.Err != nil) != (about == "disk") {
			t.Errorf("%s: %d %s, and for the log %v", about, r.Status, r.Body, r.Err)
		}
	}
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprint("group", i))
	}
	r, answer := login(func(c map[string]any) { c["groups"] = many })
	text, _ := answer["expires_at"].(string)
	end, err := time.Parse(time.RFC3339, text)
	if id := r.Identity; err != nil || r.Status != 200 || answer["identity"] != "spiffe://example.org/user/corp/7f1c" || id.Provider != "corp" || !slices.Equal(id.Groups, many) || time.Until(end) > 10*time.Minute {
		t.Errorf("%s: %+v", r.Body, id)
	}
	refused("another audience", func(c map[string]any) { c["aud"] = "wiki" }, 401, provider.KindToken, "corp: audience is wiki, and must be rtaskctl")
	if err := os.Mkdir(filepath.Join(p.dir, "used.new"), 0o700); err != nil {
		t.Fatal(err)
	}
	refused("disk", nil, 503, kindUnavailable, "the engine cannot check logins at the moment")
	p.Providers.Configure([]provider.Settings{{Name: "corp", Issuer: testIssuer, Audience: "rtaskctl", Algorithms: []string{"ES256"}, JWKSFile: filepath.Join(p.dir, "none")}})
	refused("keys", nil, 503, provider.KindKeys, "cannot check logins of corp at the moment (its jwks_file cannot be used)")
	p.Providers.Configure(nil)
	refused("no provider", nil, 401, provider.KindToken, `there is no provider "corp" here`)
}

// TestStatuses holds the kinds of refusals and the statuses of HTTP together.
func TestStatuses(t *testing.T) {
	for kind, want := range map[string]int{
		authority.KindJoinUsed: 409, authority.KindJoinExpired: 410, authority.KindJoinUnknown: 401, authority.KindBadRequest: 400, provider.KindToken: 401,
		provider.KindKeys: 503, authority.KindPending: 400, authority.KindSlowDown: 400, authority.KindDenied: 400, authority.KindOver: 400,
		authority.KindRevoked: 401, authority.KindExpired: 401, authority.KindUnavailable: 503,
	} {
		if r := failure("", &authority.Refusal{Kind: kind, Text: "x"}); r.Status != want || string(r.Body) != fmt.Sprintf(`{"error":%q,"error_description":"x"}`, kind) {
			t.Errorf("%s: %d %s", kind, r.Status, r.Body)
		}
	}
	for _, err := range []error{authority.ErrNone, authority.ErrLocked, authority.ErrFull} {
		if r := failure("", err); r.Status != http.StatusServiceUnavailable {
			t.Errorf("%v: %d", err, r.Status)
		}
	}
	if r := TooMany(); r.Status != 429 || r.Kind != authority.KindSlowDown {
		t.Errorf("%d %s", r.Status, r.Kind)
	}
}

// FuzzServe sends requests for certificates.
func FuzzServe(f *testing.F) {
	e := newPlace(f).enroller()
	csr, _ := newRequest(f)
	token, _, err := e.Authority.NewJoin(authority.Grant{Kind: authority.Machine, Name: "ci-1"}, "build.example.org:8843")
	if err != nil {
		f.Fatal(err)
	}
	add := func(path string, body any) {
		text, err := json.Marshal(body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(path, text)
	}
	add(PathCA, nil)
	add(PathEnroll, map[string]string{"csr": csr, "join_token": token.Text()})
	add(PathEnroll, map[string]string{"csr": csr, "provider": "corp", "id_token": "x"})
	add(PathDeviceAuthorization, map[string]string{"csr": csr, "name": "admin1"})
	add(PathDeviceToken, map[string]string{"device_code": "x"})
	add(PathRenew, map[string]string{"jws": "e30.e30.e30"})
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		r := e.Serve(path, body, "192.0.2.7")
		if !json.Valid(r.Body) || r.Status < 200 || r.Status > 599 || (r.Status == http.StatusOK) != (r.Kind == "") {
			t.Errorf("%s: %d %s %q", path, r.Status, r.Kind, r.Body)
		}
		if r.Err != nil {
			t.Error(r.Err)
		}
	})
}

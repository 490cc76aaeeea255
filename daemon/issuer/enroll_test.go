package issuer

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/rtask/rtask/daemon/auth/authority"
)

// enroller is one with an authority.
func enroller(t testing.TB) *Enroller {
	t.Helper()
	a, err := authority.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	key, err := authority.NewKey()
	if err == nil {
		err = a.Init("example.org", key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &Enroller{Authority: a, URL: func() string { return "https://build.example.org:8843" }}
}

// newRequest is a signing request in PEM, and the SHA-256 of its key.
func newRequest(t testing.TB) (csr string, key [32]byte) {
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
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), sha256.Sum256(spki)
}

// TestLogins enrols users of a provider, and those whom it does not vouch for.
func TestLogins(t *testing.T) {
	e := enroller(t)
	csr, key := newRequest(t)
	e.Login = func(_ context.Context, provider, idToken string, spki []byte) (Login, error) {
		if provider != "corp" || sha256.Sum256(spki) != key {
			t.Errorf("the provider %s was asked for another key", provider)
		}
		switch idToken {
		case "keys":
			return Login{}, &authority.Refusal{Kind: KindProviderKeys, Text: "its keys are 26 h old"}
		case "disk":
			return Login{}, errors.New("cannot read /secret")
		case "good":
			return Login{Subject: "admin1@example.org", Email: true, Groups: []string{"ops"}, Life: time.Hour}, nil
		}
		return Login{}, &authority.Refusal{Kind: KindProviderToken, Text: "aud is another one"}
	}
	for _, c := range []struct {
		token, kind string
		status      int
	}{{"keys", KindProviderKeys, 503}, {"disk", kindServer, 500}, {"bad", KindProviderToken, 401}, {"good", "", 200}} {
		body, err := json.Marshal(map[string]string{"csr": csr, "provider": "corp", "id_token": c.token})
		if err != nil {
			t.Fatal(err)
		}
		r := e.Serve(t.Context(), PathEnroll, body, "192.0.2.7")
		var answer struct {
			Error, Identity string
			Description     string `json:"error_description"`
			Expires         string `json:"expires_at"`
		}
		if err := json.Unmarshal(r.Body, &answer); err != nil || r.Status != c.status || r.Kind != c.kind || answer.Error != c.kind || r.Proof != "provider" {
			t.Errorf("%s: %d %s, %v", c.token, r.Status, r.Body, err)
		}
		if (c.token == "disk") != (r.Err != nil) || c.token == "disk" && answer.Description != "no certificate could be made" {
			t.Errorf("%s: %s, and for the log %v", c.token, r.Body, r.Err)
		}
		if c.token != "good" {
			continue
		}
		end, err := time.Parse(time.RFC3339, answer.Expires)
		if id := r.Identity; err != nil || answer.Identity != "spiffe://example.org/user/admin1" || id.Provider != "corp" || !slices.Equal(id.Groups, []string{"ops"}) || time.Until(end) > time.Hour {
			t.Errorf("%s: %+v", r.Body, id)
		}
	}
}

// TestStatuses holds the kinds of refusals and the statuses of HTTP together.
func TestStatuses(t *testing.T) {
	for kind, want := range map[string]int{
		authority.KindJoinUsed: 409, authority.KindJoinExpired: 410, authority.KindJoinUnknown: 401, authority.KindBadRequest: 400, KindProviderToken: 401,
		KindProviderKeys: 503, authority.KindPending: 400, authority.KindSlowDown: 400, authority.KindDenied: 400, authority.KindOver: 400,
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
	e := enroller(f)
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
		r := e.Serve(t.Context(), path, body, "192.0.2.7")
		if !json.Valid(r.Body) || r.Status < 200 || r.Status > 599 || (r.Status == http.StatusOK) != (r.Kind == "") {
			t.Errorf("%s: %d %s %q", path, r.Status, r.Kind, r.Body)
		}
		if r.Err != nil {
			t.Error(r.Err)
		}
	})
}

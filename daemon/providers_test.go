package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/auth/provider"
	"github.com/rtask/rtask/daemon/auth/provider/handover"
)

// newKey returns a key and a certificate signing request for it, in PEM.
func newKey(t *testing.T) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// initialize makes the authority of an engine, which keeps its keys itself.
func (r *running) initialize(t *testing.T) {
	t.Helper()
	ca, err := authority.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	gateway, csr := newKey(t)
	der, err := x509.MarshalPKCS8PrivateKey(gateway)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Authority.Init(t.Context(), &rtaskv1.InitRequest{
		Name: "example.org", AuthorityKey: ca, TokenKey: make([]byte, 32), GatewayCsr: csr, GatewayKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestProviderLogin turns an ID token into a certificate over the gateway's socket, once.
func TestProviderLogin(t *testing.T) {
	dir := t.TempDir()
	sso, _ := newKey(t)
	jwks, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: sso.Public(), KeyID: "1"}}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "corp.jwks"), string(jwks))
	write(t, filepath.Join(dir, "rtask.hcl"), `
provider "corp" {
  issuer    = "https://sso.example.org/realms/corp"
  client_id = "rtaskctl"
  jwks_file = "`+filepath.Join(dir, "corp.jwks")+`"
}
`)
	r := run(t, dir)
	r.initialize(t)
	gateway := client.Dial(filepath.Join(r.options.RuntimeDir, "gateway.sock"))
	defer gateway.Close()
	key, csr := newKey(t)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	claims, err := json.Marshal(map[string]any{
		"iss": "https://sso.example.org/realms/corp", "aud": "rtaskctl", "sub": "7f1c", "iat": now, "exp": now + 300, "nonce": provider.Nonce(spki),
	})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: sso}, (&jose.SignerOptions{}).WithHeader("kid", "1"))
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	enroll := func(csr []byte) (uint32, string) {
		t.Helper()
		body, err := json.Marshal(map[string]string{"csr": string(csr), "provider": "corp", "id_token": raw})
		if err != nil {
			t.Fatal(err)
		}
		reply, err := gateway.Gateway.Enroll(t.Context(), &rtaskv1.EnrollRequest{Path: "/enroll", Body: body})
		if err != nil {
			t.Fatal(err)
		}
		return reply.Status, string(reply.Body)
	}
	_, other := newKey(t)
	if status, body := enroll(other); status != 401 || !strings.Contains(body, "provider-token") || !strings.Contains(body, "nonce") {
		t.Errorf("with another key: %d %s", status, body)
	}
	if status, body := enroll(csr); status != 200 || !strings.Contains(body, "spiffe://example.org/user/corp/7f1c") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := enroll(csr); status != 401 || !strings.Contains(body, "used before") {
		t.Errorf("the second time: %d %s", status, body)
	}
	all, err := r.Authority.Providers(t.Context(), &rtaskv1.ProvidersRequest{})
	if err != nil || len(all.Providers) != 1 || all.Providers[0].Keys != 1 || all.Providers[0].Problem != "" {
		t.Errorf("%v, %v", all, err)
	}
	logs := r.logs.String()
	if strings.Contains(logs, raw) || !strings.Contains(logs, "nonce") {
		t.Errorf("the log has the token, or no cause:\n%s", logs)
	}
}

// TestWantedKeys tells the fetcher which keys to fetch, and nothing where there are none.
func TestWantedKeys(t *testing.T) {
	dir := t.TempDir()
	r := run(t, dir)
	path := filepath.Join(r.options.RuntimeDir, handover.WantedName)
	if _, err := os.Stat(path); err == nil {
		t.Error("without a provider, the fetcher is told of some")
	}
	reload := func(text string) {
		t.Helper()
		write(t, r.options.ConfigFile, text)
		if reply, err := r.Jobs.Reload(t.Context(), &rtaskv1.ReloadRequest{}); err != nil {
			t.Fatalf("%v, %v", reply, err)
		}
	}
	reload(`
provider "corp" {
  issuer    = "https://sso.example.org/realms/corp"
  client_id = "rtaskctl"
}
provider "own" {
  issuer    = "https://sso.example.com"
  client_id = "rtaskctl"
  jwks_file = "/etc/rtask/own.jwks"
}
`)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := handover.ParseWanted(text)
	if err != nil || len(w.Providers) != 1 || w.Providers[0] != (handover.Provider{Name: "corp", Issuer: "https://sso.example.org/realms/corp"}) {
		t.Errorf("%+v, %v", w, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
	reload("")
	if _, err := os.Stat(path); err == nil {
		t.Error("after the providers are gone, the fetcher is told of some")
	}
}

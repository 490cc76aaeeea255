package ctl

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/ctl/contexts"
	"github.com/rtask/rtask/ctl/keystore"
)

// selfIssued makes the certificate of a machine that is due for a renewal, in PEM. Nobody has signed it but an unnamed key.
func selfIssued(t *testing.T, serial int64, public crypto.PublicKey, by crypto.Signer) string {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-30 * time.Minute), NotAfter: time.Now().Add(5 * time.Minute),
		URIs: []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/machine/ci-1"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, by)
	if err != nil {
		t.Error(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// TestLogoutRevokesItsOwn checks that a logout revokes the certificate that it names and deletes, and gets no other one for that.
func TestLogoutRevokesItsOwn(t *testing.T) {
	key, err := keystore.Store{}.Make(t.Context(), keystore.Plain)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var asked []string
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.URL.Path+" "+serial(r.TLS.PeerCertificates[0]))
		if r.URL.Path != "/renew" {
			_, _ = io.WriteString(w, "{}")
			return
		}
		var request struct{ CSR string }
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			t.Error(err)
			return
		}
		block, _ := pem.Decode([]byte(request.CSR))
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			t.Error(err)
			return
		}
		_ = json.NewEncoder(w).Encode(client.Enrolled{Certificate: selfIssued(t, 0x0202, csr.PublicKey, key.Signer)})
	}))
	s.EnableHTTP2, s.TLS = true, &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)

	config := t.TempDir()
	folder := contexts.Folder{Path: filepath.Join(config, "rtask")}
	content := contexts.Content{
		Certificate: selfIssued(t, 0x0101, key.Public(), key.Signer),
		CA:          string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})),
	}
	keep := func(dir string) error { return key.Keep(dir, "build", time.Now().Add(time.Hour)) }
	if err := folder.Save(t.Context(), contexts.Context{Name: "build", URL: s.URL, Key: keystore.Plain}, content, keep, true); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	status := Run(t.Context(), []string{"rtaskctl", "logout"}, nil, &out, &out, testEnv(map[string]string{"XDG_CONFIG_HOME": config}))
	if want := "Certificate 01:01 revoked at 127.0.0.1; key deleted; context build kept.\n"; status != 0 || out.String() != want {
		t.Errorf("exit status %d, %q; want %q", status, out.String(), want)
	}
	if want := []string{"/revoke 01:01"}; !slices.Equal(asked, want) {
		t.Errorf("the server was asked for %q, want %q", asked, want)
	}
}

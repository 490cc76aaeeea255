package fetch

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rtask/rtask/daemon/auth/provider/handover"
)

const testKeys = `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`

// place is the folders and files of a fetch.
type place struct {
	t              *testing.T
	wanted, folder string
	ca             string
	writes         int
}

func newPlace(t *testing.T) *place {
	t.Helper()
	dir := t.TempDir()
	p := &place{t: t, wanted: filepath.Join(dir, handover.WantedName), folder: filepath.Join(dir, "keys"), ca: filepath.Join(dir, "ca.pem")}
	if err := os.Mkdir(p.folder, 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

// provider serves a discovery document and what else handlers has, over TLS, and puts its certificate where ca_file is.
func (p *place) provider(handlers map[string]http.HandlerFunc) string {
	p.t.Helper()
	mux := http.NewServeMux()
	for pattern, h := range handlers {
		mux.HandleFunc(pattern, h)
	}
	s := httptest.NewTLSServer(mux)
	p.t.Cleanup(s.Close)
	if _, ok := handlers["/.well-known/openid-configuration"]; !ok {
		mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, s.URL, s.URL+"/jwks")
		})
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(p.ca, text, 0o644); err != nil {
		p.t.Fatal(err)
	}
	return s.URL
}

// write writes a file as the engine does. A time of its own makes the test independent of the file system's clock.
func (p *place) write(path string, w *handover.Wanted) {
	p.t.Helper()
	text, err := json.Marshal(w)
	if err != nil {
		p.t.Error(err)
	}
	p.writes++
	written := time.Unix(int64(p.writes), 0)
	if err := errors.Join(os.WriteFile(path, text, 0o644), os.Chtimes(path, written, written)); err != nil {
		p.t.Error(err)
	}
}

func (p *place) run(all ...handover.Provider) []Result {
	p.t.Helper()
	p.write(p.wanted, &handover.Wanted{Providers: all})
	results, err := Run(p.t.Context(), p.wanted, p.folder)
	if err != nil {
		p.t.Fatal(err)
	}
	return results
}

func (p *place) files() (names []string) {
	p.t.Helper()
	entries, err := os.ReadDir(p.folder)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func serve(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}

// TestRun fetches the keys of two providers, then of one of them.
func TestRun(t *testing.T) {
	p := newPlace(t)
	url := p.provider(map[string]http.HandlerFunc{"/jwks": serve(testKeys)})
	corp, ci := handover.Provider{Name: "corp", Issuer: url, CAFile: p.ca}, handover.Provider{Name: "ci", Issuer: url, CAFile: p.ca}
	if got := p.run(corp, ci); len(got) != 2 || got[0] != (Result{"ci", 1, nil}) || got[1] != (Result{"corp", 1, nil}) {
		t.Errorf("%+v", got)
	}
	if got := p.files(); !slices.Equal(got, []string{"ci.json", "corp.json"}) {
		t.Errorf("the folder has %v", got)
	}
	text, err := os.ReadFile(filepath.Join(p.folder, "corp.json"))
	if err != nil {
		t.Fatal(err)
	}
	if k, err := handover.ParseKeys(text); err != nil || k.Issuer != url || string(k.JWKS) != testKeys {
		t.Errorf("%+v, %v", k, err)
	}
	p.run(corp)
	if got := p.files(); !slices.Equal(got, []string{"corp.json"}) {
		t.Errorf("after one is no longer wanted, the folder has %v", got)
	}
}

// TestRunAgain is asked for the keys, and for another provider's, while it fetches.
func TestRunAgain(t *testing.T) {
	p := newPlace(t)
	requests, during := 0, func() {}
	url := p.provider(map[string]http.HandlerFunc{"/jwks": func(w http.ResponseWriter, _ *http.Request) {
		requests++
		during()
		during = func() {}
		fmt.Fprint(w, testKeys)
	}})
	corp, ci := handover.Provider{Name: "corp", Issuer: url, CAFile: p.ca}, handover.Provider{Name: "ci", Issuer: url, CAFile: p.ca}
	p.run(corp)
	if requests != 1 {
		t.Errorf("it fetched the keys %d times without being asked", requests)
	}
	again := filepath.Join(filepath.Dir(p.wanted), handover.AgainName)
	during = func() { p.write(again, nil) }
	if p.run(corp); requests != 3 {
		t.Errorf("it fetched the keys %d times, want 1 and 2", requests)
	}
	during = func() { p.write(p.wanted, &handover.Wanted{Providers: []handover.Provider{ci}}) }
	if got := p.run(corp); !slices.Equal(got, []Result{{"ci", 1, nil}}) {
		t.Errorf("with another provider: %+v", got)
	}
	during = func() { // nothing is wanted any more
		if err := os.Remove(p.wanted); err != nil {
			t.Error(err)
		}
	}
	if got := p.run(corp); !slices.Equal(got, []Result{{"corp", 1, nil}}) {
		t.Errorf("without a provider: %+v", got)
	}
}

// TestBadProviders meets providers that are not as they should be. The keys that there were stay, and other providers are fetched.
func TestBadProviders(t *testing.T) {
	plain := httptest.NewServer(serve(testKeys))
	t.Cleanup(plain.Close)
	discovery := "/.well-known/openid-configuration"
	for _, tt := range []struct {
		name     string
		handlers map[string]http.HandlerFunc
		change   func(*handover.Provider)
		want     string
	}{
		{"no discovery document", map[string]http.HandlerFunc{discovery: http.NotFound}, nil, "discovery document"},
		{"of another issuer", map[string]http.HandlerFunc{discovery: serve(`{"issuer":"https://sso.example.org","jwks_uri":"https://sso.example.org/jwks"}`)}, nil, "did not match"},
		{"keys over plain HTTP", map[string]http.HandlerFunc{"/jwks": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, plain.URL, http.StatusFound) }}, nil, "not https"},
		{"redirects in a circle", map[string]http.HandlerFunc{"/jwks": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/jwks", http.StatusFound) }}, nil, "redirects"},
		{"no keys", map[string]http.HandlerFunc{"/jwks": serve(`{"keys":[]}`)}, nil, "Key Set"},
		{"a page instead of keys", map[string]http.HandlerFunc{"/jwks": serve("<html>")}, nil, "Key Set"},
		{"an error", map[string]http.HandlerFunc{"/jwks": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }}, nil, "500"},
		{"long keys", map[string]http.HandlerFunc{"/jwks": serve(`{"keys":["` + strings.Repeat("x", handover.MaxKeys) + `"]}`)}, nil, "longer than"},
		{"a long discovery document", map[string]http.HandlerFunc{discovery: serve(`{"issuer":"` + strings.Repeat("x", 1<<20) + `"}`)}, nil, "longer than"},
		{"an authority that nobody trusts", map[string]http.HandlerFunc{"/jwks": serve(testKeys)}, func(p *handover.Provider) { p.CAFile = "" }, "certificate"},
		{"no ca_file", map[string]http.HandlerFunc{"/jwks": serve(testKeys)}, func(p *handover.Provider) { p.CAFile += ".none" }, "ca_file"},
		{"a ca_file without a certificate", map[string]http.HandlerFunc{"/jwks": serve(testKeys)}, func(p *handover.Provider) { p.CAFile = "fetch.go" }, "ca_file"},
		{"nobody there", nil, func(p *handover.Provider) { p.Issuer = "https://127.0.0.1:1" }, "refused"},
	} {
		p := newPlace(t)
		if err := os.WriteFile(filepath.Join(p.folder, "corp.json"), []byte("the last good ones"), 0o644); err != nil {
			t.Fatal(err)
		}
		bad := handover.Provider{Name: "corp", Issuer: p.provider(tt.handlers), CAFile: p.ca}
		if tt.change != nil {
			tt.change(&bad)
		}
		got := p.run(bad)
		if len(got) != 1 || got[0].Err == nil || !strings.Contains(got[0].Err.Error(), tt.want) || len(got[0].Err.Error()) > 500 {
			t.Errorf("%s: %+v, want an error with %q", tt.name, got, tt.want)
		}
		if text, err := os.ReadFile(filepath.Join(p.folder, "corp.json")); err != nil || string(text) != "the last good ones" {
			t.Errorf("%s: the keys are now %q (%v)", tt.name, text, err)
		}
		if got := p.files(); !slices.Equal(got, []string{"corp.json"}) {
			t.Errorf("%s: the folder has %v", tt.name, got)
		}
	}
}

// TestBadWanted refuses a list that could lead the fetcher elsewhere.
func TestBadWanted(t *testing.T) {
	p := newPlace(t)
	for _, text := range []string{"", "{", `[]`, `{"providers":[{"name":"../x","issuer":"https://sso.example.org"}]}`, `{"providers":[{"name":"","issuer":"x"}]}`} {
		if err := os.WriteFile(p.wanted, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := Run(t.Context(), p.wanted, p.folder); err == nil {
			t.Errorf("%q is taken: %+v", text, got)
		}
	}
	if _, err := Run(t.Context(), p.wanted+".none", p.folder); err == nil {
		t.Error("a list that is not there is taken")
	}
}

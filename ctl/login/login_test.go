package login_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/ctl/login"
)

// openID is the OpenID provider of packaging/interop, which zitadel/oidc's server is in.
type openID struct {
	program, dir, issuer string
	cmd                  *exec.Cmd
}

func TestMain(m *testing.M) {
	code, err := withProvider(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// withProvider runs the tests with a provider whose authority the system trusts. That is read once in a process (crypto/x509), so the
// provider is started first.
func withProvider(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "rtask-provider-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program := filepath.Join(dir, "provider")
	build := exec.Command("go", "build", "-o", program, "./provider")
	build.Dir = filepath.Join("..", "..", "packaging", "interop")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("cannot build the provider: %w\n%s", err, out)
	}
	p, err := startProvider(program, filepath.Join(dir, "trusted"))
	if err != nil {
		return 0, err
	}
	defer p.stop()
	for name, value := range map[string]string{
		"SSL_CERT_FILE": filepath.Join(p.dir, "ca.pem"), "SSL_CERT_DIR": dir, "TEST_ISSUER": p.issuer, "TEST_PROVIDER": program,
	} {
		if err := os.Setenv(name, value); err != nil {
			return 0, err
		}
	}
	return m.Run(), nil
}

func startProvider(program, dir string) (*openID, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	p := &openID{program: program, dir: dir, cmd: exec.Command(program, "-user", "alice=ops", "-claims", `{"repository_id":"456789"}`, dir)}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the provider does not start: %w", err)
	}
	p.issuer = strings.TrimSpace(line)
	return p, nil
}

func (p *openID) stop() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() }

func corp() client.Provider {
	return client.Provider{Name: "corp", Issuer: os.Getenv("TEST_ISSUER"), ClientID: "rtaskctl", Scopes: []string{"email"}, Login: []string{"browser", "device"}}
}

// person opens a URL as alice does.
func person(t *testing.T, url string, args ...string) {
	t.Helper()
	out, err := exec.Command(os.Getenv("TEST_PROVIDER"), append(append([]string{"-person", "alice", "-ca", os.Getenv("SSL_CERT_FILE")}, args...), url)...).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// claims reads an ID token, unverified: the engine verifies them.
func claims(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no ID token", token)
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]any{}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// sentence checks the text of an error: one line.
func sentence(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is %q, want one line with %q", err, want)
	}
}

// TestBrowser checks a login by browser, and that what else comes to its port is not taken for it.
func TestBrowser(t *testing.T) {
	done := make(chan struct{})
	token, err := login.Browser(t.Context(), corp(), "the-nonce", func(url string) {
		_, rest, _ := strings.Cut(url, "redirect_uri=http%3A%2F%2F127.0.0.1%3A")
		port, _, _ := strings.Cut(rest, "%2F")
		for _, path := range []string{"/", "/callback", "/callback?code=x&state=guessed"} {
			r, err := http.Get("http://127.0.0.1:" + port + path)
			if err != nil {
				t.Error(err)
				continue
			}
			_ = r.Body.Close()
			if r.StatusCode != http.StatusNotFound {
				t.Errorf("%s is answered with %d", path, r.StatusCode)
			}
		}
		for _, want := range []string{"code_challenge_method=S256", "nonce=the-nonce", "client_id=rtaskctl", "scope=openid+email"} {
			if !strings.Contains(url, want) {
				t.Errorf("the URL %s has no %s", url, want)
			}
		}
		go func() { defer close(done); person(t, url) }()
	})
	if err != nil {
		t.Fatal(err)
	}
	<-done
	if c := claims(t, token); c["nonce"] != "the-nonce" || c["iss"] != corp().Issuer {
		t.Errorf("the ID token has %v", c)
	}
}

// TestBrowserRefused checks that what a provider says in the redirect becomes one line, and that an interrupt ends the waiting.
func TestBrowserRefused(t *testing.T) {
	_, err := login.Browser(t.Context(), corp(), "n", func(url string) {
		_, rest, _ := strings.Cut(url, "redirect_uri=http%3A%2F%2F127.0.0.1%3A")
		port, _, _ := strings.Cut(rest, "%2F")
		_, rest, _ = strings.Cut(url, "state=")
		state, _, _ := strings.Cut(rest, "&")
		r, err := http.Get("http://127.0.0.1:" + port + "/callback?error=access_denied&state=" + state)
		if err != nil {
			t.Error(err)
			return
		}
		_ = r.Body.Close()
	})
	sentence(t, err, "the login at provider corp was denied")
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	if _, err = login.Browser(ctx, corp(), "n", func(string) { cancel(interrupted) }); !errors.Is(err, interrupted) {
		t.Errorf("after an interrupt: %v", err)
	}
}

func TestDevice(t *testing.T) {
	done := make(chan struct{})
	token, err := login.Device(t.Context(), corp(), func(url, code string) {
		if !strings.Contains(url, code) || code == "" {
			t.Errorf("the URL %s is not for the code %q", url, code)
		}
		go func() { defer close(done); person(t, url) }()
	})
	if err != nil {
		t.Fatal(err)
	}
	<-done
	if c := claims(t, token); c["iss"] != corp().Issuer {
		t.Errorf("the ID token has %v", c)
	}
	_, err = login.Device(t.Context(), corp(), func(url, _ string) { person(t, url, "-deny") })
	sentence(t, err, "the login at provider corp was denied")
}

// TestProviderFails checks what is said of providers that cannot be used.
func TestProviderFails(t *testing.T) {
	device := func(change func(*client.Provider)) error {
		p := corp()
		change(&p)
		_, err := login.Device(t.Context(), p, func(string, string) { t.Error("it went on") })
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	sentence(t, device(func(p *client.Provider) { p.Issuer = "https://" + l.Addr().String() }), "cannot reach provider corp: ")
	sentence(t, device(func(p *client.Provider) { p.Issuer = "http://sso.example.org" }), `the issuer of provider corp is "http://sso.example.org", which does not begin with https://`)
	sentence(t, device(func(p *client.Provider) { p.ClientID = "nobody" }), "provider corp ")
	sentence(t, device(func(p *client.Provider) { p.DeviceURL = "http://sso.example.org/device" }), `an endpoint of provider corp is "http://sso.example.org/device"`)
	other, err := startProvider(os.Getenv("TEST_PROVIDER"), filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.stop()
	sentence(t, device(func(p *client.Provider) { p.Issuer = other.issuer }), "cannot reach provider corp: tls: failed to verify certificate")
}

// TestGitHub checks the token of a workflow.
func TestGitHub(t *testing.T) {
	vars := map[string]string{login.GitHubURL: os.Getenv("TEST_ISSUER") + "/actions/token?api=2", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runner"}
	lookup := func(name string) string { return vars[name] }
	token, err := login.GitHub(t.Context(), lookup, "https://build.example.org:8843")
	if err != nil {
		t.Fatal(err)
	}
	if c := claims(t, token); c["aud"] != "https://build.example.org:8843" || c["repository_id"] != "456789" {
		t.Errorf("the ID token has %v", c)
	}
	vars["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] = "other"
	_, err = login.GitHub(t.Context(), lookup, "x")
	sentence(t, err, "GitHub gives no ID token (HTTP status 401): the workflow needs permissions: id-token: write")
	vars[login.GitHubURL] = "http://192.0.2.1/"
	_, err = login.GitHub(t.Context(), lookup, "x")
	sentence(t, err, login.GitHubURL+` is "http://192.0.2.1/", which does not begin with https://`)
}

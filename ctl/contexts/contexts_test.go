package contexts_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/ctl/contexts"
	"github.com/rtask/rtask/ctl/keystore"
	"github.com/rtask/rtask/packaging/testkit"
)

// issuer is an authority that renews certificates over mutual TLS.
type issuer struct {
	key      *ecdsa.PrivateKey
	cert     *x509.Certificate
	url      string
	renewals atomic.Int32
	// broken makes it refuse to, gone makes it say that a certificate expired too long ago.
	broken, gone atomic.Bool
	// during, if there is one, is called while it renews.
	during func()
	// open are the connections of clients.
	open sync.WaitGroup
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	if i.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(i.serve))
	server.TLS = &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: i.pool(),
		Certificates: []tls.Certificate{{Certificate: [][]byte{i.issue(t, serverKey.Public(), "host/server", 2*time.Hour)}, PrivateKey: serverKey}},
	}
	server.EnableHTTP2 = true
	server.Config.Protocols = new(http.Protocols) // else TLSNextProto turns HTTP/2 off
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetHTTP2(true)
	// Without a client certificate one can ask for a renewal with a signature only (daemon/gateway has the real one).
	server.TLS.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Equal(h.SupportedProtos, []string{"rtask-enroll/1"}) {
			return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: server.TLS.Certificates, NextProtos: h.SupportedProtos}, nil
		}
		return nil, nil
	}
	server.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		"rtask-enroll/1": func(_ *http.Server, c *tls.Conn, h http.Handler) { i.enrol(c, h) },
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			i.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			i.open.Done()
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	i.url = strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	return i
}

func (i *issuer) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(i.cert)
	return pool
}

// issue makes a certificate that has half an hour behind it.
func (i *issuer) issue(t testing.TB, public any, path string, life time.Duration) []byte {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now().Add(-30 * time.Minute)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, DNSNames: []string{"localhost"}, NotBefore: begin, NotAfter: begin.Add(life),
		URIs: []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/" + path}},
	}, i.cert, public, i.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func certPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// enrol answers the one request of a connection without a client certificate.
func (*issuer) enrol(c *tls.Conn, h http.Handler) {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	_ = w.Result().Write(c) // the client says if it did not come
}

func (i *issuer) serve(w http.ResponseWriter, r *http.Request) {
	if i.broken.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	i.renewals.Add(1)
	if i.during != nil {
		i.during()
	}
	var request struct{ CSR, JWS string }
	if json.NewDecoder(r.Body).Decode(&request) != nil || r.URL.Path != "/renew" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	old := r.TLS
	var der []byte
	if request.JWS != "" {
		if i.gone.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":"certificate-expired","error_description":"it expired too long ago: join again"}`)
			return
		}
		signed, err := jose.ParseSignedCompact(request.JWS, []jose.SignatureAlgorithm{jose.EdDSA})
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		chain, err := signed.Signatures[0].Protected.Certificates(x509.VerifyOptions{Roots: i.pool(), CurrentTime: time.Now().Add(-20 * time.Minute)})
		if err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if der, err = signed.Verify(chain[0][0].PublicKey); err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		old = &tls.ConnectionState{PeerCertificates: chain[0]}
	} else if block, _ := pem.Decode([]byte(request.CSR)); block != nil {
		der = block.Bytes
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil || csr.CheckSignature() != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	serial := big.NewInt(int64(i.renewals.Load()))
	der, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(10 * time.Hour), URIs: old.PeerCertificates[0].URIs,
	}, i.cert, csr.PublicKey, i.key)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(client.Enrolled{Certificate: certPEM(der)})
}

// save makes a context with a plain key.
func save(t *testing.T, i *issuer, f contexts.Folder, path string, life time.Duration) contexts.Context {
	t.Helper()
	return saveKey(t, i, f, keystore.Store{}, keystore.Plain, path, life)
}

// saveKey makes a context with a key at a place.
func saveKey(t *testing.T, i *issuer, f contexts.Folder, keys keystore.Store, place keystore.Place, path string, life time.Duration) contexts.Context {
	t.Helper()
	key, err := keys.Make(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	c := contexts.Context{Name: "build", URL: i.url, Key: place}
	content := contexts.Content{Certificate: certPEM(i.issue(t, key.Public(), path, life)), CA: certPEM(i.cert.Raw)}
	if err := f.Save(t.Context(), c, content, func(dir string) error { return key.Keep(dir, "build", time.Now().Add(time.Hour)) }, true); err != nil {
		t.Fatal(err)
	}
	return c
}

func endpoint(t *testing.T, c *contexts.Credentials) *client.Endpoint {
	t.Helper()
	s, err := c.Server()
	if err != nil {
		t.Fatal(err)
	}
	e, err := client.NewEndpoint(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// TestSave checks that a saved context can be read, by its owner only, and replaced as a whole.
func TestSave(t *testing.T) {
	i := newIssuer(t)
	f := contexts.Folder{Path: filepath.Join(t.TempDir(), "config", "rtask")}
	c := save(t, i, f, "user/admin1", time.Hour)
	if got, err := f.Get("build"); err != nil || got != c {
		t.Errorf("%+v, %v", got, err)
	}
	if _, current, err := f.All(); err != nil || current != "build" {
		t.Errorf("current is %q, %v", current, err)
	}
	err := filepath.WalkDir(f.Path, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err == nil && fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is %v", path, fi.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	first, err := os.ReadFile(filepath.Join(f.Dir("build"), "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	failed := errors.New("no room")
	if err := f.Save(t.Context(), c, contexts.Content{Certificate: "other"}, func(string) error { return failed }, true); !errors.Is(err, failed) {
		t.Errorf("a login that fails: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(f.Dir("build"), "cert.pem")); err != nil || string(got) != string(first) {
		t.Errorf("half a login is left: %v", err)
	}
	save(t, i, f, "user/admin2", time.Hour)
	if got, err := os.ReadFile(filepath.Join(f.Dir("build"), "cert.pem")); err != nil || string(got) == string(first) {
		t.Errorf("the second login: %v", err)
	}
	if all, err := os.ReadDir(f.Path); err != nil || len(all) != 2 {
		t.Errorf("in the folder: %v, %v", all, err)
	}
	for _, name := range []string{"", "local", "a/b", "..", ".x", "-x", "a b", strings.Repeat("x", 65), "contexts.toml", "contexts.toml.new", "ä"} {
		if contexts.CheckName(name) == nil {
			t.Errorf("%q can be a name", name)
		}
	}
}

// TestSharedToken checks that processes which need a token at the same time fetch one, that a new certificate has none, and that a refused
// one is replaced.
func TestSharedToken(t *testing.T) {
	i := newIssuer(t)
	f := contexts.Folder{Path: filepath.Join(t.TempDir(), "rtask")}
	c := save(t, i, f, "user/admin1", time.Hour)
	var fetched atomic.Int32
	fetch := func(context.Context) (client.Token, error) {
		n := fetched.Add(1)
		now := time.Now()
		return client.Token{Text: string('a' + rune(n)), Since: now, Until: now.Add(time.Hour)}, nil
	}
	get := func(refused string) string {
		p := f.Credentials(c, keystore.Store{}, nil) // as another process has it
		cert, err := p.Certificate(t.Context(), nil)
		if err != nil {
			t.Error(err)
			return ""
		}
		token, err := p.Token(t.Context(), cert, refused, fetch)
		if err != nil {
			t.Error(err)
		}
		return token.Text
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { get("") })
	}
	wg.Wait()
	if n := fetched.Load(); n != 1 {
		t.Errorf("%d tokens for twenty processes", n)
	}
	first := get("")
	if second := get(first); second == first || fetched.Load() != 2 {
		t.Errorf("a refused token came again")
	}
	save(t, i, f, "user/admin1", time.Hour)
	get("")
	if n := fetched.Load(); n != 3 {
		t.Errorf("%d tokens after another login", n)
	}
}

// TestRenew checks that a machine's certificate is renewed once by all who use it, from two thirds of its life on, with another key, and
// a person's is not.
func TestRenew(t *testing.T) {
	i := newIssuer(t)
	f := contexts.Folder{Path: filepath.Join(t.TempDir(), "rtask")}
	for _, test := range []struct {
		path  string
		life  time.Duration
		renew bool
	}{
		{"machine/ci-1", 35 * time.Minute, true}, {"host/web-1", 35 * time.Minute, true}, {"machine/ci-1", 2 * time.Hour, false}, {"user/admin1", 35 * time.Minute, false},
	} {
		i.renewals.Store(0)
		c := save(t, i, f, test.path, test.life)
		old, err := f.Certificate("build")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				p := f.Credentials(c, keystore.Store{}, nil)
				cert, err := p.Certificate(t.Context(), endpoint(t, p))
				if err != nil {
					t.Error(err)
					return
				}
				renewed := string(cert.Certificate[0]) != string(old.Certificate[0])
				if renewed != test.renew || renewed && cert.Leaf.PublicKey.(ed25519.PublicKey).Equal(old.Leaf.PublicKey) {
					t.Errorf("%s of %v: renewed is %v", test.path, test.life, renewed)
				}
				if !cert.PrivateKey.(ed25519.PrivateKey).Public().(ed25519.PublicKey).Equal(cert.Leaf.PublicKey) {
					t.Error("the key is another certificate's")
				}
			})
		}
		wg.Wait()
		if n := i.renewals.Load(); n != 0 && !test.renew || n != 1 && test.renew {
			t.Errorf("%s of %v: %d renewals", test.path, test.life, n)
		}
	}
	if text, err := os.ReadFile(filepath.Join(f.Dir("build"), "ca.pem")); err != nil || string(text) != certPEM(i.cert.Raw) {
		t.Errorf("the authority of the server is lost: %v", err)
	}
}

// TestRenewalFails checks that a certificate is used on while it is good, and that somebody is told once a day when it ends soon.
func TestRenewalFails(t *testing.T) {
	i := newIssuer(t)
	f := contexts.Folder{Path: filepath.Join(t.TempDir(), "rtask")}
	i.broken.Store(true)
	warnings := func(life time.Duration) (all []string) {
		c := save(t, i, f, "machine/ci-1", life)
		for range 3 {
			p := f.Credentials(c, keystore.Store{}, func(text string) { all = append(all, text) })
			if _, err := p.Certificate(t.Context(), endpoint(t, p)); err != nil {
				t.Error(err)
			}
		}
		return all
	}
	if got := warnings(39 * time.Minute); len(got) > 0 {
		t.Errorf("with a quarter of its life left: %q", got)
	}
	got := warnings(32 * time.Minute)
	if len(got) != 1 || !strings.HasPrefix(got[0], "the certificate for build ends in 1 min") || !strings.Contains(got[0], " and cannot be renewed: localhost answers /renew with HTTP status 503") {
		t.Errorf("at its end: %q", got)
	}
}

// TestRenewAfterEnd checks that a machine which was off for a while renews what has ended, once, and is told where that is too late. A
// person's certificate that has ended is left to the caller.
func TestRenewAfterEnd(t *testing.T) {
	i := newIssuer(t)
	f := contexts.Folder{Path: filepath.Join(t.TempDir(), "rtask")}
	c := save(t, i, f, "machine/ci-1", 25*time.Minute)
	for range 2 {
		p := f.Credentials(c, keystore.Store{}, nil)
		cert, err := p.Certificate(t.Context(), endpoint(t, p))
		if err != nil || time.Until(cert.Leaf.NotAfter) < time.Hour || cert.Leaf.URIs[0].Path != "/machine/ci-1" {
			t.Fatalf("ended five minutes ago: %v", err)
		}
	}
	if n := i.renewals.Load(); n != 1 {
		t.Errorf("%d renewals", n)
	}
	i.gone.Store(true)
	c = save(t, i, f, "machine/ci-1", 25*time.Minute)
	p := f.Credentials(c, keystore.Store{}, nil)
	_, err := p.Certificate(t.Context(), endpoint(t, p))
	if !errors.As(err, new(*contexts.Ended)) || err.Error() != "your certificate for build expired 5 min ago, and cannot be renewed: it expired too long ago: join again" {
		t.Errorf("ended long ago: %v", err)
	}
	c = save(t, i, f, "user/admin1", 25*time.Minute)
	p = f.Credentials(c, keystore.Store{}, nil)
	if cert, err := p.Certificate(t.Context(), nil); err != nil || cert.PrivateKey != nil {
		t.Errorf("a person's: %v", err)
	}
}

// TestKept checks that what is revoked is what the context has, and not another certificate that it would get for that.
func TestKept(t *testing.T) {
	i := newIssuer(t)
	f := contexts.Folder{Path: filepath.Join(t.TempDir(), "rtask")}
	c := save(t, i, f, "machine/ci-1", 35*time.Minute)
	saved, err := f.Certificate("build")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := f.Credentials(c, keystore.Store{}, nil).Kept(t.Context())
	if err != nil || kept.PrivateKey == nil || !kept.Leaf.Equal(saved.Leaf) || i.renewals.Load() != 0 {
		t.Errorf("%+v, %v, %d renewals", kept, err, i.renewals.Load())
	}
}

// TestForeignKeys checks that files named as those of keys, in the folder where somebody is, are left alone, and not taken for the key
// of a certificate that is in the agent.
func TestForeignKeys(t *testing.T) {
	i, keys, here := newIssuer(t), keystore.Store{Socket: testkit.SSHAgent(t)}, t.TempDir()
	t.Chdir(here)
	for _, file := range keystore.Files() {
		if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := contexts.Folder{Path: filepath.Join(t.TempDir(), "rtask")}
	c := saveKey(t, i, f, keys, keystore.Agent, "machine/ci-1", 35*time.Minute)
	p := f.Credentials(c, keys, nil)
	if _, err := p.Certificate(t.Context(), endpoint(t, p)); err != nil || i.renewals.Load() != 1 {
		t.Fatalf("%v, %d renewals", err, i.renewals.Load())
	}
	own := contexts.Files(contexts.Context{URL: i.url, CertFile: filepath.Join(f.Dir("build"), "cert.pem")}, keys)
	if cert, err := own.Certificate(t.Context(), nil); err != nil || own.Place() != keystore.Agent || cert.PrivateKey == nil {
		t.Errorf("a certificate with its key in the agent: %v, %v", own.Place(), err)
	}
	for _, file := range keystore.Files() {
		if text, err := os.ReadFile(file); string(text) != "mine" {
			t.Errorf("%s holds %q, %v", file, text, err)
		}
	}
}

// TestChangeDuringRenewal checks that a login, another name and a removal hold, where another process is renewing the certificate.
func TestChangeDuringRenewal(t *testing.T) {
	i := newIssuer(t)
	for name, test := range map[string]struct {
		change func(f contexts.Folder, c contexts.Context, login contexts.Content) error
		// want is the folder whose certificate is left, and whose that is; "": none is.
		want, path string
	}{
		"login": {func(f contexts.Folder, c contexts.Context, login contexts.Content) error {
			return f.Save(t.Context(), c, login, func(string) error { return nil }, true)
		}, "build", "/user/admin1"},
		"rename": {func(f contexts.Folder, _ contexts.Context, _ contexts.Content) error {
			return f.Rename(t.Context(), "build", "other")
		}, "other", "/machine/ci-1"},
		"remove": {func(f contexts.Folder, _ contexts.Context, _ contexts.Content) error {
			return f.Remove(t.Context(), "build")
		}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := contexts.Folder{Path: filepath.Join(t.TempDir(), "rtask")}
			c := save(t, i, f, "machine/ci-1", 35*time.Minute)
			key, err := keystore.Store{}.Make(t.Context(), keystore.Memory)
			if err != nil {
				t.Fatal(err)
			}
			login := contexts.Content{Certificate: certPEM(i.issue(t, key.Public(), "user/admin1", time.Hour)), CA: certPEM(i.cert.Raw)}
			changed := make(chan error, 1)
			i.during = func() {
				done := make(chan struct{})
				go func() { defer close(done); changed <- test.change(f, c, login) }()
				select { // it waits for the renewal; else there is time for it to be undone
				case <-done:
				case <-time.After(100 * time.Millisecond):
				}
			}
			p := f.Credentials(c, keystore.Store{}, nil)
			if _, err := p.Certificate(t.Context(), endpoint(t, p)); err != nil {
				t.Error(err)
			}
			if err := <-changed; err != nil {
				t.Error(err)
			}
			for _, dir := range []string{"build", "other"} {
				cert, err := f.Certificate(dir)
				if dir != test.want {
					if !contexts.IsLoggedOut(err) {
						t.Errorf("%s is there again: %v", dir, err)
					}
				} else if err != nil || cert.Leaf.URIs[0].Path != test.path {
					t.Errorf("%s has another certificate than that of %s: %v", dir, test.path, err)
				}
			}
		})
	}
}

// TestLogoutAndRenewal checks that another process does not renew a certificate while a logout has it revoked.
func TestLogoutAndRenewal(t *testing.T) {
	i := newIssuer(t)
	f := contexts.Folder{Path: filepath.Join(t.TempDir(), "rtask")}
	c := save(t, i, f, "machine/ci-1", time.Hour)
	saved, err := f.Certificate("build")
	if err != nil {
		t.Fatal(err)
	}
	renewed := make(chan error, 1)
	old, where, err := f.Logout(t.Context(), "build", keystore.Store{}, func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, err := f.Credentials(c, keystore.Store{}, nil).Renew(t.Context())
			renewed <- err
		}()
		select { // it waits for the logout; else there is time for it
		case <-done:
		case <-time.After(100 * time.Millisecond):
		}
	})
	if err != nil || where != keystore.Plain || !old.Leaf.Equal(saved.Leaf) {
		t.Errorf("%v, %q", err, where)
	}
	if err := <-renewed; !errors.Is(err, contexts.ErrLoggedOut) || i.renewals.Load() != 0 {
		t.Errorf("the renewal: %v, %d renewals", err, i.renewals.Load())
	}
	if _, _, err := f.Logout(t.Context(), "build", keystore.Store{}, func() { t.Error("it was revoked twice") }); !errors.Is(err, contexts.ErrLoggedOut) {
		t.Errorf("a second logout: %v", err)
	}
}

// TestRenewHangsUp checks that a renewal that somebody asks for leaves no connection open.
func TestRenewHangsUp(t *testing.T) {
	i := newIssuer(t)
	f := contexts.Folder{Path: filepath.Join(t.TempDir(), "rtask")}
	c := save(t, i, f, "machine/ci-1", time.Hour)
	if _, err := f.Credentials(c, keystore.Store{}, nil).Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() { defer close(closed); i.open.Wait() }()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Error("a connection is still open")
	}
}

// TestInterruptedLogout checks that a logout which somebody interrupts, while the server does not answer, deletes nothing: the certificate is
// good still, and the next logout revokes it.
func TestInterruptedLogout(t *testing.T) {
	i := newIssuer(t)
	f := contexts.Folder{Path: filepath.Join(t.TempDir(), "rtask")}
	c := save(t, i, f, "machine/ci-1", time.Hour)
	interrupted := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	if _, _, err := f.Logout(ctx, "build", keystore.Store{}, func() { cancel(interrupted) }); !errors.Is(err, interrupted) {
		t.Errorf("%v", err)
	}
	if cert, err := f.Credentials(c, keystore.Store{}, nil).Kept(t.Context()); err != nil || cert.PrivateKey == nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestNothingToRenew checks what is said of certificates that are not the context's to renew.
func TestNothingToRenew(t *testing.T) {
	i := newIssuer(t)
	f := contexts.Folder{Path: filepath.Join(t.TempDir(), "rtask")}
	own := contexts.Context{Name: "own", URL: i.url, CertFile: "/nowhere/cert.pem"}
	for want, c := range map[string]*contexts.Credentials{
		"this certificate is in files of your own: its authority renews it": f.Credentials(own, keystore.Store{}, nil),
		"there is nothing to renew: each process of a workflow gets a certificate of its own": f.Fleeting(contexts.Context{Name: "ci", URL: i.url, Key: keystore.Memory}, func(context.Context, *client.Endpoint) (*tls.Certificate, error) {
			return nil, errors.New("no workflow")
		}),
	} {
		if _, err := c.Renew(t.Context()); err == nil || err.Error() != want {
			t.Errorf("%v; want %s", err, want)
		}
	}
	if _, err := contexts.Files(own, keystore.Store{}).Renew(t.Context()); err == nil {
		t.Error("files without a context were renewed")
	}
}

// TestWithKey checks that a certificate for another key is refused.
func TestWithKey(t *testing.T) {
	i := newIssuer(t)
	one, err := keystore.Store{}.Make(t.Context(), keystore.Memory)
	if err != nil {
		t.Fatal(err)
	}
	other, err := keystore.Store{}.Make(t.Context(), keystore.Memory)
	if err != nil {
		t.Fatal(err)
	}
	text := certPEM(i.issue(t, one.Public(), "user/admin1", time.Hour))
	if cert, err := contexts.WithKey(text, one.Signer); err != nil || cert.PrivateKey == nil {
		t.Errorf("its own key: %v", err)
	}
	if _, err := contexts.WithKey(text, other.Signer); err == nil || err.Error() != "the server has issued a certificate for another key" {
		t.Errorf("another key: %v", err)
	}
}

// TestFiles checks that files of somebody's own are read again when they change, and belong together.
func TestFiles(t *testing.T) {
	i := newIssuer(t)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	write := func(withKey bool, age time.Duration) {
		public, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(certFile, []byte(certPEM(i.issue(t, public, "machine/ci-1", time.Hour))), 0o600); err != nil {
			t.Fatal(err)
		}
		if withKey {
			if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		when := time.Now().Add(-age)
		if err := errors.Join(os.Chtimes(certFile, when, when), os.Chtimes(keyFile, when, when)); err != nil {
			t.Fatal(err)
		}
	}
	write(true, time.Hour)
	c := contexts.Files(contexts.Context{URL: i.url, CertFile: certFile, KeyFile: keyFile}, keystore.Store{})
	get := func() *tls.Certificate {
		cert, err := c.Certificate(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	first := get()
	if get() != first {
		t.Error("they are read again without a change")
	}
	write(true, time.Minute)
	if string(get().Certificate[0]) == string(first.Certificate[0]) {
		t.Error("the change was not noticed")
	}
	write(false, 0)
	if _, err := c.Certificate(t.Context(), nil); err == nil || err.Error() != keyFile+" is not the key of "+certFile {
		t.Errorf("the key of another certificate: %v", err)
	}
}

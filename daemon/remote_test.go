package daemon

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/companion"
	"github.com/rtask/rtask/daemon/control"
)

const remoteRoot = `
remote {
  url = "https://build.example.org:8843"
}
role "operator" {
  subjects = ["spiffe://example.org/user/*"]
  tasks    = ["sleeps"]
  methods  = ["run"]
}
`

const sleeps = "task \"sleeps\" {\ncommand = [\"/bin/sh\", \"-c\", \"echo on; exec sleep 1000\"]\ntimeout = 0\nmax_concurrent = 0\n}\n"

// gatewayTo speaks over the remote socket of an engine as the gateway does: HTTP/2 on one connection.
type gatewayTo struct {
	*http.Transport
	shown codec.Certificates
	token string
}

// RoundTrip implements http.RoundTripper.
func (g *gatewayTo) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	codec.Presented{RemoteAddr: "192.0.2.7"}.Put(r.Header)
	g.shown.Put(r.Header)
	if g.token != "" {
		r.Header.Set("Authorization", "Bearer "+g.token)
	}
	return g.Transport.RoundTrip(r)
}

func request(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// as returns what speaks for a client with a new certificate and a token for it, and asks for that as a client does.
func (r *running) as(t *testing.T, name string) *gatewayTo {
	t.Helper()
	issued, err := r.Authority.Sign(t.Context(), &rtaskv1.SignRequest{Identity: &rtaskv1.Identity{Name: name}, Csr: request(t)})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(issued.Certificate)
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	socket := filepath.Join(r.options.RuntimeDir, "remote.sock")
	g := &gatewayTo{shown: codec.Certificates{Leaf: block.Bytes}, Transport: &http.Transport{
		Protocols: &protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	t.Cleanup(g.CloseIdleConnections)
	reply, err := (&http.Client{Transport: g}).Post("http://rtask/token", "application/x-www-form-urlencoded", strings.NewReader("grant_type=client_credentials"))
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	var answer struct {
		Token string `json:"access_token"`
	}
	if err != nil || reply.StatusCode != http.StatusOK || json.Unmarshal(text, &answer) != nil || answer.Token == "" {
		t.Fatalf("%d %s", reply.StatusCode, text)
	}
	g.token = answer.Token
	return g
}

func (g *gatewayTo) jobs() rtaskv1connect.JobServiceClient {
	return rtaskv1connect.NewJobServiceClient(connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: g}, "http://rtask", append(codec.Options(), connecthttp.WithGRPC())...)))
}

// An engine lets clients on other machines in by what its authority and its issuer gave them: 200 of their streams go over one connection
// of the gateway's, and end with the role, with the issuer of their tokens, and with the certificate.
func TestRemoteClients(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "rtask.hcl"), remoteRoot)
	write(t, filepath.Join(dir, "tasks.d", "a.hcl"), sleeps)
	r := run(t, dir)
	defer r.stopJobs(t)
	key, err := authority.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Authority.Init(t.Context(), &rtaskv1.InitRequest{
		Name: "example.org", AuthorityKey: key, TokenKey: make([]byte, 32), GatewayCsr: request(t), GatewayKey: key,
	})
	if err != nil {
		t.Fatal(err)
	}
	alice := r.as(t, "alice")
	jobs := alice.jobs()
	who, err := jobs.WhoAmI(t.Context(), &rtaskv1.WhoAmIRequest{})
	if err != nil || who.Identity != "spiffe://example.org/user/alice" || len(who.Roles) != 1 || who.Url != "https://build.example.org:8843" {
		t.Fatalf("%v, %v", who, err)
	}
	started, err := jobs.Start(t.Context(), &rtaskv1.StartRequest{Name: "sleeps"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute) // of a stream that nothing ends
	defer cancel()
	const most = 200
	errs := make(chan error, most)
	var follow, began sync.WaitGroup
	begin := func(c rtaskv1connect.JobServiceClient, id string) {
		began.Add(1)
		follow.Go(func() {
			stream, err := c.StreamLogs(ctx, &rtaskv1.StreamLogsRequest{Job: id, Follow: true})
			if err == nil {
				_, err = stream.Receive()
			}
			began.Done()
			if err == nil {
				_, err = stream.Receive()
			}
			errs <- err
		})
	}
	ended := func(n int, code connect.Code, kind string) {
		t.Helper()
		follow.Wait()
		for range n {
			if err := <-errs; connect.CodeOf(err) != code || codec.DetailOf(err).GetKind() != kind {
				t.Fatalf("%v, want %v, %s", err, code, kind)
			}
		}
	}
	for range most {
		begin(jobs, started.Job.Id)
	}
	began.Wait()
	reload := func(root string) {
		t.Helper()
		write(t, filepath.Join(dir, "rtask.hcl"), root)
		if _, err := r.Jobs.Reload(t.Context(), &rtaskv1.ReloadRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	reload(strings.ReplaceAll(remoteRoot, "user/*", "user/bob"))
	ended(most, connect.CodePermissionDenied, "role")
	reload(remoteRoot)
	begin(jobs, started.Job.Id)
	began.Wait()
	revoked, err := r.Authority.Revoke(t.Context(), &rtaskv1.RevokeRequest{Certificate: "alice"})
	if err != nil || revoked.Streams != 1 {
		t.Errorf("%v, %v", revoked, err)
	}
	ended(1, connect.CodeUnauthenticated, "certificate")
	_, err = jobs.WhoAmI(t.Context(), &rtaskv1.WhoAmIRequest{})
	if codec.DetailOf(err).GetKind() != "certificate-revoked" {
		t.Error(err)
	}
	bob := r.as(t, "bob")
	if started, err = bob.jobs().Start(t.Context(), &rtaskv1.StartRequest{Name: "sleeps"}); err != nil {
		t.Fatal(err)
	}
	begin(bob.jobs(), started.Job.Id)
	began.Wait()
	reload(strings.ReplaceAll(remoteRoot, "build.example.org", "other.example.org"))
	ended(1, connect.CodeUnauthenticated, "token-invalid")
	reload(remoteRoot)
	// A client ends its own certificate, and with it what it has under way.
	begin(bob.jobs(), started.Job.Id)
	began.Wait()
	reply, err := (&http.Client{Transport: &gatewayTo{Transport: bob.Transport, shown: bob.shown}}).Post("http://rtask/revoke", "", nil)
	if err != nil || reply.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", reply, err)
	}
	_ = reply.Body.Close()
	ended(1, connect.CodeUnauthenticated, "certificate")
	// So does the authority for all that its key has signed.
	ci := r.as(t, "ci")
	if started, err = ci.jobs().Start(t.Context(), &rtaskv1.StartRequest{Name: "sleeps"}); err != nil {
		t.Fatal(err)
	}
	begin(ci.jobs(), started.Job.Id)
	began.Wait()
	if key, err = authority.NewKey(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Authority.Rotate(t.Context(), &rtaskv1.RotateRequest{AuthorityKey: key, Distrust: true}); err != nil {
		t.Fatal(err)
	}
	ended(1, connect.CodeUnauthenticated, "certificate")
}

// A reload with authorities that cannot be used says once which, and the rest of it is in force: it ends what its roles do not allow any
// more.
func TestRemoteClientsWithBadAuthorities(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "rtask.hcl"), remoteRoot)
	write(t, filepath.Join(dir, "tasks.d", "a.hcl"), sleeps)
	r := run(t, dir)
	defer r.stopJobs(t)
	r.initialize(t)
	jobs := r.as(t, "alice").jobs()
	started, err := jobs.Start(t.Context(), &rtaskv1.StartRequest{Name: "sleeps"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // of a stream that nothing ends
	defer cancel()
	stream, err := jobs.StreamLogs(ctx, &rtaskv1.StreamLogsRequest{Job: started.Job.Id, Follow: true})
	if err == nil {
		_, err = stream.Receive()
	}
	if err != nil {
		t.Fatal(err)
	}
	exported, err := r.Authority.Export(t.Context(), &rtaskv1.ExportRequest{})
	if err != nil {
		t.Fatal(err)
	}
	// Each file is good for itself, and the two have too many.
	one, two := filepath.Join(dir, "one.pem"), filepath.Join(dir, "two.pem")
	for _, path := range []string{one, two} {
		write(t, path, strings.Repeat(string(exported.Certificates), 200))
	}
	none := filepath.Join(dir, "none.pem")
	write(t, none, "what?")
	root := strings.ReplaceAll(remoteRoot, "remote {", "remote {\nauthorities = [\"rtask\", \""+one+"\", \""+two+"\", \""+none+"\"]")
	write(t, filepath.Join(dir, "rtask.hcl"), strings.ReplaceAll(root, "user/*", "user/bob"))
	for range 2 {
		if reply, err := r.Jobs.Reload(t.Context(), &rtaskv1.ReloadRequest{}); err != nil {
			t.Fatalf("%v, %v", reply, err)
		}
	}
	said := two + ": the authorities have more than 256 certificates; " + none + ": an authority's file has no certificate in PEM"
	if n := strings.Count(r.logs.String(), said); n != 1 {
		t.Errorf("it says %d times that authorities are refused\n%s", n, r.logs)
	}
	if _, err = stream.Receive(); connect.CodeOf(err) != connect.CodePermissionDenied || codec.DetailOf(err).GetKind() != "role" {
		t.Error(err)
	}
}

// withGateway is an engine as it is once it has opened its authority, with a gateway that it is to start.
func withGateway(t *testing.T, dir string) (*engine, error) {
	t.Helper()
	e := &engine{Options: options(dir)}
	e.Gateway = &companion.Options{RemoteAddress: "127.0.0.1:0"}
	e.Logger = slog.New(slog.DiscardHandler)
	e.settings, e.metrics = newSettings(e.Options, e.apply), newMetrics("", nil)
	if err := os.MkdirAll(e.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	err := e.openAuthority()
	return e, err
}

// An engine that ended while it gave the gateway a key, or while the authority was made, leaves nothing that its next start does not put
// right: the authority has a certificate for the key that is kept.
func TestGatewayKey(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state", control.CredentialGateway)
	// next starts an engine, has it do something more, and ends it. It returns the certificate.
	next := func(more func(e *engine) error) (certificate []byte) {
		t.Helper()
		e, err := withGateway(t, dir)
		if err == nil && more != nil {
			err = more(e)
		}
		if err != nil {
			t.Fatal(err)
		}
		if chain := e.authority.Trust().Server; len(chain) > 0 {
			certificate = chain[0].Raw
		}
		if err := e.authority.Close(); err != nil {
			t.Fatal(err)
		}
		return certificate
	}
	certified := func(what string) []byte {
		t.Helper()
		certificate := next(nil)
		key, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tls.X509KeyPair(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), key); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return certificate
	}
	next(func(e *engine) error {
		key, err := authority.NewKey()
		if err == nil {
			err = e.secrets().Keep(control.CredentialAuthority, key)
		}
		if err == nil {
			err = e.authority.Init("example.org", key)
		}
		return err
	})
	first := certified("the authority was made and not told of the key")
	if !bytes.Equal(first, certified("nothing has happened")) {
		t.Error("each start makes a certificate")
	}
	key, err := authority.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(key))
	if bytes.Equal(first, certified("the key was kept and the authority not told of it")) {
		t.Error("the certificate is that of the key before")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	e, err := withGateway(t, dir)
	if !errors.Is(err, syscall.EISDIR) {
		t.Errorf("the key cannot be kept: %v", err)
	}
	if err := errors.Join(e.authority.Close(), os.Remove(path+".new")); err != nil {
		t.Fatal(err)
	}
	certified("the authority was told of a key that was not kept")
	// What no engine makes is left to the gateway.
	write(t, path, "another's")
	next(nil)
}

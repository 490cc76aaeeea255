package control

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/rtask/rtask/daemon/api/codec"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/auth/token"
)

// remoteTasks and remoteRoles are what the tests of remote clients are about.
const remoteTasks = `
task "build" {
  command = ["/bin/sh", "-c", "echo on; exec sleep 1000"]
  timeout = 0
}
task "deploy-a" {
  command    = ["/bin/sh", "-c", "exit 3"]
  on_failure = ["hidden"]
}
task "hidden" {
  command = ["/bin/sh", "-c", "echo on; exec sleep 1000"]
  timeout = 0
}
`

const remoteRoles = `
role "viewer" {
  subjects = ["spiffe://example.org/user/viewer"]
  tasks    = ["build"]
  methods  = ["read"]
  jobs     = "all"
}
role "operator" {
  subjects = ["spiffe://example.org/user/op", "spiffe://example.org/user/op-*"]
  tasks    = ["build", "deploy-*"]
  methods  = ["run"]
}
role "starter" {
  subjects = ["spiffe://example.org/user/starter"]
  tasks    = ["build"]
  methods  = ["Start"]
}
role "names" {
  subjects = ["spiffe://example.org/user/names"]
  tasks    = ["build"]
  methods  = ["Tasks"]
  jobs     = "all"
}
role "admin" {
  subjects = ["spiffe://example.org/user/admin"]
  tasks    = ["build"]
  methods  = ["SwitchTask", "Drain", "Reload", "ListKeys", "RevokeKey"]
}
role "shell" {
  subjects = ["spiffe://example.org/user/shell", "spiffe://example.org/user/shell-*"]
  methods  = ["run"]
  commands = true
  run_as   = "daemon"
}
`

const remoteURL = "https://build.example.org:8843"

// remote is a fixture for clients on other machines, with an authority and an issuer of its own.
type remote struct {
	*fixture
	authority *authority.Authority
	issuer    *token.Issuer
	refusals  map[string]int // by kind; guarded by fixture.mu
}

func newRemote(t testing.TB) *remote {
	t.Helper()
	f := newFixture(t, "")
	f.root = remoteRoles
	f.configure(remoteTasks)
	r := &remote{fixture: f, issuer: token.New(f.dir + "/tokens"), refusals: map[string]int{}}
	var err error
	if r.authority, err = authority.Open(f.dir, f.Logger); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.authority.Close() })
	key, err := authority.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.authority.Init("example.org", key); err != nil {
		t.Fatal(err)
	}
	r.issuer.Configure(remoteURL, time.Hour)
	if err := r.issuer.Unlock(make([]byte, token.SecretLen)); err != nil {
		t.Fatal(err)
	}
	f.Certificates, f.Tokens, f.RemoteURL = r.authority, r.issuer, func() string { return remoteURL }
	f.RefusedRemote = func(kind string, n uint64) {
		f.mu.Lock()
		defer f.mu.Unlock()
		r.refusals[kind] += int(n)
	}
	f.serve("remote", f.remote(f.asPeer(f.Identify.Gateway)))
	return r
}

// remoteClient is a client on another machine, and what it shows.
type remoteClient struct {
	leaf  *x509.Certificate
	chain []*x509.Certificate
	token string
	peer  auth.Peer
}

// enrol makes a client with a certificate and a token that has all its roles.
func (r *remote) enrol(name string) *remoteClient {
	r.t.Helper()
	return r.granted(authority.Grant{Kind: authority.User, Name: name})
}

func (r *remote) granted(g authority.Grant) *remoteClient {
	r.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		r.t.Fatal(err)
	}
	issued, err := r.authority.Issue(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), g)
	if err != nil {
		r.t.Fatal(err)
	}
	block, _ := pem.Decode(issued.Certificate)
	c := &remoteClient{peer: peers()[auth.Gateway]}
	if c.leaf, err = x509.ParseCertificate(block.Bytes); err != nil {
		r.t.Fatal(err)
	}
	c.token = r.tokenFor(c.leaf, nil)
	return c
}

// tokenFor makes a token for a certificate, as the issuer does; change, if set, changes what it says.
func (r *remote) tokenFor(leaf *x509.Certificate, change func(*token.Claims)) string {
	r.t.Helper()
	id, err := r.authority.Verify(leaf, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	c := token.Claims{Subject: id.Name(), ClientID: id.Name(), Thumbprint: sha256.Sum256(leaf.Raw)}
	for _, one := range rolesOf(r.Snapshot().Config, auth.Client{URI: id.URI, DN: id.Subject, Given: id.Roles}) {
		c.Roles = append(c.Roles, one.Name)
	}
	if change != nil {
		change(&c)
	}
	text, err := r.issuer.Make(c)
	if err != nil {
		r.t.Fatal(err)
	}
	return text
}

// head is what the gateway adds to a call of the client.
func (c *remoteClient) head(h http.Header) {
	codec.Presented{RemoteAddr: "192.0.2.7"}.Put(h)
	shown := codec.Certificates{Leaf: c.leaf.Raw}
	for _, one := range c.chain {
		shown.Chain = append(shown.Chain, one.Raw)
	}
	shown.Put(h)
	if c.token != "" {
		h.Set("Authorization", "Bearer "+c.token)
	}
}

// transport speaks HTTP/2 over the remote socket as the gateway does.
type transport struct {
	*http.Transport
	add func(http.Header)
}

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	t.add(r.Header)
	return t.Transport.RoundTrip(r)
}

// over returns a client of HTTP on one connection to the remote socket, which adds to the heads of its calls.
func (r *remote) over(p auth.Peer, add func(http.Header)) *http.Client {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	t := &http.Transport{Protocols: &protocols, DialContext: func(context.Context, string, string) (net.Conn, error) { return r.dial("remote", p) }}
	r.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: transport{t, add}}
}

func (r *remote) connection(c *remoteClient, options ...connecthttp.Option) *connect.Client {
	return connect.NewClient(connecthttp.NewTransport(r.over(c.peer, c.head), "http://rtask", append(codec.Options(), options...)...))
}

func (r *remote) jobs(c *remoteClient) rtaskv1connect.JobServiceClient {
	return rtaskv1connect.NewJobServiceClient(r.connection(c))
}

// refused is how often calls were refused with a kind.
func (r *remote) refused(kind string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refusals[kind]
}

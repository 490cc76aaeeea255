package client_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	jose "github.com/go-jose/go-jose/v4"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

// ca is an authority of a test.
type ca struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newCA(t *testing.T, name string) *ca {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &ca{key, c}
}

func (a *ca) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

// issue makes a certificate for a fresh Ed25519 key; for a host, one of a server.
func (a *ca) issue(t *testing.T, name, host string, until time.Duration) *tls.Certificate {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(until),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if host != "" {
		template.DNSNames, template.ExtKeyUsage = []string{host}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// far is the other end of connections over mutual TLS: it takes tokens that it made for the certificate of the connection, and answers
// as the name of a job asks for. What engines answer is tested with engines.
type far struct {
	rtaskv1connect.UnimplementedJobServiceHandler
	authority *ca
	url       string
	// ahead moves its clock.
	ahead atomic.Int64
	// revoked is the serial of a certificate that it refuses.
	revoked atomic.Pointer[big.Int]
	// tokens counts those that were made, connections those that were accepted with a certificate.
	tokens, connections atomic.Int32
	// stale makes it refuse that many tokens as expired.
	stale atomic.Int32
	// asked has the enrolment requests, by path.
	asked sync.Map
}

func newFar(t *testing.T, authority *ca) *far {
	t.Helper()
	f := &far{authority: authority}
	pool := x509.NewCertPool()
	pool.AddCert(authority.cert)
	server := authority.issue(t, "server", "localhost", time.Hour)
	server.Certificate = append(server.Certificate, authority.cert.Raw)
	conf := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		NextProtos: []string{"h2"}, Time: func() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) },
		VerifyConnection: func(s tls.ConnectionState) error {
			f.connections.Add(1)
			if n := f.revoked.Load(); n != nil && s.PeerCertificates[0].SerialNumber.Cmp(n) == 0 {
				return errors.New("revoked")
			}
			return nil
		},
	}
	enrol := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: conf.Certificates, NextProtos: []string{"rtask-enroll/1"}}
	conf.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if len(h.SupportedProtos) == 1 && h.SupportedProtos[0] == "rtask-enroll/1" {
			return enrol, nil
		}
		return nil, nil
	}
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	f.url = "https://localhost:" + port
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	quiet := log.New(io.Discard, "", 0)
	enrolment := &http.Server{Handler: http.HandlerFunc(f.enrol), ErrorLog: quiet}
	s := &http.Server{
		Handler: f.handler(), TLSConfig: conf, ErrorLog: quiet, Protocols: both,
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){
			"rtask-enroll/1": func(_ *http.Server, c *tls.Conn, _ http.Handler) { _ = enrolment.Serve(newOne(c)) },
		},
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = s.Close(); _ = enrolment.Close(); <-done })
	return f
}

// one is a listener of one connection, until that is closed.
type one struct {
	conns  chan net.Conn
	closed chan struct{}
	net.Conn
	once sync.Once
}

func newOne(c net.Conn) *one {
	o := &one{conns: make(chan net.Conn, 1), closed: make(chan struct{}), Conn: c}
	o.conns <- o
	return o
}

func (o *one) Accept() (net.Conn, error) {
	select {
	case c := <-o.conns:
		return c, nil
	case <-o.closed:
		return nil, io.EOF
	}
}

func (o *one) Close() error {
	o.once.Do(func() { close(o.closed) })
	return o.Conn.Close()
}

func (o *one) Addr() net.Addr { return o.LocalAddr() }

func (f *far) date(w http.ResponseWriter) {
	w.Header().Set("Date", time.Now().Add(time.Duration(f.ahead.Load())).UTC().Format(http.TimeFormat))
}

func (f *far) enrol(w http.ResponseWriter, r *http.Request) {
	f.date(w)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f.asked.Store(r.URL.Path, string(body))
	switch r.URL.Path {
	case "/ca":
		_ = json.NewEncoder(w).Encode(client.Authority{Name: f.authority.cert.Subject.CommonName, URL: f.url, Certificates: []string{f.authority.pem()}})
	case "/enroll":
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"error":"join-used","error_description":"this join token was used"}`)
	case "/renew":
		_ = json.NewEncoder(w).Encode(client.Enrolled{Identity: "spiffe://example.org/machine/ci-1"})
	case "/device_token":
		if strings.Contains(string(body), "huge") {
			_, _ = w.Write(make([]byte, 1<<20))
			return
		}
		w.WriteHeader(http.StatusTeapot)
	}
}

func thumbprint(r *http.Request) string {
	sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (f *far) handler() http.Handler {
	server := connect.NewServer()
	rtaskv1connect.RegisterJobServiceHandler(server, f)
	api := http.NewServeMux()
	connecthttp.Mount(api, server)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		f.date(w)
		if r.PostFormValue("grant_type") != "client_credentials" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		n := f.tokens.Add(1)
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": thumbprint(r) + "." + string('a'+rune(n)), "token_type": "Bearer", "expires_in": 3600})
	})
	mux.HandleFunc("POST /revoke", func(w http.ResponseWriter, r *http.Request) { f.revoked.Store(r.TLS.PeerCertificates[0].SerialNumber) })
	mux.HandleFunc("POST /renew", f.enrol)
	mux.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.date(w)
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer "+thumbprint(r)+".") || len(r.Header.Values("Authorization")) != 1 {
			panic(http.ErrAbortHandler) // the client shows something else than it should
		}
		api.ServeHTTP(w, r)
	}))
	return mux
}

func refusal(code connect.Code, kind, text string) error {
	d, err := connectproto.NewErrorDetail(&rtaskv1.Error{Kind: kind})
	if err != nil {
		return err
	}
	return connect.NewError(code, text).WithDetail(d)
}

func (f *far) Status(_ context.Context, r *rtaskv1.StatusRequest) (*rtaskv1.StatusResponse, error) {
	if f.stale.Add(-1) >= 0 {
		return nil, refusal(connect.CodeUnauthenticated, "token-expired", "the token has expired")
	}
	switch r.GetJob() {
	case "keys":
		return nil, refusal(connect.CodeUnavailable, "provider-keys", "cannot check logins of corp at the moment (its keys are 26 h old)")
	case "role":
		return nil, refusal(connect.CodePermissionDenied, "role", "your roles (viewer) do not allow Status")
	case "forgotten":
		if f.tokens.Load() == 1 {
			return nil, refusal(connect.CodeUnauthenticated, "token-invalid", "the token was signed with an unknown key (kid)")
		}
	case "invalid":
		return nil, refusal(connect.CodeUnauthenticated, "token-invalid", "audience is https://other:8843")
	}
	return &rtaskv1.StatusResponse{Job: &rtaskv1.Job{Id: r.GetJob()}}, nil
}

// StreamLogs sends a message, and then says that the token has expired.
func (f *far) StreamLogs(_ context.Context, r *rtaskv1.StreamLogsRequest, s rtaskv1connect.JobServiceStreamLogsServerStream) error {
	if f.stale.Add(-1) >= 0 {
		return refusal(connect.CodeUnauthenticated, "token-expired", "the token has expired")
	}
	if err := s.Send(&rtaskv1.StreamLogsResponse{Data: []byte("x"), Offset: r.GetOffset() + 1}); err != nil {
		return err
	}
	return refusal(connect.CodeUnauthenticated, "token-expired", "the token has expired")
}

// shown are the credentials of a test.
type shown struct {
	client.Tokens
	cert atomic.Pointer[tls.Certificate]
}

func (s *shown) Certificate(context.Context, *client.Endpoint) (*tls.Certificate, error) {
	if c := s.cert.Load(); c != nil {
		return c, nil
	}
	return nil, errors.New("the key is gone")
}

func reach(t *testing.T, f *far, roots *ca, cert *tls.Certificate) (*client.Client, *shown) {
	t.Helper()
	s := &shown{}
	s.cert.Store(cert)
	c, err := client.DialTLS(client.Server{URL: f.url, Name: "build", Roots: []*x509.Certificate{roots.cert}}, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, s
}

// TestForgottenKeys has a token that was signed with keys which the engine has lost since: another one helps, and the user hears nothing.
func TestForgottenKeys(t *testing.T) {
	authority := newCA(t, "Test CA")
	f := newFar(t, authority)
	c, _ := reach(t, f, authority, authority.issue(t, "admin1", "", time.Hour))
	if err := status(t, c, "forgotten"); err != nil || f.tokens.Load() != 2 {
		t.Errorf("%d tokens: %v", f.tokens.Load(), err)
	}
	if err := status(t, c, "invalid"); err == nil || f.tokens.Load() != 3 {
		t.Errorf("%d tokens for one that is never taken: %v", f.tokens.Load(), err)
	}
}

// TestRemoteTokens checks that one token serves many calls, that a refused one is replaced once and unseen, and that another
// certificate has a connection and a token of its own.
func TestRemoteTokens(t *testing.T) {
	authority := newCA(t, "Test CA")
	f := newFar(t, authority)
	c, s := reach(t, f, authority, authority.issue(t, "admin1", "", time.Hour))
	for range 3 {
		if err := status(t, c, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.tokens.Load(); n != 1 {
		t.Errorf("%d tokens for three calls", n)
	}
	f.stale.Store(1)
	if err := status(t, c, "x"); err != nil || f.tokens.Load() != 2 {
		t.Errorf("after one refused token: %v, %d tokens", err, f.tokens.Load())
	}
	f.stale.Store(2)
	err := status(t, c, "x")
	if err == nil || client.Message(err) != "the token has expired" || client.Broken(err) {
		t.Errorf("after two refused tokens: %v, broken %v", err, client.Broken(err))
	}
	before := f.connections.Load()
	s.cert.Store(authority.issue(t, "admin1", "", time.Hour))
	if err := status(t, c, "x"); err != nil || f.connections.Load() != before+1 {
		t.Errorf("with another certificate: %v, %d connections more", err, f.connections.Load()-before)
	}
	s.cert.Store(nil)
	if err := status(t, c, "x"); err == nil || client.Message(err) != "the key is gone" || client.Broken(err) {
		t.Errorf("without a key: %v", err)
	}
}

// TestRemoteStream checks that a stream whose token ends is to be called again, and gets another one.
func TestRemoteStream(t *testing.T) {
	authority := newCA(t, "Test CA")
	f := newFar(t, authority)
	c, _ := reach(t, f, authority, authority.issue(t, "admin1", "", time.Hour))
	f.stale.Store(1)
	for want := int32(2); want < 4; want++ {
		s, err := c.Jobs.StreamLogs(t.Context(), &rtaskv1.StreamLogsRequest{Job: "x"})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for m, err := range client.Messages(s) {
			if err != nil {
				if !client.Broken(err) {
					t.Errorf("the end of the token: %v", err)
				}
				break
			}
			n += len(m.GetData())
		}
		if n != 1 || f.tokens.Load() != want {
			t.Errorf("%d bytes, %d tokens; want 1, %d", n, f.tokens.Load(), want)
		}
	}
}

// TestRemoteRefusals checks what each alert means, and what is found before a certificate is shown.
func TestRemoteRefusals(t *testing.T) {
	authority, other := newCA(t, "Test CA"), newCA(t, "Old CA")
	f := newFar(t, authority)
	good := authority.issue(t, "admin1", "", time.Hour)
	check := func(what string, c *client.Client, cause client.Cause, want string) {
		t.Helper()
		before := f.connections.Load()
		err := status(t, c, "x")
		r, ok := errors.AsType[*client.Refused](err)
		if !ok || r.Cause != cause || client.Message(err) != want || client.Broken(err) {
			t.Errorf("%s: %q (%v, broken %v), want %q", what, client.Message(err), err, client.Broken(err), want)
		}
		if cause == client.CertificateExpired && f.connections.Load() != before {
			t.Errorf("%s: it was shown", what)
		}
	}
	c, _ := reach(t, f, authority, other.issue(t, "admin1", "", time.Hour))
	check("a foreign authority", c, client.CertificateUnknown, `localhost does not know the authority "Old CA" of your certificate`)
	c, _ = reach(t, f, authority, authority.issue(t, "admin1", "", -3*time.Hour-time.Minute))
	check("an expired certificate", c, client.CertificateExpired, "your certificate for build expired 3 h ago")
	c, _ = reach(t, f, other, good)
	check("another authority of the server", c, client.AuthorityChanged,
		"the authority of localhost has changed: "+client.Fingerprint(other.cert)+" was expected, "+client.Fingerprint(authority.cert)+" came")
	f.revoked.Store(good.Leaf.SerialNumber)
	c, _ = reach(t, f, authority, good)
	check("a revoked certificate", c, client.CertificateRefused, "localhost refused your certificate; it may have been revoked")
	f.revoked.Store(nil)
	f.ahead.Store(int64(2 * time.Hour))
	c, _ = reach(t, f, authority, good)
	check("a clock ahead", c, client.CertificateExpiredThere, "localhost takes your certificate for expired: its clock and yours differ by 2 h")
	var skewed *client.Skewed
	if err := status(t, c, "x"); !errors.As(err, &skewed) || skewed.Clock() != "your clock is 2 h behind localhost's" {
		t.Errorf("the clock: %v", err)
	}
}

// TestStrangeServer checks that a server which wants a client certificate at once, and so is not rtask, is asked once, and not again for
// its clock.
func TestStrangeServer(t *testing.T) {
	authority := newCA(t, "Test CA")
	l, err := tls.Listen("tcp", "localhost:0", &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*authority.issue(t, "server", "localhost", time.Hour)}, ClientAuth: tls.RequireAnyClientCert,
	})
	if err != nil {
		t.Fatal(err)
	}
	var connections atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			_ = c.(*tls.Conn).Handshake() // it fails
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	e, err := client.NewEndpoint(client.Server{URL: "https://localhost:" + port, Roots: []*x509.Certificate{authority.cert}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Authority(t.Context())
	if r, ok := errors.AsType[*client.Refused](err); !ok || r.Cause != client.CertificateRequired || err.Error() != "localhost wants a client certificate" {
		t.Errorf("%v", err)
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections for one question", n)
	}
}

// TestRemoteWords checks the sentences for refusals of the engine, and that of the clocks.
func TestRemoteWords(t *testing.T) {
	authority := newCA(t, "Test CA")
	f := newFar(t, authority)
	c, _ := reach(t, f, authority, authority.issue(t, "admin1", "", time.Hour))
	for job, want := range map[string]string{
		"role": "your roles (viewer) do not allow Status on localhost", "invalid": "localhost does not take this token: audience is https://other:8843",
		"keys": "localhost cannot check logins of corp at the moment (its keys are 26 h old)",
	} {
		err := status(t, c, job)
		if client.Message(err) != want || client.Broken(err) != (job == "keys") || errors.As(err, new(*client.Skewed)) {
			t.Errorf("%s: %q, want %q", job, client.Message(err), want)
		}
	}
	f.ahead.Store(int64(-7 * time.Minute))
	var skewed *client.Skewed
	if err := status(t, c, "role"); !errors.As(err, &skewed) || skewed.Clock() != "your clock is 7 min ahead of localhost's" || !errors.Is(err, client.ErrPermission) {
		t.Errorf("the clock: %v", err)
	}
}

func TestRemoteUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "localhost:" + l.Addr().String()[strings.LastIndex(l.Addr().String(), ":")+1:]
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	authority := newCA(t, "Test CA")
	c, _ := reach(t, &far{url: "https://" + address}, authority, authority.issue(t, "admin1", "", time.Hour))
	err = status(t, c, "x")
	if !errors.Is(err, client.ErrUnreachable) || !client.Broken(err) || client.Message(err) != "cannot reach "+address+": connection refused" {
		t.Errorf("%v", err)
	}
}

// TestEnrolment checks what is sent on the paths for those without a certificate, and what comes back.
func TestEnrolment(t *testing.T) {
	authority := newCA(t, "Test CA")
	f := newFar(t, authority)
	stranger, err := client.NewEndpoint(client.Server{URL: f.url})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Authority(t.Context()); !errors.As(err, new(*client.Refused)) {
		t.Errorf("the server was believed without a reason: %v", err)
	}
	met, err := stranger.Meet(t.Context())
	if err != nil || client.Fingerprint(met) != client.Fingerprint(authority.cert) {
		t.Fatalf("Meet: %v", err)
	}
	e, err := client.NewEndpoint(client.Server{URL: f.url, Roots: []*x509.Certificate{met}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Enroll(t.Context(), "CSR", client.Proof{JoinToken: "rtj1_x"})
	if !client.IsProblem(err, "join-used") || err.Error() != "this join token was used" {
		t.Errorf("Enroll: %v", err)
	}
	if sent, _ := f.asked.Load("/enroll"); sent != `{"csr":"CSR","join_token":"rtj1_x"}` {
		t.Errorf("sent %q", sent)
	}
	if _, err := e.PollDevice(t.Context(), "code"); err == nil || err.Error() != "localhost answers /device_token with HTTP status 418" {
		t.Errorf("PollDevice: %v", err)
	}
	if _, err := e.PollDevice(t.Context(), "huge"); err == nil || err.Error() != "the reply of localhost to /device_token has more than 262144 bytes" {
		t.Errorf("a huge reply: %v", err)
	}
}

// TestRenewExpired checks that a certificate which has ended renews with a signature of its key.
func TestRenewExpired(t *testing.T) {
	authority := newCA(t, "Test CA")
	f := newFar(t, authority)
	e, err := client.NewEndpoint(client.Server{URL: f.url, Roots: []*x509.Certificate{authority.cert}})
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	old := authority.issue(t, "ci-1", "", -time.Hour)
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("the request")})
	for _, key := range []any{old.PrivateKey, p256} {
		cert := *old
		cert.PrivateKey = key
		got, err := e.Renew(t.Context(), &cert, string(csr))
		if err != nil || got.Identity != "spiffe://example.org/machine/ci-1" {
			t.Fatalf("%+v, %v", got, err)
		}
		sent, _ := f.asked.Load("/renew")
		var request struct{ JWS string }
		if err := json.Unmarshal([]byte(sent.(string)), &request); err != nil {
			t.Fatal(err)
		}
		jws, err := jose.ParseSignedCompact(request.JWS, []jose.SignatureAlgorithm{jose.EdDSA, jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		payload, err := jws.Verify(publicOf(key))
		if err != nil || string(payload) != "the request" {
			t.Errorf("%T: %q, %v", key, payload, err)
		}
		if !strings.Contains(sent.(string), strings.Split(request.JWS, ".")[0]) || !bytes.Contains(mustDecode(t, request.JWS), []byte(base64.StdEncoding.EncodeToString(old.Certificate[0]))) {
			t.Errorf("%T: the certificate is not in the header", key)
		}
	}
	cert := authority.issue(t, "ci-1", "", time.Hour)
	if _, err := e.Renew(t.Context(), cert, string(csr)); err != nil {
		t.Fatal(err)
	}
	if sent, _ := f.asked.Load("/renew"); !strings.HasPrefix(sent.(string), `{"csr":"-----BEGIN`) {
		t.Errorf("a good certificate sent %q", sent)
	}
}

func publicOf(key any) any {
	switch k := key.(type) {
	case ed25519.PrivateKey:
		return k.Public()
	case *ecdsa.PrivateKey:
		return k.Public()
	}
	return nil
}

func mustDecode(t *testing.T, jws string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(jws, ".")[0])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseURL(t *testing.T) {
	for text, want := range map[string]string{
		"build.example.org": "https://build.example.org:8843", "Build.Example.org:443": "https://build.example.org:443", "https://b": "https://b:8843",
		"https://b:1/": "https://b:1", "::1": "https://[::1]:8843", "[::1]:5": "https://[::1]:5", "192.0.2.1:9": "https://192.0.2.1:9",
		"": "", "http://b": "", "https://b/x": "", "b:": "", "a@b": "", "b?x": "", "https://": "", "b:99x": "", "a b": "",
	} {
		got, err := client.ParseURL(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParseURL(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
}

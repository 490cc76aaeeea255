package gateway

import (
	"context"
	"crypto"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"

	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/packaging/testkit"
)

// enginePeer is the other end of the gateway's two sockets: servers of connect that say what a test wants.
type enginePeer struct {
	rtaskv1connect.UnimplementedJobServiceHandler
	rtaskv1connect.UnimplementedGatewayServiceHandler
	t   testing.TB
	dir string

	mu      sync.Mutex // guards what follows
	trust   *rtaskv1.Trust
	news    chan struct{}
	heads   []http.Header // of what came to remote.sock, with the path as ":path"
	refused []*rtaskv1.RefusedRequest
	from    []string // the addresses of refused
	enrol   func(context.Context, *rtaskv1.EnrollRequest) (*rtaskv1.EnrollResponse, error)
	ended   chan error // of calls that wait for their end
	server  *http.Server
	watches int
}

func newEnginePeer(t testing.TB) *enginePeer {
	t.Helper()
	e := &enginePeer{t: t, dir: t.TempDir(), news: make(chan struct{}), ended: make(chan error, 1000)}
	e.listen("gateway.sock", e.gateway())
	e.start()
	return e
}

// listen serves a handler on a socket until the test ends.
func (e *enginePeer) listen(name string, h http.Handler) *http.Server {
	e.t.Helper()
	l, err := net.Listen("unix", filepath.Join(e.dir, name))
	if err != nil {
		e.t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 256}, MaxHeaderBytes: 64 << 10}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	e.t.Cleanup(func() { _ = s.Close(); <-done })
	return s
}

// start serves remote.sock.
func (e *enginePeer) start() { e.server = e.listen("remote.sock", e.remote()) }

// kill breaks off all that is under way on remote.sock, and nobody listens there any more.
func (e *enginePeer) kill() { _ = e.server.Close() }

func (e *enginePeer) gateway() http.Handler {
	server := connect.NewServer()
	rtaskv1connect.RegisterGatewayServiceHandler(server, e)
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server, codec.Options()...)
	return mux
}

func (e *enginePeer) remote() http.Handler {
	server := connect.NewServer()
	rtaskv1connect.RegisterJobServiceHandler(server, e)
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server, codec.Options()...)
	mux.HandleFunc("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", echo)
	mux.HandleFunc("/grpc.health.v1.Health/Check", half)
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = r.ParseForm()
		_, _ = io.WriteString(w, `{"grant":"`+r.PostForm.Get("grant_type")+`"}`)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header.Clone()
		h.Set(":path", r.URL.Path)
		h.Set(":host", r.Host)
		e.mu.Lock()
		e.heads = append(e.heads, h)
		e.mu.Unlock()
		mux.ServeHTTP(w, r)
	})
}

// echo sends back what comes, as it comes: a stream in both directions.
func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	w.Header().Set("Trailer", "Grpc-Status")
	c := http.NewResponseController(w)
	_ = c.EnableFullDuplex()
	_ = c.Flush()
	b := make([]byte, 4096)
	for {
		n, err := r.Body.Read(b)
		_, _ = w.Write(b[:n])
		_ = c.Flush()
		if err != nil {
			break
		}
	}
	w.Header().Set("Grpc-Status", "0")
}

// half is the first bytes of a message that is too long to be held, and no more. The reply breaks off once the request's body has ended.
func half(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	_, _ = w.Write(framed(2 * maxHeld)[:maxHeld])
	_ = http.NewResponseController(w).Flush()
	_, _ = io.Copy(io.Discard, r.Body)
	panic(http.ErrAbortHandler)
}

// head returns the head of what came last.
func (e *enginePeer) head() http.Header {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.heads) == 0 {
		return nil
	}
	return e.heads[len(e.heads)-1]
}

func (e *enginePeer) calls() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.heads)
}

// tell changes what the gateway is told of certificates.
func (e *enginePeer) tell(trust *rtaskv1.Trust) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.trust = trust
	close(e.news)
	e.news = make(chan struct{})
}

// Watch implements GatewayService.
func (e *enginePeer) Watch(ctx context.Context, _ *rtaskv1.WatchRequest, stream rtaskv1connect.GatewayServiceWatchServerStream) error {
	alive := time.NewTicker(2 * time.Second)
	defer alive.Stop()
	e.mu.Lock()
	e.watches++
	e.mu.Unlock()
	var told *rtaskv1.Trust
	for {
		e.mu.Lock()
		trust, news := e.trust, e.news
		e.mu.Unlock()
		m := &rtaskv1.WatchResponse{}
		if trust != told {
			m.Remote, told = trust, trust
		}
		if err := stream.Send(m); err != nil {
			return err
		}
		select {
		case <-news:
		case <-alive.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Refused implements GatewayService.
func (e *enginePeer) Refused(ctx context.Context, r *rtaskv1.RefusedRequest) (*rtaskv1.RefusedResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refused, e.from = append(e.refused, r), append(e.from, codec.PresentedIn(ctx).RemoteAddr)
	return &rtaskv1.RefusedResponse{}, nil
}

// refusals returns how many handshakes the engine was told of, by kind.
func (e *enginePeer) refusals() map[string]uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := map[string]uint64{}
	for _, r := range e.refused {
		all[r.Kind] += r.Count
	}
	return all
}

// Enroll implements GatewayService.
func (e *enginePeer) Enroll(ctx context.Context, r *rtaskv1.EnrollRequest) (*rtaskv1.EnrollResponse, error) {
	e.mu.Lock()
	f := e.enrol
	e.mu.Unlock()
	return f(ctx, r)
}

// Status implements JobService: it fails, waits for its end, or returns a job of the name that is asked for.
func (e *enginePeer) Status(ctx context.Context, r *rtaskv1.StatusRequest) (*rtaskv1.StatusResponse, error) {
	switch r.Job {
	case "fail":
		return nil, detailed()
	case "wait":
		<-ctx.Done()
		e.ended <- ctx.Err()
		return nil, ctx.Err()
	default:
		return &rtaskv1.StatusResponse{Job: &rtaskv1.Job{Id: r.Job}}, nil
	}
}

func detailed() error {
	d, err := connectproto.NewErrorDetail(&rtaskv1.Error{Kind: "not-found", JobId: "aaaaaaaaaaaaaaaa"})
	if err != nil {
		return err
	}
	return connect.NewError(connect.CodeNotFound, "there is no such job").WithDetail(d)
}

// logPieces is how many messages StreamLogs sends.
const logPieces = 20

// StreamLogs implements JobService: it sends pieces of 20,000 bytes, and fails, waits for its end, or ends.
func (e *enginePeer) StreamLogs(ctx context.Context, r *rtaskv1.StreamLogsRequest, stream rtaskv1connect.JobServiceStreamLogsServerStream) error {
	for i := range logPieces {
		if err := stream.Send(&rtaskv1.StreamLogsResponse{Offset: int64(i), Data: make([]byte, 20_000)}); err != nil {
			if r.Job == "wait" {
				e.ended <- ctx.Err()
			}
			return err
		}
	}
	switch r.Job {
	case "fail":
		return detailed()
	case "wait":
		<-ctx.Done()
		e.ended <- ctx.Err()
		return ctx.Err()
	default:
		return nil
	}
}

// remoteFixture is a gateway that serves remote clients.
type remoteFixture struct {
	*enginePeer
	authority *pki
	server    tls.Certificate
	address   string
	inner     *remote
	log       *testkit.Logs
}

func newRemoteFixture(t testing.TB) *remoteFixture {
	t.Helper()
	f := &remoteFixture{enginePeer: newEnginePeer(t), authority: newPKI(t, "example.org"), log: &testkit.Logs{}}
	f.server = f.authority.server()
	f.tell(f.trusting())
	at, _, r := serveGateway(t, Options{
		Engine: filepath.Join(f.dir, "gateway.sock"), RemoteAddress: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(f.log, nil)), Version: "1.2.3",
		CredentialsDir: remoteCredentials(t, pemOf(t, f.server.PrivateKey.(crypto.Signer)), nil),
	}, nil)
	f.address, f.inner = at["remote"], r
	r.refusals.mu.Lock()
	r.refusals.every = 10 * time.Millisecond
	r.refusals.mu.Unlock()
	return f
}

// trusting are terms on which the clients of authorities are let in, but for certificates of the first that are revoked.
func (f *remoteFixture) trusting(revoked ...tls.Certificate) *rtaskv1.Trust {
	trust := &rtaskv1.Trust{On: true, Authorities: [][]byte{f.authority.cert.Raw}, ServerChain: f.server.Certificate}
	if len(revoked) > 0 {
		r := &rtaskv1.RevokedCertificates{Issuer: f.authority.keyHash()}
		for _, c := range revoked {
			r.Serials = append(r.Serials, c.Leaf.SerialNumber.Bytes())
		}
		trust.Revoked = append(trust.Revoked, r)
	}
	return trust
}

// tls is how a client with certificates speaks.
func (f *remoteFixture) tls(certificates ...tls.Certificate) *tls.Config {
	c := &tls.Config{RootCAs: f.authority.pool(), MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
	if len(certificates) > 0 { // it is sent whatever authorities the server names
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificates[0], nil }
	}
	return c
}

// transport is an HTTP client with certificates.
func (f *remoteFixture) transport(certificates ...tls.Certificate) *http.Client {
	t := &http.Transport{TLSClientConfig: f.tls(certificates...), Protocols: new(http.Protocols)}
	t.Protocols.SetHTTP2(true)
	f.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}

// protocols are those of the API.
func protocols() map[string][]connecthttp.Option {
	return map[string][]connecthttp.Option{"connect": nil, "grpc": {connecthttp.WithGRPC()}, "grpc-web": {connecthttp.WithGRPCWeb()}}
}

func (f *remoteFixture) jobs(h *http.Client, protocol string) rtaskv1connect.JobServiceClient {
	return rtaskv1connect.NewJobServiceClient(f.connect(h, protocol))
}

func (f *remoteFixture) connect(h *http.Client, protocol string) *connect.Client {
	return connect.NewClient(connecthttp.NewTransport(h, "https://"+f.address, append(codec.Options(), protocols()[protocol]...)...))
}

// handshake connects, and returns why that is refused: a client of TLS 1.3 hears it when it reads.
func (f *remoteFixture) handshake(c *tls.Config) error {
	conn, err := tls.Dial("tcp", f.address, c)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = conn.Read(make([]byte, 1)) // of the settings of HTTP/2
	return err
}

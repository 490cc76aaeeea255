package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/logging"
)

const (
	// remoteSocket is the engine's socket for what remote clients ask, beside that for gateways.
	remoteSocket = "remote.sock"
	// remoteStreams is how many requests a connection of HTTP/2 has at a time. Go's clients send 100 before they have read how many
	// are allowed, and cannot repeat one with a body that was refused.
	remoteStreams = 128
	// remoteHeaderBytes is the longest head of a request: tokens are up to 8 KiB long.
	remoteHeaderBytes = 32 << 10
	// remoteUnread is how many bytes of bodies may come on a connection, and on a stream, before they are asked for.
	remoteUnread = 256 << 10
	// A client that has sent nothing for pingAfter is asked whether it is still there, and must answer within pingTime.
	pingAfter, pingTime = 30 * time.Second, 15 * time.Second
	// replyUnread is how many bytes of a reply the gateway holds for a client that does not read them, and repliesUnread those of all
	// replies on one connection of the engine's: so many that no client that does not read holds up another one.
	replyUnread, repliesUnread = 64 << 10, 32 << 20
	// formTime is how long the body of a request to the issuer may take to come: a form, or a request for a certificate.
	formTime = 30 * time.Second
	// enginePing is after which silence the engine is asked whether it is still there.
	enginePing = 15 * time.Second
)

// proxy hands on what clients with certificates ask to the engine, over HTTP/2 without TLS on a Unix socket (RFC 9113, section 3.3),
// and its replies back: gRPC, gRPC-Web, Connect, and the paths of OAuth. It reads nothing of what it hands on but the head.
type proxy struct {
	mutual    *mutual
	reverse   *httputil.ReverseProxy
	transport *http.Transport
	problems  *connecthttp.ErrorWriter
}

func newProxy(m *mutual, o Options) *proxy {
	p := &proxy{mutual: m, problems: connecthttp.NewErrorWriter(), transport: engineTransport(filepath.Join(filepath.Dir(o.Engine), remoteSocket))}
	p.reverse = &httputil.ReverseProxy{
		Rewrite: rewrite, Transport: p.transport, ModifyResponse: modify, ErrorHandler: p.engineAway, ErrorLog: logging.ForServer(o.Logger),
		BufferPool: &buffers{},
	}
	return p
}

// buffers are what replies are copied through, each of the size of a frame of HTTP/2: without them, ReverseProxy makes 32 KiB of garbage for
// each call, and a stream holds as much. What was in one is never sent from it again: only what was read into it is written.
type buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[maxFrameBytes]byte); ok {
		return p[:]
	}
	return make([]byte, maxFrameBytes)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(p []byte) { b.pool.Put((*[maxFrameBytes]byte)(p)) }

// engineTransport makes requests to the engine at a socket.
func engineTransport(path string) *http.Transport {
	t := &http.Transport{
		Protocols: new(http.Protocols), DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
		HTTP2: &http.HTTP2Config{SendPingTimeout: enginePing, MaxReceiveBufferPerStream: replyUnread, MaxReceiveBufferPerConnection: repliesUnread},
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

// configure is what the server for clients with certificates has otherwise than others.
func (p *proxy) configure(s *http.Server) {
	s.ReadTimeout = 0 // it would end each stream whose client may still send; the engine knows how long a message may take
	s.MaxHeaderBytes = remoteHeaderBytes
	// Without it HTTP/2 is off where TLSNextProto is set.
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.ConnState = p.mutual.changed
	s.HTTP2.MaxConcurrentStreams = remoteStreams
	s.HTTP2.MaxReceiveBufferPerConnection, s.HTTP2.MaxReceiveBufferPerStream = remoteUnread, remoteUnread
	s.HTTP2.SendPingTimeout, s.HTTP2.PingTimeout = pingAfter, pingTime
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer working(r)()
	// While a request is under way the gateway hears at once when its certificate is not good any more.
	defer p.mutual.watch.hold()()
	_, _ = p.mutual.watch.last(r.Context()) // opens the stream; without an engine, the request says so itself
	shown, err := p.mutual.of(r)
	if err != nil {
		p.refuse(w, r, err)
		return
	}
	if !handedOn(r) {
		p.write(w, r, http.StatusNotFound, connect.CodeNotFound, &rtaskv1.Error{Kind: string(rtaskv1.KindNotFound)}, "there is nothing at this path")
		return
	}
	r.Header.Del("Upgrade") // there is no other protocol
	if issuers(r.URL.EscapedPath()) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(formTime)) // ignore the error: the server may not support deadlines
	}
	c := &control{of: http.NewResponseController(w)}
	defer c.end()
	p.reverse.ServeHTTP(newTimely(w, c), r.WithContext(context.WithValue(r.Context(), handedKey{}, handed{shown, c})))
}

// handedOn reports whether a request is one for the engine, by its path as it was sent.
func handedOn(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodPost && r.Method != http.MethodHead {
		return false
	}
	path := r.URL.EscapedPath()
	if issuers(path) {
		return true
	}
	service, method, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !ok || method == "" || strings.ContainsAny(method, "/%.") || !strings.HasPrefix(path, "/"+service) {
		return false
	}
	switch service {
	case "rtask.v1.JobService", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", "grpc.health.v1.Health":
		return true
	default:
		return false
	}
}

// issuers reports whether a path is one of the issuer's of tokens (RFC 8414, 7517, 6749 and 5280), and none of the API.
func issuers(path string) bool {
	switch path {
	case "/.well-known/oauth-authorization-server", "/jwks", "/token", "/crl", "/renew", "/revoke":
		return true
	default:
		return false
	}
}

// handed is what rewrite needs of a client's request beside itself.
type handed struct {
	shown   codec.Certificates
	control *control
}

type handedKey struct{}

// rewrite makes the engine's request of a client's. What the gateway says of the client in its head, the client cannot say.
func rewrite(r *httputil.ProxyRequest) {
	out := r.Out
	out.URL.Scheme, out.URL.Host, out.Host = "http", "rtask", ""
	out.Trailer = nil // no protocol has trailers there
	for name := range out.Header {
		if gateways(name) {
			delete(out.Header, name)
		}
	}
	h, _ := r.In.Context().Value(handedKey{}).(handed)
	h.shown.Put(out.Header)
	codec.Presented{RemoteAddr: addressOf(r.In.RemoteAddr)}.Put(out.Header)
	if out.Body != nil && r.In.ProtoMajor > 1 { // an HTTP/1 connection with a deadline could not be used again
		out.Body = &upload{ReadCloser: out.Body, control: h.control}
	}
}

// upload is the body of a client's request. The transport closes it once the engine has answered or is gone, and says neither before its
// read has returned: so a client that has not ended its request would never hear of it.
type upload struct {
	io.ReadCloser
	control *control
}

// Close implements io.Closer.
func (u *upload) Close() error {
	u.control.use(func(c *http.ResponseController) { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	return u.ReadCloser.Close()
}

// control controls the reply to a client for others than its handler, until that returns. net/http's own panics if it is used later.
type control struct {
	mu sync.Mutex
	of *http.ResponseController // nil: the handler has returned
}

func (c *control) use(f func(*http.ResponseController)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of != nil {
		f(c.of)
	}
}

func (c *control) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of = nil
}

// gateways reports whether a header is one in which a gateway or a proxy says who its client is.
func gateways(name string) bool {
	name = textproto.CanonicalMIMEHeaderKey(strings.ReplaceAll(name, "_", "-")) // as some servers read it
	switch name {
	case "Client-Cert", "Client-Cert-Chain", "Forwarded", "X-Real-Ip", "Via":
		return true
	default:
		return strings.HasPrefix(name, "Rtask-") || strings.HasPrefix(name, "X-Forwarded-")
	}
}

// addressOf is the host of the address, host:port, that a connection came from. No proxy can be before this port: it would have to have the
// client's key.
func addressOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return unix
	}
	host, _, _ = strings.Cut(host, "%")
	return host
}

// refuse answers a client whose certificate is not good any more. Its connection ends at once.
func (p *proxy) refuse(w http.ResponseWriter, r *http.Request, err error) {
	kind := rtaskv1.KindCertificateBad
	if why, ok := errors.AsType[*refusal](err); ok {
		kind = why.kind
	}
	w.Header().Set("Connection", "close")
	p.write(w, r, kind.HTTPStatus(), connect.CodeUnauthenticated, &rtaskv1.Error{Kind: string(kind)}, "the client certificate is not good any more: "+err.Error())
}

// engineAway answers where the engine has not.
func (p *proxy) engineAway(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil {
		p.mutual.logger.Error("the engine cannot be asked", "error", err)
	}
	p.write(w, r, http.StatusServiceUnavailable, connect.CodeUnavailable,
		&rtaskv1.Error{Kind: string(rtaskv1.KindUnavailable), Restarting: true, RetryAfter: durationpb.New(time.Second)},
		"the engine went away before it answered, or is not there")
}

// write answers with an error, in the client's protocol: as gRPC, gRPC-Web and Connect do it, or else as OAuth does (RFC 6749, section
// 5.2).
func (p *proxy) write(w http.ResponseWriter, r *http.Request, status int, code connect.Code, m *rtaskv1.Error, text string) {
	if !issuers(r.URL.EscapedPath()) && p.problems.IsSupported(r) {
		readInTime(w)
		err := connect.NewError(code, text)
		if d, e := connectproto.NewErrorDetail(m); e == nil {
			err = err.WithDetail(d)
		}
		_ = p.problems.Write(w, r, err) // a client that is gone is no error
		return
	}
	if m.RetryAfter != nil {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, status, "application/json", oauthError{Error: m.Kind, Description: text})
}

// oauthError is an error of OAuth (RFC 6749, section 5.2).
type oauthError struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
}

// json is the body of a reply.
func (e oauthError) json() []byte {
	b, _ := json.Marshal(e) // two strings can always be written
	return append(b, '\n')
}

// modify has clients of gRPC know that the engine went away. The other protocols see that a reply breaks off, and take it for that.
func modify(res *http.Response) error {
	kind, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
	if kind == "application/grpc" || strings.HasPrefix(kind, "application/grpc+") {
		disconnect := func() { _ = connectionOf(res.Request).Close() } // net/http notices
		res.Body = &messages{ReadCloser: res.Body, reply: res, disconnect: disconnect}
	}
	return nil
}

// timely is a reply whose pieces must be read in time, however long there is none to read.
type timely struct {
	http.ResponseWriter
	own  *http.ResponseController // the handler's
	late *time.Timer
}

func newTimely(w http.ResponseWriter, c *control) *timely {
	end := func(c *http.ResponseController) { _ = c.SetWriteDeadline(time.Unix(1, 0)) }
	t := &timely{ResponseWriter: w, own: c.of, late: time.AfterFunc(writeTimeout, func() { c.use(end) })}
	t.late.Stop()
	return t
}

// Write implements io.Writer.
func (t *timely) Write(b []byte) (int, error) {
	t.late.Reset(writeTimeout)
	defer t.late.Stop()
	return t.ResponseWriter.Write(b)
}

// FlushError is for http.ResponseController.
func (t *timely) FlushError() error {
	t.late.Reset(writeTimeout)
	defer t.late.Stop()
	return t.own.Flush()
}

// Unwrap is for http.ResponseController.
func (t *timely) Unwrap() http.ResponseWriter { return t.ResponseWriter }

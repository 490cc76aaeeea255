package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

const (
	// maxEnrollHead and maxEnrollBody are how long the head and the body of a request may be.
	maxEnrollHead, maxEnrollBody = 8 << 10, 64 << 10
	// enrollTimeout is how long the engine may take for it.
	enrollTimeout = 30 * time.Second
)

// enroller serves clients that have no certificate: one request of HTTP/1.1 on each connection, to one of five paths, which goes to the
// engine as it is.
type enroller struct {
	engine rtaskv1connect.GatewayServiceClient
	bodies *memory
	logger *slog.Logger
}

// enrollMethod returns the method of a path, "" where there is nothing.
func enrollMethod(path string) string {
	switch path {
	case "/ca":
		return http.MethodGet
	case "/enroll", "/device_authorization", "/device_token", "/renew":
		return http.MethodPost
	default:
		return ""
	}
}

// serve is for http.Server.TLSNextProto. The connection is closed when it returns.
func (e *enroller) serve(_ *http.Server, c *tls.Conn, _ http.Handler) {
	a := e.answer(c)
	if a == nil {
		return // there is nobody who could be answered
	}
	_ = c.SetDeadline(time.Now().Add(writeTimeout))
	reply := http.Response{
		StatusCode: a.status, ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(a.body)), Body: io.NopCloser(bytes.NewReader(a.body)), Close: true,
		Header: http.Header{
			"Content-Type": {a.contentType}, "Cache-Control": {"no-store"}, "X-Content-Type-Options": {"nosniff"},
			"Date": {time.Now().UTC().Format(http.TimeFormat)}, // clients compare their clocks
		},
	}
	if a.status == http.StatusServiceUnavailable {
		reply.Header.Set("Retry-After", "1")
	}
	// From here on a client that is gone is no error.
	if reply.Write(c) != nil || c.CloseWrite() != nil {
		return
	}
	// What it still sends would have the connection reset before it has read the reply.
	_ = c.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.Copy(io.Discard, io.LimitReader(c, maxEnrollBody))
}

// answered is a reply.
type answered struct {
	status      int
	contentType string
	body        []byte
}

// refusedAs is the reply to a request that is refused, as OAuth has it (RFC 6749, section 5.2).
func refusedAs(status int, kind rtaskv1.Kind, text string) *answered {
	return &answered{status: status, contentType: "application/json", body: oauthError{Error: string(kind), Description: text}.json()}
}

// answer reads a request and returns the reply; nil: there is none.
func (e *enroller) answer(c *tls.Conn) *answered {
	m, done, refused := e.read(c, c, sentBy(c))
	defer done()
	if m == nil {
		return refused
	}
	return e.ask(c, m)
}

// read reads a request of a sender from a connection, or returns the reply to what is none, nil if that has none. done gives back the
// memory that the request has.
func (e *enroller) read(c net.Conn, from io.Reader, sender any) (m *rtaskv1.EnrollRequest, done func(), refused *answered) {
	refuse := func(status int, kind rtaskv1.Kind, text string) (*rtaskv1.EnrollRequest, func(), *answered) {
		return nil, func() {}, refusedAs(status, kind, text)
	}
	_ = c.SetDeadline(time.Now().Add(readHeaderTimeout))
	limited := &io.LimitedReader{R: from, N: maxEnrollHead}
	r, err := http.ReadRequest(bufio.NewReader(limited))
	switch {
	case err != nil && limited.N <= 0:
		return refuse(http.StatusRequestHeaderFieldsTooLarge, rtaskv1.KindBadRequest, "the head of the request is too long")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, os.ErrDeadlineExceeded):
		return nil, func() {}, nil
	case err != nil:
		return refuse(http.StatusBadRequest, rtaskv1.KindBadRequest, "this is no request of HTTP/1.1")
	}
	method := enrollMethod(r.URL.EscapedPath())
	switch {
	case method == "" || r.URL.RawQuery != "" || r.URL.ForceQuery || r.URL.Host != "":
		return refuse(http.StatusNotFound, rtaskv1.KindNotFound, "there is nothing at this path")
	case r.Method != method: // without the header Allow: the text says it
		return refuse(http.StatusMethodNotAllowed, rtaskv1.KindMethodNotAllowed, "this path takes "+method)
	case r.ContentLength > maxEnrollBody:
		return refuse(http.StatusRequestEntityTooLarge, rtaskv1.KindInputTooLarge, errTooLong.Error())
	}
	m = &rtaskv1.EnrollRequest{Path: r.URL.EscapedPath()}
	if r.ContentLength == 0 {
		return m, func() {}, nil
	}
	limited.N = 2 * maxEnrollBody // with what stands around pieces of a body
	if strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
		_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n") // whoever cannot read it sends nothing
	}
	read, held, err := e.bodies.read(c, r.Body, sender, r.ContentLength, maxEnrollBody)
	switch {
	case err == nil:
		m.Body = read
		return m, held.leave, nil
	case errors.Is(err, errTooLong):
		return refuse(http.StatusRequestEntityTooLarge, rtaskv1.KindInputTooLarge, errTooLong.Error())
	case errors.Is(err, errFull):
		return refuse(http.StatusServiceUnavailable, rtaskv1.KindUnavailable, "too many request bodies are being received")
	case errors.Is(err, errSlow):
		return refuse(http.StatusBadRequest, rtaskv1.KindBadRequest, errSlow.Error())
	default:
		return refuse(http.StatusBadRequest, rtaskv1.KindBadRequest, "the body could not be read")
	}
}

// sentBy is whose bodies count together, as senderOf has it.
func sentBy(c *tls.Conn) any {
	if p := prefixOf(c.RemoteAddr()); p != (netip.Prefix{}) {
		return p
	}
	own, _ := c.NetConn().(*connection)
	return own
}

// ask has the engine answer. It is asked once: what it has heard may count.
func (e *enroller) ask(c *tls.Conn, m *rtaskv1.EnrollRequest) *answered {
	if own, ok := c.NetConn().(*connection); ok {
		defer own.working()()
	}
	ctx, cancel := context.WithTimeout(context.Background(), enrollTimeout)
	defer cancel()
	reply, err := e.engine.Enroll(codec.Presented{RemoteAddr: addressOf(c.RemoteAddr().String())}.Context(ctx), m)
	if err == nil && (reply.Status < 200 || reply.Status > 599) {
		err = errors.New("the engine's reply has no status")
	}
	if err != nil {
		text := "the engine cannot be reached"
		if d := detail(err); d != nil {
			text = client.Message(err)
		} else {
			e.logger.Error("the engine cannot be asked", "error", err)
		}
		return refusedAs(http.StatusServiceUnavailable, rtaskv1.KindUnavailable, text)
	}
	return &answered{status: int(reply.Status), contentType: reply.ContentType, body: reply.Body}
}

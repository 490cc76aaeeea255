package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"

	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/packaging/testkit"
)

// enrolling is how a client without a certificate speaks.
func (f *remoteFixture) enrolling() *tls.Config {
	c := f.tls()
	c.NextProtos = []string{"rtask-enroll/1"}
	return c
}

// enroll sends a request as it is, and returns the reply.
func (f *remoteFixture) enroll(request string) (*http.Response, string) {
	f.t.Helper()
	return sendTLS(f.t, f.address, f.enrolling(), request)
}

// sendTLS sends a request as it is, and returns the reply, with which the connection ends.
func sendTLS(t testing.TB, address string, config *tls.Config, request string) (*http.Response, string) {
	t.Helper()
	c, err := tls.Dial("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("%.100q: %v", request, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(in); err != nil || len(rest) != 0 || !res.Close {
		t.Errorf("%.100q: the connection goes on: %q, %v", request, rest, err)
	}
	return res, string(b)
}

func post(path, body string, header ...string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s", path, len(body), strings.Join(append(header, ""), "\r\n"), body)
}

// A client without a certificate asks one thing on a connection, at one of five paths, and the engine answers it.
func TestEnroll(t *testing.T) {
	f := newRemoteFixture(t)
	var mu sync.Mutex
	var got *rtaskv1.EnrollRequest
	var from string
	f.mu.Lock()
	f.enrol = func(ctx context.Context, r *rtaskv1.EnrollRequest) (*rtaskv1.EnrollResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		got, from = r, codec.PresentedIn(ctx).RemoteAddr
		return &rtaskv1.EnrollResponse{Status: 409, ContentType: "application/json", Body: []byte(`{"error":"join-used"}`)}, nil
	}
	f.mu.Unlock()
	body := strings.Repeat("x", 64<<10)
	for path, request := range map[string]string{
		"/ca":                   "GET /ca HTTP/1.1\r\nHost: x\r\n\r\n",
		"/enroll":               post("/enroll", body),
		"/device_authorization": post("/device_authorization", body, "X-Forwarded-For: 192.0.2.1", "Rtask-Remote-Addr: 192.0.2.1"),
		"/device_token":         "POST /device_token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n" + body + "\r\n0\r\n\r\n",
		"/renew":                "POST /renew HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 65536\r\n\r\n" + body,
	} {
		res, reply := f.enroll(strings.ReplaceAll(request, "Expect: 100-continue\r\n", ""))
		if res.StatusCode != 409 || reply != `{"error":"join-used"}` || res.Header.Get("Content-Type") != "application/json" || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v %s", path, res.StatusCode, res.Header, reply)
		}
		if d, err := http.ParseTime(res.Header.Get("Date")); err != nil || d.IsZero() {
			t.Errorf("%s: Date is %q", path, res.Header.Get("Date"))
		}
		mu.Lock()
		if got.Path != path || from != "127.0.0.1" || path != "/ca" && string(got.Body) != body || path == "/ca" && len(got.Body) != 0 {
			t.Errorf("%s: the engine hears %s with %d bytes from %s", path, got.Path, len(got.Body), from)
		}
		got = nil
		mu.Unlock()
	}
	refuse := map[string]struct {
		request string
		status  int
		text    string
	}{
		"another path":        {post("/token", "{}"), 404, "there is nothing at this path"},
		"the API":             {post("/rtask.v1.JobService/Status", "{}"), 404, "there is nothing at this path"},
		"a query":             {post("/enroll?x", "{}"), 404, "there is nothing at this path"},
		"an escape":           {post("/enrol%6c", "{}"), 404, "there is nothing at this path"},
		"another method":      {"GET /enroll HTTP/1.1\r\nHost: x\r\n\r\n", 405, "this path takes POST"},
		"a POST of GET":       {post("/ca", "{}"), 405, "this path takes GET"},
		"too long":            {"POST /enroll HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n", 413, "too long"},
		"too long, in chunks": {"POST /enroll HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n" + body + "y\r\n0\r\n\r\n", 413, "too long"},
		"a long head":         {"POST /enroll HTTP/1.1\r\nHost: x\r\nX: " + body + "\r\n\r\n", 431, "the head of the request is too long"},
		"no HTTP":             {"x\r\n\r\n", 400, "this is no request of HTTP/1.1"},
		"two lengths":         {"POST /enroll HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400, "this is no request of HTTP/1.1"},
		"HTTP/2":              {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 404, "there is nothing at this path"},
	}
	for name, c := range refuse {
		res, reply := f.enroll(c.request)
		if res.StatusCode != c.status || !strings.Contains(reply, c.text) || !strings.HasPrefix(reply, `{"error":"`) || !strings.Contains(reply, `"error_description":"`) {
			t.Errorf("%s: %d %s", name, res.StatusCode, reply)
		}
		mu.Lock()
		if got != nil {
			t.Errorf("%s: the engine heard of it", name)
		}
		mu.Unlock()
	}
	// What the engine says in its own way is a reply, too, and what it does not say is none of the client's business.
	for want, err := range map[string]error{
		`{"error":"unavailable","error_description":"this engine has no authority"}`: errorWithKind(connect.CodeFailedPrecondition, "unavailable", "this engine has no authority"),
		`{"error":"unavailable","error_description":"the engine cannot be reached"}`: errors.New("s3cret"),
	} {
		f.mu.Lock()
		f.enrol = func(context.Context, *rtaskv1.EnrollRequest) (*rtaskv1.EnrollResponse, error) { return nil, err }
		f.mu.Unlock()
		if res, reply := f.enroll(post("/enroll", "{}")); res.StatusCode != 503 || strings.TrimSpace(reply) != want || res.Header.Get("Retry-After") == "" {
			t.Errorf("%d %s, want %s", res.StatusCode, reply, want)
		}
	}
	f.mu.Lock()
	f.enrol = func(context.Context, *rtaskv1.EnrollRequest) (*rtaskv1.EnrollResponse, error) {
		return &rtaskv1.EnrollResponse{Status: 1}, nil
	}
	f.mu.Unlock()
	if res, reply := f.enroll(post("/enroll", "{}")); res.StatusCode != 503 {
		t.Errorf("%d %s", res.StatusCode, reply)
	}
}

func errorWithKind(code connect.Code, kind, text string) error {
	err := connect.NewError(code, text)
	d, e := connectproto.NewErrorDetail(&rtaskv1.Error{Kind: kind})
	if e != nil {
		return e
	}
	return err.WithDetail(d)
}

// A client that waits for 100 Continue before it sends its body gets that.
func TestEnrollContinue(t *testing.T) {
	f := newRemoteFixture(t)
	f.mu.Lock()
	f.enrol = func(_ context.Context, r *rtaskv1.EnrollRequest) (*rtaskv1.EnrollResponse, error) {
		return &rtaskv1.EnrollResponse{Status: 200, ContentType: "text/plain", Body: r.Body}, nil
	}
	f.mu.Unlock()
	transport := &http.Transport{ExpectContinueTimeout: time.Minute, DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return (&tls.Dialer{Config: f.enrolling()}).DialContext(ctx, network, addr)
	}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+f.address+"/enroll", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Expect", "100-continue")
	res, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 || string(b) != "hello" {
		t.Errorf("%d %s, %v", res.StatusCode, b, err)
	}
}

// The protocol of enrolment alone is without a certificate: not beside others, not under another name, not over another one.
func TestEnrollIsNoWayIn(t *testing.T) {
	f := newRemoteFixture(t)
	for _, protocols := range [][]string{
		nil, {"h2"}, {"http/1.1"}, {"rtask-enroll/1", "h2"}, {"h2", "rtask-enroll/1"}, {"rtask-enroll/1", "http/1.1"},
	} {
		c := f.tls()
		c.NextProtos = protocols
		if err := f.handshake(c); err == nil || !strings.Contains(err.Error(), "certificate required") {
			t.Errorf("%q: %v", protocols, err)
		}
	}
	for _, protocols := range [][]string{{"rtask-enroll/1", "rtask-enroll/1"}, {"rtask-enroll/2"}, {"RTASK-ENROLL/1"}, {"rtask-enroll/1 "}, {"x"}} {
		c := f.tls()
		c.NextProtos = protocols
		if err := f.handshake(c); err == nil || !strings.Contains(err.Error(), "no application protocol") {
			t.Errorf("%q: %v", protocols, err)
		}
	}
	old := f.enrolling()
	old.MaxVersion = tls.VersionTLS12
	if err := f.handshake(old); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.2: %v", err)
	}
	// A client that has a certificate is not asked for it, and is nobody there either.
	with := f.enrolling()
	mine := f.authority.client()
	with.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		t.Error("it is asked for a certificate")
		return &mine, nil
	}
	conn, err := tls.Dial("tcp", f.address, with)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if f.calls() != 0 {
		t.Errorf("%d calls", f.calls())
	}
}

// Clients that send nothing, or too slowly, hold neither connections nor memory, and another one is served meanwhile.
func TestEnrollSlowly(t *testing.T) {
	f := newRemoteFixture(t)
	f.mu.Lock()
	f.enrol = func(context.Context, *rtaskv1.EnrollRequest) (*rtaskv1.EnrollResponse, error) {
		return &rtaskv1.EnrollResponse{Status: 200, ContentType: "text/plain", Body: []byte("ok")}, nil
	}
	f.mu.Unlock()
	ended := make(chan string, 3)
	for name, text := range map[string]string{"nothing": "", "half a head": "POST /enroll HTTP/1.1\r\nHost: ", "half a body": "POST /enroll HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx"} {
		c, err := tls.Dial("tcp", f.address, f.enrolling())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		go func() {
			_ = c.SetReadDeadline(time.Now().Add(time.Minute))
			b, err := io.ReadAll(c)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			ended <- name + ": " + string(b)
		}()
	}
	if res, reply := f.enroll(post("/enroll", "{}")); res.StatusCode != 200 || reply != "ok" {
		t.Errorf("%d %s", res.StatusCode, reply)
	}
	for range 3 {
		got := <-ended
		if answered := strings.Contains(got, "the body came too slowly"); answered != strings.HasPrefix(got, "half a body") {
			t.Errorf("%q", got)
		}
	}
	m := f.inner.enroller.bodies
	testkit.Eventually(t, "the memory is free", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.free == bodyMemory && len(m.senders) == 0
	})
}

// FuzzEnroll: whatever a stranger sends is answered, or nothing is, and the engine hears of no other path and no longer body.
func FuzzEnroll(f *testing.F) {
	f.Add([]byte("GET /ca HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte(post("/enroll", "{}")))
	f.Add([]byte("POST /renew HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n1\r\nx\r\n0\r\n\r\n"))
	f.Add([]byte("POST http://x/enroll?y HTTP/1.0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, request []byte) {
		e := &enroller{bodies: newMemory(0)}
		m, done, refused := e.read(&silentConn{}, strings.NewReader(string(request)), "a stranger")
		defer done()
		switch {
		case m != nil && (enrollMethod(m.Path) == "" || len(m.Body) > maxEnrollBody || refused != nil):
			t.Errorf("%s with %d bytes, %v", m.Path, len(m.Body), refused)
		case m == nil && refused != nil && (refused.status < 400 || len(refused.body) == 0):
			t.Errorf("%d %s", refused.status, refused.body)
		}
	})
}

// silentConn takes what is written and has no deadlines.
type silentConn struct{ net.Conn }

func (*silentConn) Write(b []byte) (int, error)     { return len(b), nil }
func (*silentConn) SetReadDeadline(time.Time) error { return nil }
func (*silentConn) SetDeadline(time.Time) error     { return nil }

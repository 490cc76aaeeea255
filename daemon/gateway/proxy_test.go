package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/packaging/testkit"
)

// follow reads a stream of output to its end, and returns how much came.
func follow(s interface {
	Receive() (*rtaskv1.StreamLogsResponse, error)
}) (n, messages int, err error) {
	for m, err := range client.Messages(s) {
		if err != nil {
			return n, messages, err
		}
		n += len(m.Data)
		messages++
	}
	return n, messages, nil
}

// All three protocols go through: calls, streams, errors with their details, deadlines, and the end of a client.
func TestProxyProtocols(t *testing.T) {
	f := newRemoteFixture(t)
	h := f.transport(f.authority.client())
	for protocol := range protocols() {
		jobs := f.jobs(h, protocol)
		if r, err := jobs.Status(t.Context(), &rtaskv1.StatusRequest{Job: "aaaaaaaaaaaaaaaa"}); err != nil || r.Job.Id != "aaaaaaaaaaaaaaaa" {
			t.Errorf("%s: %v, %v", protocol, r, err)
		}
		_, err := jobs.Status(t.Context(), &rtaskv1.StatusRequest{Job: "fail"})
		if d, _ := client.Detail(err); connect.CodeOf(err) != connect.CodeNotFound || d.GetJobId() != "aaaaaaaaaaaaaaaa" || !strings.Contains(err.Error(), "there is no such job") {
			t.Errorf("%s: %v with %v", protocol, err, d)
		}
		for job, want := range map[string]connect.Code{"all": 0, "fail": connect.CodeNotFound} {
			stream, err := jobs.StreamLogs(t.Context(), &rtaskv1.StreamLogsRequest{Job: job})
			if err != nil {
				t.Fatal(err)
			}
			n, messages, err := follow(stream)
			if n != logPieces*20_000 || messages != logPieces {
				t.Errorf("%s, %s: %d bytes in %d messages", protocol, job, n, messages)
			}
			if d, _ := client.Detail(err); (err == nil) != (want == 0) || err != nil && (connect.CodeOf(err) != want || d.GetJobId() == "") {
				t.Errorf("%s, %s: %v with %v", protocol, job, err, d)
			}
		}
		// A deadline is the engine's to keep, too, and so is the end of the client.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if _, err := jobs.Status(ctx, &rtaskv1.StatusRequest{Job: "wait"}); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
			t.Errorf("%s: %v", protocol, err)
		}
		cancel()
		if err := <-f.ended; err == nil {
			t.Errorf("%s: the engine does not know", protocol)
		}
		ctx, cancel = context.WithCancel(t.Context())
		stream, err := jobs.StreamLogs(ctx, &rtaskv1.StreamLogsRequest{Job: "wait"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Receive(); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-f.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: the engine hears %v", protocol, err)
		}
	}
}

// A stream goes in both directions: each message is answered before the next one is sent.
func TestProxyBothDirections(t *testing.T) {
	f := newRemoteFixture(t)
	h := f.transport(f.authority.client())
	in, out := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+f.address+"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", in)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	res, err := h.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for i := range 20 {
		message := append([]byte{0, 0, 0, 0, 7}, fmt.Sprintf("text %02d", i)...)
		if _, err := out.Write(message); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(message))
		if _, err := io.ReadFull(res.Body, got); err != nil || !bytes.Equal(got, message) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	out.Close()
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) != 0 || res.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("%q, %v, %v", rest, err, res.Trailer)
	}
}

// More streams than a connection has at a time wait for their turns, and none is refused.
func TestProxyManyStreams(t *testing.T) {
	f := newRemoteFixture(t)
	h := f.transport(f.authority.client())
	for protocol := range protocols() {
		jobs := f.jobs(h, protocol)
		if _, err := jobs.Status(t.Context(), &rtaskv1.StatusRequest{Job: "aaaaaaaaaaaaaaaa"}); err != nil { // there is a connection from here on
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 300 {
			all.Go(func() {
				stream, err := jobs.StreamLogs(t.Context(), &rtaskv1.StreamLogsRequest{Job: "all"})
				if err != nil {
					t.Errorf("%s: %v", protocol, err)
					return
				}
				if n, _, err := follow(stream); n != logPieces*20_000 || err != nil {
					t.Errorf("%s: %d bytes, %v", protocol, n, err)
				}
			})
		}
		all.Wait()
	}
}

// An engine that goes away is unavailable, whatever was under way, and never an internal error. The next one is asked without a word.
func TestProxyKilledEngine(t *testing.T) {
	f := newRemoteFixture(t)
	h := f.transport(f.authority.client())
	for protocol := range protocols() {
		jobs := f.jobs(h, protocol)
		const n = 20
		began, failed := make(chan struct{}, 2*n), make(chan error, 2*n)
		for range n {
			go func() {
				stream, err := jobs.StreamLogs(t.Context(), &rtaskv1.StreamLogsRequest{Job: "wait"})
				if err == nil {
					_, err = stream.Receive()
				}
				began <- struct{}{}
				if err == nil {
					_, _, err = follow(stream)
				}
				failed <- err
			}()
			go func() {
				began <- struct{}{}
				_, err := jobs.Status(t.Context(), &rtaskv1.StatusRequest{Job: "wait"})
				failed <- err
			}()
		}
		for range 2 * n {
			<-began
		}
		testkit.Eventually(t, "all calls are there", func() bool { return f.calls() >= 2*n })
		f.kill()
		for range 2 * n {
			err := <-failed
			if code := connect.CodeOf(err); err == nil || protocol == "grpc" && code != connect.CodeUnavailable || code == connect.CodeInternal && client.Broken(err) == false {
				t.Errorf("%s: %v", protocol, err)
			}
		}
		_, err := jobs.Status(t.Context(), &rtaskv1.StatusRequest{Job: "aaaaaaaaaaaaaaaa"})
		if d, _ := client.Detail(err); connect.CodeOf(err) != connect.CodeUnavailable || d.GetKind() != "unavailable" || !d.GetRestarting() || strings.Contains(err.Error(), "sock") {
			t.Errorf("%s, without an engine: %v with %v", protocol, err, d)
		}
		f.mu.Lock()
		f.heads = nil
		f.mu.Unlock()
		f.start()
		if r, err := jobs.Status(t.Context(), &rtaskv1.StatusRequest{Job: "aaaaaaaaaaaaaaaa"}); err != nil || r.Job.Id != "aaaaaaaaaaaaaaaa" {
			t.Errorf("%s, the next engine: %v, %v", protocol, r, err)
		}
	}
}

// halfMessage is a reply of which half a message that is too long to be held has come. The engine breaks off that one once the body ends.
func (f *remoteFixture) halfMessage(h *http.Client) (reply *http.Response, body io.Closer) {
	f.t.Helper()
	in, out := io.Pipe()
	r, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, "https://"+f.address+"/grpc.health.v1.Health/Check", in)
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/grpc")
	reply, err = h.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = reply.Body.Close() })
	if _, err := io.ReadFull(reply.Body, make([]byte, maxHeld)); err != nil {
		f.t.Fatal(err)
	}
	return reply, out
}

// Where an engine is killed within a message of gRPC that is too long to be held, the connection ends: for grpc-go that is UNAVAILABLE, and a
// stream that ends within a message INTERNAL. Where the engine breaks off one reply, the others on the connection go on.
func TestProxyHalfMessage(t *testing.T) {
	f := newRemoteFixture(t)
	h := f.transport(f.authority.client())
	one, body := f.halfMessage(h)
	other, _ := f.halfMessage(h)
	body.Close()
	if rest, err := io.ReadAll(one.Body); err == nil || len(rest) > 0 || !strings.Contains(err.Error(), "stream error") {
		t.Errorf("broken off: %d bytes, %v", len(rest), err)
	}
	f.kill()
	if rest, err := io.ReadAll(other.Body); err == nil || len(rest) > 0 || strings.Contains(err.Error(), "stream error") || other.Trailer.Get("Grpc-Status") != "" {
		t.Errorf("killed: %d bytes, %v, %v", len(rest), err, other.Trailer)
	}
	f.start()
	if j, err := f.jobs(h, "grpc").Status(t.Context(), &rtaskv1.StatusRequest{Job: "aaaaaaaaaaaaaaaa"}); err != nil || j.Job.Id != "aaaaaaaaaaaaaaaa" {
		t.Errorf("the next engine: %v, %v", j, err)
	}
}

// A client that has not ended its request hears at once that the engine was killed, though the gateway waits for what it sends.
func TestProxyUnendedRequest(t *testing.T) {
	f := newRemoteFixture(t)
	h := f.transport(f.authority.client())
	in, out := io.Pipe()
	defer out.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+f.address+"/rtask.v1.JobService/Status", in)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/grpc")
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		_, _ = out.Write([]byte{0, 0, 0, 0, 7})
		testkit.Eventually(t, "the call is there", func() bool { return f.calls() > 0 })
		f.kill()
	}()
	reply, err := h.Do(r)
	<-killed
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	_, _ = io.Copy(io.Discard, reply.Body)
	if status := reply.Header.Get("Grpc-Status") + reply.Trailer.Get("Grpc-Status"); status != "14" {
		t.Errorf("status %q, %v, %v", status, reply.Header, reply.Trailer)
	}
}

// keeping is a transport that keeps a request's body for longer than the request, as that of net/http may.
type keeping struct{ body io.ReadCloser }

// RoundTrip implements http.RoundTripper.
func (k *keeping) RoundTrip(r *http.Request) (*http.Response, error) {
	k.body = r.Body
	return &http.Response{StatusCode: 200, ProtoMajor: 2, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

// A request's body that is closed once its handler has returned does not make net/http panic, which would end the gateway.
func TestProxyLateClose(t *testing.T) {
	f := newRemoteFixture(t)
	k := &keeping{}
	f.inner.proxy.reverse.Transport = k
	res, err := f.transport(f.authority.client()).Post("https://"+f.address+"/rtask.v1.JobService/Status", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 {
		t.Errorf("%s, %v", res.Status, err)
	}
	_ = res.Body.Close()
	testkit.Eventually(t, "the handler has returned", func() bool {
		u, ok := k.body.(*upload)
		if !ok {
			t.Fatalf("the body is a %T", k.body)
		}
		u.control.mu.Lock()
		defer u.control.mu.Unlock()
		return u.control.of == nil
	})
	if err := k.body.Close(); err != nil {
		t.Error(err)
	}
}

// What says who a client is comes from the gateway alone.
func TestProxyHeaders(t *testing.T) {
	f := newRemoteFixture(t)
	middle := f.authority.under("between")
	mine := middle.client()
	mine.Certificate = append(mine.Certificate, middle.cert.Raw)
	h := f.transport(mine)
	send := func(header http.Header) http.Header {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+f.address+"/rtask.v1.JobService/Status", strings.NewReader(`{"job":"x"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "evil.example.org"
		for name, values := range header {
			r.Header[name] = values
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer abc")
		res, err := h.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != 200 {
			t.Errorf("%d", res.StatusCode)
		}
		return f.head()
	}
	const forged = ":QUFBQQ==:"
	for name, header := range map[string]http.Header{
		"none": {},
		"forged": {
			"Client-Cert": {forged}, "Client-Cert-Chain": {forged}, "Rtask-Remote-Addr": {"192.0.2.1"}, "Rtask-Key-Bin": {"QUFBQQ"}, "Rtask-Task": {"x"},
			"Rtask-Anything": {"x"}, "X-Forwarded-For": {"192.0.2.1"}, "X-Forwarded-Host": {"x"}, "X-Forwarded-Client-Cert": {"x"}, "Forwarded": {"for=192.0.2.1"},
			"X-Real-Ip": {"192.0.2.1"}, "Via": {"1.1 x"},
		},
		"twice":            {"Client-Cert": {forged, forged}, "Rtask-Remote-Addr": {"192.0.2.1", "192.0.2.2"}},
		"in other letters": {"client-cert": {forged}, "CLIENT-CERT-CHAIN": {forged}, "rtask-remote-addr": {"192.0.2.1"}},
		"with underscores": {"Client_Cert": {forged}, "Client_cert_chain": {forged}, "Rtask_Remote_Addr": {"192.0.2.1"}, "X_Forwarded_For": {"192.0.2.1"}},
		"in a trailer":     {"Trailer": {"Client-Cert"}},
	} {
		got := send(header)
		if want := ":" + base64.StdEncoding.EncodeToString(mine.Certificate[0]) + ":"; len(got["Client-Cert"]) != 1 || got.Get("Client-Cert") != want {
			t.Errorf("%s: %q", name, got["Client-Cert"])
		}
		if want := ":" + base64.StdEncoding.EncodeToString(middle.cert.Raw) + ":"; len(got["Client-Cert-Chain"]) != 1 || got.Get("Client-Cert-Chain") != want {
			t.Errorf("%s: %q", name, got["Client-Cert-Chain"])
		}
		if a := got["Rtask-Remote-Addr"]; len(a) != 1 || a[0] != "127.0.0.1" {
			t.Errorf("%s: %q", name, a)
		}
		if got.Get("Authorization") != "Bearer abc" || got.Get(":host") != "rtask" {
			t.Errorf("%s: %q, %q", name, got.Get("Authorization"), got.Get(":host"))
		}
		for header := range got {
			switch canonical := http.CanonicalHeaderKey(strings.ReplaceAll(header, "_", "-")); {
			case canonical == "Client-Cert" || canonical == "Client-Cert-Chain" || canonical == "Rtask-Remote-Addr":
				if canonical != header {
					t.Errorf("%s: %s came through", name, header)
				}
			case gateways(header):
				t.Errorf("%s: %s came through", name, header)
			}
		}
	}
	// A client without a chain has none, whatever it says; over HTTP/1.1, it cannot have the gateway drop what that says, either.
	alone := &http.Client{Transport: &http.Transport{TLSClientConfig: f.tls(f.authority.client())}}
	alone.Transport.(*http.Transport).TLSClientConfig.NextProtos = nil
	defer alone.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+f.address+"/rtask.v1.JobService/Status", strings.NewReader(`{"job":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{
		"Content-Type": {"application/json"}, "Client-Cert-Chain": {forged}, "Connection": {"Client-Cert, Rtask-Remote-Addr, Client-Cert-Chain"}, "Upgrade": {"websocket"},
	}
	res, err := alone.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := f.head(); res.StatusCode != 200 || res.ProtoMajor != 1 || len(got["Client-Cert"]) != 1 || got["Client-Cert-Chain"] != nil || got.Get("Rtask-Remote-Addr") != "127.0.0.1" || got["Upgrade"] != nil {
		t.Errorf("%d, %s: %v", res.StatusCode, res.Proto, got)
	}
}

// Nothing but the API and the issuer's paths is handed on.
func TestProxyPaths(t *testing.T) {
	f := newRemoteFixture(t)
	h := f.transport(f.authority.client())
	try := func(method, path, kind string) (status int, body string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "https://"+f.address+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", kind)
		res, err := h.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if kind == "application/grpc" {
			return res.StatusCode, res.Header.Get("Grpc-Status") + res.Trailer.Get("Grpc-Status")
		}
		return res.StatusCode, string(b)
	}
	for _, path := range []string{
		"/", "/healthz", "/tasks/hello", "/metrics", "/rtask.v1.GatewayService/Run", "/rtask.v1.GatewayService/Watch", "/rtask.v1.AuthorityService/Init", "/rtask.v1.JobService",
		"/rtask.v1.JobService/", "/rtask.v1.JobService/Status/", "//rtask.v1.JobService/Status", "/rtask.v1.JobService/../rtask.v1.GatewayService/Watch",
		"/rtask.v1.JobService/..%2frtask.v1.GatewayService%2fWatch", "/rtask.v1.JobService%2fStatus", "/RTASK.v1.JobService/Status", "/token/", "/token/x", "/jwks/..", "/enroll", "/ca",
		"/grpc.reflection.v1.ServerReflection/", "/grpc.health.v1.Healthy/Check",
	} {
		for _, kind := range []string{"application/json", "application/proto", "text/plain"} {
			if status, body := try("POST", path, kind); status != 404 || !strings.Contains(body, "there is nothing at this path") {
				t.Errorf("%s as %s: %d %s", path, kind, status, body)
			}
		}
		if status, code := try("POST", path, "application/grpc"); status != 200 || code != "5" {
			t.Errorf("%s as gRPC: %d %s", path, status, code)
		}
	}
	for _, method := range []string{"PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"} {
		if status, _ := try(method, "/token", "text/plain"); status != 404 {
			t.Errorf("%s: %d", method, status)
		}
	}
	if n := f.calls(); n != 0 {
		t.Errorf("the engine heard of %d: %v", n, f.heads)
	}
	r, err := h.Post("https://"+f.address+"/token", "application/x-www-form-urlencoded", strings.NewReader("grant_type=client_credentials"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if b, err := io.ReadAll(r.Body); err != nil || r.StatusCode != 200 || string(b) != `{"grant":"client_credentials"}` {
		t.Errorf("%d %s, %v", r.StatusCode, b, err)
	}
	for path, want := range map[string]bool{
		"/.well-known/oauth-authorization-server": true, "/jwks": true, "/token": true, "/crl": true, "/renew": true, "/revoke": true, "/grpc.health.v1.Health/Check": true,
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": true, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": true,
		"/.well-known/openid-configuration": false,
	} {
		r, err := http.NewRequest("GET", "https://x"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if handedOn(r) != want {
			t.Errorf("%s: %v", path, !want)
		}
	}
	// Without an engine the issuer's paths have an error as OAuth does.
	f.kill()
	if status, body := try("POST", "/token", "application/x-www-form-urlencoded"); status != 503 || !strings.HasPrefix(body, `{"error":"unavailable","error_description":"the engine went away`) {
		t.Errorf("%d %s", status, body)
	}
}

// Nobody but a client that has shown a certificate reaches the handler, whatever the server in front of it does.
func TestProxyWithoutCertificate(t *testing.T) {
	f := newRemoteFixture(t)
	w := &answer{header: http.Header{}}
	r, err := http.NewRequestWithContext(t.Context(), "POST", "https://x/rtask.v1.JobService/Status", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	f.inner.proxy.ServeHTTP(w, r)
	if w.status != 401 || !strings.Contains(w.String(), "there is no client certificate") || f.calls() != 0 {
		t.Errorf("%d %s, %d calls", w.status, w.String(), f.calls())
	}
}

type answer struct {
	bytes.Buffer
	header http.Header
	status int
}

func (a *answer) Header() http.Header    { return a.header }
func (a *answer) WriteHeader(status int) { a.status = status }

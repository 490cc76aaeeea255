package gateway

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/tls"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/packaging/testkit"
)

// served makes calls as a good client until the function is called, which says how many there were. All must succeed.
func (f *remoteFixture) served() (stop func() int) {
	f.t.Helper()
	jobs := f.jobs(f.transport(f.authority.client()), "grpc")
	if _, err := jobs.Status(f.t.Context(), &rtaskv1.StatusRequest{Job: "x"}); err != nil {
		f.t.Fatal(err)
	}
	end, n, done := make(chan struct{}), 0, make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			default:
			}
			if _, err := jobs.Status(f.t.Context(), &rtaskv1.StatusRequest{Job: "x"}); err != nil {
				f.t.Errorf("the good client: %v", err)
				return
			}
			n++
		}
	}()
	return func() int {
		close(end)
		<-done
		return n
	}
}

// Handshakes without a certificate, however many, cost nothing that stays: a good client is served meanwhile, and the engine is told of
// them in few words.
func TestHandshakeFlood(t *testing.T) {
	f := newRemoteFixture(t)
	f.inner.refusals.mu.Lock()
	f.inner.refusals.every = tellEvery
	f.inner.refusals.mu.Unlock()
	goroutines := runtime.NumGoroutine()
	began := time.Now()
	stop := f.served()
	const n = 2000
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range n / 20 {
				if err := f.handshake(f.tls()); err == nil {
					t.Error("a client without a certificate is let in")
				}
			}
		})
	}
	all.Wait()
	if stop() == 0 {
		t.Error("the good client was not served")
	}
	testkit.Eventually(t, "the engine is told of all", func() bool { return f.refusals()["certificate-missing"] == n })
	f.mu.Lock()
	if told, most := len(f.refused), 2+int(time.Since(began)/tellEvery); told > most {
		t.Errorf("in %d calls, %d are the most", told, most)
	}
	f.mu.Unlock()
	testkit.Eventually(t, "nothing of it stays", func() bool {
		f.inner.mutual.mu.Lock()
		defer f.inner.mutual.mu.Unlock()
		return len(f.inner.mutual.open) <= 1 && runtime.NumGoroutine() < goroutines+50
	})
}

// Connections on which nothing comes, or half a handshake, make room for others.
func TestSlowHandshakes(t *testing.T) {
	f := newRemoteFixture(t)
	at, _, _ := serveGateway(t, Options{
		Engine: filepath.Join(f.dir, "gateway.sock"), RemoteAddress: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler), most: 8,
		CredentialsDir: remoteCredentials(t, pemOf(t, f.server.PrivateKey.(crypto.Signer)), nil),
	}, nil)
	f.address = at["remote"]
	hello := helloOf(t)
	for i := range 40 {
		c, err := net.Dial("tcp", f.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write(hello[:i*len(hello)/40]) // it may have made room already
	}
	if _, err := f.jobs(f.transport(f.authority.client()), "connect").Status(t.Context(), &rtaskv1.StatusRequest{Job: "x"}); err != nil {
		t.Errorf("the good client: %v", err)
	}
}

// helloOf is the first message of a client.
func helloOf(t *testing.T) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() { _ = tls.Client(a, &tls.Config{ServerName: "x", MinVersion: tls.VersionTLS13}).Handshake() }()
	hello := make([]byte, 4096)
	_ = b.SetReadDeadline(time.Now().Add(20 * time.Second))
	n, err := b.Read(hello)
	if err != nil {
		t.Fatal(err)
	}
	return hello[:n]
}

// A head that does not come ends the connection, also of a client with a certificate.
func TestSlowHead(t *testing.T) {
	f := newRemoteFixture(t)
	for protocol, text := range map[string]string{"http/1.1": "POST /token HTTP/1.1\r\nHost: x\r\nX-Slow: ", "h2": "PRI * HTTP/2.0\r\n\r\nSM\r"} {
		c := f.tls(f.authority.client())
		c.NextProtos = []string{protocol}
		conn, err := tls.Dial("tcp", f.address, c)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %v", protocol, err)
		}
	}
}

// frame is one of HTTP/2 (RFC 9113, section 4.1).
func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	b = append(b, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(b, payload...)
}

// statusHead is the head of a call (RFC 7541: indexed fields of the static table, and literals that are not indexed).
func statusHead() []byte {
	b := []byte{0x83, 0x87} // :method POST, :scheme https
	literal := func(index byte, value string) {
		b = append(b, index, byte(len(value)))
		b = append(b, value...)
	}
	literal(0x04, "/rtask.v1.JobService/Status") // :path
	literal(0x01, "x")                           // :authority
	literal(0x0f, "")                            // 31, content-type: 15 + 16
	b = append(b[:len(b)-1], 0x10, byte(len("application/grpc")))
	return append(b, "application/grpc"...)
}

// Frames of HTTP/2 that make a server work and cost their sender nothing end their connection, and others are served.
func TestFrameFloods(t *testing.T) {
	f := newRemoteFixture(t)
	stop := f.served()
	const n = 50_000
	reset := func() []byte {
		var b []byte
		for i := range uint32(n) {
			b = append(b, frame(1, 0x4, 2*i+1, statusHead())...)     // HEADERS, END_HEADERS
			b = append(b, frame(3, 0, 2*i+1, []byte{0, 0, 0, 8})...) // RST_STREAM, CANCEL
		}
		return b
	}
	for _, b := range map[string][]byte{
		"SETTINGS":    bytes.Repeat(frame(4, 0, 0, []byte{0, 4, 0, 1, 0, 0}), n),
		"PING":        bytes.Repeat(frame(6, 0, 0, make([]byte, 8)), n),
		"rapid reset": reset(),
	} {
		conn, err := tls.Dial("tcp", f.address, f.tls(f.authority.client()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		// Its sender reads nothing, and may be cut off.
		_, _ = conn.Write(append(append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(4, 0, 0, nil)...), b...))
	}
	if stop() == 0 {
		t.Error("the good client was not served")
	}
	testkit.Eventually(t, "nothing is under way", func() bool {
		w := f.inner.mutual.watch
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.held == 0
	})
}

// A compressed message is unpacked by nobody before its sender is known: the gateway hands it on as it came.
func TestCompressedIsHandedOn(t *testing.T) {
	f := newRemoteFixture(t)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := io.Copy(z, io.LimitReader(zeros{}, 64<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	h := f.transport(f.authority.client())
	for name, header := range map[string][2]string{"application/json": {"Content-Encoding", "gzip"}, "application/grpc": {"Grpc-Encoding", "gzip"}} {
		body := packed.Bytes()
		if name == "application/grpc" {
			body = append(append([]byte{1}, binary.BigEndian.AppendUint32(nil, uint32(len(body)))...), body...)
		}
		r, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+f.address+"/rtask.v1.JobService/Status", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", name)
		r.Header.Set(header[0], header[1])
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		res, err := h.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body) // of a reply that may end early
		res.Body.Close()
		runtime.ReadMemStats(&after)
		if got := res.Header.Get("Grpc-Status") + res.Trailer.Get("Grpc-Status"); res.StatusCode < 400 && got != "12" && got != "8" {
			t.Errorf("%s: %d %s, %s", name, res.StatusCode, got, b)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
			t.Errorf("%s: %d bytes were used", name, n)
		}
		if f.head().Get(header[0]) != "gzip" {
			t.Errorf("%s: the engine is not told", name)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// Of one address there are so many requests at a time, over one connection, too, and its clients are told so in their protocol.
func TestRemoteRequestsAtATime(t *testing.T) {
	f := newRemoteFixture(t)
	c := accepted(t, capped(&queue{}, 8, 1), "192.0.2.1:1")[0]
	if !c.enter() {
		t.Fatal("the first request is refused")
	}
	r := request(c)
	r.Method, r.URL.Path = http.MethodPost, "/rtask.v1.JobService/Status"
	r.Header.Set("Content-Type", "application/grpc")
	w := &answer{header: http.Header{}}
	s := &http.Server{HTTP2: &http.HTTP2Config{}}
	f.inner.configure(s)
	s.Handler.ServeHTTP(w, r)
	if w.header.Get("Grpc-Status") != "14" {
		t.Errorf("%d %v %s", w.status, w.header, w.String())
	}
}

// A reply that its client does not read, though it is there, ends.
func TestRemoteUnreadReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stuck{late: make(chan struct{})}
		c := &control{of: http.NewResponseController(w)}
		reply := newTimely(w, c)
		began := time.Now()
		if _, err := reply.Write([]byte("x")); err == nil || time.Since(began) != writeTimeout {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		// One that is read, and then has nothing to read for long, does not.
		w = &stuck{late: make(chan struct{}), reads: true}
		reply = newTimely(w, &control{of: http.NewResponseController(w)})
		for range 3 {
			if _, err := reply.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			if err := reply.FlushError(); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour)
		}
		synctest.Wait()
		select {
		case <-w.late:
			t.Error("it has ended")
		default:
		}
		// Once the handler has returned, net/http's writer panics.
		c.end()
		c.use(func(*http.ResponseController) { t.Error("it is used after its end") })
	})
}

// stuck is a reply that nobody reads, unless reads: until its deadline.
type stuck struct {
	late  chan struct{}
	reads bool
}

func (*stuck) Header() http.Header { return http.Header{} }
func (*stuck) WriteHeader(int)     {}
func (*stuck) FlushError() error   { return nil }

func (s *stuck) Write(b []byte) (int, error) {
	if s.reads {
		return len(b), nil
	}
	<-s.late
	return 0, os.ErrDeadlineExceeded
}

func (s *stuck) SetWriteDeadline(time.Time) error { close(s.late); return nil }

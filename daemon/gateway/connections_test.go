package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// queue is a listener whose connections come from addresses of a test's choice.
type queue struct{ from []string }

func (q *queue) Accept() (net.Conn, error) {
	if len(q.from) == 0 {
		return nil, errors.New("no more")
	}
	c, _ := net.Pipe()
	a := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(q.from[0]))
	q.from = q.from[1:]
	return &from{c, a}, nil
}
func (*queue) Close() error   { return nil }
func (*queue) Addr() net.Addr { return nil }

type from struct {
	net.Conn
	addr net.Addr
}

func (f *from) RemoteAddr() net.Addr { return f.addr }

// accepted has connections come from addresses, and returns them; nil stands for one that was closed at once.
func accepted(t *testing.T, l *connections, addresses ...string) []*connection {
	t.Helper()
	var all []*connection
	for _, a := range addresses {
		l.Listener.(*queue).from = []string{a}
		c, err := l.Accept()
		if err != nil {
			all = append(all, nil)
			continue
		}
		all = append(all, c.(*connection))
	}
	return all
}

// closed reports whether a connection of a queue is closed.
func closed(c *connection) bool {
	_ = c.SetReadDeadline(time.Unix(1, 0))
	_, err := c.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// request is one that came on a connection.
func request(c *connection) *http.Request {
	return httptest.NewRequest("GET", "/", nil).WithContext(connContext(context.Background(), c))
}

// One client does not take all connections, nor does this machine, or all others: the one makes room that nothing has been done for the
// longest. What is closed is free again.
func TestConnections(t *testing.T) {
	l := capped(&queue{}, 8, 2)
	first := accepted(t, l, "192.0.2.1:1", "192.0.2.1:2", "[2001:db8::1]:1", "[2001:db8::2]:1")
	// One more of an address closes its oldest, and no other's.
	more := accepted(t, l, "192.0.2.1:3", "[2001:db8::3]:1")
	for i, want := range []bool{true, false, true, false} {
		if closed(first[i]) != want {
			t.Errorf("connection %d: closed is %v", i, !want)
		}
	}
	// Those that something is done for make no room: the oldest other one does, or the newest none is let in.
	done := working(request(first[1]))
	again := working(request(first[1])) // another request, over HTTP/2
	if c := accepted(t, l, "192.0.2.1:4")[0]; c == nil || !closed(more[0]) || closed(first[1]) {
		t.Error("the wrong one made room")
	} else {
		defer working(request(c))()
	}
	if c := accepted(t, l, "192.0.2.1:5")[0]; c != nil {
		t.Error("there is room without any")
	}
	done()
	done()
	if c := accepted(t, l, "192.0.2.1:5")[0]; c != nil {
		t.Error("one of two requests is no longer under way, and its connection makes room")
	}
	again()
	if c := accepted(t, l, "192.0.2.1:5")[0]; c == nil || !closed(first[1]) {
		t.Error("one that was used makes no room any more")
	}
	// This machine is one client of many, which leaves a quarter to others, and they to it.
	var here []*connection
	for i := range 7 {
		here = append(here, accepted(t, l, fmt.Sprintf("127.0.0.1:%d", i+1))...)
	}
	for i, c := range here {
		if c == nil || closed(c) != (i < 3) {
			t.Errorf("of this machine: connection %d", i)
		}
	}
	if l.all != 8 || l.here.open != 4 || l.elsewhere.open != 4 {
		t.Errorf("%d, %d, %d", l.all, l.here.open, l.elsewhere.open)
	}
	// At the bound, others get their quarter from this machine, and then have to make room themselves.
	for range l.most {
		accepted(t, l, "[::1]:9")
	}
	for i := range 20 {
		accepted(t, l, fmt.Sprintf("198.51.100.%d:1", i))
	}
	if l.all != 8 || l.here.open < 2 || l.elsewhere.open < 2 {
		t.Errorf("%d, %d, %d", l.all, l.here.open, l.elsewhere.open)
	}
	for range 2 * l.most {
		accepted(t, l, "127.0.0.1:9")
	}
	if l.all != 8 || l.elsewhere.open < 2 {
		t.Errorf("%d, %d, %d", l.all, l.here.open, l.elsewhere.open)
	}
	for _, g := range []*group{&l.here, &l.elsewhere} {
		for g.idle.Len() > 0 {
			g.idle.Front().Value.(*connection).Close()
		}
	}
	for _, c := range append(first, more...) { // twice counts once
		c.Close()
	}
	if l.all != 1 || len(l.addresses) != 1 || l.here.open != 0 { // one that something is still done for
		t.Errorf("%d, %v", l.all, l.addresses)
	}
}

// One client has so many requests at a time, however few connections they come on.
func TestRequestsAtATime(t *testing.T) {
	l := capped(&queue{}, 8, 3)
	c := accepted(t, l, "192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "127.0.0.1:1")
	var inside func()
	h := counted(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { inside() }), func(w http.ResponseWriter, _ *http.Request, p problem) { writeProblem(w, p) })
	try := func(c *connection) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request(c))
		return w.Code
	}
	n := 0
	inside = func() {
		if n++; n < 3 {
			if code := try(c[0]); code != 200 {
				t.Errorf("request %d: %d", n, code)
			}
			return
		}
		inside = func() {}
		if code := try(c[0]); code != 503 {
			t.Errorf("one more: %d", code)
		}
		// The first one of another connection is let in, and other clients are.
		for _, other := range c[1:] {
			if code := try(other); code != 200 {
				t.Errorf("%v: %d", other.from, code)
			}
		}
	}
	if code := try(c[0]); code != 200 || n != 3 {
		t.Errorf("%d, %d", code, n)
	}
	for _, one := range c {
		one.Close()
	}
	if l.all != 0 || len(l.addresses) != 0 || l.elsewhere.current != 0 {
		t.Errorf("%d, %v", l.all, l.addresses)
	}
}

// Idle connections of a local process, as many as there may be and more, shut nobody out, whatever has been sent on them.
func TestIdleConnections(t *testing.T) {
	f := newFixture(t)
	at := f.serve(Options{APIAddress: "127.0.0.1:0", MetricsAddress: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler), most: 40}, nil)
	f.api, f.metrics = at["api"], at["metrics"]
	var slow net.Conn
	for i, begin := range []string{"", "GET /healthz HT", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "POST /tasks/count HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nContent-Length: 9\r\n\r\n"} {
		for _, address := range []string{f.api, f.metrics} {
			for range 60 {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_, _ = io.WriteString(c, begin) // it may have been closed already
			}
		}
		r, err := http.NewRequest("POST", "http://"+f.api+"/tasks/count", strings.NewReader("12345"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+f.key)
		r.Close = true
		if got := f.send(r); got.status != 200 || got.json["stdout"] != "5\n" {
			t.Errorf("%q: %d %s", begin, got.status, got.body)
		}
		if m := f.scrape(); !strings.Contains(m, "rtask_engine_up 1") {
			t.Errorf("%q: %s", begin, m)
		}
		// What is under way goes on, however old its connection is.
		if i == 0 {
			if slow, err = net.Dial("tcp", f.api); err != nil {
				t.Fatal(err)
			}
			defer slow.Close()
			if _, err := io.WriteString(slow, "POST /tasks/while HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+f.key+"\r\nContent-Length: 0\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			for !strings.Contains(f.scrape(), `rtask_jobs{state="running"} 1`) {
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	people := client.Dial(filepath.Join(f.dir, "run", "rtask.sock"))
	defer people.Close()
	jobs, err := people.Jobs.List(t.Context(), &rtaskv1.ListRequest{})
	if err != nil || len(jobs.Jobs) != 1 {
		t.Fatalf("%v, %v", jobs, err)
	}
	if _, err := people.Jobs.Stop(t.Context(), &rtaskv1.StopRequest{Job: jobs.Jobs[0].Id}); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	_ = slow.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := slow.Read(b); err != nil || !strings.Contains(string(b[:n]), `"reason":"stopped"`) {
		t.Errorf("%q, %v", b[:n], err)
	}
}

// The client of the newest connection has a second for its first request when the gateway stops.
func TestStopWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := capped(&queue{from: []string{"192.0.2.1:1", "192.0.2.1:2"}}, 9, 9)
		if d := l.stop(); d != 0 {
			t.Errorf("without a connection %v", d)
		}
		var open []net.Conn
		for range 2 {
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
			time.Sleep(300 * time.Millisecond)
		}
		if d := l.stop(); d != 700*time.Millisecond {
			t.Errorf("%v", d)
		}
		if time.Sleep(time.Minute); l.stop() != 0 {
			t.Error("connections are waited for that had their time")
		}
		for _, c := range open {
			c.Close()
		}
	})
}

// What is said last reaches a client that is still sending: net/http ends its side first, where a connection can do that.
func TestCloseWrite(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	client, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := capped(inner, 9, 9).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w, ok := c.(interface{ CloseWrite() error })
	if !ok {
		t.Fatalf("a %T cannot", c)
	}
	if err := w.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := client.Read(b); err != io.EOF {
		t.Errorf("the client reads %v", err)
	}
	if _, err := client.Write(b); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(b); err != nil {
		t.Errorf("what the client still sends: %v", err)
	}
}

// once is a listener with one connection.
type once struct {
	net.Listener
	conns chan net.Conn
}

func (o once) Accept() (net.Conn, error) {
	c, ok := <-o.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (o once) Close() error { return nil }

// A client that does not read its reply, whatever that is, has half a minute.
func TestUnreadReply(t *testing.T) {
	for _, request := range []string{"GET /healthz", "GET /openapi.json", "GET /none", "GET /tasks/a/b", "POST /tasks/a", "GET /metrics"} {
		synctest.Test(t, func(t *testing.T) {
			theirs, ours := net.Pipe()
			o := once{conns: make(chan net.Conn, 1)}
			o.conns <- ours
			logger := slog.New(slog.DiscardHandler)
			handler := http.Handler(newAPI(&stub{}, logger))
			if strings.HasSuffix(request, "metrics") {
				handler = newMetrics(&stub{}, Options{Logger: logger})
			}
			s := service{handler: handler}.server(logger)
			served := make(chan error)
			go func() { served <- s.Serve(o) }()
			// net.Pipe has no room: nothing of the reply is taken.
			if _, err := io.WriteString(theirs, request+" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(writeTimeout + scrapeTimeout + time.Second)
			synctest.Wait()
			if n, err := theirs.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("%s: the connection is still there: %d, %v", request, n, err)
			}
			close(o.conns)
			if err := <-served; err == nil {
				t.Error("served on")
			}
			_ = s.Close()
			theirs.Close()
		})
	}
}

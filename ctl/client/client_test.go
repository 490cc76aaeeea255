package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

// peer is the other end of a connection: it answers with the error that a job's name asks for, or breaks off. What engines answer is
// tested with engines.
type peer struct {
	rtaskv1connect.UnimplementedJobServiceHandler
	rtaskv1connect.UnimplementedGatewayServiceHandler
	connections atomic.Int32
}

func (*peer) Status(_ context.Context, r *rtaskv1.StatusRequest) (*rtaskv1.StatusResponse, error) {
	var code connect.Code
	if err := code.UnmarshalText([]byte(r.Job)); err != nil {
		panic(http.ErrAbortHandler)
	}
	err := connect.NewError(code, "the engine's words")
	d, e := connectproto.NewErrorDetail(&rtaskv1.Error{Kind: "a-kind", RetryAfter: durationpb.New(time.Second)})
	if e != nil {
		return nil, e
	}
	return nil, err.WithDetail(d)
}

func (*peer) Metrics(context.Context, *rtaskv1.MetricsRequest) (*rtaskv1.MetricsResponse, error) {
	time.Sleep(20 * time.Millisecond)
	return &rtaskv1.MetricsResponse{}, nil
}

func (e *peer) handler() http.Handler {
	server := connect.NewServer()
	rtaskv1connect.RegisterJobServiceHandler(server, e)
	rtaskv1connect.RegisterGatewayServiceHandler(server, e)
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)
	return mux
}

func start(t *testing.T) (*peer, *client.Client) {
	t.Helper()
	e := &peer{}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: e.handler(), ConnState: func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			e.connections.Add(1)
		}
	}}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	c := client.Dial(path)
	t.Cleanup(func() { c.Close(); _ = s.Close(); <-done })
	return e, c
}

func status(t *testing.T, c *client.Client, job string) error {
	t.Helper()
	_, err := c.Jobs.Status(t.Context(), &rtaskv1.StatusRequest{Job: job})
	return client.Classify(err)
}

// TestNotReached checks the errors of a socket that nobody answers on.
func TestNotReached(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "none"), stale} {
		err := status(t, client.Dial(path), "x")
		if want := "rtaskd is not running (cannot connect to " + path + ")"; client.Message(err) != want {
			t.Errorf("Message = %q, want %q", client.Message(err), want)
		}
		if !errors.Is(err, client.ErrNotRunning) || errors.Is(err, client.ErrPermission) || !client.Broken(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
	err = status(t, client.Dial("/"+strings.Repeat("x", 200)), "x")
	if err == nil || errors.Is(err, client.ErrNotRunning) || !strings.HasPrefix(client.Message(err), "cannot talk to rtaskd: cannot connect to /xxx") {
		t.Errorf("a path that is too long: %v", err)
	}
}

func TestSocketPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may connect to every socket")
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	err = status(t, client.Dial(path), "x")
	if !errors.Is(err, client.ErrPermission) || client.Message(err) != "permission denied (cannot connect to "+path+")" {
		t.Errorf("%v", err)
	}
}

// TestAnswers checks the errors that an engine returns, and a call that breaks off.
func TestAnswers(t *testing.T) {
	_, c := start(t)
	for job, want := range map[string]struct{ permission, broken bool }{
		"not_found": {}, "permission_denied": {permission: true}, "unavailable": {broken: true}, "canceled": {broken: true},
		"already_exists": {}, "internal": {},
	} {
		err := status(t, c, job)
		if errors.Is(err, client.ErrPermission) != want.permission || client.Broken(err) != want.broken || errors.Is(err, client.ErrNotRunning) {
			t.Errorf("%s: %v", job, err)
		}
		if got := client.Message(err); got != "the engine's words" {
			t.Errorf("%s: Message = %q", job, got)
		}
		if connect.CodeOf(err).String() != job {
			t.Errorf("%s: code %v", job, connect.CodeOf(err))
		}
		if d, ok := client.Detail(err); !ok || d.GetKind() != "a-kind" || d.GetRetryAfter().AsDuration() != time.Second {
			t.Errorf("%s: Detail = %v, %v", job, d, ok)
		}
	}
	err := status(t, c, "break")
	if !client.Broken(err) || !strings.HasPrefix(client.Message(err), "cannot talk to rtaskd: ") {
		t.Errorf("a call that breaks off: %v", err)
	}
	if d, ok := client.Detail(err); ok {
		t.Errorf("Detail = %v", d)
	}
	if client.Classify(nil) != nil || client.Broken(nil) {
		t.Error("no error is an error")
	}
	if err := errors.New("mine"); client.Classify(err) != err || client.Message(err) != "mine" {
		t.Error("an error of somebody else's is not left alone")
	}
}

// TestKeepsConnections checks that calls one after the other share a connection, and that many at once have theirs kept.
func TestKeepsConnections(t *testing.T) {
	e, c := start(t)
	frame := func() {
		if _, err := c.Gateway.Metrics(t.Context(), &rtaskv1.MetricsRequest{}); err != nil {
			t.Error(err)
		}
	}
	frame()
	frame()
	if n := e.connections.Load(); n != 1 {
		t.Errorf("%d connections for two calls", n)
	}
	many := func() {
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(frame)
		}
		wg.Wait()
	}
	for range 10 {
		many()
	}
	// One that is dialled while another comes back is kept for later.
	if n := e.connections.Load(); n > 2*64 {
		t.Errorf("%d connections for 64 calls at once, ten times", n)
	}
}

// TestFullQueue checks that a call waits for a place in the accept queue instead of failing.
func TestFullQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := listenNarrow(path)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = l.Close(), f.Close() }()
	var first net.Conn
	for { // until the queue is full
		c, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		first = c
		defer func() { _ = c.Close() }()
	}
	if first == nil {
		t.Fatal("the socket takes nobody")
	}
	s := &http.Server{Handler: new(peer).handler()}
	done := make(chan struct{})
	time.AfterFunc(30*time.Millisecond, func() { defer close(done); _ = s.Serve(l) })
	_, err = client.Dial(path).Gateway.Metrics(t.Context(), &rtaskv1.MetricsRequest{})
	if err != nil {
		t.Errorf("with a full accept queue: %v", err)
	}
	_ = s.Close()
	<-done
}

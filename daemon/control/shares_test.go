package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/job"
)

const watched = `
task "runs" {
  command      = ["/bin/sh", "-c", "echo on; exec sleep 1000"]
  timeout      = "infinity"
  blocking     = true
  api_keys     = ["demo", "other"]
  allow_users  = ["ada"]
}
task "takes" {
  command         = ["/bin/cat"]
  blocking        = true
  api_keys        = ["demo"]
  max_input_bytes = "1M"
}
`

// concurrent reports whether an error is the one of too many calls at a time.
func concurrent(err error) bool {
	d := detail(err)
	return connect.CodeOf(err) == connect.CodeResourceExhausted && d.GetKind() == "concurrency" && d.GetRetryAfter().AsDuration() > 0
}

// One API key has so many followers and waits at a time, whatever others have.
func TestWatchesOfKey(t *testing.T) {
	f := newFixture(t, watched)
	demo, other := f.key("demo"), f.key("other")
	id := map[string]string{}
	for name, key := range map[string][]byte{"demo": demo, "other": other} {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := f.net(key, "runs").RunStream(ctx, &rtaskv1.RunRequest{})
		if err != nil {
			t.Fatal(err)
		}
		id[name] = must[rtaskv1.RunStreamResponse](t)(stream.Receive()).Job.Id
		cancel()
		stream.Close()
	}
	follow := func(name string, key []byte) (end func(), err error) {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := f.net(key, "runs").Logs(ctx, &rtaskv1.LogsRequest{Id: id[name], Follow: true})
		if err == nil {
			_, err = stream.Receive()
		}
		return func() {
			cancel()
			_ = stream.Close()
		}, err
	}
	wait := func(name string, key []byte, d string) error {
		_, err := f.net(key, "runs").Result(t.Context(), &rtaskv1.ResultRequest{Id: id[name], Wait: d})
		return err
	}
	var ends []func()
	for i := range maxWatchesOfKey {
		end, err := follow("demo", demo)
		if err != nil {
			t.Fatalf("follower %d: %v", i, err)
		}
		ends = append(ends, end)
	}
	if _, err := follow("demo", demo); !concurrent(err) {
		t.Errorf("one more follower: %v", err)
	}
	if err := wait("demo", demo, "1s"); !concurrent(err) {
		t.Errorf("a wait beside all followers: %v", err)
	}
	if err := wait("demo", demo, ""); err != nil {
		t.Errorf("who does not wait: %v", err)
	}
	if err := wait("other", other, "1ms"); err != nil {
		t.Errorf("another key: %v", err)
	}
	if end, err := follow("other", other); err != nil {
		t.Errorf("another key's follower: %v", err)
	} else {
		end()
	}
	ends[0]()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := wait("demo", demo, "1ms")
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after one has ended: %v", err)
		}
	}
	for _, end := range ends {
		end()
	}
	f.nothingHeld(t)
}

// nothingHeld waits until no caller holds anything any more.
func (f *fixture) nothingHeld(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		left := 0
		for _, s := range []*shares{&f.watches, &f.messages} {
			s.mu.Lock()
			left += len(s.held)
			s.mu.Unlock()
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v, %v", f.watches.held, f.messages.held)
		}
	}
}

// One local user has so many, too, and root has as many as it likes.
func TestWatchesOfUser(t *testing.T) {
	f := newFixture(t, watched)
	ada, olga, root := f.as(peers()[auth.User]), f.as(peers()[auth.Operator]), f.as(auth.Peer{CgroupKnown: true})
	started := must[rtaskv1.StartResponse](t)(ada.Start(t.Context(), &rtaskv1.StartRequest{Name: "runs"}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	follow := func(as interface {
		StreamLogs(context.Context, *rtaskv1.StreamLogsRequest) (rtaskv1connect.JobServiceStreamLogsClientStream, error)
	}) error {
		stream, err := as.StreamLogs(ctx, &rtaskv1.StreamLogsRequest{Job: started.Job.Id, Follow: true})
		if err == nil {
			_, err = stream.Receive()
		}
		return err
	}
	for i := range maxWatchesOfUser {
		if err := follow(ada); err != nil {
			t.Fatalf("follower %d: %v", i, err)
		}
	}
	if err := follow(ada); !concurrent(err) {
		t.Errorf("one more: %v", err)
	}
	if _, err := ada.Wait(t.Context(), &rtaskv1.WaitRequest{Job: started.Job.Id}); !concurrent(err) {
		t.Errorf("a wait: %v", err)
	}
	if err := follow(olga); err != nil {
		t.Errorf("another user: %v", err)
	}
	for i := range maxWatchesOfUser + 1 {
		if err := follow(root); err != nil {
			t.Fatalf("root's follower %d: %v", i, err)
		}
	}
	cancel()
	f.nothingHeld(t)
}

// What the gateway, or a local user, sends at a time is bounded; what was decided on does not count, and nobody else is held up.
func TestMessagesAtATime(t *testing.T) {
	f := newFixture(t, watched)
	f.mostOfGateway, f.mostOfUser = 1<<20, 1<<20
	demo := f.key("demo")
	run := func(n int) error {
		_, err := f.net(demo, "takes").Run(t.Context(), &rtaskv1.RunRequest{Input: make([]byte, n)})
		return err
	}
	full := func(err error) bool {
		return detail(err).GetKind() == "unavailable" && detail(err).GetRetryAfter().AsDuration() > 0
	}
	// One message that is larger than all there may be.
	if err := run(2 << 20); !full(err) {
		t.Errorf("2 MiB: %v", err)
	}
	if err := run(900 << 10); err != nil {
		t.Errorf("900 KiB: %v", err)
	}
	f.nothingHeld(t)
	// Several that do not come to an end.
	hold := func(socket string, p auth.Peer, procedure string) net.Conn {
		c, err := f.dial(socket, p)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/proto\r\nContent-Length: 60000000\r\n\r\n", procedure)
		if _, err := io.WriteString(c, head+strings.Repeat("x", 600<<10)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	held := func(who any) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			f.messages.mu.Lock()
			n := f.messages.held[who]
			f.messages.mu.Unlock()
			if n == 600<<10 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v holds %d bytes", who, n)
			}
		}
	}
	first := hold("gateway", peers()[auth.Gateway], "/rtask.v1.GatewayService/Run")
	held(auth.Gateway)
	if err := run(500 << 10); !full(err) {
		t.Errorf("beside another message: %v", err)
	}
	if err := run(100 << 10); err != nil {
		t.Errorf("what there is room for: %v", err)
	}
	hold("control", peers()[auth.User], "/rtask.v1.JobService/Start")
	held(uint32(adaUID))
	if _, err := f.as(peers()[auth.User]).Start(t.Context(), &rtaskv1.StartRequest{Name: "runs", Input: make([]byte, 500<<10)}); !full(err) {
		t.Errorf("a user: %v", err)
	}
	if err := run(400 << 10); err != nil {
		t.Errorf("the gateway, beside a user: %v", err)
	}
	first.Close()
	for deadline := time.Now().Add(20 * time.Second); run(500<<10) != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what broke off counts on")
		}
	}
	// A job that runs has its input, and its request holds nothing.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go f.net(demo, "runs").Run(ctx, &rtaskv1.RunRequest{Input: make([]byte, 10_000)})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		jobs, err := f.Jobs.List(job.Filter{})
		f.messages.mu.Lock()
		n := f.messages.held[auth.Gateway]
		f.messages.mu.Unlock()
		if err == nil && len(jobs) == 1 && n == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d jobs, %v, %d bytes", len(jobs), err, n)
		}
	}
}

// A message that broke off, or was refused, is given back once.
func TestMessageGivesBack(t *testing.T) {
	for _, c := range []struct {
		body string
		most int64
		err  error
	}{{"abc", 3, nil}, {"abcd", 3, io.EOF}, {"", 0, nil}} {
		var s shares
		m := &message{ReadCloser: io.NopCloser(strings.NewReader(c.body)), of: &s, who: "a", most: c.most}
		_, err := io.ReadAll(m)
		if (err != nil) != (c.err != nil) {
			t.Errorf("%q: %v", c.body, err)
		}
		var e *connect.Error
		if err != nil && !errors.As(err, &e) {
			t.Errorf("%v", err)
		}
		m.decided()
		m.decided()
		if len(s.held) != 0 {
			t.Errorf("%v", s.held)
		}
	}
}

// A gateway has so many streams of Watch at a time.
func TestStatesAtATime(t *testing.T) {
	f := newFixture(t, watched)
	gateway := f.net(nil, "")
	open := func(ctx context.Context) error { return firstError(gateway.Watch(ctx, &rtaskv1.WatchRequest{})) }
	ctx, cancel := context.WithCancel(t.Context())
	for i := range maxStates {
		if err := open(ctx); err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	if err := open(t.Context()); !concurrent(err) {
		t.Errorf("one more: %v", err)
	}
	cancel()
	f.nothingHeld(t)
	if err := open(t.Context()); err != nil {
		t.Error(err)
	}
}

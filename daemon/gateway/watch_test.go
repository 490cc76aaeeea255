package gateway

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/packaging/testkit"
)

// The engine tells of a change by itself, over one stream, and of the next engine the gateway hears when somebody asks.
func TestWatch(t *testing.T) {
	f := newFixture(t)
	w := f.inner.watch
	if state, err := w.now(t.Context()); err != nil || state.AllowPlaintext {
		t.Fatalf("%v, %v", state, err)
	}
	f.configure("allow_plaintext = true\n")
	testkit.Eventually(t, "it is told of a change", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.live && w.state.AllowPlaintext
	})
	f.stopEngine()
	testkit.Eventually(t, "it notices that the engine is gone", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return !w.live
	})
	if state, err := w.now(t.Context()); err == nil {
		t.Errorf("an engine that is gone says %v", state)
	}
	if state, err := w.last(t.Context()); err != nil || !state.AllowPlaintext {
		t.Errorf("its last word: %v, %v", state, err)
	}
	f.stopEngine = engine(t, f.dir)
	if state, err := w.now(t.Context()); err != nil || !state.AllowPlaintext {
		t.Errorf("the next engine: %v, %v", state, err)
	}
}

// watchCount counts the streams of Watch that are opened.
type watchCount struct {
	rtaskv1connect.GatewayServiceClient
	opened atomic.Int32
}

func (c *watchCount) Watch(ctx context.Context, r *rtaskv1.WatchRequest) (rtaskv1connect.GatewayServiceWatchClientStream, error) {
	c.opened.Add(1)
	return c.GatewayServiceClient.Watch(ctx, r)
}

// Requests that come together open one stream between them.
func TestWatchTogether(t *testing.T) {
	f := newFixture(t)
	engine := &watchCount{GatewayServiceClient: f.inner.engine}
	w := newWatch(engine)
	defer w.close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // not to hang if some wait for a stream of their own
	defer cancel()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, err := w.now(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := engine.opened.Load(); n != 1 {
		t.Errorf("%d streams were opened", n)
	}
}

// An engine that has said nothing is not asked for each connection, and does not hold those up for ever.
func TestWatchSilent(t *testing.T) {
	a := newAPI(silent(t).Gateway, slog.New(slog.DiscardHandler))
	w := a.watch
	defer w.close()
	if _, err := w.last(t.Context()); err != errSilent {
		t.Errorf("a silent engine: %v", err)
	}
	if p := a.problemOf(errSilent); p.Detail != "the engine does not answer" || p.retryAfter == 0 {
		t.Errorf("%+v", p)
	}
	w.mu.Lock()
	if w.failed.IsZero() {
		t.Error("that it did not answer is not known")
	}
	failed := time.Now().Add(time.Minute) // for slow machines
	w.failed = failed
	w.mu.Unlock()
	if state, err := w.last(t.Context()); state != nil || err != client.ErrNotRunning {
		t.Errorf("asked again at once: %v, %v", state, err)
	}
	w.mu.Lock()
	if w.failed != failed {
		t.Error("it was asked again at once")
	}
	w.mu.Unlock()
}

// An engine that answers says so before the gateway takes it for one that hangs, and one that hangs is noticed.
func TestWatchHears(t *testing.T) {
	f := newFixture(t)
	w := newWatch(f.inner.engine)
	defer w.close()
	first, err := w.now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the engine says something without a change", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.live {
			t.Fatal("an engine that answers counts as away")
		}
		return w.state != first
	})
	hasty := newWatch(f.inner.engine) // to which every engine hangs
	hasty.silence = time.Millisecond
	defer hasty.close()
	if _, err := hasty.now(t.Context()); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "that the engine says nothing is noticed", func() bool {
		hasty.mu.Lock()
		defer hasty.mu.Unlock()
		return !hasty.live
	})
}

// After close, nobody opens a stream.
func TestWatchClosed(t *testing.T) {
	w := newWatch(silent(t).Gateway)
	w.close()
	if state, err := w.now(t.Context()); state != nil || err != errClosed {
		t.Errorf("%v, %v", state, err)
	}
}

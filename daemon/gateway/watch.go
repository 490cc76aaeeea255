package gateway

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

const (
	// longestSilence is how long the engine may say nothing before it counts as away. It says something every two seconds.
	longestSilence = 5 * time.Second
	// askAgain is for how long an engine that did not answer is not asked again by last.
	askAgain = time.Second
)

var (
	errSilent = errors.New("the engine says nothing")
	errClosed = errors.New("the gateway stops")
)

// watch keeps what the engine says of itself and its configuration on one stream, for all requests. The stream is opened when
// somebody asks, and again when somebody asks after it has ended: a gateway that nobody uses does not start an engine that an
// administrator has stopped.
type watch struct {
	engine rtaskv1connect.GatewayServiceClient
	ctx    context.Context // of the streams
	stop   context.CancelFunc
	// silence is longestSilence.
	silence time.Duration
	// told is called with what the engine says of certificates, whenever that changes, before anybody else is told; nil: nobody wants to
	// know.
	told func(*rtaskv1.Trust)

	mu      sync.Mutex             // guards what follows
	held    int                    // requests under way that want the stream to be there
	state   *rtaskv1.WatchResponse // what the engine said last; nil: nothing yet
	live    bool                   // the engine says it now
	opening *opening               // the stream that is being opened; nil: none
	failed  time.Time              // when that was last in vain
	streams sync.WaitGroup
}

// opening is a stream of which nothing has come yet.
type opening struct {
	done  chan struct{} // closed when there is a state or an error
	state *rtaskv1.WatchResponse
	err   error
}

func newWatch(engine rtaskv1connect.GatewayServiceClient) *watch {
	ctx, stop := context.WithCancel(context.Background())
	return &watch{engine: engine, ctx: ctx, stop: stop, silence: longestSilence}
}

// close ends the stream. After it, none is opened.
func (w *watch) close() {
	w.mu.Lock()
	w.stop()
	w.mu.Unlock()
	w.streams.Wait()
}

// now returns what the engine says now, or why it cannot be asked.
func (w *watch) now(ctx context.Context) (*rtaskv1.WatchResponse, error) {
	w.mu.Lock()
	if w.live {
		defer w.mu.Unlock()
		return w.state, nil
	}
	if w.ctx.Err() != nil { // close waits for streams, or has waited
		defer w.mu.Unlock()
		return nil, errClosed
	}
	o := w.opening
	if o == nil {
		o = &opening{done: make(chan struct{})}
		w.opening = o
		w.streams.Go(func() { w.follow(o) })
	}
	w.mu.Unlock()
	select {
	case <-o.done:
		return o.state, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// last returns what the engine says now, or has said last if it cannot be asked. Where it did not answer a moment ago it is not
// asked. Without a state there is an error.
func (w *watch) last(ctx context.Context) (*rtaskv1.WatchResponse, error) {
	w.mu.Lock()
	state, moment := w.state, time.Since(w.failed) < askAgain
	w.mu.Unlock()
	if moment {
		if state == nil {
			return nil, client.ErrNotRunning
		}
		return state, nil
	}
	now, err := w.now(ctx)
	if err != nil {
		return state, err
	}
	return now, nil
}

// hold says that a request is under way during which the stream is to be there until the function is called: when it ends, another one
// is opened without being asked for.
func (w *watch) hold() (done func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held++
	return sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.held--
	})
}

// follow keeps the state for as long as the engine says something, and for as long as a request wants it.
func (w *watch) follow(o *opening) {
	for o != nil {
		o = w.again(o, w.receive(o))
	}
}

// again ends a stream, and returns the next one that is to be opened, after a moment; nil: none.
func (w *watch) again(o *opening, err error) *opening {
	w.mu.Lock()
	w.live = false
	if w.opening == o {
		w.opening, w.failed = nil, time.Now()
		o.err = err
		close(o.done)
	}
	wanted := w.held > 0
	w.mu.Unlock()
	if !wanted {
		return nil
	}
	t := time.NewTimer(askAgain)
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.ctx.Done():
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.live || w.opening != nil || w.held == 0 || w.ctx.Err() != nil { // somebody was faster, or nobody wants it any more
		return nil
	}
	w.opening = &opening{done: make(chan struct{})}
	return w.opening
}

func (w *watch) receive(o *opening) error {
	ctx, cancel := context.WithCancelCause(w.ctx)
	defer cancel(nil)
	silence := time.AfterFunc(askTimeout, func() { cancel(errSilent) })
	defer silence.Stop()
	err := w.keep(ctx, o, silence)
	if errors.Is(context.Cause(ctx), errSilent) {
		return errSilent
	}
	return err
}

// keep keeps what comes on a stream, and sets the time of silence back each time. It returns why the stream ended.
func (w *watch) keep(ctx context.Context, o *opening, silence *time.Timer) error {
	stream, err := w.engine.Watch(ctx, &rtaskv1.WatchRequest{})
	if err != nil {
		return err
	}
	var trust *rtaskv1.Trust // as it was told last on this stream
	for m, err := range client.Messages(stream) {
		if err != nil {
			return err
		}
		silence.Reset(w.silence)
		if m.Remote == nil {
			m.Remote = trust
		} else if trust = m.Remote; w.told != nil {
			w.told(trust)
		}
		w.mu.Lock()
		w.state, w.live = m, true
		if w.opening == o {
			w.opening, w.failed, o.state = nil, time.Time{}, m
			close(o.done)
		}
		w.mu.Unlock()
	}
	return errors.New("the engine has ended the stream")
}

package gateway

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/daemon/api/codec"
)

const (
	// returnTime is how long an engine that went away during a request may take to come back.
	returnTime = 30 * time.Second
	// The shortest and the longest time between two calls for it. A call that is made before it is back waits on its socket.
	firstReturn, lastReturn = 20 * time.Millisecond, 200 * time.Millisecond
	// settled is how long a call must have lasted for the engine to count as having been there. A request that makes the
	// engine fail at once is given up after returnTime.
	settled = 2 * time.Second
)

// persist makes a call, and makes it again when the engine goes away meanwhile (it was started anew, upgraded, killed), until
// one answers, or none has been there for returnTime. The call must be one that may be heard twice.
func persist[T any](ctx context.Context, call func(context.Context) (*T, error)) (*T, error) {
	var away time.Time
	met := false // an engine, which may have heard it
	for pause := firstReturn; ; pause = min(2*pause, lastReturn) {
		began := time.Now()
		reply, err := call(ctx)
		if err == nil || ctx.Err() != nil || !wentAway(err) {
			return reply, err
		}
		met = met || !errors.Is(err, client.ErrNotRunning) && !errors.Is(err, client.ErrPermission)
		now := time.Now()
		if away.IsZero() || now.Sub(began) >= settled {
			away, pause = now, firstReturn
		}
		if !met || now.Sub(away) >= returnTime {
			return reply, err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, err
		}
	}
}

// call makes a call to the engine on behalf of a client, as persist does.
func call[Q, R any](ctx context.Context, client codec.Presented, method func(context.Context, *Q) (*R, error), request *Q) (*R, error) {
	return persist(ctx, func(ctx context.Context) (*R, error) { return method(client.Context(ctx), request) })
}

// wentAway reports whether err says that there is no engine any more that could answer. The context of the call has not
// ended.
func wentAway(err error) bool {
	if m := detail(err); m != nil {
		return m.Restarting
	}
	if _, ok := errors.AsType[*connect.Error](err); !ok {
		return true
	}
	// What the engine says itself has a kind. The transport's errors have none. That of a connection which the engine's death
	// has reset is "canceled" (connect takes ECONNRESET and EPIPE for the work of whoever is at the other end).
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeUnknown, connect.CodeInternal, connect.CodeCanceled:
		return true
	default:
		return false
	}
}

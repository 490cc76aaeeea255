package gateway

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

const (
	// tellEvery is how often the engine is told of refused handshakes: of those of one address and kind once.
	tellEvery = time.Second
	// maxRefusals is of how many addresses and kinds it is told at a time. Those of more addresses are told together.
	maxRefusals = 64
)

// refusals are handshakes that were refused, of which the engine is to be told, for the audit trail and the metrics.
type refusals struct {
	engine rtaskv1connect.GatewayServiceClient
	logger *slog.Logger
	ctx    context.Context
	stop   context.CancelFunc

	mu      sync.Mutex    // guards what follows
	every   time.Duration // tellEvery
	pending map[refusedFrom]*rtaskv1.RefusedRequest
	told    time.Time // when the engine was last told
	telling bool      // a goroutine does, or is about to
	tells   sync.WaitGroup
}

// refusedFrom is what is told together.
type refusedFrom struct {
	address netip.Addr // the zero Addr: others
	kind    rtaskv1.Kind
}

func newRefusals(engine rtaskv1connect.GatewayServiceClient, l *slog.Logger) *refusals {
	ctx, stop := context.WithCancel(context.Background())
	return &refusals{engine: engine, logger: l, ctx: ctx, stop: stop, every: tellEvery, pending: map[refusedFrom]*rtaskv1.RefusedRequest{}}
}

// close waits until the engine was told of what is pending, or cannot be.
func (r *refusals) close() {
	r.mu.Lock()
	r.stop()
	r.mu.Unlock()
	r.tells.Wait()
}

// add notes a refusal.
func (r *refusals) add(from net.Addr, why *refusal) {
	key := refusedFrom{kind: why.kind}
	if t, ok := from.(*net.TCPAddr); ok {
		key.address = t.AddrPort().Addr().Unmap().WithZone("")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return
	}
	m := r.pending[key]
	if m == nil && len(r.pending) >= maxRefusals {
		key.address = netip.Addr{}
		m = r.pending[key]
	}
	if m == nil {
		m = &rtaskv1.RefusedRequest{Kind: string(why.kind)}
		r.pending[key] = m
	}
	m.Reason = why.text
	m.Count++
	if !r.telling {
		r.telling = true
		r.tells.Go(r.tell)
	}
}

// tell tells the engine of all that is pending, at most once in a time, until nothing is.
func (r *refusals) tell() {
	for {
		r.mu.Lock()
		wait := r.every - time.Since(r.told)
		r.mu.Unlock()
		if wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-r.ctx.Done():
				t.Stop()
			}
		}
		r.mu.Lock()
		all := r.pending
		r.pending = map[refusedFrom]*rtaskv1.RefusedRequest{}
		r.told = time.Now()
		r.telling = len(all) > 0
		r.mu.Unlock()
		if len(all) == 0 {
			return
		}
		r.send(all)
	}
}

func (r *refusals) send(all map[refusedFrom]*rtaskv1.RefusedRequest) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), askTimeout)
	defer cancel()
	for key, m := range all {
		client := codec.Presented{}
		if key.address.IsValid() {
			client.RemoteAddr = key.address.String()
		}
		if _, err := r.engine.Refused(client.Context(ctx), m); err != nil {
			r.logger.Warn("the engine cannot be told of refused handshakes", "kind", m.Kind, "reason", m.Reason, "remote", client.RemoteAddr, "count", m.Count, "error", err)
			return
		}
	}
}

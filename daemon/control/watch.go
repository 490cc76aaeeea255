package control

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/auth"
)

// watchEvery is how often the gateway hears of an engine of which nothing changes.
const watchEvery = 2 * time.Second

// news wakes those who wait for a change.
type news struct {
	mu   sync.Mutex    // guards next
	next chan struct{} // closed at the next change; nil: nobody waits
}

// change returns what is closed at the next change.
func (n *news) change() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next == nil {
		n.next = make(chan struct{})
	}
	return n.next
}

// tell says that something has changed.
func (n *news) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next != nil {
		close(n.next)
	}
	n.next = nil
}

// Changed tells the gateway that the configuration in force, or what Trust returns, is another one.
func (s *Server) Changed() {
	if s.revoking.Load() == 0 { // or it would close the connections of calls that Revoke is about to end, without a word
		s.news.tell()
	}
}

// Watch implements GatewayService.
func (s *Server) Watch(ctx context.Context, _ *rtaskv1.WatchRequest, stream rtaskv1connect.GatewayServiceWatchServerStream) error {
	if !s.watches.take(auth.Gateway, 1, maxStates) {
		return fail(connect.CodeResourceExhausted, rtaskv1.KindConcurrency, fmt.Errorf("too many streams of Watch are open: %d", maxStates),
			retryIn(watchRetryAfter))
	}
	defer s.watches.giveBack(auth.Gateway, 1)
	alive := time.NewTicker(watchEvery)
	defer alive.Stop()
	var told *rtaskv1.Trust
	for {
		changed := s.news.change() // from before the message is made
		m := s.watchMessage()
		if trust := s.trust(); trust != told {
			m.Remote, told = trust, trust
		}
		if err := stream.Send(m); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-alive.C:
		case <-ctx.Done():
			return waitError(ctx.Err())
		}
	}
}

// trust is on which terms remote clients are let in.
func (s *Server) trust() *rtaskv1.Trust {
	return cmp.Or(s.Trust(), s.noTrust)
}

func (s *Server) watchMessage() *rtaskv1.WatchResponse {
	snapshot := s.Snapshot()
	m := &rtaskv1.WatchResponse{
		Draining: s.Jobs.Draining(), ConfigurationErrors: snapshot.Diagnostics.HasErrors(), NoConfiguration: snapshot.Config == nil,
	}
	if c := snapshot.Config; c != nil {
		m.AllowPlaintext = c.AllowPlaintext
		for _, p := range c.TrustedProxies {
			m.TrustedProxies = append(m.TrustedProxies, p.String())
		}
		if c.TrustUnix {
			m.TrustedProxies = append(m.TrustedProxies, "unix")
		}
	}
	return m
}

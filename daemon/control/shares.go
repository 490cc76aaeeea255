package control

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
)

const (
	// maxWatchesOfKey and maxWatchesOfUser are how many calls of one API key, and of one local user, wait for jobs or follow their
	// output at a time. Root and the engine's own user are not held to it.
	maxWatchesOfKey  = 128
	maxWatchesOfUser = 256
	// maxWatchesOfHook is how many senders of one webhook wait for a result, or read output, at a time. A repeat of what was accepted
	// takes no turn, so there is no other bound.
	maxWatchesOfHook = 512
	// maxStates is how many streams of Watch the gateway has at a time. It needs one, and another while it starts again.
	maxStates = 8
	// watchRetryAfter is what a client is told that has too many: when one of them ends nobody knows.
	watchRetryAfter = 5 * time.Second
	// maxMessages is how many bytes of messages the gateway may have sent that nothing was decided on yet, and maxMessagesOfUser how
	// many one local user may, but for root and the engine's own: the gateway's own bounds on bodies, and one that is as large as any
	// can be beside others.
	maxMessages       = 320 << 20
	maxMessagesOfUser = 2 * maxRequest
)

// shares are amounts that each holder has a bound of. The zero value is ready to use.
type shares struct {
	mu   sync.Mutex // guards held
	held map[any]int64
}

// take adds n to what a holder has. It returns false, and adds nothing, if that would be more than most.
func (s *shares) take(who any, n, most int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = map[any]int64{}
	}
	if s.held[who]+n > most {
		return false
	}
	s.held[who] += n
	return true
}

// giveBack takes n away from what a holder has.
func (s *shares) giveBack(who any, n int64) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[who] -= n; s.held[who] == 0 {
		delete(s.held, who)
	}
}

// watch begins a call that waits for a job, or follows its output. The caller of watch calls done when the call is over, unless
// there is an error.
func (s *Server) watch(c *call) (done func(), err error) {
	var who any = c.Peer.UID
	most := int64(maxWatchesOfUser)
	switch {
	case c.Kind == auth.KeyHolder:
		who, most = c.Key.ID, maxWatchesOfKey
	case c.Kind == auth.Remote:
		who = remoteOf(c.Client.Subject)
	case s.Identify.Owns(c.Peer):
		return func() {}, nil
	}
	if !s.watches.take(who, 1, most) {
		return nil, fail(connect.CodeResourceExhausted, rtaskv1.KindConcurrency, errors.New("too many calls that wait for jobs or follow their output are under way"),
			retryIn(watchRetryAfter))
	}
	return func() { s.watches.giveBack(who, 1) }, nil
}

// watchHook is watch for the sender of a request that is answered when its job ends.
func (s *Server) watchHook(h *hook) (done func(), err error) {
	who := hookOf{h.task.Name, h.webhook.Name}
	if !s.watches.take(who, 1, maxWatchesOfHook) {
		return nil, fail(connect.CodeResourceExhausted, rtaskv1.KindConcurrency, errors.New("too many requests to this webhook wait for their job"), retryIn(watchRetryAfter))
	}
	return func() { s.watches.giveBack(who, 1) }, nil
}

// hookOf is a webhook, as the holder of a share.
type hookOf struct{ task, name string }

// remoteOf is a remote client, as the holder of a share.
type remoteOf string

// message is the body of a request as it is read: what came of it counts until something is decided.
type message struct {
	io.ReadCloser
	of   *shares
	who  any
	most int64
	// also is another holder, of all that many of the first kind have together; nil: none.
	also     any
	mostAlso int64

	mu            sync.Mutex // guards what follows
	n             int64
	over, refused bool
}

// Read implements io.Reader. It fails once when the caller has too much under way. What is read after that is to be dropped, and
// does not count.
func (m *message) Read(b []byte) (int, error) {
	n, err := m.ReadCloser.Read(b)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over || m.refused || n == 0 {
		return n, err
	}
	if !m.take(int64(n)) {
		m.refused = true
		return 0, fail(connect.CodeResourceExhausted, rtaskv1.KindUnavailable, errors.New("too much is being sent to the engine at a time"),
			retryIn(time.Second))
	}
	m.n += int64(n)
	return n, err
}

// take adds n bytes to what both holders have, or nothing.
func (m *message) take(n int64) bool {
	if !m.of.take(m.who, n, m.most) {
		return false
	}
	if m.also != nil && !m.of.take(m.also, n, m.mostAlso) {
		m.of.giveBack(m.who, n)
		return false
	}
	return true
}

// decided says that what came does not count any more. It may be called again.
func (m *message) decided() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.over {
		m.of.giveBack(m.who, m.n)
		if m.also != nil {
			m.of.giveBack(m.also, m.n)
		}
	}
	m.over = true
}

type messageKey struct{}

// decided says that what a call brought does not count any more: it is refused, or is a job's.
func decided(ctx context.Context) {
	if m, ok := ctx.Value(messageKey{}).(*message); ok {
		m.decided()
	}
}

// counted has next read the request of a caller as a message.
func (s *Server) counted(next http.Handler, w http.ResponseWriter, r *http.Request, c auth.Caller) {
	m := &message{ReadCloser: r.Body, of: &s.messages, who: c.Peer.UID, most: s.mostOfUser}
	switch {
	case c.Kind == auth.Gateway:
		m.who, m.most = auth.Gateway, s.mostOfGateway
	case c.Kind == auth.Remote:
		m.who, m.also, m.mostAlso = remoteOf(c.Client.Subject), auth.Remote, s.mostOfGateway
	case s.Identify.Owns(c.Peer):
		next.ServeHTTP(w, r)
		return
	}
	defer m.decided()
	r = r.WithContext(context.WithValue(r.Context(), messageKey{}, m))
	r.Body = m
	next.ServeHTTP(w, r)
}

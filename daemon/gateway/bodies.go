package gateway

import (
	"context"
	"errors"
	"io"
	"sync"
)

const (
	// smallBody is the longest body that counts as small. Nearly all webhooks are.
	smallBody = 256 << 10
	// smallBodies and largeBodies are how much memory the bodies of webhooks may take up that are not decided on yet. The small
	// ones have a part of their own, so that they do not wait for the large ones.
	smallBodies = 32 << 20
	largeBodies = 128 << 20
)

// errFull is returned by bodies.take when there is no room in time.
var errFull = errors.New("there is no room for the body")

// bodies bounds the memory of what strangers send. Room for all of a body is taken before its first byte is read, so that each
// that is read can be read to its end.
type bodies struct {
	small, large room
}

func newBodies() *bodies {
	return &bodies{small: room{free: smallBodies}, large: room{free: largeBodies}}
}

// take waits for room for n bytes, first come first served, and returns what gives it back. More than there is can ever be is
// all there is. It returns errFull when ctx ends first.
func (b *bodies) take(ctx context.Context, n int64) (release func(), err error) {
	r, n := &b.large, min(n, largeBodies)
	if n <= smallBody {
		r = &b.small
	}
	turn := r.enter(n)
	select {
	case <-turn.come:
		return func() { r.leave(n) }, nil
	case <-ctx.Done():
		if r.giveUp(turn) {
			return nil, errFull
		}
		return func() { r.leave(n) }, nil // it came at the same moment
	}
}

// room is an amount of bytes.
type room struct {
	mu    sync.Mutex // guards what follows
	free  int64
	queue []*turn
}

// turn is a wait for room.
type turn struct {
	n    int64
	come chan struct{} // closed when it is there
}

func (r *room) enter(n int64) *turn {
	t := &turn{n: n, come: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = append(r.queue, t)
	r.serve()
	return t
}

// serve gives room to those who wait. mu is held.
func (r *room) serve() {
	for len(r.queue) > 0 && r.queue[0].n <= r.free {
		t := r.queue[0]
		r.queue = r.queue[1:]
		r.free -= t.n
		close(t.come)
	}
}

func (r *room) leave(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free += n
	r.serve()
}

// giveUp takes a wait back. It returns false if its room is there.
func (r *room) giveUp(t *turn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, other := range r.queue {
		if other == t {
			r.queue = append(r.queue[:i:i], r.queue[i+1:]...)
			r.serve() // it may have been in the way of smaller ones
			return true
		}
	}
	return false
}

// readBody reads a body of size bytes, or where size is -1 one of which that is not known. It returns false for one that is
// longer than limit, of which no more is read than tells so.
func readBody(body io.Reader, size, limit int64) (_ []byte, fits bool, err error) {
	if size >= 0 {
		b := make([]byte, size)
		_, err := io.ReadFull(body, b) // net/http ends it there
		return b, err == nil, err
	}
	b, err := io.ReadAll(io.LimitReader(body, limit+1))
	return b, err == nil && int64(len(b)) <= limit, err
}

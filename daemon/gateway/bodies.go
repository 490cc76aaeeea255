package gateway

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"
)

const (
	// smallBody is the longest body that counts as small. Nearly all webhooks are.
	smallBody = 256 << 10
	// smallBodies and largeBodies are how much memory the bodies of webhooks may take up that are not decided on yet, and so much
	// again those of the API. The small ones have a part of their own, so that they do not wait for the large ones.
	smallBodies = 32 << 20
	largeBodies = 128 << 20
	// maxReads is how many bodies of either size wait for room or are being read at a time, and maxReadsPerAddress how many of
	// them are one client's: as many as it has connections, however many requests come on each.
	maxReads           = maxConnections
	maxReadsPerAddress = maxPerAddress
)

// errFull is returned by bodies.take when there is no room in time.
var errFull = errors.New("there is no room for the body")

// bodies bounds the memory of what strangers send. Room for all of a body is taken before its first byte is read, so that each
// that is read can be read to its end. Half of it is left to others than one client.
type bodies struct {
	small, large room
}

func newBodies() *bodies {
	return &bodies{
		small: room{free: smallBodies, each: smallBodies / 2, clients: map[netip.Prefix]share{}},
		large: room{free: largeBodies, each: largeBodies / 2, clients: map[netip.Prefix]share{}},
	}
}

// take waits for room for n bytes of a client, first come first served, and returns it. The zero Prefix is not held to a part.
// More than there is can ever be is all there is. It returns errFull when ctx ends first, or too many wait.
func (b *bodies) take(ctx context.Context, from netip.Prefix, n int64) (*turn, error) {
	r, n := &b.large, min(n, largeBodies)
	if n <= smallBody {
		r = &b.small
	}
	t := r.enter(from, n)
	if t == nil {
		return nil, errFull
	}
	select {
	case <-t.come:
		return t, nil
	case <-ctx.Done():
		if r.giveUp(t) {
			return nil, errFull
		}
		return t, nil // it came at the same moment
	}
}

// room is an amount of bytes.
type room struct {
	mu      sync.Mutex // guards what follows, and the turns
	free    int64
	each    int64 // for one client
	reads   int   // turns that are not read
	queue   []*turn
	clients map[netip.Prefix]share
}

// share is what one client has of a room.
type share struct {
	bytes int64
	reads int
}

// turn is a wait for room, and then room.
type turn struct {
	room *room
	from netip.Prefix
	n    int64
	read bool          // the body is, or given up
	come chan struct{} // closed when the room is there
}

// count adds to what a turn's client has. mu is held.
func (r *room) count(t *turn, bytes int64, reads int) {
	r.reads += reads
	if !t.from.IsValid() {
		return
	}
	s := r.clients[t.from]
	s.bytes += bytes
	s.reads += reads
	if s == (share{}) {
		delete(r.clients, t.from)
		return
	}
	r.clients[t.from] = s
}

// enter queues a turn. It returns nil if there are too many.
func (r *room) enter(from netip.Prefix, n int64) *turn {
	t := &turn{room: r, from: from, n: n, come: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reads >= maxReads || r.clients[from].reads >= maxReadsPerAddress {
		return nil
	}
	r.count(t, 0, 1)
	r.queue = append(r.queue, t)
	r.serve()
	return t
}

// serve gives room to those who wait. One whose client has its part is in nobody's way. mu is held.
func (r *room) serve() {
	left := r.queue[:0]
	for i, t := range r.queue {
		if has := r.clients[t.from].bytes; has > 0 && has+t.n > r.each {
			left = append(left, t)
			continue
		}
		if t.n > r.free {
			left = append(left, r.queue[i:]...)
			break
		}
		r.free -= t.n
		r.count(t, t.n, 0)
		close(t.come)
	}
	clear(r.queue[len(left):])
	r.queue = left
}

// keep says that the body has been read, and gives back what of the room it does not take up.
func (t *turn) keep(n int64) {
	r := t.room
	r.mu.Lock()
	defer r.mu.Unlock()
	n = min(n, t.n)
	r.free += t.n - n
	reads := -1
	if t.read {
		reads = 0
	}
	r.count(t, n-t.n, reads)
	t.n, t.read = n, true
	r.serve()
}

// leave gives the room back. It may be called again.
func (t *turn) leave() { t.keep(0) }

// giveUp takes a wait back. It returns false if its room is there.
func (r *room) giveUp(t *turn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, other := range r.queue {
		if other == t {
			r.queue = append(r.queue[:i:i], r.queue[i+1:]...)
			r.count(t, 0, -1)
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

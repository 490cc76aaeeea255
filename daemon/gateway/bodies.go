package gateway

import (
	"container/heap"
	"container/list"
	"errors"
	"io"
	"net/netip"
	"os"
	"sync"
	"time"
)

const (
	// uncheckedBody is the longest body of a request with a key that is read before the engine has looked at the key: for so little
	// a question of its own costs more than it saves.
	uncheckedBody = 16 << 10
	// bodyMemory is how many bytes of bodies there are at a time of those whose sender is not known yet (webhooks, and short bodies
	// with a key), and again of those whose key was found good. Half of either is the most that one client or key has, and a quarter
	// of the former is kept for clients that were good lately.
	bodyMemory = 160 << 20
	// firstPiece is what a body takes up before its first byte is there. Then it takes up at most twice what came of it.
	firstPiece = 4 << 10
	// maxBodies is how many bodies of one client are there at a time: as many as it has connections, however many requests come on
	// each.
	maxBodies = maxPerAddress
	// A body must have come after bodyGrace and another second for each bodyRate bytes of it.
	bodyGrace = 10 * time.Second
	bodyRate  = 64 << 10
	// lingerTime is for how long net/http may read what still comes of a body that was refused, so that its sender reads why.
	lingerTime = time.Second
	// goodTime is how long a client counts as good after a request of its that was accepted, and maxGood how many do.
	goodTime = 24 * time.Hour
	maxGood  = 4096
)

var (
	// errFull is returned by memory.read when there is no room for the body.
	errFull = errors.New("there is no room for the body")
	// errSlow is returned by memory.read for a body that comes too slowly.
	errSlow = errors.New("the body came too slowly: it must be there after 10 seconds, and another one for each 64 KiB")
	// errTooLong is returned by memory.read for a body that is longer than its limit.
	errTooLong = errors.New("the body is too long")
)

// memory bounds the memory of what strangers send. It is given to bytes that came, not to what was announced. Where there is none left,
// the client with the most bytes of bodies that are still being read loses its oldest one, unless the client that asks has more. So a
// small body finds room whatever others send.
type memory struct {
	each int64 // bytes of one client
	kept int64 // bytes of free that only clients have who were good lately

	mu      sync.Mutex // guards what follows, and what is held
	free    int64
	senders map[any]*sender // by a netip.Prefix, a *connection or the id of a key
	reading [2]largest      // those with bodies that are being read: strangers, and who was good lately
	good    map[any]*list.Element
	praised list.List // of praise, the oldest first
}

// newMemory returns one of which so many bytes are kept for clients that were good lately.
func newMemory(kept int64) *memory {
	return &memory{free: bodyMemory, each: bodyMemory / 2, kept: kept, senders: map[any]*sender{}, good: map[any]*list.Element{}}
}

// sender is whose bodies count together.
type sender struct {
	who     any
	class   int   // index of memory.reading
	bytes   int64 // of all its bodies
	bodies  int
	partial int64     // of those that are being read
	reads   list.List // of *held: those that are being read, the oldest first
	at      int       // in largest; -1: it reads nothing
}

// since is when the oldest body began that is still being read.
func (c *sender) since() time.Time {
	if c.reads.Len() == 0 {
		return time.Time{}
	}
	return c.reads.Front().Value.(*held).began
}

// held is the memory that one body has.
type held struct {
	memory  *memory
	sender  *sender
	bytes   int64
	began   time.Time
	wake    func()        // has its reader look whether that is over
	reading *list.Element // in sender.reads; nil: it was read, or is over
	over    bool          // it lost its room
}

// praise is that a client was good.
type praise struct {
	who any
	at  time.Time
}

// praise notes that a request of a client was accepted.
func (r *memory) praise(who any) {
	if _, ok := who.(netip.Prefix); !ok {
		return // it will not be seen again
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.good[who]; old != nil {
		r.praised.Remove(old)
	}
	r.good[who] = r.praised.PushBack(praise{who, time.Now()})
	if r.praised.Len() > maxGood {
		delete(r.good, r.praised.Remove(r.praised.Front()).(praise).who)
	}
}

// enter begins a body. It returns nil if its client has too many.
func (r *memory) enter(who any, wake func()) *held {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.senders[who]
	if c == nil {
		c = &sender{who: who, at: -1}
		if e := r.good[who]; e != nil && time.Since(e.Value.(praise).at) < goodTime {
			c.class = 1
		}
		r.senders[who] = c
	}
	if c.bodies >= maxBodies {
		return nil
	}
	c.bodies++
	t := &held{memory: r, sender: c, began: time.Now(), wake: wake}
	t.reading = c.reads.PushBack(t)
	r.sort(c)
	return t
}

// sort puts a client in its place after a change. mu is held.
func (r *memory) sort(c *sender) {
	h := &r.reading[c.class]
	switch {
	case c.reads.Len() > 0 && c.at < 0:
		heap.Push(h, c)
	case c.reads.Len() > 0:
		heap.Fix(h, c.at)
	case c.at >= 0:
		heap.Remove(h, c.at)
	}
}

// count changes what a body takes up. mu is held.
func (t *held) count(bytes int64) {
	more := bytes - t.bytes
	t.bytes = bytes
	t.memory.free -= more
	t.sender.bytes += more
	if t.reading != nil {
		t.sender.partial += more
		t.memory.sort(t.sender)
	}
}

// stop ends the reading of a body. mu is held.
func (t *held) stop() {
	if t.reading == nil {
		return
	}
	t.sender.reads.Remove(t.reading)
	t.reading = nil
	t.sender.partial -= t.bytes
	t.memory.sort(t.sender)
}

// grow gives the body room for so many bytes in all. It returns false if there is none.
func (t *held) grow(bytes int64) bool {
	r, c := t.memory, t.sender
	r.mu.Lock()
	defer r.mu.Unlock()
	more := bytes - t.bytes
	kept := r.kept
	if c.class == 1 {
		kept = 0
	}
	if t.over || c.bytes+more > r.each {
		return false
	}
	for r.free-kept < more {
		victim := r.victim(c, c.bytes+more)
		if victim == nil {
			return false
		}
		victim.stop()
		victim.count(0)
		victim.over = true
		victim.wake()
	}
	t.count(bytes)
	return true
}

// victim returns the body that gives its room to a client that will have so many bytes; nil: there is none. mu is held.
func (r *memory) victim(c *sender, bytes int64) *held {
	for class := 0; class <= c.class; class++ {
		if len(r.reading[class]) == 0 {
			continue
		}
		most := r.reading[class][0]
		if most != c && most.partial > 0 && (class < c.class || most.bytes >= bytes) {
			return most.reads.Front().Value.(*held)
		}
	}
	return nil
}

// keep says that the body was read and takes up so many bytes. It returns false if its room was lost before.
func (t *held) keep(bytes int64) bool {
	t.memory.mu.Lock()
	defer t.memory.mu.Unlock()
	if t.over {
		return false
	}
	t.stop()
	t.count(bytes)
	return true
}

// leave gives the room back. It may be called again.
func (t *held) leave() {
	r, c := t.memory, t.sender
	r.mu.Lock()
	defer r.mu.Unlock()
	if c == nil || t.sender == nil {
		return
	}
	t.stop()
	t.count(0)
	t.over = true
	if c.bodies--; c.bodies == 0 {
		delete(r.senders, c.who)
	}
	t.sender = nil
}

func (t *held) isOver() bool {
	t.memory.mu.Lock()
	defer t.memory.mu.Unlock()
	return t.over
}

// largest are clients as package heap wants them: first who has most, and of those with as much who began first to send.
type largest []*sender

func (l largest) Len() int { return len(l) }

func (l largest) Less(i, j int) bool {
	if l[i].partial != l[j].partial {
		return l[i].partial > l[j].partial
	}
	return l[i].since().Before(l[j].since())
}

func (l largest) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].at, l[j].at = i, j
}

// Push implements heap.Interface.
func (l *largest) Push(x any) {
	c := x.(*sender)
	c.at = len(*l)
	*l = append(*l, c)
}

// Pop implements heap.Interface.
func (l *largest) Pop() any {
	last := len(*l) - 1
	c := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	c.at = -1
	return c
}

// connected is the connection that a body comes on.
type connected interface{ SetReadDeadline(time.Time) error }

// read reads a body of size bytes, or where size is -1 one of which that is not known, and of at most limit bytes. It returns the
// room that the body has. Its errors are errFull, errSlow, errTooLong, and those of the connection.
func (r *memory) read(conn connected, body io.Reader, who any, size, limit int64) ([]byte, *held, error) {
	// Errors of deadlines are those of a connection that takes none, which net/http's do.
	t := r.enter(who, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	if t == nil {
		return nil, nil, errFull
	}
	b, err := t.fill(conn, body, size, limit)
	if err == nil && !t.keep(int64(cap(b))) {
		err = errFull
	}
	if err != nil {
		t.leave()
		_ = conn.SetReadDeadline(time.Now().Add(lingerTime))
		return nil, nil, err
	}
	_ = conn.SetReadDeadline(time.Time{})
	return b, t, nil
}

func (t *held) fill(conn connected, body io.Reader, size, limit int64) ([]byte, error) {
	most := size // that a body can have
	if size < 0 {
		most = limit + 1 // the last byte tells that it is longer
	}
	var b []byte
	for began := time.Now(); ; {
		if int64(len(b)) == most {
			if size < 0 {
				return nil, errTooLong
			}
			return b, nil
		}
		if len(b) == cap(b) {
			n := min(max(firstPiece, 2*int64(cap(b))), most)
			if !t.grow(n) {
				return nil, errFull
			}
			longer := make([]byte, len(b), n)
			copy(longer, b)
			b = longer
		}
		_ = conn.SetReadDeadline(began.Add(bodyGrace + time.Duration(len(b))*time.Second/bodyRate))
		if t.isOver() { // it may have been before the deadline was set
			return nil, errFull
		}
		n, err := body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case err == nil || int64(len(b)) == most:
		case err == io.EOF && size < 0:
			return b, nil
		case t.isOver():
			return nil, errFull
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, errSlow
		case err == io.EOF:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

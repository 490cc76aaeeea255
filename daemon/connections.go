package daemon

import (
	"container/list"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/daemon/auth"
)

// perUser is a listener that holds each user to a number of connections at a time: one more is closed at once. Root and the engine's
// own user are not held to it. Connections of which known says that they may use rtask count apart from all others, such as those
// of a user's own jobs. All others have so many together, however many users they are of: the oldest of these makes room for a new
// one. Connections that are no Unix sockets pass. The slice is auth.PeerOf's.
func perUser(l net.Listener, slice string, most, others int, known func(*counted) bool) net.Listener {
	return &limited{Listener: l, slice: slice, most: most, others: others, known: known, open: map[holder]int{}}
}

// holder is whose connections count together.
type holder struct {
	uid   uint32
	known bool
}

type limited struct {
	net.Listener
	slice        string
	most, others int
	known        func(*counted) bool

	mu        sync.Mutex // guards what follows
	open      map[holder]int
	strangers list.List // of *counted: of those that are not known, the oldest first
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		u, ok := c.(*net.UnixConn)
		if err != nil || !ok {
			return c, err
		}
		uid, err := peerUID(u)
		if err == nil && (uid == 0 || int(uid) == os.Geteuid()) {
			return c, nil
		}
		if err == nil && !l.full(uid) { // else nobody looks any further
			c := &counted{UnixConn: u, of: l}
			if c.holder = (holder{uid, l.known(c)}); l.take(c) {
				return c, nil
			}
		}
		_ = u.Close() // nothing was said on it
	}
}

// full reports whether a user has as many connections of both kinds as it may.
func (l *limited) full(uid uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open[holder{uid, true}] >= l.most && l.open[holder{uid, false}] >= l.most
}

// take counts a connection. It returns false if its user has too many.
func (l *limited) take(c *counted) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[c.holder] >= l.most {
		return false
	}
	l.open[c.holder]++
	c.counts = true
	if c.known {
		return true
	}
	c.at = l.strangers.PushBack(c)
	if l.strangers.Len() > l.others {
		oldest := l.strangers.Front().Value.(*counted)
		l.release(oldest)
		_ = oldest.UnixConn.Close() // its server notices
	}
	return true
}

// release ends the counting of a connection. mu is held.
func (l *limited) release(c *counted) {
	if !c.counts {
		return
	}
	c.counts = false
	if c.at != nil {
		l.strangers.Remove(c.at)
	}
	if l.open[c.holder]--; l.open[c.holder] == 0 {
		delete(l.open, c.holder)
	}
}

// counted is a connection that counts.
type counted struct {
	*net.UnixConn
	of *limited
	holder
	// What Peer answers, once asked is true.
	peer    auth.Peer
	peerErr error
	asked   bool

	// What follows is guarded by of.mu.
	counts bool          // until it is closed, or makes room
	at     *list.Element // among the strangers; nil: it is known
}

// Close implements net.Conn.
func (c *counted) Close() error {
	defer func() {
		c.of.mu.Lock()
		defer c.of.mu.Unlock()
		c.of.release(c)
	}()
	return c.UnixConn.Close()
}

// Peer is auth.PeerOf, for auth.ConnContext, too. It asks once: whoever accepts the connection, then its server.
func (c *counted) Peer() (auth.Peer, error) {
	if !c.asked {
		c.peer, c.peerErr = auth.PeerOf(c.UnixConn, c.of.slice)
		c.asked = true
	}
	return c.peer, c.peerErr
}

// peerUID is who connected (SO_PEERCRED, unix(7)).
func peerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}

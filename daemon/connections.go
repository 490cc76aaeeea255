package daemon

import (
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// perUser is a listener that holds each user to a number of connections at a time: one more is closed at once. Root and
// the engine's own user are not held to it. Connections that are no Unix sockets pass.
func perUser(l net.Listener, most int) net.Listener {
	return &limited{Listener: l, most: most, open: map[uint32]int{}}
}

type limited struct {
	net.Listener
	most int

	mu   sync.Mutex // guards open
	open map[uint32]int
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
		if err == nil && l.take(uid) {
			return &counted{UnixConn: u, release: sync.OnceFunc(func() { l.giveBack(uid) })}, nil
		}
		_ = u.Close() // nothing was said on it
	}
}

func (l *limited) take(uid uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[uid] >= l.most {
		return false
	}
	l.open[uid]++
	return true
}

func (l *limited) giveBack(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[uid]--; l.open[uid] == 0 {
		delete(l.open, uid)
	}
}

// counted is a connection that counts.
type counted struct {
	*net.UnixConn
	release func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	defer c.release()
	return c.UnixConn.Close()
}

// NetConn returns the connection itself, for auth.ConnContext.
func (c *counted) NetConn() net.Conn { return c.UnixConn }

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

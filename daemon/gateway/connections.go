package gateway

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/rtask/rtask/sandbox/nonblock/stream"
)

const (
	// maxConnections is how many connections one socket of the gateway has at a time, and maxPerAddress how many of them come
	// from one address (of IPv6 the /64 that one customer has). A proxy on this machine is not held to the latter.
	maxConnections = 4096
	maxPerAddress  = 256
	// firstTime is how long the client of a new connection has to make a request before a gateway that stops closes it: net/http
	// closes one of HTTP/2 that has none at once, also where the request is on its way.
	firstTime = time.Second
)

// capped is a listener that holds clients to a number of connections: one more is closed at once.
func capped(l net.Listener, most, each int) *connections {
	return &connections{Listener: l, most: most, each: each, open: map[netip.Prefix]int{}}
}

type connections struct {
	net.Listener
	most, each int

	mu   sync.Mutex // guards what follows
	all  int
	open map[netip.Prefix]int
	last time.Time // when the newest came
}

// stop ends Accept, and returns how long the newest connection has for its first request from now on.
func (l *connections) stop() time.Duration {
	_ = l.Close() // what waits there is for the next gateway, or for nobody
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == 0 {
		return 0
	}
	return max(firstTime-time.Since(l.last), 0)
}

// Accept implements net.Listener.
func (l *connections) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := prefixOf(c.RemoteAddr())
		if l.take(from) {
			return &connection{Conn: stream.Wrap(c), release: sync.OnceFunc(func() { l.giveBack(from) })}, nil
		}
		_ = c.Close() // nothing was said on it
	}
}

// prefixOf is what of an address counts as one client; the zero Prefix is not held to each.
func prefixOf(a net.Addr) netip.Prefix {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	return clientOf(t.AddrPort().Addr())
}

func clientOf(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 64
	switch {
	case addr.IsLoopback():
		return netip.Prefix{}
	case addr.Is4():
		bits = 32
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

func (l *connections) take(from netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.most || from.IsValid() && l.open[from] >= l.each {
		return false
	}
	l.all++
	l.last = time.Now()
	if from.IsValid() {
		l.open[from]++
	}
	return true
}

func (l *connections) giveBack(from netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if !from.IsValid() {
		return
	}
	if l.open[from]--; l.open[from] == 0 {
		delete(l.open, from)
	}
}

// connection is one that counts.
type connection struct {
	net.Conn
	release func()
}

// CloseWrite ends what is sent, as *net.TCPConn has it, so that a client that was refused early reads why before the connection is
// reset.
func (c *connection) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close implements net.Conn.
func (c *connection) Close() error {
	defer c.release()
	return c.Conn.Close()
}

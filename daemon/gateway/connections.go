package gateway

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/origin"
)

const (
	// maxConnections is how many connections one socket of the gateway has at a time, and maxPerAddress how many of them come
	// from one address (of IPv6 the /64 that one customer has), and how many requests at a time come from there. A proxy on this
	// machine is not held to the latter.
	maxConnections = 4096
	maxPerAddress  = 256
	// firstTime is how long the client of a new connection has to make a request before a gateway that stops closes it: net/http
	// closes one of HTTP/2 that has none at once, also where the request is on its way.
	firstTime = time.Second
)

// capped is a listener that holds clients to a number of connections, each address, and those of this machine and of all others
// together: a quarter is kept for either. For one more, the one makes room that nothing has been done for the longest; where there is
// none, it is closed at once.
func capped(l net.Listener, most, each int) *connections {
	part := max(most-most/4, 1)
	return &connections{
		Listener: l, most: most, each: each, addresses: map[netip.Prefix]*group{},
		here: group{most: part, calls: part}, elsewhere: group{most: part, calls: part},
	}
}

type connections struct {
	net.Listener
	most, each int

	mu              sync.Mutex // guards what follows
	all             int
	here, elsewhere group // of loopback addresses and Unix sockets, and others
	addresses       map[netip.Prefix]*group
	last            time.Time // when the newest came
}

// group are connections that count together.
type group struct {
	most, open int // connections: how many there may be, and how many there are
	// calls is how many requests there may be at a time, but for the first one of each connection, and current how many there are.
	calls, current int
	// idle are the connections that nothing is done for, the longest first. Nothing is done for one while its client is to send
	// something, be it a handshake, a head or a body.
	idle list.List
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
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &connection{Conn: raw, of: l, from: prefixOf(raw.RemoteAddr())}
		closed, ok := l.take(c)
		for _, old := range closed {
			_ = old.Conn.Close() // net/http notices
		}
		if ok {
			return c, nil
		}
		_ = raw.Close() // nothing was said on it
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

// clientOf is what of an address counts as one client; the zero Prefix is not held to each.
func clientOf(addr netip.Addr) netip.Prefix {
	if addr.Unmap().IsLoopback() {
		return netip.Prefix{}
	}
	return origin.Client(addr)
}

// groups are those that a connection counts in. mu is held.
func (l *connections) groups(c *connection) []*group {
	if !c.from.IsValid() {
		return []*group{&l.here}
	}
	g := l.addresses[c.from]
	if g == nil {
		g = &group{most: l.each, calls: l.each}
		l.addresses[c.from] = g
	}
	return []*group{&l.elsewhere, g}
}

// take counts a connection, and returns those that make room for it.
func (l *connections) take(c *connection) (closed []*connection, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.groups = l.groups(c)
	defer l.forget(c)
	for _, g := range c.groups {
		if g.open >= g.most && !l.drop(g, &closed) {
			return closed, false
		}
	}
	if l.all >= l.most {
		own, other := &l.here, &l.elsewhere
		if c.from.IsValid() {
			own, other = other, own
		}
		if quarter := l.most / 4; (own.open <= quarter || !l.drop(own, &closed)) && (other.open <= quarter || !l.drop(other, &closed)) {
			return closed, false
		}
	}
	l.all++
	l.last = time.Now()
	c.counts = true
	if c.from.IsValid() {
		l.addresses[c.from] = c.groups[1] // from where the last one may just have made room
	}
	for _, g := range c.groups {
		g.open++
		c.idle = append(c.idle, g.idle.PushBack(c))
	}
	return closed, true
}

// drop has the connection of a group make room that has been idle for the longest. It returns false if there is none. mu is held.
func (l *connections) drop(g *group, closed *[]*connection) bool {
	first := g.idle.Front()
	if first == nil {
		return false
	}
	c := first.Value.(*connection)
	l.release(c)
	*closed = append(*closed, c)
	return true
}

// release ends the counting of a connection. mu is held.
func (l *connections) release(c *connection) {
	if !c.counts {
		return
	}
	c.counts = false
	l.all--
	for i, g := range c.groups {
		g.open--
		if c.idle != nil {
			g.idle.Remove(c.idle[i])
		}
	}
	c.idle = nil
	l.forget(c)
}

// forget drops the group of an address from which nothing is left. mu is held.
func (l *connections) forget(c *connection) {
	if g := l.addresses[c.from]; g != nil && g.open == 0 && g.current == 0 {
		delete(l.addresses, c.from)
	}
}

// connection is one that counts.
type connection struct {
	net.Conn
	of     *connections
	from   netip.Prefix
	groups []*group

	// What follows is guarded by of.mu.
	counts  bool // until it is closed, or makes room
	calls   int  // for which something is being done, of the current ones
	current int
	idle    []*list.Element // in the groups; nil: something is being done for it
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
	defer func() {
		c.of.mu.Lock()
		defer c.of.mu.Unlock()
		c.of.release(c)
	}()
	if s, ok := c.Conn.(*stranger); ok {
		s.linger()
	}
	return c.Conn.Close()
}

type connectionKey struct{}

// connContext is for http.Server.ConnContext: it has requests know their connection.
func connContext(ctx context.Context, c net.Conn) context.Context {
	for {
		if own, ok := c.(*connection); ok {
			return context.WithValue(ctx, connectionKey{}, own)
		}
		wrapped, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return ctx
		}
		c = wrapped.NetConn()
	}
}

// connectionOf returns a request's connection, nil for one that came on none.
func connectionOf(r *http.Request) *connection {
	c, _ := r.Context().Value(connectionKey{}).(*connection)
	return c
}

// working says that something is done for a request from here on until the function is called, which may be called again: meanwhile its
// connection makes no room for others.
func working(r *http.Request) (done func()) {
	c := connectionOf(r)
	if c == nil {
		return func() {}
	}
	return c.working()
}

// working is the same for whatever is done on a connection.
func (c *connection) working() (done func()) {
	l := c.of
	l.mu.Lock()
	defer l.mu.Unlock()
	c.calls++
	for i, e := range c.idle {
		c.groups[i].idle.Remove(e)
	}
	c.idle = nil
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if c.calls--; c.calls > 0 || !c.counts {
			return
		}
		for _, g := range c.groups {
			c.idle = append(c.idle, g.idle.PushBack(c))
		}
	})
}

// counted holds clients to a number of requests at a time, of those that can come on one connection, too. Those beyond are refused.
func counted(h http.Handler, refuse func(http.ResponseWriter, *http.Request, problem)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := connectionOf(r)
		if c == nil {
			h.ServeHTTP(w, r)
			return
		}
		if !c.enter() {
			closeAfter(w, r)
			refuse(w, r, problem{
				Kind: rtaskv1.KindUnavailable, Detail: "too many requests at a time come from this address", retryAfter: time.Second,
			})
			return
		}
		defer c.leave()
		h.ServeHTTP(w, r)
	})
}

func (c *connection) enter() bool {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	for _, g := range c.groups {
		if g.current >= g.calls && c.current > 0 {
			return false
		}
	}
	c.current++
	for _, g := range c.groups {
		g.current++
	}
	return true
}

func (c *connection) leave() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.current--
	for _, g := range c.groups {
		g.current--
	}
	c.of.forget(c)
}

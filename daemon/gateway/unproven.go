package gateway

import (
	"net"
	"sync/atomic"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

const (
	// maxHandshake is how many bytes a client may send until it was seen whether its certificates are good. Five of them with keys of
	// 4096 bits have 10 KiB.
	maxHandshake = 48 << 10
	// recordHandshake is the first byte of a client that speaks TLS (RFC 8446, section 5.1).
	recordHandshake = 22
)

// unproven is a listener whose connections end when their clients speak no TLS, or too much of it before they have proven anything.
// crypto/tls takes 256 KiB of certificates, and net/http answers plain HTTP.
type unproven struct{ net.Listener }

// Accept implements net.Listener.
func (l unproven) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &stranger{Conn: c, left: maxHandshake}, nil
}

// stranger is a connection whose client has proven nothing yet.
type stranger struct {
	net.Conn
	heard atomic.Bool // its certificates are good, or it needs none
	// What follows is the handshake's.
	begun bool
	left  int
}

// Read implements net.Conn.
func (c *stranger) Read(b []byte) (int, error) {
	if c.heard.Load() {
		return c.Conn.Read(b)
	}
	if c.left == 0 {
		return 0, refuse(rtaskv1.KindTLS, "the handshake has more than %d bytes", maxHandshake)
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	if n > 0 && !c.begun {
		if c.begun = true; b[0] != recordHandshake {
			c.left = 0
			return 0, refuse(rtaskv1.KindTLS, "the client does not speak TLS")
		}
	}
	return n, err
}

// heard says that a client may send as much as it wants from here on.
func heard(c net.Conn) {
	own, ok := c.(*connection)
	if !ok {
		return
	}
	if s, ok := own.Conn.(*stranger); ok {
		s.heard.Store(true)
	}
}

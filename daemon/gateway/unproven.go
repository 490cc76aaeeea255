package gateway

import (
	"io"
	"net"
	"sync/atomic"
	"time"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

const (
	// maxHandshake is how many bytes a client may send until it was seen whether its certificates are good. Five of them with keys of
	// 4096 bits have 10 KiB.
	maxHandshake = 48 << 10
	// recordHandshake is the first byte of a client that speaks TLS (RFC 8446, section 5.1).
	recordHandshake = 22
	// maxAlert is the length of an alert on the wire, which is encrypted: the head of its record, two bytes, their type, and a tag of 16
	// bytes (RFC 8446, section 5.2). All else that a server sends before it knows its client is longer.
	maxAlert = 5 + 2 + 1 + 16
	// alertTime is how long a client may take to read one, as long as for its handshake.
	alertTime = 5 * time.Second
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

// Write implements net.Conn. After an alert, it waits until the client has read it: clients with TLS 1.3 send their first request with the
// end of their handshake. Closed with that unread, the connection would be reset, and the client would not learn what is wrong with
// its certificate.
func (c *stranger) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil || len(b) > maxAlert || c.heard.Load() {
		return n, err
	}
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok && w.CloseWrite() == nil && c.SetReadDeadline(time.Now().Add(alertTime)) == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(c.Conn, int64(c.left))) // until it closes its end
	}
	return n, nil
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

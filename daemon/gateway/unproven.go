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
	// alertTime is how long a client that was refused may take to read why, as long as for its handshake.
	alertTime = 5 * time.Second
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
	heard   atomic.Bool // its certificates have come, or it needs none
	proven  atomic.Bool // they are good
	begun   atomic.Bool // it speaks TLS
	reading atomic.Bool // its goroutine waits for it
	left    int         // how many bytes it may still send until it is heard
}

// Read implements net.Conn.
func (c *stranger) Read(b []byte) (int, error) {
	if c.proven.Load() {
		return c.Conn.Read(b)
	}
	c.reading.Store(true)
	defer c.reading.Store(false)
	if c.heard.Load() {
		return c.Conn.Read(b)
	}
	if c.left == 0 {
		return 0, refuse(rtaskv1.KindTLS, "the handshake has more than %d bytes", maxHandshake)
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	if n > 0 && !c.begun.Load() {
		if b[0] != recordHandshake {
			c.left = 0
			return 0, refuse(rtaskv1.KindTLS, "the client does not speak TLS")
		}
		c.begun.Store(true)
	}
	return n, err
}

// linger gives a client whose handshake was refused the time to read why, until it closes its end: clients with TLS 1.3 send their first
// request with the end of their handshake. Closed with that unread, the connection would be reset, and the client would not learn what
// is wrong with its certificate. A connection that its own goroutine waits for is closed by somebody else, who does not wait.
func (c *stranger) linger() {
	w, ok := c.Conn.(interface{ CloseWrite() error })
	if c.proven.Load() || !c.begun.Load() || c.reading.Load() || !ok || w.CloseWrite() != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(alertTime)) // ignore errors: it is closed in any case
	_, _ = io.Copy(io.Discard, io.LimitReader(c.Conn, maxHandshake))
}

// strangerOf returns what is below a connection of this port; nil: it is another one.
func strangerOf(c net.Conn) *stranger {
	own, ok := c.(*connection)
	if !ok {
		return nil
	}
	s, _ := own.Conn.(*stranger)
	return s
}

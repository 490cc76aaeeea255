// Package stream makes connections whose reading and writing does not wake Go's runtime: see package nonblock.
package stream

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/nonblock"
)

// Conn is a stream connection, as package net has them, whose Read and Write are calls of package nonblock. While there is nothing
// to read, or no room, its callers wait as they do in package net, and its deadlines are kept. One goroutine may read, and one write,
// at a time.
type Conn struct {
	net.Conn
	raw   syscall.RawConn
	meter nonblock.Meter // of one reader at a time
}

// Wrap returns c as a *Conn, or c itself if it is no socket of the kernel's.
func Wrap(c net.Conn) net.Conn {
	s, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return c // closed, which its next user is told
	}
	return &Conn{Conn: c, raw: raw}
}

// NetConn returns the connection that was wrapped.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := nonblock.ReadFrom(c.raw, p)
	c.meter.Add(n)
	if err != nil && err != io.EOF {
		err = c.failed("read", err)
	}
	return n, err
}

// CloseWrite ends what is sent, where the connection can do that; net/http does so before it closes one that was not read to its end.
func (c *Conn) CloseWrite() error {
	w, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return w.CloseWrite()
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	var done int
	for done < len(p) {
		var n int
		var failure error
		err := c.raw.Write(func(fd uintptr) bool {
			n, failure = nonblock.Write(int(fd), p[done:])
			return failure != unix.EAGAIN
		})
		switch {
		case err != nil:
			return done, c.failed("write", err)
		case failure != nil:
			return done, c.failed("write", failure)
		}
		done += n
	}
	return done, nil
}

// failed makes of err what package net returns.
func (c *Conn) failed(op string, err error) error {
	switch e := err.(type) {
	case *net.OpError: // of the raw connection
		err = e.Err
	case syscall.Errno:
		err = os.NewSyscallError(op, e)
	}
	a := c.LocalAddr()
	return &net.OpError{Op: op, Net: a.Network(), Source: a, Addr: c.RemoteAddr(), Err: err}
}

// Listener returns l, with its connections wrapped.
func Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return Wrap(c), nil
}

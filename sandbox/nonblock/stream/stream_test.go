package stream_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/nonblock/stream"
)

// pair returns the two sides of a connection, the first one wrapped.
func pair(t *testing.T, network string) (ours, theirs net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "socket")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	theirs, err = net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	ours, err = stream.Listener(l).Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	if _, ok := ours.(*stream.Conn); !ok {
		t.Fatalf("the connection is a %T", ours)
	}
	return ours, theirs
}

// TestConn sends more than a socket holds, both ways at once, so that both sides have to wait.
func TestConn(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			ours, theirs := pair(t, network)
			sent := make([]byte, 8<<20)
			rand.Read(sent)
			errs := make(chan error, 3)
			write := func(c net.Conn) {
				_, err := c.Write(sent)
				errs <- err
			}
			go write(ours)
			go write(theirs)
			go func() {
				got := make([]byte, len(sent))
				_, err := io.ReadFull(theirs, got)
				if err == nil && !bytes.Equal(got, sent) {
					err = errors.New("other bytes came than were sent")
				}
				errs <- err
			}()
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(ours, got); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, sent) {
				t.Error("other bytes came than were sent")
			}
			for range cap(errs) {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
			// One side has said all, and still hears the other.
			if err := ours.(*stream.Conn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if n, err := theirs.Read(got); n != 0 || err != io.EOF {
				t.Errorf("after all was said: %d, %v", n, err)
			}
			if _, err := theirs.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			if n, err := ours.Read(got); n != 1 || err != nil {
				t.Errorf("what comes after all was said: %d, %v", n, err)
			}
			theirs.Close()
			if n, err := ours.Read(got); n != 0 || err != io.EOF {
				t.Errorf("after the end: %d, %v", n, err)
			}
		})
	}
}

// TestConnErrors: what users of package net look for in its errors is there.
func TestConnErrors(t *testing.T) {
	ours, theirs := pair(t, "unix")
	b := make([]byte, 1<<20)
	isTimeout := func(err error) bool {
		var e net.Error
		var op *net.OpError
		return errors.Is(err, os.ErrDeadlineExceeded) && errors.As(err, &e) && e.Timeout() && errors.As(err, &op)
	}

	ours.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := ours.Read(b); !isTimeout(err) {
		t.Errorf("a read that waits too long: %v", err)
	}
	ours.SetReadDeadline(time.Time{})
	ours.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	n, err := ours.Write(b)
	if !isTimeout(err) || n == 0 || n == len(b) {
		t.Errorf("a write that waits too long: %d, %v", n, err)
	}
	ours.SetWriteDeadline(time.Time{})
	theirs.Close()
	if _, err := ours.Write(b); !errors.Is(err, unix.EPIPE) {
		t.Errorf("a write to nobody: %v", err)
	}
	waits := make(chan error)
	again, _ := pair(t, "unix")
	go func() {
		_, err := again.Read(b)
		waits <- err
	}()
	again.Close()
	if err := <-waits; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read of what is closed meanwhile: %v", err)
	}
	if _, err := again.Write(b); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write to what is closed: %v", err)
	}
}

// TestWrapNone: what is no socket stays what it is.
func TestWrapNone(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if stream.Wrap(a) != a {
		t.Error("a pipe in memory was wrapped")
	}
}

// Package client connects to an engine: over a Unix socket, or over mutual TLS to one on another machine.
//
// The gateway, which strangers talk to, imports it besides package ctl and those below it: the only thing it touches on the machine is
// the socket it is given. It reads no file and starts nothing. Keys, certificates and tokens come from its callers: see Credentials.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"syscall"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/rtask/rtask/daemon/api/codec"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

// DefaultPath is the control socket of the system's engine.
const DefaultPath = "/run/rtask/rtask.sock"

const (
	// baseURL names no host: the transport dials the socket whatever it says.
	baseURL = "http://rtask"
	// maxIdle is how many connections are kept open between calls. The gateway has as many calls under way as clients.
	maxIdle = 256
	// idleTimeout is below the engine's own (2 minutes), so that a call never goes out on a connection that the engine
	// is just closing.
	idleTimeout = 90 * time.Second
	// fullBackoff is the first wait when the engine's accept queue is full, and fullTries how often it is tried;
	// the wait doubles, so that all of it is half a second.
	fullBackoff = time.Millisecond
	fullTries   = 10
)

// Client makes calls to one engine. It is safe for concurrent use.
type Client struct {
	// Jobs is for the control socket, Gateway for the gateway's.
	Jobs    rtaskv1connect.JobServiceClient
	Gateway rtaskv1connect.GatewayServiceClient
	// Authority is for the control socket, too.
	Authority rtaskv1connect.AuthorityServiceClient

	// remote is nil for a Unix socket.
	remote *Endpoint
	close  func()
}

// Dial returns a client of the engine at a socket. Nothing is connected before the first call, whose error says if
// that could not be done: see ErrNotRunning and ErrPermission. Calls have no timeout but that of their context.
func Dial(path string) *Client {
	t := &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, path) },
		DisableCompression:  true,
		MaxIdleConns:        maxIdle,
		MaxIdleConnsPerHost: maxIdle,
		IdleConnTimeout:     idleTimeout,
	}
	c := newClient(t, baseURL)
	c.close = t.CloseIdleConnections
	return c
}

// newClient makes a client of what answers at a URL.
func newClient(t http.RoundTripper, base string, interceptors ...connect.ClientInterceptor) *Client {
	h := &http.Client{Transport: t, CheckRedirect: noRedirect}
	// The engine may answer with a list of any size.
	c := connect.NewClient(connecthttp.NewTransport(h, base, append(codec.Options(), connecthttp.WithReadMaxBytes(0))...), interceptors...)
	return &Client{Jobs: rtaskv1connect.NewJobServiceClient(c), Gateway: rtaskv1connect.NewGatewayServiceClient(c), Authority: rtaskv1connect.NewAuthorityServiceClient(c)}
}

// noRedirect is the CheckRedirect of clients of servers that redirect nobody.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Messages yields what comes on a stream of the engine's. It ends with the stream, after an error if there was one.
func Messages[M any](s interface{ Receive() (*M, error) }) iter.Seq2[*M, error] {
	return func(yield func(*M, error) bool) {
		for {
			m, err := s.Receive()
			if errors.Is(err, io.EOF) || !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// Close closes the connections that no call is using. The client stays usable.
func (c *Client) Close() { c.close() }

// Remote returns the server of a client that DialTLS made; ok is false for one of a Unix socket.
func (c *Client) Remote() (_ *Endpoint, ok bool) { return c.remote, c.remote != nil }

// dial connects to a socket. A Unix socket whose accept queue is full refuses with EAGAIN at once where TCP would wait
// (unix(7), connect(2)), so the wait is here.
func dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	wait := fullBackoff
	for try := 1; ; try++ {
		c, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, syscall.EAGAIN) || try == fullTries {
			return nil, dialError(path, err)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, context.Cause(ctx)
		case <-t.C:
		}
		wait *= 2
	}
}

// dialError says which of the errors of this package a failed connection is.
func dialError(path string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (cannot connect to %s)", ErrNotRunning, path)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w (cannot connect to %s)", ErrPermission, path)
	default:
		return fmt.Errorf("cannot connect to %s: %w", path, err)
	}
}

package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
)

// errPlaintext is returned by plaintext where rtask.hcl does not allow it.
var errPlaintext = errors.New("without TLS only loopback addresses are served, unless rtask.hcl says allow_plaintext = true; HTTPS has a socket of its own, rtask-https.socket")

// plaintext returns nil if HTTP without TLS may be served on other addresses than loopback. The word of an engine that is
// away holds until it is back.
func (a *api) plaintext(ctx context.Context) error {
	state, err := a.watch.last(ctx)
	switch {
	case state == nil:
		return fmt.Errorf("cannot ask the engine whether rtask.hcl says allow_plaintext = true: %w", err)
	case !state.AllowPlaintext:
		return errPlaintext
	default:
		return nil
	}
}

// loopback reports whether an address is one that this machine alone can reach.
func loopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return !ok || t.IP.IsLoopback()
}

// exposed is a listener without TLS that others than this machine can reach. It lets them in as long as that is allowed. Else
// a connection is closed before a byte of it is read, so that the next reload can change it and no client waits.
type exposed struct {
	net.Listener
	what    string
	allowed func() error
	logger  *slog.Logger

	mu      sync.Mutex // guards what follows
	refuses bool       // as was logged last
}

// Accept implements net.Listener. It asks nobody: whether a connection is let in shows when it is read, which each connection
// waits for by itself.
func (l *exposed) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &asking{Conn: c, admitted: sync.OnceValue(l.open)}, nil
}

// asking is a connection that ends before its first byte unless it is let in.
type asking struct {
	net.Conn
	admitted func() bool
}

// Read implements net.Conn.
func (c *asking) Read(b []byte) (int, error) {
	if !c.admitted() {
		return 0, io.EOF
	}
	return c.Conn.Read(b)
}

// guard does not let h have requests that come on a connection from before, when it was allowed: the connection breaks off.
func (l *exposed) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if l.allowed() != nil {
			panic(http.ErrAbortHandler)
		}
		h.ServeHTTP(w, r)
	})
}

// open reports whether a connection is let in, and logs when that changes.
func (l *exposed) open() bool {
	err := l.allowed()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil && !l.refuses:
		l.logger.Error("plain HTTP is not served", "what", l.what, "address", l.Addr().String(), "error", err)
	case err == nil && l.refuses:
		l.logger.Info("serving", "what", l.what, "address", l.Addr().String())
	}
	l.refuses = err != nil
	return err == nil
}

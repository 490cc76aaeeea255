package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
)

// errPlaintext is returned by plaintext where rtask.hcl does not allow it.
var errPlaintext = errors.New("without TLS only loopback addresses are served, unless rtask.hcl says allow_plaintext = true; HTTPS has a socket of its own, rtask-https.socket")

// plaintext returns nil if HTTP without TLS may be served on other addresses than loopback. The word of an engine that is
// away holds until it is back.
func (a *api) plaintext(ctx context.Context) error {
	framing, _, err := a.limits(ctx, framingAge)
	if err != nil {
		a.mu.Lock()
		framing = a.framing
		a.mu.Unlock()
	}
	switch {
	case framing == nil:
		return fmt.Errorf("cannot ask the engine whether rtask.hcl says allow_plaintext = true: %w", err)
	case !framing.AllowPlaintext:
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
	refuses bool // as was logged last
}

// Accept implements net.Listener. One goroutine calls it at a time.
func (l *exposed) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || l.open() {
			return c, err
		}
		_ = c.Close() // nothing was said on it
	}
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
	switch {
	case err != nil && !l.refuses:
		l.logger.Error("plain HTTP is not served", "what", l.what, "address", l.Addr().String(), "error", err)
	case err == nil && l.refuses:
		l.logger.Info("serving", "what", l.what, "address", l.Addr().String())
	}
	l.refuses = err != nil
	return err == nil
}

package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// listeners are the engine's sockets.
type listeners struct {
	control, gateway, remote net.Listener
}

// all are those that are open.
func (l listeners) all() []net.Listener {
	return slices.DeleteFunc([]net.Listener{l.control, l.gateway, l.remote}, func(ln net.Listener) bool { return ln == nil })
}

// listen takes the sockets from systemd (sd_listen_fds(3)), and opens itself what is not among them.
func (e *engine) listen() (listeners, error) {
	given, err := activation.ListenersWithNames()
	if err != nil {
		return listeners{}, fmt.Errorf("cannot take over sockets from systemd: %w", err)
	}
	var l listeners
	l.control, err = e.socket(given, "rtask.sock", 0o666)
	if err == nil {
		l.gateway, err = e.gatewaySocket(given, "gateway.sock")
	}
	if err == nil {
		l.remote, err = e.gatewaySocket(given, "remote.sock")
	}
	if err != nil {
		for _, ln := range l.all() {
			_ = ln.Close() // the first error is the one that says something
		}
	}
	return l, err
}

// gatewaySocket is socket for one that is the gateway's alone. Systemd's is that by its unit. Also beside systemd one may have to be
// opened: an upgrade does not start the unit again, which may have got another path.
func (e *engine) gatewaySocket(given map[string][]net.Listener, file string) (net.Listener, error) {
	l, err := e.socket(given, file, 0o600)
	if err != nil || of(given, file) != nil || os.Geteuid() != 0 {
		return l, err
	}
	uid, gid := -1, -1 // as it is
	if e.Gateway != nil {
		if u, g, ok := e.Gateway.Credentials(); ok {
			uid, gid = int(u), int(g)
		}
	} else if u := e.gatewayUID(); u != nil {
		uid = int(*u)
	}
	if err := os.Lchown(filepath.Join(e.RuntimeDir, file), uid, gid); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// of returns systemd's socket whose path ends in file; nil: there is none. The name that it gives is of no use: it is the unit's, for all
// of its sockets.
func of(given map[string][]net.Listener, file string) net.Listener {
	for _, all := range given {
		for _, l := range all {
			if filepath.Base(l.Addr().String()) == file {
				return l
			}
		}
	}
	return nil
}

// socket returns systemd's socket whose path ends in file, or opens it.
func (e *engine) socket(given map[string][]net.Listener, file string, mode os.FileMode) (net.Listener, error) {
	if l := of(given, file); l != nil {
		u, ok := l.(*net.UnixListener)
		if !ok {
			return nil, fmt.Errorf("cannot use the socket %s from systemd: it is not a Unix socket", l.Addr())
		}
		u.SetUnlinkOnClose(false) // it is systemd's
		return u, nil
	}
	path := filepath.Join(e.RuntimeDir, file)
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// Nobody gets in between the socket's birth and its mode.
	old := unix.Umask(0o777 &^ int(mode.Perm()))
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("cannot open a socket: %w", err)
	}
	return l, nil
}

// removeStale removes a socket that nobody listens on any more. One that somebody listens on is another engine's.
func removeStale(path string) error {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("cannot open a socket: %w", err)
	case fi.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("cannot open the socket %s: another file has that name", path)
	}
	c, err := net.Dial("unix", path)
	if err == nil || errors.Is(err, unix.EAGAIN) { // EAGAIN: it has a queue, which is full (connect(2))
		if c != nil {
			_ = c.Close() // nothing was said on it
		}
		return fmt.Errorf("cannot open the socket %s: another rtaskd serves it", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("cannot open a socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("cannot remove a stale socket: %w", err)
	}
	return nil
}

package scope

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

var (
	// ErrExists is returned when a unit of that name is there already. Names are never used twice, so it means that two
	// engines share a manager, or that a name was reused.
	ErrExists = errors.New("a unit of that name exists already")

	// ErrClosed is returned by every method after Close.
	ErrClosed = errors.New("the connection to systemd is closed")

	// ErrNotVerified is returned when systemd said that a scope was started and the process was not found in it.
	ErrNotVerified = errors.New("the process is not in its scope")
)

// Away reports whether err says that a bus or a manager which is there cannot be asked just now: it is being started anew.
// Where there is none, or it may not be asked, that is another error.
func Away(err error) bool {
	var e dbus.Error
	if errors.As(err, &e) {
		return isAway(e)
	}
	for _, target := range []error{unix.ECONNREFUSED, unix.ECONNRESET, unix.EPIPE, io.EOF, dbus.ErrClosed, context.DeadlineExceeded} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// isAway reports whether the bus answered in the place of a manager that is not on it just now.
func isAway(e dbus.Error) bool {
	switch e.Name {
	case "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected",
		"org.freedesktop.DBus.Error.TimedOut", "org.freedesktop.DBus.Error.Timeout",
		"org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner":
		return true
	default:
		return strings.HasPrefix(e.Name, "org.freedesktop.DBus.Error.Spawn.")
	}
}

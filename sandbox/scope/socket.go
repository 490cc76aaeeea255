package scope

import (
	"context"
	"fmt"

	"github.com/godbus/dbus/v5"
)

// Listening returns where a socket unit listens for streams, as ListenStream= has it: "127.0.0.1:8800", "[::]:8443" or a path. There
// is nothing for a unit that is not active.
func (m *Manager) Listening(ctx context.Context, unit string) ([]string, error) {
	active, err := m.Active(ctx, unit)
	if err != nil || len(active) == 0 {
		return nil, err
	}
	conn, err := m.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot ask where %s listens: %w", unit, err)
	}
	addresses, err := listen(ctx, conn, unit)
	if err != nil {
		return nil, fmt.Errorf("cannot ask where %s listens: %w", unit, err)
	}
	return addresses, nil
}

// SocketUnit is what systemd says of a socket unit that it has loaded.
type SocketUnit struct {
	Name string
	// Addresses are where it listens for streams, or would, as Listening has them.
	Addresses []string
	// Active is "active", "inactive" or "failed", and Result why it failed (systemd.socket(5) has no list of them; "resources" is that
	// it could not listen).
	Active, Result string
}

// Socket returns a socket unit; nil if there is none of that name.
func (m *Manager) Socket(ctx context.Context, unit string) (*SocketUnit, error) {
	cannot := func(err error) (*SocketUnit, error) { return nil, fmt.Errorf("cannot ask for %s: %w", unit, err) }
	conn, err := m.connect(ctx)
	if err != nil {
		return cannot(err)
	}
	u := &SocketUnit{Name: unit}
	var load string
	// A unit that is not loaded answers, too: systemd loads it to do so.
	for _, p := range []struct {
		iface, name string
		into        *string
	}{{unitIface, "LoadState", &load}, {unitIface, "ActiveState", &u.Active}, {socketIface, "Result", &u.Result}} {
		if err := property(ctx, conn, unitPath(unit), p.iface, p.name, p.into); err != nil {
			return cannot(err)
		}
		if load == "not-found" || load == "masked" {
			return nil, nil
		}
	}
	if u.Addresses, err = listen(ctx, conn, unit); err != nil {
		return cannot(err)
	}
	return u, nil
}

// listen asks for the ListenStream= of a socket unit (org.freedesktop.systemd1(5), Socket Unit Objects).
func listen(ctx context.Context, conn *dbus.Conn, unit string) ([]string, error) {
	var all []struct{ Kind, Address string }
	if err := property(ctx, conn, unitPath(unit), socketIface, "Listen", &all); err != nil {
		return nil, err
	}
	var addresses []string
	for _, l := range all {
		if l.Kind == "Stream" {
			addresses = append(addresses, l.Address)
		}
	}
	return addresses, nil
}

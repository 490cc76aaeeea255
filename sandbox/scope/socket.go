package scope

import (
	"context"
	"fmt"
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
	// org.freedesktop.systemd1(5), Socket Unit Objects.
	var listen []struct{ Kind, Address string }
	if err := property(ctx, conn, unitPath(unit), socketIface, "Listen", &listen); err != nil {
		return nil, fmt.Errorf("cannot ask where %s listens: %w", unit, err)
	}
	var addresses []string
	for _, l := range listen {
		if l.Kind == "Stream" {
			addresses = append(addresses, l.Address)
		}
	}
	return addresses, nil
}

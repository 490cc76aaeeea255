package scope

import (
	"context"
	"fmt"

	"github.com/godbus/dbus/v5"
)

// Active returns the names of the active units that match pattern, as `systemctl list-units --state=active PATTERN` shows them.
func (m *Manager) Active(ctx context.Context, pattern string) ([]string, error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot list units: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	// org.freedesktop.systemd1(5), ListUnitsByPatterns.
	var units []struct {
		Name, Description, Load, Active, Sub, Followed string
		Path                                           dbus.ObjectPath
		Job                                            uint32
		JobType                                        string
		JobPath                                        dbus.ObjectPath
	}
	err = conn.Object(busName, busPath).CallWithContext(ctx, managerIface+".ListUnitsByPatterns", 0,
		[]string{"active"}, []string{pattern}).Store(&units)
	if err != nil {
		return nil, fmt.Errorf("cannot list units: %w", err)
	}
	names := make([]string, len(units))
	for i, u := range units {
		names[i] = u.Name
	}
	return names, nil
}

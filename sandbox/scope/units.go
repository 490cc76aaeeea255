package scope

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	timerIface = busName + ".Timer"
	// reloadTimeout bounds a reload of the manager: it runs all generators, and waits for jobs under way.
	reloadTimeout = 90 * time.Second
)

// Reload has the manager run its generators and read all units again, as `systemctl daemon-reload` does. It returns when that is done.
func (m *Manager) Reload(ctx context.Context) error {
	if err := m.do(ctx, reloadTimeout, "Reload"); err != nil {
		return fmt.Errorf("cannot reload systemd: %w", err)
	}
	return nil
}

// StartUnit has a unit started that there is. It returns when systemd has a job for that.
func (m *Manager) StartUnit(ctx context.Context, unit string) error {
	if err := m.do(ctx, callTimeout, "StartUnit", unit, "replace"); err != nil {
		return fmt.Errorf("cannot start %s: %w", unit, err)
	}
	return nil
}

// StopUnit stops a unit. It returns when the unit is not active any more: a timer that runs when systemd reloads and finds its unit gone
// fails. To stop a unit that does not run is no error.
func (m *Manager) StopUnit(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := m.do(ctx, callTimeout, "StopUnit", unit, "replace")
	if isNoUnit(err) {
		return nil
	}
	look := time.NewTicker(lookAtStop)
	defer look.Stop()
	for up := true; err == nil && up; {
		if up, err = m.active(ctx, unit); err == nil && up {
			select {
			case <-look.C:
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("cannot stop %s: %w", unit, err)
	}
	return nil
}

// lookAtStop is how often a unit is looked at that was told to stop.
const lookAtStop = 20 * time.Millisecond

// do calls a method of the manager, and once more where it was away: what is asked for has the same effect twice.
func (m *Manager) do(ctx context.Context, patience time.Duration, method string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last error
	for _, pause := range append(pauses(), 0) {
		conn, err := m.connect(ctx)
		if err == nil {
			err = conn.Object(busName, busPath).CallWithContext(ctx, managerIface+"."+method, 0, args...).Err
		}
		if err == nil || !Away(err) || pause == 0 {
			return err
		}
		last = err
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return errors.Join(context.Cause(ctx), last)
		}
	}
	return last
}

// NextElapse returns when a timer elapses next by the clock of the day, the zero Time: it does not, or there is no such timer that runs.
func (m *Manager) NextElapse(ctx context.Context, timer string) (time.Time, error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("cannot ask for %s: %w", timer, err)
	}
	var usec uint64
	if err := property(ctx, conn, unitPath(timer), timerIface, "NextElapseUSecRealtime", &usec); err != nil {
		if isNoUnit(err) || isNoInterface(err) {
			return time.Time{}, nil
		}
		return time.Time{}, fmt.Errorf("cannot ask for %s: %w", timer, err)
	}
	if usec == 0 || usec > math.MaxInt64 {
		return time.Time{}, nil
	}
	return time.UnixMicro(int64(usec)), nil
}

// isNoInterface reports whether err says that the unit is not there, or of another kind.
func isNoInterface(err error) bool {
	var e dbus.Error
	return errors.As(err, &e) && (e.Name == "org.freedesktop.DBus.Error.UnknownInterface" || e.Name == "org.freedesktop.DBus.Error.UnknownProperty")
}

package sandbox

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"
)

// Units are the units of the system's manager that are not of jobs: those by which tasks start by themselves.
type Units struct{ h *Host }

// Units returns them; false: this engine has no system manager, or is not root.
func (h *Host) Units() (Units, bool) {
	return Units{h}, h.manager != nil && os.Geteuid() == 0
}

// Reload has systemd run its generators and read its units again.
func (u Units) Reload(ctx context.Context) error { return u.h.manager.Reload(ctx) }

// Active returns the names of the active units that match one of the patterns.
func (u Units) Active(ctx context.Context, patterns ...string) ([]string, error) {
	var all []string
	for _, p := range patterns {
		active, err := u.h.manager.Active(ctx, p)
		if err != nil {
			return nil, err
		}
		all = append(all, active...)
	}
	return all, nil
}

// Start starts units, and Stop stops them. Each of them is tried; the error is that of all.
func (u Units) Start(ctx context.Context, names []string) error {
	return each(names, func(name string) error { return u.h.manager.StartUnit(ctx, name) })
}

// Stop is described at Start.
func (u Units) Stop(ctx context.Context, names []string) error {
	return each(names, func(name string) error { return u.h.manager.StopUnit(ctx, name) })
}

func each(names []string, do func(string) error) error {
	var err error
	for _, name := range slices.SortedFunc(slices.Values(names), strings.Compare) {
		err = errors.Join(err, do(name))
	}
	return err
}

// NextElapse returns when a timer elapses next, the zero Time: it does not.
func (u Units) NextElapse(ctx context.Context, timer string) (time.Time, error) {
	return u.h.manager.NextElapse(ctx, timer)
}

package sandbox

import (
	"context"
	"path"
	"time"

	"github.com/rtask/rtask/sandbox/cgroup"
)

// sweepPauses are the times before the looks of Sweep: what an engine asked systemd for before it died may come to be a while
// later.
func sweepPauses() []time.Duration {
	return []time.Duration{0, 2 * time.Second, 8 * time.Second, 20 * time.Second}
}

// Sweep stops the scopes of earlier engines that hold no process. It returns when no more can appear, or ctx ends. If an engine dies while
// a scope is being started, the shim may be gone before systemd moves it there. Then the control group never becomes empty, since nothing
// was ever in it, and systemd would keep the scope for ever.
func (h *Host) Sweep(ctx context.Context) {
	if h.manager == nil {
		return
	}
	for _, pause := range sweepPauses() {
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		units, err := h.manager.Active(ctx, "rtask-*.scope")
		if err != nil {
			if ctx.Err() == nil {
				h.opts.Logger.Warn("cannot look for scopes that are left", "error", err)
			}
			continue
		}
		for _, u := range units {
			h.ClearUnit(ctx, u)
		}
	}
}

// ClearUnit stops a scope that is active and holds no process. It leaves other scopes alone. A scope that is being started is not
// affected: its shim is in it as soon as it is active.
func (h *Host) ClearUnit(ctx context.Context, unit string) {
	if h.manager == nil {
		return
	}
	// Mostly it is where scopes are unless a task says otherwise, and systemd need not be asked.
	if populated, err := cgroup.Populated(h.mount, path.Join(h.root, Slice, unit)); err == nil && populated {
		return
	}
	group, err := h.manager.ControlGroup(ctx, unit)
	if err != nil || group == "" {
		return // it is gone
	}
	if populated, err := cgroup.Populated(h.mount, group); err != nil || populated {
		return
	}
	h.opts.Logger.Info("stopping a scope of an earlier engine that holds no process", "unit", unit)
	h.manager.Discard(ctx, unit)
}

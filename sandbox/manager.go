package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/rtask/rtask/sandbox/cgroup"
	"github.com/rtask/rtask/sandbox/scope"
)

const (
	// managerTime is how long a manager that runs here may be away while an engine starts: PID 1 executes itself anew, or
	// dbus is restarted.
	managerTime = 30 * time.Second
	// managerPause is the time between two looks for it.
	managerPause = 100 * time.Millisecond
)

// awaitManager is findManager, and waits for a manager that cannot be asked just now. To do without it would be wrong: jobs
// would run unconfined in the engine's own control group, and end with it. An error for which scope.Away holds means that
// it did not come back.
func (h *Host) awaitManager(ctx context.Context) error {
	for deadline := time.Now().Add(managerTime); ; {
		err := h.findManager(ctx)
		if !scope.Away(err) || time.Now().After(deadline) {
			return err
		}
		t := time.NewTimer(managerPause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}

// findManager connects to the manager that fits the calling user.
func (h *Host) findManager(ctx context.Context) error {
	if h.opts.NoSystemd {
		return errors.New("switched off")
	}
	// sd_booted(3)
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return errors.New("systemd is not running here")
	}
	mount, err := cgroup.Mount()
	if err != nil {
		return err
	}
	m, kind := scope.System(), "systemd (system)"
	if os.Geteuid() != 0 {
		m, kind = scope.User(), "systemd (user)"
	}
	v, err := m.Version(ctx)
	if err != nil {
		return errors.Join(err, m.Close())
	}
	if v.Number < oldestSystemd {
		return errors.Join(fmt.Errorf("systemd %s is older than %d", v.Systemd, oldestSystemd), m.Close())
	}
	// A user's manager has the controllers that the system's has delegated to it.
	root, err := m.ControlGroupRoot(ctx)
	if err != nil {
		return errors.Join(err, m.Close())
	}
	controllers, err := cgroup.Controllers(filepath.Join(mount, root))
	if err != nil {
		return errors.Join(err, m.Close())
	}
	soft, err := m.DefaultNoFile(ctx)
	if err == nil {
		h.noFile = soft
	}
	tasks, err2 := m.DefaultTasksMax(ctx)
	if err2 == nil {
		h.tasksMax = &tasks
	}
	if err := errors.Join(err, err2); scope.Away(err) { // else a manager that does not know them
		return errors.Join(err, m.Close())
	}
	h.manager, h.kind, h.systemd, h.mount, h.root, h.controllers = m, kind, v.Number, mount, root, controllers
	return nil
}

package sandbox

import (
	"context"
	"time"

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

package sandbox

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/rtask/rtask/sandbox/scope"
	"github.com/rtask/rtask/sandbox/spec"
)

// The headroom of a scope's times above its job's, for the shim.
const (
	stopHeadroom = 10 * time.Second
	runHeadroom  = 15 * time.Second
)

// unit is the scope of a slot for jobs such as r.
func unit(name string, r *spec.Run, single bool) scope.Unit {
	u := scope.Unit{
		Name: name, Description: description(r), Slice: cmp.Or(r.Limits.Slice, Slice),
		// The shim escalates by itself and writes down what came of it; systemd's SIGKILL comes after that.
		TimeoutStop: r.TimeoutStop + stopHeadroom,
		Resources:   resources(r.Limits),
	}
	// A user's manager has not the privilege to enforce this.
	if r.Sandbox.PrivateDevices && os.Geteuid() == 0 {
		u.DevicePolicy = "closed"
	}
	if single && r.Timeout > 0 {
		u.RuntimeMax = r.Timeout + r.TimeoutStop + runHeadroom
	}
	return u
}

// description is what systemctl shows of a job; package scope makes it printable. Everybody can read it and the journal keeps it, so
// of a command it is the program's name without arguments, which may be secret.
func description(r *spec.Run) string {
	if r.Task != "" {
		return fmt.Sprintf("rtask job %s of task %s", r.ID, r.Task)
	}
	return fmt.Sprintf("rtask job %s: %s", r.ID, filepath.Base(r.Command()))
}

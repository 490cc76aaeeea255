// Package sandbox is the parent half of running jobs: it starts a shim, has systemd put it into a transient scope, gives
// it the job, and finds it again after the engine was started anew. The child half is in sandbox/shim and sandbox/jail.
//
// It is the one place of the project that starts processes. It keeps no records and knows nothing of tasks, users' names
// or the network; daemon/job is built on it.
package sandbox

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/scope"
)

const (
	// maxSocketPath is the longest path of a socket in bytes (sun_path, unix(7)).
	maxSocketPath = 107
	// idLength is the room for a job's id in it.
	idLength = 16
)

// Open finds out what this machine gives: the system's manager for root, the user's own for others, or none.
func Open(ctx context.Context, o Options) (*Host, error) {
	if !filepath.IsAbs(o.RuntimeDir) || !filepath.IsAbs(o.Shim) {
		return nil, fmt.Errorf("cannot use the folder %q and the program %q: both must be absolute paths", o.RuntimeDir, o.Shim)
	}
	if n := len(filepath.Join(o.RuntimeDir, "")) + 1 + idLength; n > maxSocketPath {
		return nil, fmt.Errorf("cannot use %s as the folder for sockets: their paths would have %d bytes, and the system allows %d",
			o.RuntimeDir, n, maxSocketPath)
	}
	if err := os.MkdirAll(o.RuntimeDir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make a folder for sockets: %w", err)
	}
	if err := ownFolder(o.RuntimeDir); err != nil {
		return nil, err
	}
	if _, err := os.Stat(o.Shim); err != nil {
		return nil, fmt.Errorf("cannot find rtask-shim: %w", err)
	}
	o.Hide = cmp.Or(o.Hide, o.RuntimeDir)
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	h := &Host{opts: o, boot: boot, kind: "none", privileged: os.Geteuid() == 0, noFile: defaultNoFile, startTime: startTimeout}
	if err := h.awaitManager(ctx); scope.Away(err) {
		return nil, fmt.Errorf("cannot reach systemd, which runs here: %w", err)
	} else if err != nil {
		h.weaker = append(h.weaker,
			"Jobs run as plain processes, without a unit, limits of control groups or namespaces ("+err.Error()+").",
			"No limit of control groups can be enforced: a task that has one is refused. Limits of single processes (nice, oom_score_adjust, limit_…) are enforced.",
			"CPU and memory figures are incomplete: they leave out processes that nobody waited for.",
			"If a job's supervisor is killed, the job's processes run on, and rtask does not find them again.",
			"A job can reach the control socket: it may do there what its user may.")
	}
	h.findConfinement(ctx)
	if h.manager == nil {
		return h, nil
	}
	if missing := h.missing([]string{"cpu", "cpuset", "io", "memory", "pids"}); len(missing) > 0 {
		h.weaker = append(h.weaker, "Limits that need the control group controllers "+strings.Join(missing, ", ")+
			" cannot be enforced: the cgroup v2 hierarchy of this machine does not have them.")
	}
	return h, nil
}

// ownFolder returns an error for a folder in which another user could create a socket: the engine would trust a fake shim.
func ownFolder(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("cannot look at the folder for sockets %s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("cannot use %s as the folder for sockets: it must be a folder of user %d's own that nobody else can write to", dir, os.Geteuid())
	}
	return nil
}

// Close ends the connection to systemd. Jobs go on.
func (h *Host) Close() error {
	if h.manager == nil {
		return nil
	}
	return h.manager.Close()
}

// Listening returns what asks systemd where a socket unit listens, see scope.Manager.Listening; nil where rtask's units are not
// systemd's.
func (h *Host) Listening() func(ctx context.Context, unit string) ([]string, error) {
	if h.manager == nil || os.Geteuid() != 0 {
		return nil
	}
	return h.manager.Listening
}

// SocketUnit is what systemd says of a socket unit.
type SocketUnit = scope.SocketUnit

// Sockets returns the existing ones of the named socket units, as far as systemd says. Without systemd there are none.
func (h *Host) Sockets(ctx context.Context, names ...string) []SocketUnit {
	if h.manager == nil {
		return nil
	}
	var all []SocketUnit
	for _, name := range names {
		if u, err := h.manager.Socket(ctx, name); err == nil && u != nil {
			all = append(all, *u)
		}
	}
	return all
}

// ActiveSockets returns all socket units that listen now, as far as systemd says.
func (h *Host) ActiveSockets(ctx context.Context) []SocketUnit {
	if h.manager == nil {
		return nil
	}
	names, err := h.manager.Active(ctx, "*.socket")
	if err != nil {
		return nil
	}
	return h.Sockets(ctx, names...)
}

// GoingDown reports whether the machine, or the user's manager, is being shut down, so that no scope can be started.
func (h *Host) GoingDown(ctx context.Context) bool {
	if h.manager == nil {
		return false
	}
	state, err := h.manager.SystemState(ctx)
	return err == nil && state == "stopping"
}

// bootID reads it.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("cannot read the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

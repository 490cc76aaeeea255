// Package sandbox is the parent half of running jobs: it starts a shim, has systemd put it into a transient scope, gives
// it the job, and finds it again after the engine was started anew. The child half is in sandbox/shim and sandbox/jail.
//
// It is the one place of the project that starts processes. It keeps no records and knows nothing of tasks, users' names
// or the network; daemon/job is built on it.
package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/cgroup"
	"github.com/rtask/rtask/sandbox/scope"
	"github.com/rtask/rtask/sandbox/spec"
)

// Slice is the parent of every scope, and where an administrator caps all of rtask.
const Slice = "rtask.slice"

// oldestSystemd is the oldest version whose scopes do what is needed here.
const oldestSystemd = 252

// kernelMDWE is the first version of systemd whose MemoryDenyWriteExecute= is the kernel's own switch where the kernel has it
// (PR_SET_MDWE(2const)), which refuses with EACCES; before, it is a filter of system calls, which refuses with EPERM.
const kernelMDWE = 254

const (
	// maxSocketPath is the longest path of a socket in bytes (sun_path, unix(7)).
	maxSocketPath = 107
	// idLength is the room for a job's id in it.
	idLength = 16
)

// systemctlNeedsBus is the version from which systemctl(1) must be told to use the bus if it cannot use systemd's private socket.
// Version 252 finds out by itself, version 257 gives up.
const systemctlNeedsBus = 253

// Options are what a Host needs.
type Options struct {
	// Shim is the path of the rtask-shim program, absolute.
	Shim string
	// RuntimeDir is a folder of the engine's own for the sockets of shims, absolute and of at most 90 bytes.
	RuntimeDir string
	// Hide is the folder of all of the engine's sockets, which no job sees that has namespaces; empty: RuntimeDir.
	Hide string
	// Private are files and folders of the engine's own, absolute and clean, that jobs of the profiles default and strict do not see.
	Private []string
	// NoSystemd runs jobs as plain processes even where there is a manager.
	NoSystemd bool
	Logger    *slog.Logger
}

// Host is what this machine gives to run jobs with.
type Host struct {
	opts        Options
	boot        string         // the machine's boot id
	manager     *scope.Manager // nil without systemd
	kind        string
	systemd     int      // the version of the manager, 0 without one
	privileged  bool     // the engine is root
	mount       string   // of the cgroup v2 hierarchy, "" without systemd
	root        string   // the manager's own control group below mount, "/" for the system's
	controllers []string // of the hierarchy's root
	noFile      uint64   // the soft limit of a job's descriptors
	tasksMax    *uint64  // of a scope that says nothing of it, if systemd tells
	startTime   time.Duration
	confinement confinement
	weaker      []string
}

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

// Close ends the connection to systemd. Jobs go on.
func (h *Host) Close() error {
	if h.manager == nil {
		return nil
	}
	return h.manager.Close()
}

// Kind is what runs jobs: "systemd (system)", "systemd (user)" or "none".
func (h *Host) Kind() string { return h.kind }

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

// Weaker returns the promises that do not hold on this machine, a sentence each.
func (h *Host) Weaker() []string { return slices.Clone(h.weaker) }

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

// place is where a job is from now on that gets a slot.
func (h *Host) place(slot, unit string) spec.Place {
	return spec.Place{Slot: slot, Unit: unit, Boot: h.boot}
}

// Boot is the boot id (random(4)), which tells one run of the machine from the next.
func (h *Host) Boot() string { return h.boot }

// bootID reads it.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("cannot read the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// socketPath is where the shim of a slot listens.
func (h *Host) socketPath(id string) string { return filepath.Join(h.opts.RuntimeDir, id) }

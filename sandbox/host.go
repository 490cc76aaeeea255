package sandbox

import (
	"log/slog"
	"path/filepath"
	"slices"
	"time"

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

// Kind is what runs jobs: "systemd (system)", "systemd (user)" or "none".
func (h *Host) Kind() string { return h.kind }

// Weaker returns the promises that do not hold on this machine, a sentence each.
func (h *Host) Weaker() []string { return slices.Clone(h.weaker) }

// place is where a job is from now on that gets a slot.
func (h *Host) place(slot, unit string) spec.Place {
	return spec.Place{Slot: slot, Unit: unit, Boot: h.boot}
}

// Boot is the boot id (random(4)), which tells one run of the machine from the next.
func (h *Host) Boot() string { return h.boot }

// socketPath is where the shim of a slot listens.
func (h *Host) socketPath(id string) string { return filepath.Join(h.opts.RuntimeDir, id) }

// confinement is what can be given of a job's spec.Sandbox here.
type confinement struct {
	namespaces bool
	why        string            // jobs have no namespaces
	missing    map[string]string // with namespaces: the switches that cannot be given nevertheless, and why
}

// systemctlNeedsBus is the version from which systemctl(1) must be told to use the bus if it cannot use systemd's private socket.
// Version 252 finds out by itself, version 257 gives up.
const systemctlNeedsBus = 253

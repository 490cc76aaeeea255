package fork

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// Step is a thing the child does on its way to exec, as an error message names it: "cannot " + step.
type Step string

// The steps, in their order.
const (
	Clone            Step = "make a process"
	Signals          Step = "reset its signals"
	NewSession       Step = "make a session"
	OOMScore         Step = "set the OOM score"
	Namespaces       Step = "enter the namespaces"
	Landlock         Step = "restrict itself with Landlock"
	Files            Step = "pass standard input and output"
	Nice             Step = "set the nice value"
	RLimits          Step = "set the resource limit"
	Groups           Step = "set the supplementary groups"
	GID              Step = "set the group"
	UserNamespace    Step = "enter the user namespace"
	BoundingSet      Step = "take away the capability"
	KeepCapabilities Step = "keep its capabilities"
	UID              Step = "set the user"
	NoCapabilities   Step = "give up its capabilities"
	AmbientSet       Step = "set the ambient capabilities"
	UMask            Step = "set the umask"
	Keyring          Step = "make a session keyring"
	Chdir            Step = "enter the working directory"
	Getcwd           Step = "stay in the working directory"
	NoNewPrivileges  Step = "set no_new_privs"
	Filters          Step = "load the filter of"
	Exec             Step = "execute"
	Mount            Step = "mount" // of MountProc
)

// Error says which step failed, on what, and how.
type Error struct {
	Step  Step
	On    string // the directory, the executable or the resource, where the step has one
	Errno syscall.Errno
}

// Error implements error.
func (e *Error) Error() string {
	if e.On != "" {
		return fmt.Sprintf("cannot %s %s: %v", e.Step, e.On, e.Errno)
	}
	return fmt.Sprintf("cannot %s: %v", e.Step, e.Errno)
}

// Unwrap returns the system call's error.
func (e *Error) Unwrap() error { return e.Errno }

// Process is what to start.
type Process struct {
	// Paths are tried in turn until one can be executed, as execvp(3) does with PATH.
	Paths []string
	Args  []string
	Env   []string
	// Dir is entered after the user was changed.
	Dir string
	// Files become descriptors 0, 1 and 2; each must be 3 or above. Every other descriptor is closed.
	Files [3]int
	// CgroupFD is a descriptor of the control group to be born in; below 0: the parent's.
	CgroupFD int
	// Namespaces are descriptors of namespaces to enter (setns(2)). PIDNamespace is that of the one to be born into, and
	// UserNamespace that of the one to enter once the groups are set; below 1: the parent's.
	Namespaces                  []int
	PIDNamespace, UserNamespace int
	// Ruleset is the descriptor of a ruleset of landlock(7) to be under; below 1: none.
	Ruleset int
	// DropCapabilities are taken out of the bounding set, by their numbers, and AmbientCapabilities are kept by a process
	// that is not root (capabilities(7)), as bits.
	DropCapabilities    []int
	AmbientCapabilities uint64
	// Powerless says that it gives up every capability that it has of its parent.
	Powerless bool
	// UMask is umask(2); nil leaves the parent's.
	UMask *uint32
	// Filters are programs of seccomp(2), loaded in turn just before exec.
	Filters []Filter
	// Credentials: nil keeps the parent's.
	Credentials *spec.Credentials
	// Ignored are the signals that the parent ignores; the process does not, as systemd has it. What the parent handles is
	// reset by exec anyway.
	Ignored []int
	// ClearKeyrings empties the keyrings that the kernel keeps for the user: those of user-keyring(7) and
	// user-session-keyring(7) for good, so that nobody can use them any more, and that of persistent-keyring(7) for now.
	ClearKeyrings bool
	// NoNewPrivileges is PR_SET_NO_NEW_PRIVS (prctl(2)).
	NoNewPrivileges bool
	// NoFile is RLIMIT_NOFILE; the Go runtime raises its own at start, and a job must not inherit that.
	NoFile unix.Rlimit
	// RLimits are further limits of setrlimit(2).
	RLimits []RLimit
	// Nice is the nice value (setpriority(2)); nil leaves the parent's.
	Nice *int
	// OOMScoreAdj is what /proc/self/oom_score_adj gets; nil leaves the parent's.
	OOMScoreAdj *string
}

// Filter is a program of seccomp(2).
type Filter struct {
	// Name is what an error calls it.
	Name    string
	Program []unix.SockFilter
}

// RLimit is a limit of setrlimit(2).
type RLimit struct {
	// Name is what an error calls it, and Resource the kernel's number of it.
	Name     string
	Resource int
	Limit    unix.Rlimit
}

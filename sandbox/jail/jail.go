// Package jail starts a job's process confined: from its first instruction on it is in its control group, under its
// user, with its environment and nothing of the shim's. The parts that run between clone and exec are in package fork.
//
// Only the shim may import it.
package jail

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/jail/fork"
	"github.com/rtask/rtask/sandbox/jail/seccomp"
	"github.com/rtask/rtask/sandbox/privilege"
	"github.com/rtask/rtask/sandbox/spec"
)

// Stdio are a process's three streams.
type Stdio struct {
	In, Out, Err *os.File
}

// Options are what the shim knows and the job's spec does not.
type Options struct {
	// CgroupFD is the control group to be born in; below 0: the shim's own.
	CgroupFD int
	// Room is what it is born into; nil: the shim's own namespaces.
	Room *Room
	// Filters are those of the job's sandbox.
	Filters []Filter
	// NoFile is the job's RLIMIT_NOFILE.
	NoFile unix.Rlimit
	// Ignored are the signals that the shim ignores and the job is not to.
	Ignored []int
	// OOMScoreAdj is the job's; nil: the shim's.
	OOMScoreAdj *string
}

// Filter is a program of seccomp(2), made by Filters.
type Filter = fork.Filter

// Process is a process that was started.
type Process struct {
	PID int
	// PIDFD refers to it beyond doubt (pidfd_open(2)).
	PIDFD *os.File
}

// SetupError is returned by Start when the job never ran. Its text says which step failed, on what, and why.
type SetupError struct {
	// NotFound and NotExecutable tell the two errors of exec apart that a shell gives 127 and 126.
	NotFound, NotExecutable bool
	err                     error
}

// Error implements error.
func (e *SetupError) Error() string { return e.err.Error() }

// Unwrap returns the *fork.Error.
func (e *SetupError) Unwrap() error { return e.err }

// Start starts the main process of a job.
func Start(j *spec.Run, stdio Stdio, o Options) (*Process, error) {
	p, err := process(j, o, self())
	if err != nil {
		return nil, &SetupError{err: err}
	}
	p.Files = [3]int{int(stdio.In.Fd()), int(stdio.Out.Fd()), int(stdio.Err.Fd())}
	pid, pidfd, err := fork.Start(p)
	if err != nil {
		return nil, setupError(j, o.Room, err)
	}
	// The runtime polls it then, and blocks no thread (PIDFD_NONBLOCK). Ignore the error: it works without.
	_ = unix.SetNonblock(pidfd, true)
	return &Process{PID: pid, PIDFD: os.NewFile(uintptr(pidfd), "pidfd")}, nil
}

// starter says what the process that starts a job may do.
type starter struct {
	root bool
	// bounds: it can take capabilities out of the bounding set.
	bounds bool
}

func self() starter {
	root := os.Geteuid() == 0
	return starter{root: root, bounds: root || privilege.Has(unix.CAP_SETPCAP)}
}

// process describes the main process of a job, all but its files, as one for by to start.
func process(j *spec.Run, o Options, by starter) (fork.Process, error) {
	p := fork.Process{
		Paths:           candidates(j),
		Args:            j.Args,
		Env:             j.Env,
		Dir:             j.Dir,
		Credentials:     j.Credentials,
		CgroupFD:        o.CgroupFD,
		Namespaces:      o.Room.fds(),
		ClearKeyrings:   j.Sandbox.DynamicUser,
		Ignored:         o.Ignored,
		NoNewPrivileges: j.Sandbox.NoNewPrivileges,
		NoFile:          o.NoFile,
		OOMScoreAdj:     o.OOMScoreAdj,
		Filters:         o.Filters,
	}
	if r := o.Room; r != nil {
		if r.pids != nil {
			p.PIDNamespace = int(r.pids.Fd())
		}
		if r.users != nil {
			p.UserNamespace = int(r.users.Fd())
		}
		if r.layer != nil {
			p.Ruleset = r.layer.ruleset.FD()
		}
	}
	confine(&p, j, by)
	root := by.root
	if j.Credentials != nil {
		root = j.Credentials.UID == 0
	}
	// Who is not root may load a filter only with this, and systemd implies it likewise (systemd.exec(5)).
	p.NoNewPrivileges = p.NoNewPrivileges || len(o.Filters) > 0 && !root
	err := limit(&p, j.Limits, j.LimitsOptional)
	return p, err
}

// Filters makes the programs that refuse the system calls that s is to refuse.
func Filters(s spec.Sandbox) ([]Filter, error) {
	program, err := seccomp.Compile(s)
	if err != nil {
		return nil, fmt.Errorf("cannot make the filter of system calls: %w", err)
	}
	if program == nil {
		return nil, nil
	}
	return []Filter{{Name: "system calls", Program: program}}, nil
}

// DenyWriteExecute keeps this process, and all that descend from it, from memory that is writable and executable and from making
// memory executable that was not (PR_SET_MDWE(2const)). It reports false where the kernel cannot do so, before Linux 6.3.
func DenyWriteExecute() (bool, error) {
	err := unix.Prctl(unix.PR_SET_MDWE, unix.PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return false, fmt.Errorf("cannot deny memory that is writable and executable: %w", err)
	}
	return err == nil, nil
}

// confine adds to p what the process itself gives up.
func confine(p *fork.Process, j *spec.Run, by starter) {
	s := j.Sandbox
	set := boundingSet(s)
	if set != spec.AllCapabilities() && !powerless(j, by) {
		for n := range 64 {
			if set&(1<<n) == 0 {
				p.DropCapabilities = append(p.DropCapabilities, n)
			}
		}
	}
	p.AmbientCapabilities = s.AmbientCapabilities & set
	// What its shim has in its user namespace is the shim's, to make rooms with.
	p.Powerless = !by.root && j.Sandbox.Namespaces()
	p.UMask = s.UMask
}

// Capabilities are those that a shim needs for jobs such as j, as bits: its own, those that it passes on to a job that is not
// root, and all that a job of root's may have, since under no_new_privs that cannot get back what its parent had not.
func Capabilities(j *spec.Run) uint64 {
	set := j.Sandbox.AmbientCapabilities
	for name := range strings.FieldsSeq("CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP NET_ADMIN SYS_CHROOT " +
		"SYS_PTRACE SYS_ADMIN SYS_NICE SYS_RESOURCE SETFCAP") {
		set |= spec.Capability("CAP_" + name)
	}
	if j.Credentials == nil || j.Credentials.UID == 0 {
		bounding := boundingSet(j.Sandbox)
		if bounding == spec.AllCapabilities() {
			return math.MaxUint64 // with those that this program does not know yet
		}
		set |= bounding
	}
	return set
}

// boundingSet are the capabilities that jobs with s can have at most.
func boundingSet(s spec.Sandbox) uint64 {
	set := spec.AllCapabilities()
	if s.CapabilityBoundingSet != nil {
		set = *s.CapabilityBoundingSet
	}
	for _, one := range []struct {
		on   bool
		name string
	}{
		{s.PrivateDevices, "CAP_MKNOD"}, {s.PrivateDevices, "CAP_SYS_RAWIO"},
		{s.ProtectClock, "CAP_SYS_TIME"}, {s.ProtectClock, "CAP_WAKE_ALARM"},
		{s.ProtectKernelModules, "CAP_SYS_MODULE"}, {s.ProtectKernelLogs, "CAP_SYSLOG"},
	} {
		if one.on {
			set &^= spec.Capability(one.name)
		}
	}
	return set
}

// powerless reports whether a job has no capability to lose and can get none: its shim is not root, so it could not take one away
// either. A switch that the task names is an error then if a set-user-ID program could get one.
func powerless(j *spec.Run, by starter) bool {
	if by.bounds {
		return false
	}
	return j.Sandbox.NoNewPrivileges || !slices.ContainsFunc(j.Sandbox.Named, func(name string) bool {
		return slices.Contains([]string{"capability_bounding_set", "private_devices", "protect_clock", "protect_kernel_modules", "protect_kernel_logs"}, name)
	})
}

func setupError(j *spec.Run, room *Room, err error) error {
	var e *fork.Error
	if !errors.As(err, &e) || e.Step != fork.Exec {
		return &SetupError{err: err}
	}
	if errors.Is(e, unix.ENOENT) {
		if !strings.Contains(j.Path, "/") {
			err = fmt.Errorf("cannot find %s in PATH: %w", j.Path, e.Errno)
		} else if room.has(j.Credentials, absolute(j.Dir, e.On)) {
			err = fmt.Errorf("cannot execute %s: the interpreter that its first line names does not exist: %w", e.On, e.Errno)
		}
		return &SetupError{NotFound: true, err: err}
	}
	if errors.Is(e, unix.ENOEXEC) {
		err = fmt.Errorf("cannot execute %s: it is neither a program nor a script that begins with #!: %w", e.On, e.Errno)
	}
	return &SetupError{NotExecutable: true, err: err}
}

// absolute returns where path is for a process in dir.
func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// candidates are the files to try: the path itself, or the name in each folder of the job's own PATH. A relative path is
// relative to the working directory, which is where the process is when it execs.
func candidates(j *spec.Run) []string {
	if strings.Contains(j.Path, "/") {
		return []string{j.Path}
	}
	search := ""
	for _, kv := range j.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	var paths []string
	for _, dir := range filepath.SplitList(search) {
		if filepath.IsAbs(dir) {
			paths = append(paths, filepath.Join(dir, j.Path))
		}
	}
	if len(paths) == 0 {
		return []string{filepath.Join("/usr/bin", j.Path)}
	}
	return paths
}

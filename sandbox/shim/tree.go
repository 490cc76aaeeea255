package shim

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// tree is all the processes of one job. A *cgroup.Group is one.
type tree interface {
	// FD is the control group to clone into, or -1.
	FD() int
	// Path is the control group below the mount, or "".
	Path() string
	// Signal asks every process to do something.
	Signal(unix.Signal) error
	// Kill ends every process, and those that are being born.
	Kill() error
	// Count returns how many processes there are, without those that have ended and were not waited for yet.
	Count() (int, error)
	// WaitEmpty returns true when no process is left, or false after the timeout. The main process was waited for before.
	WaitEmpty(time.Duration) (bool, error)
	Usage() spec.Usage
	OOMKilled() bool
	// Remove gives back what the tree holds, after it is empty.
	Remove() error
}

// descendants is the tree where there is no control group: whatever descends from the shim, which is a child subreaper
// (PR_SET_CHILD_SUBREAPER, prctl(2)), so that an orphan becomes the shim's child and not init's. What it cannot do is
// enforce limits or count; and a process that is born in the very moment of the kill is found in the next round only.
type descendants struct {
	before uint64 // the processor time of earlier jobs
}

func newDescendants() *descendants {
	usec, _ := childrenTime() // if it cannot be had, neither can it be later
	return &descendants{before: usec}
}

func (*descendants) FD() int      { return -1 }
func (*descendants) Path() string { return "" }

// Signal implements tree.
func (d *descendants) Signal(sig unix.Signal) error {
	all, err := d.list()
	for _, p := range all {
		if e := p.signal(sig); e != nil && !errors.Is(e, unix.ESRCH) {
			err = errors.Join(err, fmt.Errorf("cannot signal process %d: %w", p.pid, e))
		}
	}
	return err
}

// Kill implements tree. It stops every process first, so that none can fork while the others are killed.
func (d *descendants) Kill() error {
	return errors.Join(d.Signal(unix.SIGSTOP), d.Signal(unix.SIGKILL))
}

// Count implements tree.
func (d *descendants) Count() (int, error) {
	all, err := d.list()
	return len(slices.DeleteFunc(all, func(p process) bool { return p.zombie })), err
}

// The times between two looks of descendants.WaitEmpty.
const (
	shortestLook = time.Millisecond
	longestLook  = 20 * time.Millisecond
)

// WaitEmpty implements tree: it reaps until the shim is childless. There is no event for "a descendant is gone", so it
// looks again after a short time.
func (d *descendants) WaitEmpty(timeout time.Duration) (bool, error) {
	deadline := time.Now().Add(timeout)
	for pause := shortestLook; ; pause = min(2*pause, longestLook) {
		childless, err := reapAll()
		left := time.Until(deadline)
		if childless || err != nil || left <= 0 {
			return childless, err
		}
		time.Sleep(min(pause, left))
	}
}

// reapAll waits for the children that have ended, and reports whether there are no others.
func reapAll() (childless bool, err error) {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return true, nil
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return false, fmt.Errorf("cannot wait for the job's processes: %w", err)
		case pid == 0:
			return false, nil
		}
	}
}

// process is a process as it was seen. The time of its start, in clock ticks, tells it from a later one of its PID.
type process struct {
	pid, parent int
	zombie      bool
	started     string
}

// look returns what /proc says of a process.
func look(pid int) (process, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false // it has ended
	}
	// The second field, in brackets, may hold anything. The third is the state, the fourth the parent, the 22nd the start (proc_pid_stat(5)).
	f := strings.Fields(string(b)[strings.LastIndexByte(string(b), ')')+1:])
	if len(f) < 20 {
		return process{}, false
	}
	parent, err := strconv.Atoi(f[1])
	return process{pid: pid, parent: parent, zombie: f[0] == "Z", started: f[19]}, err == nil
}

// signal signals the process, if its PID is still its own: what a pidfd refers to does not change.
func (p process) signal(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if now, ok := look(p.pid); !ok || now.started != p.started {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// list returns all processes below the shim.
func (d *descendants) list() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	children := map[int][]process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, ok := look(pid); ok {
			children[p.parent] = append(children[p.parent], p)
		}
	}
	all := children[os.Getpid()]
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i].pid]...)
	}
	return all, nil
}

// Usage implements tree with what getrusage(2) says of the children that were waited for.
func (d *descendants) Usage() spec.Usage {
	usec, err := childrenTime()
	if err != nil {
		return spec.Usage{}
	}
	usec -= d.before
	return spec.Usage{CPUUsec: &usec}
}

func childrenTime() (usec uint64, err error) {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &ru); err != nil {
		return 0, err
	}
	return uint64(ru.Utime.Sec+ru.Stime.Sec)*1_000_000 + uint64(ru.Utime.Usec+ru.Stime.Usec), nil
}

func (*descendants) OOMKilled() bool { return false }
func (*descendants) Remove() error   { return nil }

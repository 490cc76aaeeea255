package shim

import (
	"errors"
	"fmt"
	"os"
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
	// WaitEmpty returns true when no process is left, or false after the timeout.
	WaitEmpty(time.Duration) (bool, error)
	Usage() spec.Usage
	OOMKilled() bool
	// Remove gives back what the tree holds, after it is empty.
	Remove() error
}

// descendants is the tree where there is no control group: whatever descends from the shim, which is a child subreaper
// (PR_SET_CHILD_SUBREAPER, prctl(2)), so that an orphan becomes the shim's child and not init's. What it cannot do is
// enforce limits or count; and a process that is born in the very moment of the kill is found in the next round only.
type descendants struct{}

func newDescendants() (*descendants, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("cannot become a child subreaper: %w", err)
	}
	return &descendants{}, nil
}

func (*descendants) FD() int      { return -1 }
func (*descendants) Path() string { return "" }

// Signal implements tree.
func (d *descendants) Signal(sig unix.Signal) error {
	pids, err := d.list()
	for _, pid := range pids {
		if e := unix.Kill(pid, sig); e != nil && !errors.Is(e, unix.ESRCH) {
			err = errors.Join(err, fmt.Errorf("cannot signal process %d: %w", pid, e))
		}
	}
	return err
}

// Kill implements tree. It stops every process first, so that none can fork while the others are killed.
func (d *descendants) Kill() error {
	return errors.Join(d.Signal(unix.SIGSTOP), d.Signal(unix.SIGKILL))
}

// WaitEmpty implements tree: it reaps until the shim is childless. There is no event for "a descendant is gone", so it
// looks again after a short time.
func (d *descendants) WaitEmpty(timeout time.Duration) (bool, error) {
	deadline := time.Now().Add(timeout)
	for {
		for {
			var ws unix.WaitStatus
			pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
			if errors.Is(err, unix.ECHILD) {
				return true, nil
			}
			if err != nil && !errors.Is(err, unix.EINTR) {
				return false, fmt.Errorf("cannot wait for the job's processes: %w", err)
			}
			if pid == 0 {
				break
			}
		}
		if time.Now().After(deadline) {
			return false, nil
		}
		if err := d.Kill(); err != nil {
			return false, err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// list returns the PIDs of all processes below the shim.
func (d *descendants) list() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// The second field, in brackets, may hold anything; the fourth is the parent (proc_pid_stat(5)).
		rest := string(b)[strings.LastIndexByte(string(b), ')')+1:]
		if f := strings.Fields(rest); len(f) > 1 {
			if parent, err := strconv.Atoi(f[1]); err == nil {
				children[parent] = append(children[parent], pid)
			}
		}
	}
	var all []int
	for todo := []int{os.Getpid()}; len(todo) > 0; todo = todo[1:] {
		all = append(all, children[todo[0]]...)
		todo = append(todo, children[todo[0]]...)
	}
	return all, nil
}

// Usage implements tree with what getrusage(2) says of the children that were waited for.
func (*descendants) Usage() spec.Usage {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &ru); err != nil {
		return spec.Usage{}
	}
	usec := uint64(ru.Utime.Sec+ru.Stime.Sec)*1_000_000 + uint64(ru.Utime.Usec+ru.Stime.Usec)
	return spec.Usage{CPUUsec: &usec}
}

func (*descendants) OOMKilled() bool { return false }
func (*descendants) Remove() error   { return nil }

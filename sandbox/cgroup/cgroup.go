// Package cgroup is the shim's view of its delegated control group (Documentation/admin-guide/cgroup-v2.rst of the
// kernel, https://systemd.io/CGROUP_DELEGATION): a leaf for the shim itself and a leaf for each job, with the job's exact
// limits on it. It writes below the scope only, never above: those files are systemd's.
//
// Only the child half of the sandbox and package sandbox may import it.
package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoHierarchy is returned where no cgroup v2 hierarchy is mounted.
var ErrNoHierarchy = errors.New("no cgroup v2 hierarchy is mounted")

// supervisor is the name of the shim's own leaf.
const supervisor = "supervisor"

// wanted are the controllers that a job's accounting needs. Only limits need cpuset, which costs the scheduler something: New makes it
// available when a job has such a limit.
func wanted() []string { return []string{"cpu", "io", "memory", "pids"} }

// Mount returns where the cgroup v2 hierarchy is mounted, as /proc/self/mountinfo (proc_pid_mountinfo(5)) says.
func Mount() (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("cannot find the cgroup hierarchy: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, " - ")
		if !ok || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		if f := strings.Fields(before); len(f) > 4 {
			return unescape(f[4]), nil
		}
	}
	return "", ErrNoHierarchy
}

// unescape undoes the octal escapes of /proc/self/mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// Controllers returns the controllers that a control group, such as the root of the hierarchy, has. On a host that keeps them
// in v1 hierarchies there are none.
func Controllers(dir string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return nil, fmt.Errorf("cannot read the controllers: %w", err)
	}
	return strings.Fields(string(b)), nil
}

// Tree is a delegated control group with the calling process in a leaf of it.
type Tree struct {
	dir         string // absolute
	group       string // below the mount
	controllers []string
	// own is the memory that the shim had before it had a leaf with accounting, in bytes: it stays charged to the tree.
	own uint64
}

// Delegated takes over the control group of the calling process: it moves the process into a leaf and makes controllers
// available to the leaves beside it. No other process may be in the group.
func Delegated(mount, group string) (*Tree, error) {
	t := &Tree{dir: filepath.Join(mount, group), group: group}
	leaf := filepath.Join(t.dir, supervisor)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cannot make the shim's control group: %w", err)
	}
	if err := write(leaf, "cgroup.procs", "0"); err != nil {
		return nil, err
	}
	if err := t.enable(wanted()...); err != nil {
		return nil, err
	}
	if t.hasMemory() {
		own, err := t.left()
		if err != nil {
			return nil, err
		}
		t.own = own
	}
	return t, nil
}

// reclaimPiece is how much memory the kernel is asked for at a time, in bytes.
const reclaimPiece = 8 << 20

// Reclaim has the kernel take back what ended jobs left charged to the tree (page cache, above all), if that is more than
// enough bytes, and returns what is left then. Where there is no accounting of memory, nothing is. It may take long: the
// kernel waits for disks, and its search does not leave out the shim's own pages.
func (t *Tree) Reclaim(enough uint64) (uint64, error) {
	if !t.hasMemory() {
		return 0, nil
	}
	left, err := t.left()
	for err == nil && left > enough {
		before := left
		// memory.reclaim (Linux 5.19) says EAGAIN when it could not take all of it, and EINTR when a signal came; what it did take is
		// seen by looking. It is not asked for what cannot be had, the kernel's own part: it would take the shim's pages again and
		// again, as they come back.
		piece := min(left-enough/2, reclaimPiece)
		err = write(t.dir, "memory.reclaim", strconv.FormatUint(piece, 10))
		if isGone(err) {
			return left, nil // an older kernel
		}
		interrupted := errors.Is(err, unix.EINTR)
		if err != nil && !interrupted && !errors.Is(err, unix.EAGAIN) {
			return left, err
		}
		if left, err = t.left(); left >= before && !interrupted {
			break
		}
	}
	return left, err
}

func (t *Tree) hasMemory() bool { return slices.Contains(t.controllers, "memory") }

// left is the memory of the tree that is not the shim's, in bytes.
func (t *Tree) left() (uint64, error) {
	all, err := single(t.dir, "memory.current")
	if err != nil {
		return 0, fmt.Errorf("cannot read what jobs left: %w", err)
	}
	own, err := single(filepath.Join(t.dir, supervisor), "memory.current")
	if err != nil {
		return 0, fmt.Errorf("cannot read what jobs left: %w", err)
	}
	return all - min(own+t.own, all), nil
}

// enable makes those of controllers available to the leaves that are available here.
func (t *Tree) enable(controllers ...string) error {
	b, err := read(filepath.Join(t.dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("cannot read the controllers: %w", err)
	}
	available := strings.Fields(string(b))
	unwanted := func(c string) bool { return !slices.Contains(available, c) || slices.Contains(t.controllers, c) }
	more := slices.DeleteFunc(slices.Clone(controllers), unwanted)
	if len(more) == 0 {
		return nil
	}
	if err := write(t.dir, "cgroup.subtree_control", "+"+strings.Join(more, " +")); err != nil {
		return err
	}
	t.controllers = append(t.controllers, more...)
	return nil
}

// Group is a leaf that holds one job.
type Group struct {
	dir  string
	path string
	fd   int
}

// Path is the group's path below the mount, as /proc/PID/cgroup shows it.
func (g *Group) Path() string { return g.path }

// FD is a descriptor of the group for CLONE_INTO_CGROUP (clone(2)), good until Remove.
func (g *Group) FD() int { return g.fd }

// Signal sends sig to every process in the group and below. It may miss a process that is just being started; Kill misses none.
func (g *Group) Signal(sig unix.Signal) error {
	return eachProcess(g.dir, func(pid int) error {
		if err := g.signal(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("cannot signal process %d: %w", pid, err)
		}
		return nil
	})
}

// signal signals a process that was in the group a moment ago, if it still is: its PID may be another's by now.
func (g *Group) signal(pid int, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return unix.ESRCH // it has ended
	}
	if at := Of(b); at != g.path && !strings.HasPrefix(at, g.path+"/") {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// eachProcess walks the processes of a group and of those below it.
func eachProcess(dir string, do func(pid int) error) error {
	var first error
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if isGone(err) {
			return nil // a group that went away meanwhile has no processes
		}
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		b, err := read(filepath.Join(path, "cgroup.procs"))
		// The processes of a threaded group are listed by the group above it.
		if err != nil && !isGone(err) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				first = errors.Join(first, do(pid))
			}
		}
		return nil
	})
	return errors.Join(err, first)
}

// isGone reports whether err says that a control group was removed.
func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// Kill sends SIGKILL to all there is, also to what is being born (cgroup.kill, Linux 5.14).
func (g *Group) Kill() error {
	err := write(g.dir, "cgroup.kill", "1")
	if isGone(err) {
		return g.Signal(unix.SIGKILL) // an older kernel, or there is no group any more
	}
	return err
}

// Count returns how many processes are in the group and below it.
func (g *Group) Count() (int, error) {
	n := 0
	err := eachProcess(g.dir, func(int) error {
		n++
		return nil
	})
	return n, err
}

// Populated reports whether a process is in the group or below it.
func (g *Group) Populated() (bool, error) { return populated(g.dir) }

// Populated reports whether a process is in a group of another process, or below it.
func Populated(mount, group string) (bool, error) { return populated(filepath.Join(mount, group)) }

func populated(dir string) (bool, error) {
	v, err := keyed(dir, "cgroup.events", "populated")
	return v != 0, err
}

// WaitEmpty returns true when no process is left, as in a group that was removed, or false after timeout. It sleeps in
// poll(2), which the kernel wakes when cgroup.events changes.
func (g *Group) WaitEmpty(timeout time.Duration) (bool, error) {
	f, err := open(filepath.Join(g.dir, "cgroup.events"), unix.O_RDONLY)
	if isGone(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot watch the job's control group: %w", err)
	}
	defer unix.Close(f)
	deadline := time.Now().Add(timeout)
	buf := make([]byte, 256)
	for {
		// Reading at offset 0 arms the poll for what comes after.
		n, err := unix.Pread(f, buf, 0)
		if isGone(err) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("cannot watch the job's control group: %w", err)
		}
		if !bytes.Contains(buf[:n], []byte("populated 1")) {
			return true, nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return false, nil
		}
		fds := []unix.PollFd{{Fd: int32(f), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, int(left/time.Millisecond)+1); err != nil && !errors.Is(err, unix.EINTR) {
			return false, fmt.Errorf("cannot watch the job's control group: %w", err)
		}
	}
}

// OOMKilled reports whether the kernel killed a process of the group for want of memory.
func (g *Group) OOMKilled() bool {
	v, err := keyed(g.dir, "memory.events", "oom_kill")
	return err == nil && v > 0
}

// Remove removes the group and those that the job made below it. Nothing may be left in them.
func (g *Group) Remove() error {
	_ = unix.Close(g.fd) // an O_PATH descriptor has nothing to lose
	if err := unix.Rmdir(g.dir); err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	var dirs []string
	err := filepath.WalkDir(g.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, dir := range slices.Backward(dirs) {
		if e := os.Remove(dir); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot remove the job's control group: %w", err)
	}
	return nil
}

// Of returns the cgroup v2 path in the content of a /proc/PID/cgroup (cgroups(7)), or "".
func Of(procCgroup []byte) string {
	for line := range strings.Lines(string(procCgroup)) {
		if group, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(group, "\n")
		}
	}
	return ""
}

// KillAt kills all processes in the group of a shim that cannot do it itself: an exec that never returns blocks the whole shim. It
// returns true once nothing is left there, or false after wait.
func KillAt(mount, group string, wait time.Duration) (bool, error) {
	g := &Group{dir: filepath.Join(mount, group), path: group}
	if err := g.Kill(); err != nil {
		return false, err
	}
	return g.WaitEmpty(wait)
}

package fork_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/jail/fork"
	"github.com/rtask/rtask/sandbox/spec"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make namespaces here")
	}
}

// parked makes a process in a new namespace and opens that.
func parked(t *testing.T, flag uint64, name string) (*fork.Parked, *os.File) {
	t.Helper()
	needRoot(t)
	p, err := fork.Park(flag)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.End)
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", p.PID, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return p, f
}

// TestParkedInit: processes are born into the PID namespace, orphans vanish there, and all of it ends with its first process.
func TestParkedInit(t *testing.T) {
	p, pids := parked(t, unix.CLONE_NEWPID, "pid")
	// It runs beside this test, and so may be a moment behind.
	settled := func() (string, int) {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.PID))
		fds, err2 := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID))
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		return string(comm), len(fds)
	}
	comm, fds := settled()
	for deadline := time.Now().Add(10 * time.Second); (comm != "rtask-init\n" || fds != 1) && time.Now().Before(deadline); comm, fds = settled() {
		time.Sleep(time.Millisecond)
	}
	if comm != "rtask-init\n" || fds != 1 {
		t.Errorf("it is %q with %d descriptors", comm, fds)
	}
	link, err := os.Readlink(pids.Name())
	if err != nil {
		t.Fatal(err)
	}
	orphan := shell(`(sleep 0.01 &); readlink /proc/$1/ns/pid; echo $$`, "sh", "thread-self")
	orphan.PIDNamespace = int(pids.Fd())
	for i := range 3 {
		out, _, err := run(t, orphan)
		if err != nil {
			t.Fatal(err)
		}
		// /proc is the machine's, so of the links there is none for a process that it has no number for in its own namespace.
		lines := strings.Fields(out)
		if len(lines) == 0 || lines[len(lines)-1] == "1" || strings.Contains(lines[0], "pid:") && lines[0] != link {
			t.Errorf("run %d: %q, and the namespace is %s", i, out, link)
		}
	}
	left := shell("exec sleep 1000")
	left.PIDNamespace = int(pids.Fd())
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	left.Files = [3]int{int(null.Fd()), int(null.Fd()), int(null.Fd())}
	pid, pidfd, err := fork.Start(left)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	ended := make(chan struct{})
	go func() { // it waits until all is reaped
		p.End()
		close(ended)
	}()
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil || ws.Signal() != unix.SIGKILL {
		t.Errorf("%v, %v", ws, err)
	}
	<-ended
	if _, _, err := fork.Start(orphan); err == nil || !strings.Contains(err.Error(), "cannot") {
		t.Errorf("a process was born into a namespace that has ended: %v", err)
	}
}

// TestNoWayBack: a thread that cannot leave the PID namespace again leaves no process behind, and no descriptor.
func TestNoWayBack(t *testing.T) {
	_, pids := parked(t, unix.CLONE_NEWPID, "pid")
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	into := int(pids.Fd())
	c := shell("exec sleep 1000")
	c.PIDNamespace, c.Files = into, [3]int{int(null.Fd()), int(null.Fd()), int(null.Fd())}
	before, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the filter is this thread's
		if err := onlySetns(into); err != nil {
			failed <- fmt.Errorf("cannot load a filter: %w", err)
			return
		}
		_, _, err := fork.Start(c)
		failed <- err
	}()
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "cannot leave the PID namespace") {
		t.Errorf("%v", err)
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("a child is left: %d, %v", pid, err)
		go func() { _, _ = unix.Wait4(-1, nil, 0, nil) }() // or the namespace would not end
	}
	if after, err := os.ReadDir("/proc/self/fd"); err != nil || len(after) != len(before) {
		t.Errorf("%d descriptors are open, and %d were before; %v", len(after), len(before), err)
	}
}

// onlySetns has setns(2) fail in this thread for all descriptors but one.
func onlySetns(fd int) error {
	const number, argument = 0, 16 // offsets in struct seccomp_data (seccomp(2))
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SETNS, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: argument},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(fd), Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})), 0, 0)
}

// TestUserNamespace: what is entered has the groups of before, no capability over the machine, and no descriptor is left.
func TestUserNamespace(t *testing.T) {
	p, users := parked(t, unix.CLONE_NEWUSER, "user")
	for _, name := range []string{"uid_map", "gid_map"} {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/%s", p.PID, name), []byte("0 0 1\n1234 1234 1\n"), 0); err != nil {
			t.Fatal(err)
		}
	}
	c := shell(`id -u; grep CapEff /proc/self/status; ls /proc/self/fd | wc -l; stat -c %u /proc/1`)
	c.UserNamespace = int(users.Fd())
	c.Credentials = &spec.Credentials{UID: 1234, GID: 1234, Groups: []uint32{4321}}
	out, _, err := run(t, c)
	if want := "1234\nCapEff:\t0000000000000000\n4\n0\n"; err != nil || out != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
}

// TestGivesUp: capabilities, umask and system calls.
func TestGivesUp(t *testing.T) {
	needRoot(t)
	mask := uint32(0o027)
	c := shell(`umask; grep -E 'Cap(Eff|Bnd|Amb)' /proc/self/status; mkdir /tmp/rtask-fork-test.$$ 2>&1 | sed 's/.*: //'`)
	c.UMask = &mask
	// All but CAP_CHOWN and CAP_KILL.
	for n := range 64 {
		if n != 0 && n != 5 {
			c.DropCapabilities = append(c.DropCapabilities, n)
		}
	}
	c.AmbientCapabilities = 1 << 5
	c.Credentials = &spec.Credentials{UID: 1234, GID: 1234}
	c.NoNewPrivileges = true
	// mkdir(2) and mkdirat(2) get EACCES, whatever the architecture's numbers are.
	c.Filters = []fork.Filter{{Name: "mkdir", Program: []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_MKDIRAT, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EXDEV)},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: sysMkdir, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EXDEV)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}}}
	out, _, err := run(t, c)
	want := "0027\nCapEff:\t0000000000000020\nCapBnd:\t0000000000000021\nCapAmb:\t0000000000000020\nInvalid cross-device link\n"
	if err != nil || out != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
}

// sysMkdir is mkdir(2) where there is one; elsewhere another name of mkdirat(2) would do as well.
const sysMkdir = 83

// TestSteps: what cannot be done is named.
func TestSteps(t *testing.T) {
	needRoot(t)
	c := shell("true")
	c.Filters = []fork.Filter{{Name: "system calls", Program: []unix.SockFilter{{Code: 0xffff}}}}
	_, _, err := run(t, c)
	var e *fork.Error
	if !errors.As(err, &e) || e.Step != fork.Filters || err.Error() != "cannot load the filter of system calls: invalid argument" {
		t.Error(err)
	}
	c = shell("true")
	c.UserNamespace = 1 << 20
	if _, _, err = run(t, c); !errors.As(err, &e) || e.Step != fork.Files {
		t.Error(err)
	}
}

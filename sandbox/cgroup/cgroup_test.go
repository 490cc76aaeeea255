package cgroup

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/packaging/testkit"
	"github.com/rtask/rtask/sandbox/jail/fork"
	"github.com/rtask/rtask/sandbox/spec"
)

func TestCPUMax(t *testing.T) {
	tests := []struct {
		quota uint64
		want  string
	}{
		{spec.Infinity, "max 100000"},
		{1_000_000, "100000 100000"},
		{8_000_000, "800000 100000"},
		{200_000, "20000 100000"},
		{10_000, "1000 100000"}, // 1 %: the least that fits into the usual period
		{9_999, "9999 1000000"}, // below it the period gets longer
		{1_000, "1000 1000000"}, // 0.1 %: the least there is
		{1, "1000 1000000"},     // what is less becomes that
		{0, "1000 1000000"},     // likewise
		{55_555, "5555 100000"}, // rounded down, by less than 10 µs a second
		{1 << 62, "461168601842738790 100000"},
	}
	for _, tt := range tests {
		if got := cpuMax(tt.quota); got != tt.want {
			t.Errorf("cpuMax(%d) = %q, want %q", tt.quota, got, tt.want)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		`/sys/fs/cgroup`: "/sys/fs/cgroup", `/a\040b`: "/a b", `/a\011b\012c`: "/a\tb\nc", `/a\134040b`: `/a\040b`, `\134\040`: `\ `,
	} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestNumber(t *testing.T) {
	if got := number(spec.Infinity); got != "max" {
		t.Errorf("infinity is %q", got)
	}
	if got := number(spec.Infinity - 1); got != "18446744073709551614" {
		t.Errorf("the largest number is %q", got)
	}
}

func TestOf(t *testing.T) {
	for in, want := range map[string]string{
		"0::/a/b\n": "/a/b", "9:name=systemd:/x\n1:cpu:/y\n0::/a b\n": "/a b", "1:cpu:/y\n": "", "": "", "10::/x\n": "", "0::/": "/",
		"0::/a.scope (deleted)\n": "/a.scope (deleted)", "0::/user.slice/u.slice/a.scope/supervisor": "/user.slice/u.slice/a.scope/supervisor",
	} {
		if got := Of([]byte(in)); got != want {
			t.Errorf("Of(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestGone: a group that is not there has nobody in it, and ending it is done.
func TestGone(t *testing.T) {
	mount, err := Mount()
	if err != nil {
		t.Skip(err)
	}
	for _, wait := range []time.Duration{0, time.Second} {
		empty, err := KillAt(mount, "/rtask-test-that-never-was", wait)
		if !empty || err != nil {
			t.Errorf("empty %v, error %v", empty, err)
		}
	}
}

// groupVariable is the group in which the test program was started anew.
const groupVariable = "RTASK_TEST_GROUP"

// TestTree starts this program anew in a group of its own, as systemd starts a shim in its scope.
func TestTree(t *testing.T) {
	mount, err := Mount()
	if err != nil {
		t.Skip(err)
	}
	if group := os.Getenv(groupVariable); group != "" {
		inGroup(t, mount, group)
		return
	}
	group := "/rtask-test-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	dir := filepath.Join(mount, group)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("needs a cgroup v2 hierarchy that it may write to: %v", err)
	}
	t.Cleanup(func() {
		if empty, err := KillAt(mount, group, 10*time.Second); !empty || err != nil {
			t.Errorf("cannot clear up: empty %v, %v", empty, err)
		}
		if err := (&Group{dir: dir, fd: -1}).Remove(); err != nil {
			t.Error(err)
		}
	})
	fd, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestTree$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), groupVariable+"="+group)
	cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(fd.Fd())}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in its group: %v\n%s", err, out)
	}
	if t.Failed() || testing.Verbose() {
		t.Logf("%s", out)
	}
}

func inGroup(t *testing.T, mount, group string) {
	tree, err := Delegated(mount, group)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if got := Of(b); got != group+"/supervisor" {
		t.Fatalf("this process is in %q", got)
	}
	if _, err := Delegated(mount, group); err != nil {
		t.Errorf("a second time: %v", err)
	}
	t.Run("limits", func(t *testing.T) { testLimits(t, tree) })
	t.Run("start and end", func(t *testing.T) { testEnd(t, tree) })
	t.Run("signal", func(t *testing.T) { testSignal(t, tree) })
	t.Run("kill", func(t *testing.T) { testKill(t, mount, tree) })
	t.Run("woken", func(t *testing.T) { testWoken(t, tree) })
	t.Run("nested", func(t *testing.T) { testNested(t, tree) })
	t.Run("usage", func(t *testing.T) { testUsage(t, tree) })
}

func newGroup(t *testing.T, tree *Tree, name string) *Group {
	t.Helper()
	g, err := tree.New(name, spec.Limits{}, false)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// run starts a shell in g.
func run(t *testing.T, g *Group, script string) (pid int) {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	n := int(null.Fd())
	pid, pidfd, err := fork.Start(fork.Process{
		Paths: []string{"/bin/sh"}, Args: []string{"sh", "-c", script, "sh", g.dir}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/",
		Files: [3]int{n, n, n}, CgroupFD: g.FD(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(pidfd); err != nil {
		t.Error(err)
	}
	return pid
}

func wait(t *testing.T, pid int) unix.WaitStatus {
	t.Helper()
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, 0, nil)
		if err == nil {
			return ws
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}

func isEmpty(t *testing.T, g *Group, timeout time.Duration, want bool) {
	t.Helper()
	got, err := g.WaitEmpty(timeout)
	if err != nil || got != want {
		t.Errorf("WaitEmpty: %v, %v; want %v", got, err, want)
	}
	populated, err := g.Populated()
	if err != nil || populated == want {
		t.Errorf("Populated: %v, %v; want %v", populated, err, !want)
	}
}

func remove(t *testing.T, g *Group) {
	t.Helper()
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(g.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the group is there: %v", err)
	}
	if empty, err := g.WaitEmpty(0); !empty || err != nil {
		t.Errorf("a group that was removed: empty %v, %v", empty, err)
	}
}

// testLimits: what there is no controller for is refused or let go, and nothing is left of what failed.
func testLimits(t *testing.T, tree *Tree) {
	value := uint64(64 << 20)
	for name, limits := range map[string]spec.Limits{
		"memory": {MemoryMax: &value}, "pids": {TasksMax: &value}, "cpu": {CPUQuota: &value},
	} {
		g, err := tree.New("job-"+name, limits, false)
		if has := slices.Contains(tree.controllers, name); has != (err == nil) {
			t.Errorf("%s: controller %v, error %v", name, has, err)
		}
		if err != nil {
			if _, err := os.Stat(filepath.Join(tree.dir, "job-"+name)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: the group was left", name)
			}
			g, err = tree.New("job-"+name, limits, true)
		}
		if err != nil {
			t.Errorf("%s, optional: %v", name, err)
			continue
		}
		remove(t, g)
	}
	g := newGroup(t, tree, "job-twice")
	if _, err := tree.New("job-twice", spec.Limits{}, false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the same name twice: %v", err)
	}
	remove(t, g)
}

func testEnd(t *testing.T, tree *Tree) {
	g := newGroup(t, tree, "job-end")
	if g.Path() != tree.group+"/job-end" {
		t.Errorf("path %q", g.Path())
	}
	isEmpty(t, g, 0, true)
	pid := run(t, g, `grep -qx "0::.*/job-end" /proc/self/cgroup || exit 3; sleep 0.2; exit 4`)
	isEmpty(t, g, 0, false)
	isEmpty(t, g, 20*time.Millisecond, false)
	if err := os.Remove(g.dir); err == nil {
		t.Error("a group with a process in it was removed")
	}
	isEmpty(t, g, 10*time.Second, true)
	if ws := wait(t, pid); ws.ExitStatus() != 4 {
		t.Errorf("ended with %v", ws)
	}
	remove(t, g)
}

func testSignal(t *testing.T, tree *Tree) {
	g := newGroup(t, tree, "job-signal")
	// One in the group, one below it, and one that is a zombie by then.
	pid := run(t, g, `mkdir "$1/below"
sh -c 'echo $$ >"$1/below/cgroup.procs"; exec sleep 60' sh "$1" &
child=$!
trap 'wait $child; [ $? = 138 ] && exit 7; exit 8' USR1
while :; do sleep 0.02; done`)
	below := &Group{dir: g.dir + "/below", path: g.path + "/below"}
	testkit.Eventually(t, "the process below", func() bool { p, err := below.Populated(); return p && err == nil })
	time.Sleep(50 * time.Millisecond)
	if err := g.Signal(unix.SIGUSR1); err != nil {
		t.Error(err)
	}
	if ws := wait(t, pid); ws.ExitStatus() != 7 {
		t.Errorf("ended with %v", ws)
	}
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	isEmpty(t, g, 10*time.Second, true)
	// A PID that is another process's by now gets nothing.
	if err := g.signal(os.Getpid(), unix.SIGKILL); !errors.Is(err, unix.ESRCH) {
		t.Errorf("a process outside: %v", err)
	}
	remove(t, g)
}

// testKill: whatever forks as fast as it can is gone after one Kill.
func testKill(t *testing.T, mount string, tree *Tree) {
	for range 5 {
		g := newGroup(t, tree, "job-kill")
		pid := run(t, g, `trap "" TERM HUP INT
f() { (setsid sh -c 'while :; do (sleep 0.005 &) ; (sleep 0.005 &) ; done' &) ; }
f; f; f; f
while :; do sleep 0.01; done`)
		time.Sleep(50 * time.Millisecond)
		if empty, err := KillAt(mount, g.path, 10*time.Second); !empty || err != nil {
			t.Errorf("empty %v, error %v", empty, err)
		}
		if ws := wait(t, pid); ws.Signal() != unix.SIGKILL {
			t.Errorf("ended with %v", ws)
		}
		isEmpty(t, g, 0, true)
		remove(t, g)
	}
}

// testWoken: the wait ends when the last process does, and costs no processor time.
func testWoken(t *testing.T, tree *Tree) {
	g := newGroup(t, tree, "job-woken")
	fifo := filepath.Join(t.TempDir(), "end")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	pid := run(t, g, "read x <'"+fifo+"' & exit 0")
	wait(t, pid)
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		t.Fatal(err)
	}
	woken := make(chan struct{})
	go func() {
		defer close(woken)
		isEmpty(t, g, time.Minute, true)
	}()
	select {
	case <-woken:
		t.Error("woken while a process runs")
	case <-time.After(200 * time.Millisecond):
	}
	if err := os.WriteFile(fifo, []byte("\n"), 0); err != nil {
		t.Error(err)
	}
	<-woken
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		t.Fatal(err)
	}
	if n := after.Nvcsw - before.Nvcsw; n > 1000 {
		t.Errorf("it went to sleep %d times", n)
	}
	remove(t, g)
}

// testNested: what the job made below its group goes with it.
func testNested(t *testing.T, tree *Tree) {
	g := newGroup(t, tree, "job-nested")
	pid := run(t, g, `mkdir -p "$1/a/b/c" "$1/d" && for d in a a/b a/b/c d; do
sh -c 'echo $$ >"$1/cgroup.procs"; exec sleep 60' sh "$1/$d" &
done; wait`)
	deepest := &Group{dir: g.dir + "/a/b/c"}
	testkit.Eventually(t, "the deepest process", func() bool { p, err := deepest.Populated(); return p && err == nil })
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	wait(t, pid)
	isEmpty(t, g, 10*time.Second, true)
	remove(t, g)

	g = newGroup(t, tree, "job-frozen")
	pid = run(t, g, `echo 1 >"$1/cgroup.freeze"; sleep 60`)
	testkit.Eventually(t, "the job to freeze itself", func() bool { v, err := keyed(g.dir, "cgroup.events", "frozen"); return v == 1 && err == nil })
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	wait(t, pid)
	isEmpty(t, g, 10*time.Second, true)
	remove(t, g)

	// The processes of a threaded group are listed by the one above; the file of its own cannot be read.
	g = newGroup(t, tree, "job-threaded")
	pid = run(t, g, `mkdir "$1/t" && echo threaded >"$1/t/cgroup.type" && echo $$ >"$1/t/cgroup.threads"; exec sleep 60`)
	testkit.Eventually(t, "the group to be threaded", func() bool {
		b, err := os.ReadFile(g.dir + "/t/cgroup.threads")
		return err == nil && strings.TrimSpace(string(b)) != ""
	})
	if err := g.Signal(unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if ws := wait(t, pid); ws.Signal() != unix.SIGTERM {
		t.Errorf("ended with %v", ws)
	}
	isEmpty(t, g, 10*time.Second, true)
	remove(t, g)
}

func testUsage(t *testing.T, tree *Tree) {
	g := newGroup(t, tree, "job-usage")
	wait(t, run(t, g, `i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done`))
	isEmpty(t, g, 10*time.Second, true)
	u := g.Usage()
	if u.CPUUsec == nil || *u.CPUUsec == 0 {
		t.Errorf("processor time %v", u.CPUUsec)
	}
	if has := slices.Contains(tree.controllers, "memory"); has != (u.MemoryPeak != nil) {
		t.Logf("memory controller %v, peak %v", has, u.MemoryPeak) // memory.peak came with Linux 5.19
	}
	if g.OOMKilled() {
		t.Error("an OOM kill without a limit")
	}
	remove(t, g)
}

// TestReclaimHoldsNobody: while the kernel takes its time, others run, also on one processor. A pipe that is full stands for it.
func TestReclaimHoldsNobody(t *testing.T) {
	dir := t.TempDir()
	group := &Tree{dir: dir, controllers: []string{"memory"}}
	if err := os.Mkdir(filepath.Join(dir, supervisor), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"memory.current": "10000000\n", supervisor + "/memory.current": "0\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pipe := filepath.Join(dir, "memory.reclaim")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(pipe, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for err = nil; err == nil; {
		_, err = unix.Write(fd, make([]byte, 4096))
	}
	// Another process makes room, once it is told to or has waited for too long.
	drain := exec.Command("/bin/bash", "-c", `read -r -t 20 || touch late; exec head -c 4096 memory.reclaim >/dev/null`)
	drain.Dir = dir
	tell, err := drain.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := drain.Start(); err != nil {
		t.Fatal(err)
	}
	defer drain.Wait()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	done := make(chan error)
	go func() {
		_, err := group.Reclaim(1 << 20)
		done <- err
	}()
	time.Sleep(50 * time.Millisecond) // it is in the kernel by then
	if _, err := io.WriteString(tell, "go\n"); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "late")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing else ran meanwhile (%v)", err)
	}
}

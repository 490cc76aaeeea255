package fork_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/jail/fork"
	"github.com/rtask/rtask/sandbox/spec"
)

// run starts p with its output captured and returns that and how it ended.
func run(t *testing.T, p fork.Process) (string, unix.WaitStatus, error) {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p.Files = [3]int{int(null.Fd()), int(w.Fd()), int(w.Fd())}
	pid, pidfd, err := fork.Start(p)
	w.Close()
	if err != nil {
		return "", 0, err
	}
	defer unix.Close(pidfd)
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil {
		t.Errorf("the pidfd refers to nothing: %v", err)
	}
	var out bytes.Buffer
	if _, err := out.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil {
		t.Fatal(err)
	}
	return out.String(), ws, nil
}

func shell(script string, args ...string) fork.Process {
	return fork.Process{
		Paths: []string{"/bin/sh"}, Args: append([]string{"sh", "-c", script}, args...), Env: []string{"PATH=/usr/bin:/bin", "A=1"},
		Dir: "/", CgroupFD: -1,
	}
}

func TestStart(t *testing.T) {
	dir := t.TempDir()
	p := shell(`echo "$A $1"; pwd; ls /proc/self/fd | wc -l; ps -o sid= -p $$ | tr -d ' ' | grep -qx $$ && echo leader; exit 7`, "sh", "two words")
	p.Dir = dir
	p.NoFile = unix.Rlimit{Cur: 512, Max: 2048}
	out, ws, err := run(t, p)
	if err != nil {
		t.Fatal(err)
	}
	// ls itself has a fourth descriptor open.
	if want := "1 two words\n" + dir + "\n4\nleader\n"; out != want {
		t.Errorf("output %q, want %q", out, want)
	}
	if !ws.Exited() || ws.ExitStatus() != 7 {
		t.Errorf("ended with %v, want exit status 7", ws)
	}
}

func TestLimitsAndPrivileges(t *testing.T) {
	p := shell(`ulimit -n; ulimit -Hn; grep -E 'NoNewPrivs|SigBlk' /proc/self/status`)
	p.NoFile = unix.Rlimit{Cur: 512, Max: 2048}
	p.NoNewPrivileges = true
	out, _, err := run(t, p)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"512\n2048\n", "NoNewPrivs:\t1\n", "SigBlk:\t0000000000000000\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("output %q lacks %q", out, want)
		}
	}
}

// TestIgnoredSignals: what the caller's caller ignored, as nohup(1) does, is not ignored in a job, and no signal is blocked.
func TestIgnoredSignals(t *testing.T) {
	signal.Ignore(unix.SIGHUP, unix.SIGUSR1, unix.SIGPIPE)
	defer signal.Reset(unix.SIGHUP, unix.SIGUSR1, unix.SIGPIPE)
	p := shell("") // which would unblock all by itself
	p.Paths, p.Args = []string{"/bin/grep"}, []string{"grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"}
	p.Ignored = []int{int(unix.SIGHUP), int(unix.SIGUSR1), int(unix.SIGPIPE)}
	out, _, err := run(t, p)
	if err != nil {
		t.Fatal(err)
	}
	var blocked, ignored uint64
	if _, err := fmt.Sscanf(out, "SigBlk:\t%x\nSigIgn:\t%x\n", &blocked, &ignored); err != nil {
		t.Fatalf("output %q: %v", out, err)
	}
	if ignored &^= 1<<31 | 1<<32; ignored != 0 { // but for the C library's two
		t.Errorf("ignores %#x", ignored)
	}
	if blocked != 0 {
		t.Errorf("blocks %#x", blocked)
	}
}

func TestCredentials(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	p := shell(`id -u; id -g; id -G; grep Cap /proc/self/status`)
	p.Credentials = &spec.Credentials{UID: 1234, GID: 2345, Groups: []uint32{3456, 4567}}
	out, _, err := run(t, p)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out, "1234\n2345\n2345 3456 4567\n") {
		t.Errorf("output %q", out)
	}
	if !strings.Contains(out, "CapEff:\t0000000000000000\n") {
		t.Errorf("capabilities are left: %q", out)
	}
}

func TestOOMScoreLeavesTheParent(t *testing.T) {
	before, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	p := shell(`cat /proc/self/oom_score_adj`)
	score := "500"
	p.OOMScoreAdj = &score
	out, _, err := run(t, p)
	if err != nil {
		t.Fatal(err)
	}
	if out != "500\n" {
		t.Errorf("the child has %q", out)
	}
	after, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Errorf("the parent went from %q to %q", before, after)
	}
}

func TestFailures(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "noexec")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		edit  func(*fork.Process)
		step  fork.Step
		errno syscall.Errno
		path  string
	}{
		{"no such file", func(p *fork.Process) { p.Paths = []string{dir + "/a", dir + "/b"} }, fork.Exec, syscall.ENOENT, dir + "/b"},
		{"not executable", func(p *fork.Process) { p.Paths = []string{dir + "/a", script, dir + "/b"} }, fork.Exec, syscall.EACCES, script},
		{"no such directory", func(p *fork.Process) { p.Dir = dir + "/none" }, fork.Chdir, syscall.ENOENT, dir + "/none"},
		{"no such control group", func(p *fork.Process) { p.CgroupFD = 100000 }, fork.Clone, syscall.EBADF, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := shell("exit 0")
			tt.edit(&p)
			_, _, err := run(t, p)
			var e *fork.Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v, want a *fork.Error", err)
			}
			if e.Step != tt.step || e.Errno != tt.errno || e.On != tt.path {
				t.Errorf("step %v, errno %v, path %q; want %v, %v, %q", e.Step, e.Errno, e.On, tt.step, tt.errno, tt.path)
			}
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
				t.Errorf("a child is left: %d, %v", pid, err)
			}
		})
	}
}

// TestSearch: a path that fails before one that works is no failure.
func TestSearch(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, first := range []string{dir + "/none", plain, plain + "/none"} {
		p := shell("echo found; exit 3")
		p.Paths = append([]string{first}, p.Paths...)
		out, ws, err := run(t, p)
		if err != nil || out != "found\n" || ws.ExitStatus() != 3 {
			t.Errorf("after %s: %q, %v, %v", first, out, ws, err)
		}
	}
}

// TestManyAtOnce starts processes from many threads with the collector running, which is when a fault in the fork
// routine would show.
func TestManyAtOnce(t *testing.T) {
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			var garbage [][]byte
			for range 50 {
				garbage = append(garbage, make([]byte, 1<<16))
				out, ws, err := run(t, shell("echo out"))
				if err != nil || out != "out\n" || !ws.Exited() || ws.ExitStatus() != 0 {
					t.Errorf("got %q, %v, %v", out, ws, err)
				}
			}
			_ = garbage
		})
	}
	wg.Wait()
}

func BenchmarkStart(b *testing.B) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	fd := int(null.Fd())
	for b.Loop() {
		pid, pidfd, err := fork.Start(fork.Process{
			Paths: []string{"/bin/true"}, Args: []string{"true"}, Dir: "/", CgroupFD: -1, Files: [3]int{fd, fd, fd},
		})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
			b.Fatal(err)
		}
		unix.Close(pidfd)
	}
}

// TestOwnLimits: the nice value and limits are there from the first instruction on, and what is refused is named.
func TestOwnLimits(t *testing.T) {
	p := shell(`nice; ulimit -c; ulimit -Hc; ulimit -t; ulimit -Ht; ulimit -n`)
	nice := 7
	p.Nice, p.NoFile = &nice, unix.Rlimit{Cur: 512, Max: 2048}
	p.RLimits = []fork.RLimit{
		{Name: "limit_core", Resource: unix.RLIMIT_CORE, Limit: unix.Rlimit{Cur: 0, Max: 1 << 20}},
		{Name: "limit_cpu", Resource: unix.RLIMIT_CPU, Limit: unix.Rlimit{Cur: 100, Max: 200}},
	}
	before, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := run(t, p)
	if want := "7\n0\n2048\n100\n200\n512\n"; err != nil || out != want {
		t.Errorf("output %q, %v, want %q", out, err, want)
	}
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CPU, &own); err != nil || own.Cur == 100 {
		t.Errorf("the parent's own limit is %v, %v", own, err)
	}
	if after, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err != nil || after != before {
		t.Errorf("the parent's own nice value went from %d to %d, %v", before, after, err)
	}
	p.RLimits[1].Limit = unix.Rlimit{Cur: 2, Max: 1}
	var e *fork.Error
	if _, _, err = run(t, p); !errors.As(err, &e) || e.Step != fork.RLimits || err.Error() != "cannot set the resource limit limit_cpu: invalid argument" {
		t.Errorf("error %v", err)
	}
	p.NoFile = unix.Rlimit{Cur: 2, Max: 1}
	if _, _, err = run(t, p); err == nil || err.Error() != "cannot set the resource limit limit_nofile: invalid argument" {
		t.Errorf("error %v", err)
	}
}

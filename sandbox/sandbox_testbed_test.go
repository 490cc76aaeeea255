//go:build testbed

// These tests run against the systemd of packaging/testbed, as root, with a rtask-shim of RTASK_PROGRAMS.

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/packaging/testkit"
	"github.com/rtask/rtask/sandbox/spec"
)

func newSystemLab(t *testing.T) *lab {
	t.Helper()
	l := newLabWith(t, Options{Shim: testkit.Shim()})
	if !strings.HasPrefix(l.Kind(), "systemd") {
		t.Fatalf("jobs are run by %q: %v", l.Kind(), l.Weaker())
	}
	t.Cleanup(func() {
		testkit.Eventually(t, "all scopes to go", func() bool {
			out, err := exec.Command("systemctl", "list-units", "--all", "--plain", "--no-legend", "rtask-test-*").CombinedOutput()
			return err == nil && len(out) == 0
		})
	})
	return l
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestSystemdScope(t *testing.T) {
	l := newSystemLab(t)
	tasks, memory, quota := uint64(100), uint64(64<<20), uint64(500_000)
	j := l.job("cat /proc/self/cgroup; echo ready; sleep 60")
	j.Limits, j.LimitsOptional = spec.Limits{TasksMax: &tasks, MemoryMax: &memory, CPUQuota: &quota}, true
	j.TimeoutStop, j.Timeout = 3*time.Second, time.Minute
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	if p.Unit != l.unit(j) || !strings.HasSuffix(p.ControlGroup, "/rtask.slice/"+l.unit(j)+"/job-"+j.ID) {
		t.Errorf("unit %q, group %q", p.Unit, p.ControlGroup)
	}
	if out, _ := l.logged(j); !strings.Contains(out, "0::"+p.ControlGroup+"\n") {
		t.Errorf("the job is in %q", out)
	}
	shown := systemctl(t, "show", "-p", "ActiveState,MemoryMax,TasksMax,CPUQuotaPerSecUSec,TimeoutStopUSec,RuntimeMaxUSec,Delegate", p.Unit)
	for _, want := range []string{
		"ActiveState=active", fmt.Sprintf("MemoryMax=%d", memory+memoryHeadroom), "TasksMax=164", "CPUQuotaPerSecUSec=700ms",
		"TimeoutStopUSec=13s", "RuntimeMaxUSec=1min 18s", "Delegate=yes",
	} {
		if !strings.Contains(shown, want+"\n") {
			t.Errorf("%q lacks %q", shown, want)
		}
	}
	supervisor := filepath.Join(l.mount, filepath.Dir(p.ControlGroup), "supervisor", "cgroup.procs")
	if b, err := os.ReadFile(supervisor); err != nil || string(b) != fmt.Sprintln(p.slot.command.Process.Pid) {
		t.Errorf("supervisor holds %q, %v", b, err)
	}
	if err := p.Stop("somebody", false); err != nil {
		t.Fatal(err)
	}
	is(t, l.end(p), spec.Stopped, -1, int(unix.SIGTERM))
	if _, err := os.Stat(filepath.Join(l.mount, p.ControlGroup)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the job's group is left: %v", err)
	}
}

func TestSystemdExits(t *testing.T) {
	l := newSystemLab(t)
	for _, code := range []int{0, 1, 255} {
		exit := l.run(l.job(fmt.Sprintf("echo out; exit %d", code)))
		if exit.Code != code || string(exit.Stdout) != "out\n" || exit.Detail != "" {
			t.Errorf("%d: %+v", code, exit)
		}
		if exit.Usage.CPUUsec == nil {
			t.Error("no processor time")
		}
	}
	j := l.job("")
	j.Path = "/does/not/exist"
	is(t, l.run(j), spec.Setup, 127, 0)
	j = l.job("sleep 60")
	j.Timeout = 100 * time.Millisecond
	is(t, l.run(j), spec.Timeout, -1, int(unix.SIGTERM))
}

func TestSystemdNothingIsLeft(t *testing.T) {
	l := newSystemLab(t)
	for _, tail := range []string{"exit 5", "sleep 60"} {
		j := l.job(stubborn + `mkdir "/sys/fs/cgroup$(sed -n s/^0::// /proc/self/cgroup)/below"; ` + tail)
		p := l.mustStart(j)
		l.waitLogged(j, "ready")
		if tail != "exit 5" {
			if err := p.Stop("", true); err != nil {
				t.Fatal(err)
			}
		}
		exit := l.end(p)
		if left := l.left(); len(left) > 0 || (exit.LeftProcesses > 2) != (tail == "exit 5") {
			t.Errorf("left: %v, of %d; detail %q", left, exit.LeftProcesses, exit.Detail)
		}
	}
}

// TestSystemdCtlStop: an administrator stops the scope; the reason says so, and the shim goes as well.
func TestSystemdCtlStop(t *testing.T) {
	l := newSystemLab(t)
	for _, script := range []string{
		"echo ready; sleep 60", "echo ready; exec sleep 60", `trap "exit 0" TERM; echo ready; while :; do sleep 0.02; done`,
		`trap "exit 143" TERM; echo ready; while :; do sleep 0.02; done`,
		`(trap "sleep 0.3; echo cleaned; exit" TERM; echo ready; while :; do sleep 0.02; done) & wait`,
	} {
		t.Run(script, func(t *testing.T) {
			j := l.job(script)
			p := l.mustStart(j)
			l.waitLogged(j, "ready")
			systemctl(t, "stop", "--no-block", p.Unit) // the shim stays until the engine has heard it
			exit := l.end(p)
			if exit.Reason != spec.Stopped || !strings.HasPrefix(exit.Detail, "stopped by a signal from outside rtask") {
				t.Errorf("%+v", exit)
			}
			if strings.Contains(script, "cleaned") && !strings.Contains(string(exit.Stdout), "cleaned") {
				t.Errorf("wrote %q", exit.Stdout)
			}
		})
	}
}

// TestSystemdCtlKill: SIGKILL to all of the scope leaves nobody who could tell.
func TestSystemdCtlKill(t *testing.T) {
	l := newSystemLab(t)
	j := l.job("echo ready; sleep 60")
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	systemctl(t, "kill", "--signal=SIGKILL", p.Unit)
	is(t, l.end(p), spec.Lost, -1, 0)
}

// TestSystemdShimKilled: the job does not go on without its shim, also where nobody saw that go.
func TestSystemdShimKilled(t *testing.T) {
	l := newSystemLab(t)
	for _, found := range []bool{false, true} {
		j := l.job(`trap "" TERM; echo ready; while :; do sleep 0.02; done`)
		p := l.mustStart(j)
		l.waitLogged(j, "ready")
		if err := p.slot.command.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		engine := l
		if found {
			l.leave(p)
			engine = l.again()
			p = engine.find(j)
		}
		is(t, engine.end(p), spec.Lost, -1, 0)
		if left := l.left(); len(left) > 0 {
			t.Errorf("found %v: left %v", found, left)
		}
		if !l.noSockets() {
			t.Error("the socket is left")
		}
	}
}

// TestSystemdStopWithoutAnswer: the engine ends the job of a shim that does not react.
func TestSystemdStopWithoutAnswer(t *testing.T) {
	l := newSystemLab(t)
	j := l.job(`echo ready; sleep 60`)
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	freeze(t, p.slot.command.Process.Pid)
	if err := p.Stop("somebody", true); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the job to be killed from outside", func() bool { return len(l.left()) == 0 })
	if err := p.slot.command.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	exit := l.end(p)
	if exit.Signal != int(unix.SIGKILL) {
		t.Errorf("%+v", exit)
	}
}

func TestSystemdFind(t *testing.T) {
	l := newSystemLab(t)
	j := l.job(`echo ready; while [ ! -e "$1" ]; do sleep 0.02; done; exit 7`, filepath.Join(l.dir, "go"))
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	group := p.ControlGroup
	l.leave(p)
	next := l.again()
	q := next.find(j)
	if q.ControlGroup != group {
		t.Errorf("found in %q, want %q", q.ControlGroup, group)
	}
	if err := os.WriteFile(filepath.Join(l.dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	is(t, next.end(q), spec.ExitCode, 7, 0)
}

func TestSystemdManyAtOnce(t *testing.T) {
	l := newSystemLab(t)
	var wg sync.WaitGroup
	for i := range 100 {
		j := l.job(`exit $1`, fmt.Sprint(i))
		wg.Go(func() {
			p, err := l.start(j)
			if err != nil {
				t.Error(err)
				return
			}
			<-p.Done()
			release(p)
			if exit := p.Exit(); exit.Code != i {
				t.Errorf("job %d: %+v", i, exit)
			}
		})
	}
	wg.Wait()
}

// An engine that is killed while systemd starts a scope for it can leave one that never held a process: its shim was gone
// already.
func TestSystemdSweep(t *testing.T) {
	l := newSystemLab(t)
	j := l.job("sleep 60")
	p := l.mustStart(j)
	const unit = "rtask-test-sweep-1.scope"
	gone := exec.Command("true")
	if err := gone.Start(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the process to be a zombie", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", gone.Process.Pid))
		return err == nil && strings.Contains(string(b), ") Z ")
	})
	out, err := exec.Command("busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
		"org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", "2",
		"PIDs", "au", "1", strconv.Itoa(gone.Process.Pid), "Slice", "s", Slice, "0").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	testkit.Eventually(t, "the scope to be active", func() bool {
		return exec.Command("systemctl", "is-active", "-q", unit).Run() == nil
	})
	_ = gone.Wait() // how it ended does not matter
	systemctl(t, "is-active", unit)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Sweep(ctx)
	}()
	testkit.Eventually(t, "the empty scope to go", func() bool {
		return exec.Command("systemctl", "is-active", "-q", unit).Run() != nil
	})
	cancel()
	<-done
	// That of a job stays.
	systemctl(t, "is-active", p.Unit)
	select {
	case <-p.Done():
		t.Errorf("the job has ended: %+v", p.Exit())
	default:
	}
	if err := p.Stop("a test", true); err != nil {
		t.Error(err)
	}
	<-p.Done()
	p.Slot().End()
}

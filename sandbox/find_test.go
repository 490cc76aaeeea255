package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/packaging/testkit"
	"github.com/rtask/rtask/sandbox/spec"
)

// leave has an engine go while its job runs, as it goes when it ends, and reaps the shim, which init would do then.
func (l *lab) leave(p *Process) {
	l.t.Helper()
	pid := p.slot.command.Process.Pid
	p.slot.Leave()
	l.t.Cleanup(func() { _, _ = unix.Wait4(pid, nil, 0, nil) })
}

// freeze stops a process, and returns when all of its threads have stopped.
func freeze(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the shim to stop", func() bool {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil || !bytes.Contains(b, []byte(") T ")) {
				return false
			}
		}
		return err == nil && len(files) > 0
	})
}

func (l *lab) find(j spec.Run) *Process {
	l.t.Helper()
	p, err := l.Find(j, spec.Place{Slot: j.ID, Unit: l.unit(j), StartedAt: time.Now()})
	if err != nil {
		l.t.Fatal(err)
	}
	return p
}

func TestFindAfterItEnded(t *testing.T) {
	l := newLab(t)
	j := l.job("sleep 0.2; echo out; exit 6")
	p := l.mustStart(j)
	l.leave(p)
	testkit.Eventually(t, "the record", func() bool { _, err := os.Stat(j.Record); return err == nil })
	next := l.again()
	exit := next.end(next.find(j))
	is(t, exit, spec.ExitCode, 6, 0)
	if string(exit.Stdout) != "out\n" || exit.Job != j.ID {
		t.Errorf("job %q, reply %q", exit.Job, exit.Stdout)
	}
	testkit.Eventually(t, "the socket to go", func() bool { return l.noSockets() })
}

func (l *lab) noSockets() bool {
	l.t.Helper()
	entries, err := os.ReadDir(l.sockets)
	if err != nil {
		l.t.Fatal(err)
	}
	return len(entries) == 0
}

func TestFindWhileItRuns(t *testing.T) {
	l := newLab(t)
	j := l.job(`echo before; while [ ! -e "$1" ]; do sleep 0.02; done; echo after; exit 7`, filepath.Join(l.dir, "go"))
	p := l.mustStart(j)
	l.waitLogged(j, "before")
	pid, started := p.PID, p.StartedAt
	l.leave(p)
	for range 3 { // engines may come and go
		q := l.again().find(j)
		if q.PID != pid || !q.StartedAt.Equal(started) {
			t.Errorf("found PID %d started %v, want %d and %v", q.PID, q.StartedAt, pid, started)
		}
		q.slot.Leave()
	}
	next := l.again()
	q := next.find(j)
	if err := os.WriteFile(filepath.Join(l.dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	exit := next.end(q)
	is(t, exit, spec.ExitCode, 7, 0)
	if o, _ := l.logged(j); o != "before\nafter\n" || string(exit.Stdout) != o {
		t.Errorf("logged %q, replied %q", o, exit.Stdout)
	}
	if _, err := os.Stat(j.Record); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a record, though an engine was told: %v", err)
	}
}

func TestStopAfterFind(t *testing.T) {
	l := newLab(t)
	j := l.job("echo ready; sleep 60")
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	l.leave(p)
	next := l.again()
	q := next.find(j)
	if err := q.Stop("the next engine", false); err != nil {
		t.Fatal(err)
	}
	exit := next.end(q)
	is(t, exit, spec.Stopped, -1, int(unix.SIGTERM))
	if exit.Detail != "stopped by the next engine" {
		t.Errorf("detail %q", exit.Detail)
	}
}

// TestFindSilentShim: a shim that does not answer holds nobody up, and is heard when it does.
func TestFindSilentShim(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	j := l.job("echo ready; sleep 0.5; exit 8")
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	pid := p.slot.command.Process.Pid
	freeze(t, pid)
	l.leave(p)
	next := l.again()
	q := next.find(j) // which would hang here
	select {
	case <-q.Done():
		t.Fatalf("a job that runs was found to have ended: %+v", q.Exit())
	default:
	}
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	is(t, next.end(q), spec.ExitCode, 8, 0)
}

func TestShimKilled(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	j := l.job("echo ready; sleep 1")
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	if err := p.slot.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	exit := l.end(p)
	is(t, exit, spec.Lost, -1, 0)
	if !l.noSockets() {
		t.Error("the socket is left")
	}
	testkit.Eventually(t, "what cannot be found without a control group", func() bool { return len(l.left()) == 0 })
}

func TestFindKilledShim(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	j := l.job("echo ready; sleep 1")
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	if err := p.slot.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	l.leave(p)
	next := l.again()
	is(t, next.end(next.find(j)), spec.Lost, -1, 0)
	if !l.noSockets() {
		t.Error("the socket is left")
	}
	never := l.job("never started")
	is(t, next.end(next.find(never)), spec.Lost, -1, 0)
	testkit.Eventually(t, "what cannot be found without a control group", func() bool { return len(l.left()) == 0 })
}

// TestFindDoesNotGuess: what cannot be found out is an error, and no end of the job.
func TestFindDoesNotGuess(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may connect to every socket")
	}
	l := newLab(t)
	j := l.job("echo ready; while :; do sleep 0.02; done")
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	if err := os.Chmod(l.socketPath(j.ID), 0); err != nil {
		t.Fatal(err)
	}
	if q, err := l.Find(j, spec.Place{Slot: j.ID, StartedAt: time.Now()}); err == nil {
		t.Errorf("found %+v", q.Exit())
	}
	if err := p.Stop("", true); err != nil {
		t.Fatal(err)
	}
	l.end(p)
}

// TestTwoEngines: the one that came last is told, the other finds the record.
func TestTwoEngines(t *testing.T) {
	l := newLab(t)
	j := l.job(`echo ready; while [ ! -e "$1" ]; do sleep 0.02; done; exit 9`, filepath.Join(l.dir, "go"))
	j.RecordAlways = true
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	next := l.again()
	q := next.find(j)
	if err := os.WriteFile(filepath.Join(l.dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	is(t, next.end(q), spec.ExitCode, 9, 0)
	is(t, l.end(p), spec.ExitCode, 9, 0)
}

// counts are the things of this process that leak.
type counts struct{ descriptors, goroutines int }

func count(t *testing.T) counts {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return counts{len(entries), runtime.NumGoroutine()}
}

// TestNothingLeaks runs jobs of all kinds and compares what this process has before and after.
func TestNothingLeaks(t *testing.T) {
	l := newLab(t)
	kinds := []func(){
		func() { l.run(l.job("exit 1")) },
		func() { l.run(l.job("cat"), strings.Repeat("x", 100<<10)) },
		func() { l.run(l.job("sleep 60 & exit 0")) },
		func() {
			j := l.job("")
			j.Path = "/does/not/exist"
			l.run(j)
		},
		func() {
			p := l.mustStart(l.job("sleep 60"))
			if err := p.Stop("", true); err != nil {
				t.Error(err)
			}
			l.end(p)
		},
		func() {
			j := l.job("sleep 0.1")
			p := l.mustStart(j)
			pid := p.slot.command.Process.Pid
			p.slot.Leave()
			l.end(l.find(j))
			_, _ = unix.Wait4(pid, nil, 0, nil)
		},
		func() {
			p := l.mustStart(l.job("exec sleep 0.1"))
			if err := p.slot.command.Process.Kill(); err != nil {
				t.Error(err)
			}
			l.end(p)
		},
		func() {
			h := *l.Host
			h.opts.Shim = "/bin/true"
			if _, err := (&lab{Host: &h, t: t, dir: t.TempDir()}).start(l.job("")); err == nil {
				t.Error("no error")
			}
		},
		func() { l.end(l.find(l.job("never started"))) },
	}
	for _, k := range kinds {
		k() // what is made once is no leak
	}
	before := count(t)
	for range 3 {
		for _, k := range kinds {
			k()
		}
	}
	testkit.Eventually(t, "goroutines and descriptors to go", func() bool {
		now := count(t)
		return now.descriptors <= before.descriptors && now.goroutines <= before.goroutines
	})
	testkit.Eventually(t, "children to be waited for", func() bool { // WNOWAIT: it waits for none itself
		return errors.Is(unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil), unix.ECHILD)
	})
	if !l.noSockets() {
		t.Error("sockets are left")
	}
	testkit.Eventually(t, "what cannot be found without a control group", func() bool { return len(l.left()) == 0 })
}

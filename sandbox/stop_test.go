package sandbox

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

func TestTimeout(t *testing.T) {
	l := newLab(t)
	j := l.job("echo begun; sleep 60")
	j.Timeout = 200 * time.Millisecond
	exit := l.run(j)
	is(t, exit, spec.Timeout, -1, int(unix.SIGTERM))
	if string(exit.Stdout) != "begun\n" {
		t.Errorf("wrote %q", exit.Stdout)
	}
}

// TestTimeoutKills: what ignores the request to end is killed after its time, not before.
func TestTimeoutKills(t *testing.T) {
	l := newLab(t)
	j := l.job(`trap "echo asked" TERM; while :; do sleep 0.02; done`)
	j.Timeout, j.TimeoutStop = 100*time.Millisecond, 300*time.Millisecond
	begin := time.Now()
	exit := l.run(j)
	is(t, exit, spec.Timeout, -1, int(unix.SIGKILL))
	if !strings.Contains(string(exit.Stdout), "asked") {
		t.Errorf("wrote %q: it was not asked to end", exit.Stdout)
	}
	if d := time.Since(begin); d < 400*time.Millisecond {
		t.Errorf("took %v", d)
	}
}

func TestStop(t *testing.T) {
	l := newLab(t)
	tests := []struct {
		name   string
		script string
		edit   func(*spec.Run)
		kill   bool
		code   int
		signal unix.Signal
	}{
		{"asked", "echo ready; sleep 60", nil, false, -1, unix.SIGTERM},
		{"another signal", `trap "exit 9" USR1; echo ready; while :; do sleep 0.02; done`, func(j *spec.Run) { j.KillSignal = unix.SIGUSR1 }, false, 9, 0},
		{"ends by itself", `trap "exit 0" TERM; echo ready; while :; do sleep 0.02; done`, nil, false, 0, 0},
		{"killed", `trap "" TERM; echo ready; while :; do sleep 0.02; done`, nil, true, -1, unix.SIGKILL},
		{"no time", `trap "" TERM; echo ready; while :; do sleep 0.02; done`, func(j *spec.Run) { j.TimeoutStop = 0 }, false, -1, unix.SIGKILL},
		{"stopped by itself", `trap "exit 4" TERM; echo ready; kill -STOP $$; sleep 60`, nil, false, 4, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := l.job(tt.script)
			if tt.edit != nil {
				tt.edit(&j)
			}
			p := l.mustStart(j)
			l.waitLogged(j, "ready")
			for range 3 { // more than once makes no difference
				if err := p.Stop("somebody", tt.kill); err != nil {
					t.Fatal(err)
				}
			}
			exit := l.end(p)
			is(t, exit, spec.Stopped, tt.code, int(tt.signal))
			if exit.Detail != "stopped by somebody" {
				t.Errorf("detail %q", exit.Detail)
			}
			if err := p.Stop("somebody", true); err != nil {
				t.Errorf("stopping a job that has ended: %v", err)
			}
		})
	}
}

// TestStopEscalates: a second stop that kills does not wait for the time of the first.
func TestStopEscalates(t *testing.T) {
	l := newLab(t)
	j := l.job(`trap "" TERM; echo ready; while :; do sleep 0.02; done`)
	j.TimeoutStop = time.Minute
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	for _, kill := range []bool{false, true} {
		if err := p.Stop("somebody", kill); err != nil {
			t.Fatal(err)
		}
	}
	is(t, l.end(p), spec.Stopped, -1, int(unix.SIGKILL))
}

// TestStopLeavesTimeToAll: the main process ends at once, and what it left has its time as well.
func TestStopLeavesTimeToAll(t *testing.T) {
	l := newLab(t)
	j := l.job(`(trap "sleep 0.5; echo cleaned; exit" TERM; echo ready; while :; do sleep 0.02; done) & wait`)
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	if err := p.Stop("somebody", false); err != nil {
		t.Fatal(err)
	}
	exit := l.end(p)
	is(t, exit, spec.Stopped, -1, int(unix.SIGTERM))
	if !strings.HasSuffix(string(exit.Stdout), "cleaned\n") {
		t.Errorf("wrote %q", exit.Stdout)
	}
}

// stubborn is a script that leaves processes behind in every way there is without privileges.
const stubborn = `trap "" TERM HUP INT
(setsid sh -c 'trap "" TERM HUP; (setsid sh -c "trap \"\" TERM; while :; do sleep 0.05; done" &) ; while :; do sleep 0.05; done' &)
setsid sh -c 'while :; do sleep 60; done' >/dev/null 2>&1 </dev/null &
(sh -c 'while :; do (sleep 0.01 &); sleep 0.01; done' &)
echo ready
`

func TestNothingIsLeft(t *testing.T) {
	l := newLab(t)
	for _, tt := range []struct {
		name string
		tail string
		end  func(*Process) error
	}{
		{"after the end", "exit 5", func(*Process) error { return nil }},
		{"after a kill", "sleep 60", func(p *Process) error { return p.Stop("", true) }},
		{"after a stop", "sleep 60", func(p *Process) error { return p.Stop("", false) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := l.job(stubborn + tt.tail)
			j.TimeoutStop = 200 * time.Millisecond
			p := l.mustStart(j)
			l.waitLogged(j, "ready")
			if err := tt.end(p); err != nil {
				t.Fatal(err)
			}
			exit := l.end(p)
			if left := l.left(); len(left) > 0 {
				t.Errorf("left: %v; detail %q", left, exit.Detail)
			}
			// What it left by itself is counted, and said.
			by := tt.tail == "exit 5"
			if (exit.LeftProcesses >= 3) != by || strings.Contains(exit.Detail, "processes that it left were ended (") != by || !by && exit.Detail != "" {
				t.Errorf("%d are left, detail %q", exit.LeftProcesses, exit.Detail)
			}
		})
	}
}

// TestLeftProcesses: of a server in the background there is one sentence; of what ends by itself in time there is none.
func TestLeftProcesses(t *testing.T) {
	l := newLab(t)
	for script, want := range map[string]int{
		"nohup sleep 1000 >/dev/null 2>&1 </dev/null & exit 0": 1,
		"sleep 1000 & sleep 1000 & exit 3":                     2,
		"sleep 0.01 & wait":                                    0,
		"echo out | tee /dev/null":                             0,
		"true":                                                 0,
	} {
		exit := l.run(l.job(script))
		said := strings.HasPrefix(exit.Detail, "1 process that it left was ended (a job ends with its main process: ")
		if want > 1 {
			said = strings.HasPrefix(exit.Detail, fmt.Sprintf("%d processes that it left were ended (", want))
		}
		if exit.LeftProcesses != want || said != (want > 0) || want == 0 && exit.Detail != "" {
			t.Errorf("%q: %d are left, detail %q", script, exit.LeftProcesses, exit.Detail)
		}
	}
}

// TestOrphansAreReaped: what a job that runs for long leaves behind does not fill the process table.
func TestOrphansAreReaped(t *testing.T) {
	l := newLab(t)
	// The shell's parent is the shim.
	j := l.job(`for i in 1 2 3 4 5 6 7 8 9; do (sleep 0.01 &); done; sleep 0.3; grep -l ") Z $PPID " /proc/[0-9]*/stat | wc -l`)
	exit := l.run(j)
	is(t, exit, spec.Succeeded, 0, 0)
	if string(exit.Stdout) != "0\n" {
		t.Errorf("%s zombies", exit.Stdout)
	}
}

// TestOutputOfOthers: a process that holds the output does not hold the result, and one that only finishes is heard.
func TestOutputOfOthers(t *testing.T) {
	l := newLab(t)
	exit := l.run(l.job(`(sleep 3600; echo never) & echo done`))
	is(t, exit, spec.Succeeded, 0, 0)
	if string(exit.Stdout) != "done\n" {
		t.Errorf("wrote %q", exit.Stdout)
	}
	exit = l.run(l.job(`(sleep 0.01; echo later) & echo done`))
	is(t, exit, spec.Succeeded, 0, 0)
	if string(exit.Stdout) != "done\nlater\n" {
		t.Errorf("wrote %q", exit.Stdout)
	}
	exit = l.run(l.job(`text=$(seq 20000); (printf '%s\n' "$text") & exit 0`))
	if n := strings.Count(string(exit.Stdout), "\n"); n != 20000 {
		t.Errorf("%d lines", n)
	}
}

// TestSignalFromOutside: a signal to the shim, as `systemctl stop` sends it, is a stop.
func TestSignalFromOutside(t *testing.T) {
	l := newLab(t)
	j := l.job("echo ready; sleep 60")
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	if err := unix.PidfdSendSignal(int(p.slot.pidfd.Fd()), unix.SIGTERM, nil, 0); err != nil {
		t.Fatal(err)
	}
	exit := l.end(p)
	is(t, exit, spec.Stopped, -1, int(unix.SIGTERM))
	if exit.Detail != "stopped by a signal from outside rtask (systemctl stop?)" {
		t.Errorf("detail %q", exit.Detail)
	}
}

// TestSignalToBoth: systemd signals the job and its shim one after the other, and the job may end first.
func TestSignalToBoth(t *testing.T) {
	l := newLab(t)
	for range 10 {
		j := l.job("echo ready; exec sleep 60")
		p := l.mustStart(j)
		l.waitLogged(j, "ready")
		if err := unix.Kill(p.PID, unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
		if err := unix.PidfdSendSignal(int(p.slot.pidfd.Fd()), unix.SIGTERM, nil, 0); err != nil {
			t.Fatal(err)
		}
		is(t, l.end(p), spec.Stopped, -1, int(unix.SIGTERM))
	}
}

package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

func (l *lab) slot() *Slot {
	l.t.Helper()
	s, err := l.OpenSlot(l.t.Context(), spec.Place{Slot: "slot", Unit: l.unit(spec.Run{ID: "slot"})}, &spec.Run{}, false)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func (l *lab) mustStartIn(s *Slot, j spec.Run) *Process {
	l.t.Helper()
	p, err := l.startIn(s, j)
	if err != nil {
		l.t.Fatal(err)
	}
	return p
}

// TestSlot runs jobs of all kinds in one slot, one after the other. Each is judged by itself.
func TestSlot(t *testing.T) {
	l := newLab(t)
	s := l.slot()
	shim := s.command.Process.Pid
	for range 3 {
		var ended []*Process
		for _, c := range []struct {
			script string
			reason spec.Reason
			code   int
		}{
			{"echo out; exit 0", spec.Succeeded, 0}, {"exit 3", spec.ExitCode, 3}, {"sleep 1000 & exit 0", spec.Succeeded, 0},
			{"kill -TERM $$", spec.Signal, -1},
		} {
			j := l.job(c.script)
			p := l.mustStartIn(s, j)
			<-p.Done()
			if e := p.Exit(); e.Reason != c.reason || e.Code != c.code || e.Job != j.ID {
				t.Errorf("%s: %+v", c.script, e)
			}
			if c.code == 0 && strings.HasPrefix(c.script, "echo") && string(p.Exit().Stdout) != "out\n" {
				t.Errorf("reply %q", p.Exit().Stdout)
			}
			ended = append(ended, p)
		}
		j := l.job("")
		j.Path = "/does/not/exist"
		if p := l.mustStartIn(s, j); p.PID != 0 || p.Exit().Reason != spec.Setup || p.Exit().Code != 127 {
			t.Errorf("not there: PID %d, %+v", p.PID, p.Exit())
		}
		for _, p := range ended { // late, in any order
			p.Release()
		}
	}
	if s.command.Process.Pid != shim || len(l.left()) > 1 {
		t.Errorf("processes %v", l.left())
	}
	s.End()
	if _, err := os.Stat(l.socketPath(s.ID)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// TestUnacknowledged: ends that an engine did not acknowledge are kept while other jobs run, and written down when it goes.
func TestUnacknowledged(t *testing.T) {
	l := newLab(t)
	s := l.slot()
	first, second := l.job("echo one; exit 1"), l.job("echo two; exit 2")
	for _, j := range []spec.Run{first, second} {
		<-l.mustStartIn(s, j).Done()
	}
	third := l.job(`echo ready; while [ ! -e "$1" ]; do sleep 0.02; done; exit 3`, filepath.Join(l.dir, "go"))
	p := l.mustStartIn(s, third)
	l.waitLogged(third, "ready")
	pid := s.command.Process.Pid
	s.Leave()
	t.Cleanup(func() { _, _ = unix.Wait4(pid, nil, 0, nil) })

	next := l.again()
	find := func(j spec.Run) *Process {
		t.Helper()
		q, err := next.Find(j, spec.Place{Slot: s.ID, Unit: s.Unit})
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	for i, j := range []spec.Run{first, second} {
		q := find(j)
		<-q.Done()
		is(t, q.Exit(), spec.ExitCode, i+1, 0)
		q.Release()
	}
	q := find(third)
	if q.PID != p.PID {
		t.Errorf("found PID %d, want %d", q.PID, p.PID)
	}
	// One that it never had.
	never := l.job("true")
	if err := os.WriteFile(l.claimPath(never.ID)+wire.Taken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if n := find(never); n.Exit().Reason != spec.Lost {
		t.Errorf("a job that nobody knows: %+v", n.Exit())
	}
	if err := os.WriteFile(filepath.Join(l.dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	is(t, next.end(q), spec.ExitCode, 3, 0)
}

// TestClaim: a job is taken once or never. What was taken back does not start, and what was taken cannot be taken back.
func TestClaim(t *testing.T) {
	l := newLab(t)
	s := l.slot()
	defer s.End()
	ran := filepath.Join(l.dir, "ran")
	j := l.job("touch " + ran)
	// As if an engine had died after it sent the job, and the next one was faster than the shim.
	claim, err := l.stake(j.ID, []byte("memo"))
	if err != nil {
		t.Fatal(err)
	}
	if claims, err := l.Claims(); err != nil || string(claims[j.ID]) != "memo" {
		t.Errorf("claims %q, %v", claims, err)
	}
	if _, err := l.Find(j, spec.Place{Slot: s.ID}); !errors.Is(err, ErrNeverBegun) {
		t.Errorf("found %v", err)
	}
	in, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	p := s.process(j)
	if err := s.send(wire.Message{Start: &wire.Start{Job: j, Socket: l.socketPath(s.ID), Claim: claim}}, in, in); err != nil {
		t.Fatal(err)
	}
	if m, err := p.answered(nil); err != nil || m.Refused == nil {
		t.Errorf("said %+v, %v", m, err)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a job ran that was taken back")
	}
	// The slot is as good as before.
	k := l.job("exit 5")
	q := l.mustStartIn(s, k)
	<-q.Done()
	is(t, q.Exit(), spec.ExitCode, 5, 0)
	if untaken, err := l.takeBack(k.ID); untaken || err != nil {
		t.Errorf("taken back: %v, %v", untaken, err)
	}
	if err := l.Forget(k.ID); err != nil {
		t.Error(err)
	}
	if claims, err := l.Claims(); err != nil || len(claims) != 0 {
		t.Errorf("claims %q, %v", claims, err)
	}
}

// TestUnfit: a slot whose shim was told to end, or has ended, takes no job, and says so before anything is begun.
func TestUnfit(t *testing.T) {
	l := newLab(t)
	for name, end := range map[string]func(*Slot){
		"terminated while idle": func(s *Slot) {
			if err := unix.Kill(s.command.Process.Pid, unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			<-s.Gone()
		},
		"terminated while a job runs": func(s *Slot) {
			j := l.job("echo ready; exec sleep 1000")
			p := l.mustStartIn(s, j)
			l.waitLogged(j, "ready")
			if err := unix.Kill(s.command.Process.Pid, unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			<-p.Done()
			is(t, p.Exit(), spec.Stopped, -1, int(unix.SIGTERM))
		},
	} {
		s := l.slot()
		<-l.mustStartIn(s, l.job("true")).Done()
		end(s)
		ran := filepath.Join(l.dir, "ran")
		if _, err := l.startIn(s, l.job("touch "+ran)); !errors.Is(err, ErrUnfit) {
			t.Errorf("%s: %v", name, err)
		}
		s.End()
		if _, err := os.Stat(ran); err == nil {
			t.Errorf("%s: it ran", name)
		}
		if left, err := filepath.Glob(filepath.Join(l.sockets, "*"+claimSuffix)); err != nil || len(left) > 0 {
			t.Errorf("%s: claims left: %v", name, left)
		}
	}
}

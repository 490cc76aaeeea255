package sandbox

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

// leave has an engine go while its job runs, as it goes when it ends, and reaps the shim, which init would do then.
func (l *lab) leave(p *Process) {
	l.t.Helper()
	pid := p.command.Process.Pid
	p.Leave()
	l.t.Cleanup(func() { _, _ = unix.Wait4(pid, nil, 0, nil) })
}

func (l *lab) find(j spec.Job) *Process {
	l.t.Helper()
	p, err := l.Find(Left{Job: j, Unit: l.unit(j), Started: time.Now()})
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
	eventually(t, "the record", func() bool { _, err := os.Stat(j.Record); return err == nil })
	next := l.again()
	exit := next.end(next.find(j))
	is(t, exit, spec.ExitCode, 6, 0)
	if string(exit.Stdout) != "out\n" || exit.Job != j.ID {
		t.Errorf("job %q, reply %q", exit.Job, exit.Stdout)
	}
	eventually(t, "the socket to go", func() bool { return l.noSockets() })
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
	pid, started := p.PID, p.Started
	l.leave(p)
	for range 3 { // engines may come and go
		q := l.again().find(j)
		if q.PID != pid || !q.Started.Equal(started) {
			t.Errorf("found PID %d started %v, want %d and %v", q.PID, q.Started, pid, started)
		}
		q.Leave()
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
	l := newLab(t)
	j := l.job("echo ready; sleep 0.5; exit 8")
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	pid := p.command.Process.Pid
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	l.leave(p)
	begin := time.Now()
	next := l.again()
	q := next.find(j)
	if d := time.Since(begin); d > greetTime+2*time.Second {
		t.Errorf("took %v", d)
	}
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
	l := newLab(t)
	j := l.job("echo ready; sleep 1")
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	if err := p.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	exit := l.end(p)
	is(t, exit, spec.Lost, -1, 0)
	if !l.noSockets() {
		t.Error("the socket is left")
	}
	eventually(t, "what cannot be found without a control group", func() bool { return len(l.left()) == 0 })
}

func TestFindKilledShim(t *testing.T) {
	l := newLab(t)
	j := l.job("echo ready; sleep 1")
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	if err := p.command.Process.Kill(); err != nil {
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
	eventually(t, "what cannot be found without a control group", func() bool { return len(l.left()) == 0 })
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
	if q, err := l.Find(Left{Job: j}); err == nil {
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

// shim is a shim that a test speaks to itself.
type rawShim struct {
	*wire.Conn
	t   *testing.T
	cmd *exec.Cmd
}

func (l *lab) rawShim() *rawShim {
	l.t.Helper()
	conn, theirs, err := wire.Pair()
	if err != nil {
		l.t.Fatal(err)
	}
	defer theirs.Close()
	cmd := exec.Command(l.opts.Shim)
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		_ = conn.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &rawShim{conn, l.t, cmd}
}

// start gives the shim its job.
func (s *rawShim) start(l *lab, j spec.Job) {
	s.t.Helper()
	in, err := os.Open(os.DevNull)
	if err != nil {
		s.t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(l.log(j), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	m := wire.Message{Start: &wire.Start{Job: j, Socket: l.socketPath(j.ID), NoFileSoft: 1024, NoFileHard: 1024}}
	if err := s.Send(m, in, out); err != nil {
		s.t.Fatal(err)
	}
}

func (s *rawShim) receive() wire.Message {
	s.t.Helper()
	if err := s.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	m, _, err := s.Receive()
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// waitEnd waits for the shim to end.
func (s *rawShim) waitEnd() {
	s.t.Helper()
	done := make(chan struct{})
	go func() {
		_ = s.cmd.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		s.t.Fatal("the shim does not end")
	}
}

func TestNoAcknowledgement(t *testing.T) {
	l := newLab(t)
	s := l.rawShim()
	j := l.job("exit 11")
	s.start(l, j)
	if m := s.receive(); m.Started == nil || m.Started.Job != j.ID {
		t.Fatalf("said %+v", m)
	}
	if m := s.receive(); m.Ended == nil || m.Ended.Code != 11 {
		t.Fatalf("said %+v", m)
	}
	// The acknowledgement of something else is none.
	if err := s.Send(wire.Message{Ack: &wire.Ack{Job: "another"}}); err != nil {
		t.Fatal(err)
	}
	s.waitEnd()
	exit, err := ReadRecord(j.Record)
	if err != nil {
		t.Fatal(err)
	}
	is(t, exit, spec.ExitCode, 11, 0)
}

func TestEndOfConnectionIsNoGo(t *testing.T) {
	l := newLab(t)
	s := l.rawShim()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.waitEnd()
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s = l.rawShim()
	if err := s.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.waitEnd()
}

// TestWrongBeginning: only a job with its two files starts anything.
func TestWrongBeginning(t *testing.T) {
	l := newLab(t)
	j := l.job("touch " + filepath.Join(l.dir, "ran"))
	for _, m := range []wire.Message{
		{Start: &wire.Start{Job: j, Socket: l.socketPath(j.ID)}}, {Hello: &wire.Hello{Job: j.ID}}, {Stop: &wire.Stop{}},
	} {
		s := l.rawShim()
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Receive(); !errors.Is(err, io.EOF) {
			t.Errorf("%+v: error %v, want the end", m, err)
		}
		s.waitEnd()
	}
	if _, err := os.Stat(filepath.Join(l.dir, "ran")); err == nil {
		t.Error("a job ran")
	}
}

// TestBadPackets: what is no message ends the connection it came over, and not the job.
func TestBadPackets(t *testing.T) {
	l := newLab(t)
	j := l.job(`echo ready; while [ ! -e "$1" ]; do sleep 0.02; done; exit 12`, filepath.Join(l.dir, "go"))
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	for _, packet := range []string{"garbage", "\xa1\x61m\x40", strings.Repeat("\x9f", 70000)} {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: l.socketPath(j.ID), Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(packet)); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 10)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %d bytes, error %v; want the end", n, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := os.WriteFile(filepath.Join(l.dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	is(t, l.end(p), spec.ExitCode, 12, 0)
}

// TestManyEngines connects and goes while the job ends: a shim must come to its end whatever comes over its socket.
func TestManyEngines(t *testing.T) {
	l := newLab(t)
	for range 10 {
		j := l.job("sleep 0.05; exit 13")
		j.RecordAlways = true
		p := l.mustStart(j)
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: l.socketPath(j.ID), Net: "unixpacket"})
				if err == nil {
					defer c.Close() // held, as by an engine that waits
				}
				time.Sleep(100 * time.Microsecond)
			}
		}()
		<-p.Done()
		release := make(chan struct{})
		go func() {
			p.Release()
			close(release)
		}()
		select {
		case <-release:
		case <-time.After(goneTime):
			t.Error("the shim does not end")
			<-release
		}
		close(stop)
		<-done
		is(t, p.Exit(), spec.ExitCode, 13, 0)
	}
}

// TestShimEndsBeforeItsJob: the end of a shim that has no job yet is noticed.
func TestShimEndsBeforeItsJob(t *testing.T) {
	l := newLabWith(t, Options{Shim: "/bin/true", NoSystemd: true})
	begin := time.Now()
	_, err := l.start(l.job("echo ran"))
	if err == nil || time.Since(begin) > 5*time.Second {
		t.Errorf("error %v after %v", err, time.Since(begin))
	}
}

// TestShimHangs: a shim that never answers is given up, and nothing is left of it.
func TestShimHangs(t *testing.T) {
	script := filepath.Join(t.TempDir(), "hang")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ntrap '' TERM\nexec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	l := newLabWith(t, Options{Shim: script, NoSystemd: true})
	l.startTime = 200 * time.Millisecond
	begin := time.Now()
	if _, err := l.start(l.job("echo ran")); err == nil {
		t.Error("no error")
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("a child is left: %v", err)
	}
}

// TestStopWithoutAnswer: the engine ends what its shim does not end.
func TestStopWithoutAnswer(t *testing.T) {
	l := newLab(t)
	j := l.job("echo ready; exec sleep 8")
	j.TimeoutStop = 0
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	if err := p.command.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop("somebody", true); err != nil {
		t.Fatal(err)
	}
	is(t, l.end(p), spec.Lost, -1, 0)
	if err := unix.Kill(p.PID, unix.SIGKILL); err != nil { // nobody else can, without a control group
		t.Error(err)
	}
	eventually(t, "the job to go", func() bool { return len(l.left()) == 0 })
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
			pid := p.command.Process.Pid
			p.Leave()
			l.end(l.find(j))
			_, _ = unix.Wait4(pid, nil, 0, nil)
		},
		func() {
			p := l.mustStart(l.job("exec sleep 0.1"))
			if err := p.command.Process.Kill(); err != nil {
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
	eventually(t, "goroutines and descriptors to go", func() bool {
		now := count(t)
		return now.descriptors <= before.descriptors && now.goroutines <= before.goroutines
	})
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("a child is left: %d, %v", pid, err)
	}
	if !l.noSockets() {
		t.Error("sockets are left")
	}
	eventually(t, "what cannot be found without a control group", func() bool { return len(l.left()) == 0 })
}

package sandbox

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/packaging/testkit"
	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

// rawShim is a shim that a test speaks to itself.
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
func (s *rawShim) start(l *lab, j spec.Run) {
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
	t.Parallel()
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
	testkit.Eventually(t, "the record", func() bool { _, err := os.Stat(j.Record); return err == nil })
	exit, err := ReadRecord(j.Record)
	if err != nil {
		t.Fatal(err)
	}
	is(t, exit, spec.ExitCode, 11, 0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.waitEnd()
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
	s := l.rawShim()
	for _, m := range []wire.Message{
		{Stop: &wire.Stop{}}, {Ack: &wire.Ack{Job: j.ID}}, {Start: &wire.Start{Job: j, Socket: l.socketPath(j.ID)}}, {Hello: &wire.Hello{Job: j.ID}},
	} {
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
		if m.Start == nil && m.Hello == nil {
			continue // no answer to that
		}
		if got := s.receive(); got.Refused == nil || got.Refused.Job != j.ID {
			t.Errorf("%+v: said %+v", m, got)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.waitEnd()
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
		released := make(chan struct{})
		go func() {
			release(p)
			close(released)
		}()
		select {
		case <-released:
		case <-time.After(goneTime):
			t.Error("the shim does not end")
			<-released
		}
		close(stop)
		<-done
		is(t, p.Exit(), spec.ExitCode, 13, 0)
	}
}

// TestShimEndsBeforeItsJob: the end of a shim that has no job yet is noticed.
func TestShimEndsBeforeItsJob(t *testing.T) {
	l := newLabWith(t, Options{Shim: "/bin/true", NoSystemd: true})
	l.startTime = time.Hour // it is not this that ends the start
	if _, err := l.start(l.job("echo ran")); err == nil {
		t.Error("no error")
	}
}

// TestShimHangs: a shim that never answers is given up, and nothing is left of it.
func TestShimHangs(t *testing.T) {
	script := filepath.Join(t.TempDir(), "hang")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ntrap '' TERM\nexec sleep 3600\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	l := newLabWith(t, Options{Shim: script, NoSystemd: true})
	l.startTime = 200 * time.Millisecond
	if _, err := l.start(l.job("echo ran")); err == nil {
		t.Error("no error")
	}
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("a child is left: %v", err)
	}
}

// TestStopWithoutAnswer: the engine ends what its shim does not end.
func TestStopWithoutAnswer(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	j := l.job("echo ready; exec sleep 8")
	j.TimeoutStop = 0
	p := l.mustStart(j)
	l.waitLogged(j, "ready")
	freeze(t, p.slot.command.Process.Pid)
	if err := p.Stop("somebody", true); err != nil {
		t.Fatal(err)
	}
	is(t, l.end(p), spec.Lost, -1, 0)
	if err := unix.Kill(p.PID, unix.SIGKILL); err != nil { // nobody else can, without a control group
		t.Error(err)
	}
	testkit.Eventually(t, "the job to go", func() bool { return len(l.left()) == 0 })
}

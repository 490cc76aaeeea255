package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/packaging/testkit"
	"github.com/rtask/rtask/sandbox/log"
	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

// markVariable is in the environment of every job of a test, so that what is left of it can be found.
const markVariable = "RTASK_TEST_MARK"

func TestMain(m *testing.M) { testkit.Main(m) }

// lab is a Host with folders for what its jobs need, and the jobs of one test.
type lab struct {
	*Host
	t       *testing.T
	dir     string // the folder of logs and records; anybody may enter it
	sockets string
	mark    string
	count   atomic.Int64
}

func newLab(t *testing.T) *lab {
	t.Helper()
	return newLabWith(t, Options{Shim: testkit.Shim(), NoSystemd: true})
}

func newLabWith(t *testing.T, o Options) *lab {
	t.Helper()
	dir, err := os.MkdirTemp("", "rt")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, dir: dir, sockets: filepath.Join(dir, "s"), mark: t.Name() + strconv.FormatInt(time.Now().UnixNano(), 36)}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	o.RuntimeDir = l.sockets
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	l.Host, err = Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left := l.left(); len(left) > 0 {
			t.Errorf("processes of jobs are left: %v", left)
			for _, pid := range left {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if err := errors.Join(l.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return l
}

// again is another engine on the same folders.
func (l *lab) again() *lab {
	l.t.Helper()
	h, err := Open(l.t.Context(), l.opts)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := h.Close(); err != nil {
			l.t.Error(err)
		}
	})
	return &lab{Host: h, t: l.t, dir: l.dir, sockets: l.sockets, mark: l.mark}
}

// left returns the processes that descend from jobs of this lab.
func (l *lab) left() []int {
	l.t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		l.t.Fatal(err)
	}
	var pids []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(b, []byte(markVariable+"="+l.mark+"\x00")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil {
			l.t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// job is what a shell does with script.
func (l *lab) job(script string, args ...string) spec.Run {
	id := fmt.Sprintf("j%015d", l.count.Add(1))
	return spec.Run{
		ID: id, Path: "/bin/sh", Args: append([]string{"sh", "-c", script, "sh"}, args...),
		Env: []string{"PATH=/usr/bin:/bin", markVariable + "=" + l.mark}, Dir: "/", KillSignal: unix.SIGTERM,
		TimeoutStop: 5 * time.Second, MaxReply: 1 << 20, LogMax: 64 << 20, Record: filepath.Join(l.dir, id+".exit"),
	}
}

// start starts j with an input, in a slot of its own.
func (l *lab) start(j spec.Run, input ...string) (*Process, error) {
	l.t.Helper()
	s, err := l.OpenSlot(l.t.Context(), spec.Place{Slot: j.ID, Unit: l.unit(j)}, &j, true)
	if err != nil {
		return nil, err
	}
	p, err := l.startIn(s, j, input...)
	if err != nil {
		s.End()
	}
	return p, err
}

// startIn starts j in a slot.
func (l *lab) startIn(s *Slot, j spec.Run, input ...string) (*Process, error) {
	l.t.Helper()
	in, err := os.Open(os.DevNull)
	if len(input) > 0 {
		in, err = wire.SealedFile("input", []byte(strings.Join(input, "")))
	}
	if err != nil {
		l.t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(l.log(j), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		l.t.Fatal(err)
	}
	defer out.Close()
	return s.Start(&j, in, out, nil, nil)
}

// release lets go of a job that has ended, and of its slot.
func release(p *Process) {
	p.Release()
	if p.slot != nil {
		p.slot.End()
	}
	_ = p.host.Forget(p.job.ID)
}

func (l *lab) unit(j spec.Run) string {
	return "rtask-test-" + strconv.Itoa(os.Getpid()) + "-" + filepath.Base(l.dir) + j.ID + ".scope"
}

func (l *lab) mustStart(j spec.Run, input ...string) *Process {
	l.t.Helper()
	p, err := l.start(j, input...)
	if err != nil {
		l.t.Fatal(err)
	}
	return p
}

// run runs j to its end.
func (l *lab) run(j spec.Run, input ...string) spec.Exit {
	l.t.Helper()
	return l.end(l.mustStart(j, input...))
}

// end waits for p to end.
func (l *lab) end(p *Process) spec.Exit {
	l.t.Helper()
	select {
	case <-p.Done():
	case <-time.After(30 * time.Second):
		l.t.Fatal("the job did not end")
	}
	release(p)
	return p.Exit()
}

func (l *lab) log(j spec.Run) string { return filepath.Join(l.dir, j.ID+".log") }

// logged returns what is in a job's log, stream by stream.
func (l *lab) logged(j spec.Run) (stdout, stderr string) {
	l.t.Helper()
	f, err := os.Open(l.log(j))
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	var out [2]strings.Builder
	for r := log.NewReader(f, 0); ; {
		e, err := r.NextBatch()
		if errors.Is(err, io.EOF) {
			return out[0].String(), out[1].String()
		}
		if err != nil {
			l.t.Fatal(err)
		}
		out[e.Stream-log.Stdout].Write(e.Data)
	}
}

// waitLogged waits for text in a job's log.
func (l *lab) waitLogged(j spec.Run, text string) {
	l.t.Helper()
	testkit.Eventually(l.t, "the job to write "+strconv.Quote(text), func() bool {
		b, err := os.ReadFile(l.log(j))
		return err == nil && bytes.Contains(b, []byte(text))
	})
}

// is compares how a job ended.
func is(t *testing.T, got spec.Exit, reason spec.Reason, code, signal int) {
	t.Helper()
	if got.Reason != reason || got.Code != code || got.Signal != signal {
		t.Errorf("ended with %q, code %d, signal %d, detail %q; want %q, %d, %d",
			got.Reason, got.Code, got.Signal, got.Detail, reason, code, signal)
	}
}

package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/log"
	"github.com/rtask/rtask/sandbox/spec"
)

func TestFind(t *testing.T) {
	m := open(t)
	for _, id := range []string{"abcdefghijklmnop", "abcdzzzzzzzzzzzz", "qqqqqqqqqqqqqqqq"} {
		j := Job{Spec: Spec{Run: spec.Run{ID: id}, Owner: Owner{UID: uint32(id[4])}}, State: Ended, Place: spec.Place{PID: 4711}, Exit: &spec.Exit{Job: id}}
		if err := m.records.Put(t.Context(), j); err != nil {
			t.Fatal(err)
		}
	}
	running := start(t, m, sh("exec sleep 1000"))
	starting := &live{job: Job{Spec: Spec{Run: spec.Run{ID: "zzzzzzzzzzzzzzzz"}}, State: Running}, ready: closed(), done: closed()}
	m.jobs.mu.Lock()
	m.jobs.live["zzzzzzzzzzzzzzzz"] = starting
	m.jobs.mu.Unlock()
	defer func() {
		m.jobs.mu.Lock()
		delete(m.jobs.live, "zzzzzzzzzzzzzzzz")
		m.jobs.mu.Unlock()
	}()
	of := func(uid byte) func(Job) bool { return func(j Job) bool { return j.Owner.UID == uint32(uid) } }
	for _, c := range []struct {
		ref     string
		visible func(Job) bool
		id      string
		err     error
	}{
		{ref: "abcdefghijklmnop", id: "abcdefghijklmnop"},
		{ref: "abcde", id: "abcdefghijklmnop"},
		{ref: "qqqq", id: "qqqqqqqqqqqqqqqq"},
		{ref: "q", err: ErrShort},
		{ref: "qqq", visible: of('q'), err: ErrShort},
		{ref: "abcd", err: ErrAmbiguous},
		{ref: "abcd", visible: of('e'), id: "abcdefghijklmnop"},
		{ref: "abcd", visible: of('q'), err: ErrNotFound},
		{ref: "abcdefghijklmnop", visible: of('z'), err: ErrNotFound},
		{ref: running.ID, visible: of('z'), err: ErrNotFound},
		{ref: running.ID, id: running.ID},
		{ref: fmt.Sprint(running.PID), id: running.ID},
		{ref: fmt.Sprint(running.PID), visible: of('z'), err: ErrNotFound},
		{ref: "4711", err: ErrNotFound}, // it has ended, and its PID is anybody's
		{ref: "0", err: ErrNotFound},    // of a job that is just being started
		{ref: "-1", err: ErrNotFound},
		{ref: "", err: ErrNotFound},
		{ref: "abcdefghijklmnopq", err: ErrNotFound},
		{ref: "ABCDE", err: ErrNotFound},
		{ref: "../../etc/passwd", err: ErrNotFound},
		{ref: strings.Repeat("a", 1<<20), err: ErrNotFound},
	} {
		j, err := m.Find(c.ref, c.visible)
		if j.ID != c.id || !errors.Is(err, c.err) {
			t.Errorf("%.40q: %q, %v; want %q, %v", c.ref, j.ID, err, c.id, c.err)
		}
	}
}

func TestStop(t *testing.T) {
	m := open(t)
	s := sh("trap '' TERM; echo ready; while :; do sleep 0.02; done")
	s.TimeoutStop = 100 * time.Millisecond
	j := start(t, m, s)
	until(t, m, j.ID, "ready")
	stopped, err := m.Stop(t.Context(), j.ID, StopOptions{By: "ada"})
	if err != nil || stopped.State != Ended || stopped.Exit.Reason != spec.Stopped || !strings.Contains(stopped.Exit.Detail, "ada") {
		t.Fatalf("%+v, %v", stopped.Exit, err)
	}
	again, err := m.Stop(t.Context(), j.ID, StopOptions{By: "ben", Kill: true})
	if err != nil || !again.EndedAt.Equal(stopped.EndedAt) || again.Exit.Detail != stopped.Exit.Detail {
		t.Errorf("stopping what has ended changed it: %+v, %v", again.Exit, err)
	}
	if _, err := m.Stop(t.Context(), "aaaaaaaaaaaaaaaa", StopOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("stopping nothing: %v", err)
	}
	// It is seen to be stopping meanwhile.
	slow := start(t, m, sh("trap 'sleep 0.5; exit 0' TERM; echo ready; while :; do sleep 0.02; done"))
	until(t, m, slow.ID, "ready")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := m.Stop(ctx, slow.ID, StopOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if j, err := m.Status(slow.ID); err != nil || j.State != Stopping {
		t.Errorf("%s, %v", j.State, err)
	}
	wait(t, m, slow.ID)
}

// A job that is told to stop while it is being started is stopped.
func TestStopDuringLaunch(t *testing.T) {
	m := open(t)
	for range 10 {
		var all sync.WaitGroup
		all.Go(func() { start(t, m, sh("exec sleep 1000")) })
		var id string
		eventually(t, "the job is there", func() bool {
			jobs := m.jobs.those(func(Job) bool { return true })
			if len(jobs) == 1 {
				id = jobs[0].ID
			}
			return id != ""
		})
		j, err := m.Stop(t.Context(), id, StopOptions{Kill: true})
		if err != nil || j.State != Ended || j.Exit.Reason != spec.Stopped {
			t.Errorf("%s %+v, %v", j.State, j.Exit, err)
		}
		all.Wait()
	}
}

func TestList(t *testing.T) {
	m := open(t)
	task := func(name, script string) Spec {
		s := sh(script)
		s.Task = name
		return s
	}
	old := start(t, m, task("a", "exec sleep 1000"))
	var ended []string // newest first
	for range 4 {
		j := start(t, m, task("b", "true"))
		wait(t, m, j.ID)
		ended = append([]string{j.ID}, ended...)
	}
	command := start(t, m, sh("exec sleep 1000"))
	ids := func(f Filter) []string {
		t.Helper()
		jobs, err := m.List(f)
		if err != nil {
			t.Fatal(err)
		}
		ids := []string{}
		for _, j := range jobs {
			ids = append(ids, j.ID)
		}
		return ids
	}
	for _, c := range []struct {
		filter Filter
		want   []string
	}{
		{Filter{}, []string{command.ID, old.ID}},
		{Filter{Limit: 1}, []string{command.ID}},
		{Filter{Task: "a"}, []string{old.ID}},
		{Filter{Task: "b"}, []string{}},
		{Filter{Ended: true}, slices.Concat([]string{command.ID}, ended, []string{old.ID})},
		{Filter{Ended: true, Task: "b", Limit: 2}, ended[:2]},
		// The old one that runs does not push out newer ones that have ended.
		{Filter{Ended: true, Limit: 3}, []string{command.ID, ended[0], ended[1]}},
		{Filter{Ended: true, Visible: func(j Job) bool { return j.ID == ended[3] }}, ended[3:]},
	} {
		if got := ids(c.filter); !slices.Equal(got, c.want) {
			t.Errorf("%+v:\n%v, want\n%v", c.filter, got, c.want)
		}
	}
}

func TestStreamLogs(t *testing.T) {
	m := open(t)
	read := func(id string, o LogOptions) (string, []int64) {
		var b strings.Builder
		var offsets []int64
		if err := m.StreamLogs(t.Context(), id, o, func(e log.Entry) error {
			b.Write(e.Data)
			offsets = append(offsets, e.Offset)
			return nil
		}); err != nil {
			t.Error(err)
		}
		return b.String(), offsets
	}
	var want strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&want, "line %d\n", i+1)
	}
	j := start(t, m, sh("i=0; sleep 0.2; while [ $i -lt 20 ]; do i=$((i+1)); seq -f 'line %g' $((i*1000-999)) $((i*1000)); sleep 0.01; done"))
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if got, _ := read(j.ID, LogOptions{Follow: true}); got != want.String() {
				t.Errorf("a follower got %d bytes, want %d", len(got), want.Len())
			}
		})
	}
	all.Wait()
	wait(t, m, j.ID)
	whole, offsets := read(j.ID, LogOptions{})
	if whole != want.String() {
		t.Fatalf("%d bytes afterwards, want %d", len(whole), want.Len())
	}
	for _, o := range []int{0, len(offsets) / 2, len(offsets) - 1} {
		rest, _ := read(j.ID, LogOptions{View: log.View{Offset: offsets[o]}, Follow: true})
		if !strings.HasSuffix(whole, rest) || o == len(offsets)-1 && rest != "" || o == 0 && len(rest) == len(whole) {
			t.Errorf("from offset %d: %d bytes", offsets[o], len(rest))
		}
	}

	endless := start(t, m, sh("echo on; exec sleep 1000"))
	until(t, m, endless.ID, "on\n")
	ctx, cancel := context.WithCancel(t.Context())
	err := m.StreamLogs(ctx, endless.ID, LogOptions{Follow: true}, func(log.Entry) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: %v", err)
	}
	if err := os.WriteFile(filepath.Join(m.opts.StateDir, "other.log"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"aaaaaaaaaaaaaaaa", "", "../state/other", "../../../../etc/passwd"} {
		if err := m.StreamLogs(t.Context(), id, LogOptions{}, nil); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// Nothing is left open when all that was done is undone.
func TestNothingLeftOpen(t *testing.T) {
	count := func() (int, int) {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds), runtime.NumGoroutine()
	}
	dir := t.TempDir()
	once := func() {
		m := openIn(t, dir)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				j := start(t, m, sh("echo ready; exec sleep 1000"))
				until(t, m, j.ID, "ready")
				if _, err := m.Stop(t.Context(), j.ID, StopOptions{Kill: true}); err != nil {
					t.Error(err)
				}
				start(t, m, Spec{Run: spec.Run{Args: []string{"/no/such/program"}}, Terms: Terms{Input: []byte("x")}})
				start(t, m, Spec{Run: spec.Run{Args: []string{"true"}, Dir: "/no/such/folder"}})
			})
		}
		all.Wait()
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	once() // what is opened once for all
	fds, routines := count()
	once()
	eventually(t, fmt.Sprintf("%d descriptors and %d goroutines as before", fds, routines), func() bool {
		f, r := count()
		return f <= fds && r <= routines
	})
	if left, err := os.ReadDir(filepath.Join(dir, "run")); err != nil || len(left) != 0 {
		t.Errorf("sockets left: %v, %v", left, err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "state", "exits")); err != nil || len(left) != 0 {
		t.Errorf("exit records left: %v, %v", left, err)
	}
}

func TestClosed(t *testing.T) {
	m := open(t)
	j := start(t, m, sh("echo ready; exec sleep 1000"))
	until(t, m, j.ID, "ready")
	pid := j.PID
	errs := make(chan error, 2)
	following := make(chan struct{})
	go func() {
		errs <- m.StreamLogs(t.Context(), j.ID, LogOptions{Follow: true}, func(log.Entry) error { close(following); return nil })
	}()
	go func() { _, err := m.Wait(t.Context(), j.ID); errs <- err }()
	<-following
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-errs; !errors.Is(err, ErrClosed) {
			t.Errorf("who waited: %v", err)
		}
	}
	_, startErr := m.Start(t.Context(), sh("true"))
	_, stopErr := m.Stop(t.Context(), j.ID, StopOptions{})
	_, waitErr := m.Wait(t.Context(), "aaaaaaaaaaaaaaaa")
	_, findErr := m.Status("aaaa")
	_, listErr := m.List(Filter{Ended: true})
	for _, err := range []error{startErr, stopErr, waitErr, findErr, listErr} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	shim := parent(t, pid)
	signal(t, pid, unix.SIGKILL) // it still runs
	gone(t, shim)
}

// An end that cannot be recorded is not lost: it can be asked for, and the shim writes it down.
func TestDiskFails(t *testing.T) {
	dir := t.TempDir()
	m := openIn(t, dir)
	s := sh("trap 'echo done; exit 7' USR1; echo ready; while :; do sleep 0.02; done")
	s.Volatile = true
	j := start(t, m, s)
	until(t, m, j.ID, "ready")
	if err := m.records.Close(); err != nil {
		t.Fatal(err)
	}
	signal(t, j.PID, unix.SIGUSR1)
	if j := wait(t, m, j.ID); j.Exit.Code != 7 {
		t.Errorf("%+v", j.Exit)
	}
	eventually(t, "the shim writes its record", func() bool {
		_, err := os.Stat(m.opts.recordPath(j.ID))
		return err == nil
	})
	if j, err := m.Status(j.ID); err != nil || j.State != Ended {
		t.Errorf("%s, %v", j.State, err)
	}
	_ = m.Close() // the store is closed already
	m = openIn(t, dir)
	defer end(t, m)
	if j := wait(t, m, j.ID); j.Exit == nil || j.Exit.Code != 7 {
		t.Errorf("the next engine knows %+v", j.Exit)
	}
}

// One damaged record does not keep the others from being found.
func TestDamagedRecord(t *testing.T) {
	dir := t.TempDir()
	m := openIn(t, dir)
	good, bad := start(t, m, sh(obedient)), start(t, m, sh("exec sleep 1000"))
	until(t, m, good.ID, "ready")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	shim := parent(t, bad.PID)
	defer gone(t, shim)
	defer signal(t, bad.PID, unix.SIGKILL)
	db, err := bbolt.Open(filepath.Join(dir, "state", "jobs.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("records"))
		return b.Put([]byte(bad.ID), append(slices.Clone(b.Get([]byte(bad.ID))[:13]), 0xff, 0xff))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	m = openIn(t, dir)
	defer end(t, m)
	if j, err := m.Status(good.ID); err != nil || j.State != Running {
		t.Errorf("%s, %v", j.State, err)
	}
	if jobs, err := m.List(Filter{Ended: true}); err != nil || len(jobs) != 1 {
		t.Errorf("%d jobs, %v", len(jobs), err)
	}
	if _, err := m.Status(bad.ID); err == nil {
		t.Error("the damaged one is as good as new")
	}
}

package job

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// one is a task of which one job may run at a time. It prints its input, and waits for SIGUSR1 if that is "wait".
func one(input string) Spec {
	s := sh(`read -r in; trap 'exit 0' USR1; echo "$in"; [ "$in" != wait ] || while :; do sleep 0.02; done`)
	s.Task, s.MaxConcurrent, s.Overflow, s.MaxQueue, s.Input = "one", 1, spec.Queue, 3, []byte(input+"\n")
	return s
}

// self is the user of this test, who may write into its folders.
func self() *User {
	return UserOf(spec.Credentials{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
}

func TestQueue(t *testing.T) {
	m := open(t)
	first := start(t, m, one("wait"))
	until(t, m, first.ID, "wait")
	reject := one("x")
	reject.Overflow = spec.Reject
	if _, err := m.Start(t.Context(), reject); !errors.Is(err, ErrConcurrency) {
		t.Errorf("reject: %v", err)
	}
	var waiting []Job
	for _, in := range []string{"a", "b", "c"} {
		j := start(t, m, one(in))
		if j.State != Queued || j.PID != 0 || !j.StartedAt.IsZero() {
			t.Errorf("%s: %s, PID %d, started %v", in, j.State, j.PID, j.StartedAt)
		}
		waiting = append(waiting, j)
	}
	if _, err := m.Start(t.Context(), one("d")); !errors.Is(err, ErrQueueFull) {
		t.Errorf("a fourth: %v", err)
	}
	// Another task is not held up, and a stopped one never runs.
	if r, err := m.Run(t.Context(), sh("echo other"), nil); err != nil || !r.Succeeded() {
		t.Errorf("another task: %v", err)
	}
	if j, err := m.Stop(t.Context(), waiting[1].ID, StopOptions{By: "ada"}); err != nil || j.State != Ended || j.Exit.Reason != spec.Stopped || !j.StartedAt.IsZero() {
		t.Errorf("stopped: %+v, %v", j.Exit, err)
	}
	signal(t, first.PID, unix.SIGUSR1)
	a, c := wait(t, m, waiting[0].ID), wait(t, m, waiting[2].ID)
	if output(t, m, a.ID) != "a\n" || output(t, m, c.ID) != "c\n" {
		t.Errorf("output %q and %q", output(t, m, a.ID), output(t, m, c.ID))
	}
	if f := wait(t, m, first.ID); a.StartedAt.Before(f.EndedAt) || c.StartedAt.Before(a.EndedAt) {
		t.Errorf("they ran side by side: %v to %v, then %v to %v, then %v", f.StartedAt, f.EndedAt, a.StartedAt, a.EndedAt, c.StartedAt)
	}
	noneInUse(t, m)
}

// A client that calls again as soon as it has its answer is never refused.
func TestTurnIsBackBeforeTheAnswer(t *testing.T) {
	m := open(t)
	s := Spec{
		Run:   spec.Run{Task: "one", Args: []string{"/bin/true"}},
		Terms: Terms{Policy: spec.Policy{MaxConcurrent: 1, Overflow: spec.Reject, Keep: time.Minute}, Volatile: true},
	}
	for i := range 300 {
		if r, err := m.Run(t.Context(), s, nil); err != nil || !r.Succeeded() {
			t.Fatalf("call %d: %v, %+v", i, err, r.Exit)
		}
	}
}

// What waits is on record: the next Manager starts it, with its input, once.
func TestQueueReopen(t *testing.T) {
	dir := t.TempDir()
	m := openIn(t, dir)
	first := start(t, m, one("wait"))
	until(t, m, first.ID, "wait")
	long := strings.Repeat("0123456789", maxInline/10+1)
	short, big := start(t, m, one("short")), start(t, m, one(long))
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = openIn(t, dir)
	defer end(t, m)
	for _, j := range []Job{short, big} {
		if now, err := m.Status(j.ID); err != nil || now.State != Queued {
			t.Errorf("%s, %v", now.State, err)
		}
	}
	signal(t, first.PID, unix.SIGUSR1)
	if j := wait(t, m, short.ID); !j.Succeeded() || output(t, m, j.ID) != "short\n" {
		t.Errorf("%+v %q", j.Exit, output(t, m, j.ID))
	}
	if j := wait(t, m, big.ID); !j.Succeeded() || output(t, m, j.ID) != long+"\n" {
		t.Errorf("%+v, %d bytes", j.Exit, len(output(t, m, j.ID)))
	}
	m.runner.ender.recorder.now()
	eventually(t, "no input is left", func() bool {
		left, err := os.ReadDir(filepath.Join(dir, "state", "inputs"))
		return err == nil && len(left) == 0
	})
}

// A job that was given to a slot and that no shim took is started by the next Manager; one that a shim took is not.
func TestReopenBetweenDispatchAndStart(t *testing.T) {
	for name, taken := range map[string]bool{"not taken": false, "taken": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			m := openIn(t, dir)
			ran := filepath.Join(dir, "ran")
			s := sh("echo ran >>" + ran)
			s.Task, s.As = "t", self()
			a := admittedNow(t, m, &s)
			if _, err := m.starter.placer.place(t.Context(), &s, a); err != nil {
				t.Fatal(err)
			}
			j := a.l.snapshot()
			claim := filepath.Join(dir, "run", j.ID+".claim")
			if taken {
				claim += ".taken"
			}
			if err := os.WriteFile(claim, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			m.jobs.workers.Done() // nobody launches it
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			m = openIn(t, dir)
			defer end(t, m)
			j = wait(t, m, j.ID)
			got, err := os.ReadFile(ran)
			switch {
			case taken && (j.Exit.Reason != spec.Lost || !errors.Is(err, os.ErrNotExist)):
				t.Errorf("%+v, ran %q", j.Exit, got)
			case !taken && (!j.Succeeded() || string(got) != "ran\n"):
				t.Errorf("%+v, ran %q", j.Exit, got)
			}
			m.runner.ender.recorder.now()
			eventually(t, "no claim is left", func() bool {
				left, err := filepath.Glob(filepath.Join(dir, "run", "*.claim*"))
				return err == nil && len(left) == 0
			})
		})
	}
}

// Whoever asks again with a job's id gets that job, whether it runs, has just ended, or is on record.
func TestAgain(t *testing.T) {
	m := open(t)
	s := sh("echo once >>" + filepath.Join(t.TempDir(), "ran") + "; echo out")
	s.As = self()
	s.ID, s.Task, s.Owner, s.Volatile = newID(), "t", Owner{Key: "k", Name: "demo"}, true
	for range 2 {
		if r, err := m.Run(t.Context(), s, nil); err != nil || r.ID != s.ID || string(r.Stdout) != "out\n" {
			t.Errorf("%s %q, %v", r.ID, r.Stdout, err)
		}
	}
	m.runner.ender.recorder.now()
	eventually(t, "it is on record", func() bool { _, err := m.records.Get(s.ID); return err == nil })
	if r, err := m.Run(t.Context(), s, nil); err != nil || string(r.Stdout) != "out\n" {
		t.Errorf("from the records: %q, %v", r.Stdout, err)
	}
	other := s
	other.Owner.Key = "another"
	if _, err := m.Run(t.Context(), other, nil); !errors.Is(err, ErrTaken) {
		t.Errorf("another's: %v", err)
	}
	other = s
	other.Task = "another"
	if _, err := m.Start(t.Context(), other); !errors.Is(err, ErrTaken) {
		t.Errorf("another task's: %v", err)
	}
	other.ID = "../../etc"
	if _, err := m.Start(t.Context(), other); !errors.Is(err, ErrInvalid) {
		t.Errorf("no id: %v", err)
	}
	if b, err := filepath.Glob(m.opts.LogDir + "/*"); err != nil || len(b) != 1 {
		t.Errorf("logs %v", b)
	}
}

// Whoever asks for an id again while its first request is being put on record waits for that. Where it cannot be, the id is free once
// nothing is left of the first, and what the second one leaves stays.
func TestAgainWhileItIsPlaced(t *testing.T) {
	m := open(t)
	s := sh("wc -c")
	s.ID, s.Task, s.As, s.Input = newID(), "t", self(), make([]byte, maxInline+1)
	first := s
	a := admittedNow(t, m, &first)
	if err := m.starter.placer.keepInput(a.l); err != nil {
		t.Fatal(err)
	}
	second := make(chan Job, 1)
	go func() {
		j, err := m.Start(t.Context(), s)
		if err != nil {
			t.Error(err)
		}
		second <- j
	}()
	select {
	case j := <-second:
		t.Fatalf("a job that is not on record was answered: %s", j.State)
	case <-time.After(100 * time.Millisecond):
	}
	if !m.starter.placer.forget(a.l) { // as if it could not be recorded
		t.Fatal("it was kept")
	}
	j := <-second
	if j.Repeated || j.ID != s.ID {
		t.Errorf("%s, repeated %v", j.ID, j.Repeated)
	}
	if j := wait(t, m, s.ID); !j.Succeeded() || strings.TrimSpace(output(t, m, s.ID)) != strconv.Itoa(maxInline+1) {
		t.Errorf("%+v %q", j.Exit, output(t, m, s.ID))
	}
	if again, err := m.Start(t.Context(), s); err != nil || !again.Repeated {
		t.Errorf("again: %v, %v", again.Repeated, err)
	}
	noneInUse(t, m)
}

// A job whose turn came, and whose start cannot be recorded, is left to the next Manager. The slot that it was to have ends with this
// one, which does not wait for it.
func TestCloseWithATurnUnrecorded(t *testing.T) {
	dir := t.TempDir()
	m := openIn(t, dir)
	s := one("wait")
	s.As, s.Keep = self(), time.Minute
	first := start(t, m, s)
	until(t, m, first.ID, "wait")
	s.Input = []byte("next\n")
	second := start(t, m, s)
	if err := m.records.Close(); err != nil { // from here on nothing can be written
		t.Fatal(err)
	}
	signal(t, first.PID, unix.SIGUSR1)
	eventually(t, "it has the slot of the first", func() bool {
		j, err := m.Status(second.ID)
		return err == nil && j.Slot == first.Slot
	})
	closed := make(chan struct{})
	go func() {
		_ = m.Close() // the records are closed already
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Fatal("Close hangs")
	}
	m = openIn(t, dir)
	defer end(t, m)
	if j := wait(t, m, second.ID); !j.Succeeded() || output(t, m, j.ID) != "next\n" {
		t.Errorf("%+v, %q", j.Exit, output(t, m, j.ID))
	}
}

// Slots are kept for the same configuration, end when it changes or time is up, and are ready before they are needed.
func TestSlots(t *testing.T) {
	m := open(t)
	shim := func(s Spec) int {
		t.Helper()
		r, err := m.Run(t.Context(), s, nil)
		if err != nil || !r.Succeeded() {
			t.Fatalf("%+v, %v", r.Exit, err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(r.Stdout)))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	s := sh(`echo $PPID`)
	s.Task, s.Keep, s.Config = "t", time.Minute, "1"
	first := shim(s)
	if again := shim(s); again != first {
		t.Error("a second job has another shim")
	}
	s.Config = "2"
	if other := shim(s); other == first {
		t.Error("a job of another configuration has the same shim")
	}
	s.Limits = spec.Limits{}
	m.SetTasks([]Spec{s})
	gone(t, first)
	second := shim(s)
	alone := s
	alone.Keep = 0
	gone(t, shim(alone))
	if shim(s) != second {
		t.Error("a slot did not stay")
	}
	m.SetTasks(nil)
	gone(t, second)

	s.Warm = 2
	m.SetTasks([]Spec{s})
	idle := func() int {
		m.pool.mu.Lock()
		defer m.pool.mu.Unlock()
		n := 0
		for _, list := range m.pool.idle {
			n += len(list)
		}
		return n
	}
	eventually(t, "two slots wait", func() bool { return idle() == 2 })
	long := start(t, m, func() Spec { l := s; l.Args = []string{"sleep", "1000"}; return l }())
	eventually(t, "two slots wait again", func() bool { return idle() == 2 })
	if _, err := m.Stop(t.Context(), long.ID, StopOptions{Kill: true}); err != nil {
		t.Fatal(err)
	}
	// One that is killed is not used, and another one comes.
	victim := shim(s)
	signal(t, victim, unix.SIGKILL)
	gone(t, victim)
	if got := shim(s); got == victim {
		t.Error("a job ran in a slot without a shim")
	}
	eventually(t, "two slots wait once more", func() bool { return idle() >= 2 })
	m.SetTasks(nil)
	eventually(t, "none waits", func() bool { return idle() == 0 })
	noneInUse(t, m)
}

// TestWarmForOneJob: a slot that is kept ready for a task without keep knows that it gets one job, whoever opened it.
func TestWarmForOneJob(t *testing.T) {
	m := open(t)
	s := sh("echo $PPID")
	s.Task, s.Config, s.Warm = "t", "1", 1
	m.SetTasks([]Spec{s})
	ready := func() *slot {
		m.pool.mu.Lock()
		defer m.pool.mu.Unlock()
		for _, list := range m.pool.idle {
			return list[0]
		}
		return nil
	}
	var last *slot
	for range 3 {
		eventually(t, "another slot waits", func() bool { s := ready(); return s != nil && s != last })
		if last = ready(); !last.open.Single() {
			t.Error("it expects more than one job")
		}
		j := wait(t, m, start(t, m, s).ID)
		if shim, err := strconv.Atoi(strings.TrimSpace(output(t, m, j.ID))); err != nil || j.Slot != last.id {
			t.Errorf("a job ran in slot %s and not in %s, %v", j.Slot, last.id, err)
		} else {
			gone(t, shim)
		}
	}
	m.SetTasks(nil)
	noneInUse(t, m)
}

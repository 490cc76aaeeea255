package job

import (
	"errors"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// once is a job that is to be done once.
func once(script, key string) Spec {
	s := sh(script)
	s.Once = Once{Key: key, Until: time.Now().Add(time.Hour)}
	return s
}

func TestOnce(t *testing.T) {
	dir := t.TempDir()
	m := openIn(t, dir)
	repeated := func(s Spec, of string) {
		t.Helper()
		var repeat *RepeatError
		if j, err := m.Start(t.Context(), s); !errors.As(err, &repeat) || repeat.ID != of {
			t.Errorf("job %q, %v; want a repeat of %s", j.ID, err, of)
		}
	}
	// While it runs, and once it has succeeded; for the next Manager, too.
	j := start(t, m, once("sleep 0.3", "a"))
	repeated(once("true", "a"), j.ID)
	wait(t, m, j.ID)
	repeated(once("true", "a"), j.ID)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = openIn(t, dir)
	defer func() { end(t, m) }()
	repeated(once("true", "a"), j.ID)
	// Whoever asks under the id of the first one gets the first one.
	s := once("true", "a")
	s.ID = j.ID
	if again, err := m.Start(t.Context(), s); err != nil || again.ID != j.ID {
		t.Errorf("%+v, %v", again, err)
	}
	// What failed was not done, also in the moment before its end is on record.
	for range 5 {
		failed := start(t, m, once("exit 3", "b"))
		wait(t, m, failed.ID)
	}
	stopped := start(t, m, once("sleep 60", "b"))
	if _, err := m.Stop(t.Context(), stopped.ID, StopOptions{By: "ada", Kill: true}); err != nil {
		t.Fatal(err)
	}
	done := start(t, m, once("true", "b"))
	wait(t, m, done.ID)
	repeated(once("true", "b"), done.ID)
	// A repeat takes nobody's turn and no place in the queue.
	limited := once("sleep 60", "c")
	limited.Task, limited.MaxConcurrent, limited.Overflow = "t", 1, spec.Reject
	first := start(t, m, limited)
	repeated(limited, first.ID)
	other := limited
	other.Once = Once{}
	if _, err := m.Start(t.Context(), other); !errors.Is(err, ErrConcurrency) {
		t.Error(err)
	}
	// A claim is held against the moment at which the request was looked at, however long it takes.
	held := start(t, m, once("true", "e"))
	wait(t, m, held.ID)
	m.runner.ender.recorder.now()
	eventually(t, "it is on record", func() bool { return !m.jobs.has(held.ID) })
	late := once("true", "e")
	late.Once.At = held.Once.Until
	repeated(late, held.ID)
	late.Once.At = held.Once.Until.Add(time.Nanosecond)
	if j := start(t, m, late); j.ID == held.ID {
		t.Error("what has expired is known")
	}
	// Where a repeat is to be answered, it gets the first one's job, with what that wrote.
	told := once("echo out", "f")
	told.Once.Answer = true
	said, err := m.Run(t.Context(), told, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := m.Run(t.Context(), told, nil); err != nil || again.ID != said.ID || string(again.Stdout) != "out\n" {
		t.Errorf("%s %q, %v", again.ID, again.Stdout, err)
	}
	m.runner.ender.recorder.now()
	eventually(t, "it is on record", func() bool { return !m.jobs.has(said.ID) })
	if err := m.records.Delete(said.ID); err != nil {
		t.Fatal(err)
	}
	repeated(told, said.ID) // of whom nothing else is known
	volatile := once("true", "d")
	volatile.Volatile = true
	if _, err := m.Start(t.Context(), volatile); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

// TestOnceBeforeItsRecord: what failed can be done again before its end is on record, and has no say any more once that is.
func TestOnceBeforeItsRecord(t *testing.T) {
	m := open(t)
	s := once(obedient, "a")
	failed := start(t, m, s)
	until(t, m, failed.ID, "ready")
	l := m.jobs.get(failed.ID)
	l.writing.Lock() // so that its end cannot be recorded
	record := sync.OnceFunc(l.writing.Unlock)
	defer record()
	signal(t, failed.PID, unix.SIGUSR1)
	wait(t, m, failed.ID)
	again := start(t, m, once("true", "a"))
	wait(t, m, again.ID)
	record()
	noneInUse(t, m)
	eventually(t, "both are on record", func() bool { return !m.jobs.has(failed.ID) && !m.jobs.has(again.ID) })
	if j, err := m.Status(failed.ID); err != nil || j.State != Ended || j.Succeeded() {
		t.Errorf("%s %+v, %v", j.State, j.Exit, err)
	}
	var repeat *RepeatError
	if _, err := m.Start(t.Context(), s); !errors.As(err, &repeat) || repeat.ID != again.ID {
		t.Errorf("%v; want a repeat of %s", err, again.ID)
	}
}

// Of many that come at the same time one runs, and the others leave no turn, slot or record behind.
func TestOnceRace(t *testing.T) {
	m := open(t)
	s := once("true", "a")
	s.Task, s.MaxConcurrent, s.Overflow, s.MaxQueue = "t", 1, spec.Queue, 1000
	var wg sync.WaitGroup
	started := make(chan Job, 50)
	for range cap(started) {
		wg.Go(func() {
			j, err := m.Start(t.Context(), s)
			if repeat := (*RepeatError)(nil); err == nil {
				started <- j
			} else if !errors.As(err, &repeat) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	close(started)
	if len(started) != 1 {
		t.Fatalf("%d jobs were started", len(started))
	}
	wait(t, m, (<-started).ID)
	eventually(t, "only one job is there", func() bool {
		all, err := m.List(Filter{Ended: true})
		return err == nil && len(all) == 1 && m.Running() == 0
	})
	noneInUse(t, m)
}

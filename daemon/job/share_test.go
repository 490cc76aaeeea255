package job

import (
	"errors"
	"testing"

	"github.com/rtask/rtask/daemon/job/admission"
	"github.com/rtask/rtask/sandbox/spec"
)

// keyed is a job of a task that an API key started over HTTP.
func keyed(key, script string) Spec {
	s := sh(script)
	s.Task, s.Owner, s.Trigger = "t", Owner{Key: key, Name: key}, "http"
	return s
}

// One key can have max_jobs, and others get theirs all the same.
func TestShareOfMaxJobs(t *testing.T) {
	m := open(t, func(o *Options) { o.MaxJobs = 16 })
	fill := func(s Spec) int {
		t.Helper()
		for n := 0; ; n++ {
			if _, err := m.Start(t.Context(), s); errors.Is(err, ErrTooMany) {
				return n
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := fill(keyed("a", "exec sleep 1000")); n != 16 {
		t.Errorf("one key has %d of 16", n)
	}
	hook := keyed("", "exec sleep 1000")
	hook.Owner, hook.Trigger = Owner{Name: "webhook:x"}, "webhook"
	if n := fill(hook); n != 1 {
		t.Errorf("a webhook has %d of the reserve", n)
	}
	if n := fill(keyed("b", "exec sleep 1000")); n != 1 || m.Running() != 18 {
		t.Errorf("another key has %d of the reserve, and %d run", n, m.Running())
	}
	// What ends makes room for those that have little.
	theirs := m.jobs.those(func(j Job) bool { return j.Owner.Key == "b" })[0]
	if _, err := m.Stop(t.Context(), theirs.ID, StopOptions{Kill: true}); err != nil {
		t.Fatal(err)
	}
	if n := fill(keyed("a", "exec sleep 1000")); n != 0 {
		t.Errorf("the greedy one gets %d of it", n)
	}
	start(t, m, keyed("c", "exec sleep 1000"))
	end(t, m)
	m.jobs.mu.Lock()
	defer m.jobs.mu.Unlock()
	if !m.jobs.admission.Empty() {
		t.Error("something of jobs that have ended is still counted")
	}
}

// In the queue of a task nobody waits behind a key that may have no more jobs.
func TestShareInTheQueue(t *testing.T) {
	m := open(t, func(o *Options) { o.MaxJobs = 8 })
	s := keyed("a", "exec sleep 1000")
	s.MaxConcurrent, s.Overflow, s.MaxQueue = 1, spec.Queue, 10
	first := start(t, m, s)
	mine, theirs := s, s
	mine.ID, theirs.ID, theirs.Owner = newID(), newID(), Owner{Key: "b", Name: "b"}
	start(t, m, mine)
	start(t, m, theirs)
	other := keyed("a", "exec sleep 1000")
	other.Task = "u"
	for range 7 {
		start(t, m, other)
	}
	third := keyed("c", "exec sleep 1000")
	third.Task = "u"
	start(t, m, third) // which has the reserve
	if _, err := m.Stop(t.Context(), first.ID, StopOptions{Kill: true}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other key's job runs", func() bool {
		j, err := m.Status(theirs.ID)
		return err == nil && j.State == Running
	})
	if j, err := m.Status(mine.ID); err != nil || j.State != Queued {
		t.Errorf("%s, %v", j.State, err)
	}
}

// The inputs of all jobs that wait are bounded, for each owner and in all, and so is the memory that they take.
func TestWaitingInputsAreBounded(t *testing.T) {
	m := open(t)
	busy := keyed("a", "exec sleep 1000")
	busy.MaxConcurrent = 1
	running := start(t, m, busy)
	const size = 4 << 20
	s := keyed("a", `test "$(wc -c)" = 4194304`)
	s.MaxConcurrent, s.Overflow, s.MaxQueue, s.Input = 1, spec.Queue, 1000, make([]byte, size)
	var waiting []Job
	var others *admission.Ticket
	for {
		j, err := m.Start(t.Context(), s)
		if errors.Is(err, ErrQueueFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if waiting = append(waiting, j); len(waiting) == 3 {
			// The rest is as if it waited, so that the disk is not filled with it.
			m.jobs.mu.Lock()
			others = m.jobs.admission.Restore(admission.Request{ID: newID(), Task: "other", Share: j.share(), Input: admission.MaxInputs/9*8 - 5*size}, true)
			m.jobs.mu.Unlock()
		}
	}
	small := s
	small.Input = nil
	waiting = append(waiting, start(t, m, small)) // what has no input takes no room
	small.Args = []string{"/bin/sh", "-c", `test "$(wc -c)" = 0`}
	other := s
	other.Owner = Owner{Key: "b", Name: "b"}
	start(t, m, other)
	m.jobs.mu.Lock()
	for _, l := range m.jobs.live {
		if l.ticket.Waits() && len(l.input) > maxInline {
			t.Errorf("job %s keeps %d bytes in memory", l.job.ID, len(l.input))
		}
	}
	m.jobs.mu.Unlock()
	if _, err := m.Stop(t.Context(), waiting[len(waiting)-1].ID, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Stop(t.Context(), running.ID, StopOptions{Kill: true}); err != nil {
		t.Fatal(err)
	}
	for _, j := range waiting[:len(waiting)-1] {
		if j := wait(t, m, j.ID); !j.Succeeded() {
			t.Errorf("%+v", j.Exit)
		}
	}
	m.jobs.mu.Lock()
	m.jobs.admission.Leave(others)
	m.jobs.mu.Unlock()
	eventually(t, "nothing is held any more", func() bool {
		m.jobs.mu.Lock()
		defer m.jobs.mu.Unlock()
		return m.jobs.admission.Empty()
	})
}

// Jobs that have ended and wait for room for what they trigger are bounded: beyond that no job starts that may trigger more.
func TestOwingIsBounded(t *testing.T) {
	m := open(t)
	m.StartTriggered(func(string) (Spec, error) { return Spec{}, ErrNotNow })
	s := keyed("a", "exit 3")
	s.OnFailure = []string{"note"}
	j := start(t, m, s)
	wait(t, m, j.ID)
	eventually(t, "it owes", func() bool {
		m.jobs.mu.Lock()
		defer m.jobs.mu.Unlock()
		return len(m.jobs.owing) == 1
	})
	m.jobs.mu.Lock()
	for range admission.MaxOwing * 8 / 9 {
		m.jobs.admission.Owe("key/a") // as if so many had
	}
	m.jobs.mu.Unlock()
	if _, err := m.Start(t.Context(), s); !errors.Is(err, ErrTooMany) {
		t.Errorf("%v", err)
	}
	s.OnFailure = nil
	start(t, m, s)
	s.Owner, s.OnFailure = Owner{Key: "b", Name: "b"}, []string{"note"}
	start(t, m, s)
}

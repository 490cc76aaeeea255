package job

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bothAdmitted are two requests of which the second became part of the job that the first is, and nothing is on disk of either. It returns
// their specifications and admissions, for a test that lets the first fail.
func bothAdmitted(t *testing.T, m *Manager) (specs [2]Spec, both [2]admitted) {
	t.Helper()
	first := start(t, m, coalesced("wait", "main"))
	until(t, m, first.ID, "wait")
	for k := range both {
		specs[k] = coalesced(fmt.Sprint(k), "main")
		specs[k].ID = newID()
		specs[k].Once = Once{Key: fmt.Sprint("once/", k), Until: time.Now().Add(time.Hour)}
		both[k] = admittedNow(t, m, &specs[k])
	}
	if both[1].joined == nil {
		t.Fatal("the second request did not join the first")
	}
	return specs, both
}

func admittedNow(t *testing.T, m *Manager, s *Spec) admitted {
	t.Helper()
	if err := m.starter.admitter.check(s); err != nil {
		t.Fatal(err)
	}
	a, err := m.starter.admitter.admit(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestJoinedIsNotUndone forgets a job before the record of a request that joined it was begun. The client comes again with the same id and is
// a job on its own: that one's record and hold stay.
func TestJoinedIsNotUndone(t *testing.T) {
	m := open(t)
	specs, both := bothAdmitted(t, m)
	if !m.starter.placer.forget(both[0].l) {
		t.Fatal("the job was not forgotten")
	}
	again := specs[1]
	j, err := m.Start(t.Context(), again)
	if err != nil || j.State != Queued || j.ID != again.ID {
		t.Fatal(j, err)
	}
	if err := m.starter.placer.placeJoined(t.Context(), &specs[1], both[1]); err == nil {
		t.Error("the request became part of a forgotten job")
	}
	if _, err := m.records.get(j.ID); err != nil {
		t.Errorf("the record of the accepted job: %v", err)
	}
	if id, err := m.records.Holder(again.Once.Key, time.Time{}); id != j.ID {
		t.Errorf("its key is held by %q: %v", id, err)
	}
}

// TestJoinedElsewhere is TestJoinedIsNotUndone with a client whose second request joins another job.
func TestJoinedElsewhere(t *testing.T) {
	m := open(t)
	specs, both := bothAdmitted(t, m)
	if !m.starter.placer.forget(both[0].l) {
		t.Fatal("the job was not forgotten")
	}
	start(t, m, coalesced("third", "main"))
	j, err := m.Start(t.Context(), specs[1])
	if err != nil || j.Into == "" {
		t.Fatal(j, err)
	}
	if err := m.starter.placer.placeJoined(t.Context(), &specs[1], both[1]); err == nil {
		t.Error("the request became part of a forgotten job")
	}
	if l, _, _ := m.jobs.remembered(j.ID); l == nil {
		t.Error("the id of the accepted request is forgotten")
	}
}

// TestEndWithRefusedAlias ends a job of which one request could not be recorded. Its sender has come again, so its key belongs to the second
// request: the first one's record is refused for ever, and the job's end is on record all the same.
func TestEndWithRefusedAlias(t *testing.T) {
	m := open(t)
	first := start(t, m, coalesced("wait", "main"))
	until(t, m, first.ID, "wait")
	waits := start(t, m, coalesced("a", "main"))
	s := coalesced("b", "main")
	s.Once = Once{Key: "hook/1", Until: time.Now().Add(time.Hour), At: time.Now()}
	lost := s
	a := admittedNow(t, m, &lost)
	if a.joined == nil {
		t.Fatal("the request did not join the job that waits")
	}
	close(a.joined.alias.settled) // its commit failed
	if again := start(t, m, s); again.Into != waits.ID {
		t.Fatalf("the second request: %+v", again)
	}
	signal(t, first.PID, unix.SIGUSR1)
	wait(t, m, waits.ID)
	eventually(t, "the end is on record", func() bool {
		j, err := m.records.get(waits.ID)
		return err == nil && j.State == Ended && !m.jobs.has(waits.ID)
	})
}

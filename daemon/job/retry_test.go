package job

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// tried is a job of the task "main" that writes down what it is told and its input, for each attempt, and fails until there are as many
// lines as should be.
func tried(dir string, fails, attempts int, delay time.Duration) Spec {
	file := filepath.Join(dir, "tries")
	s := sh(`echo "$RTASK_TRIGGER $GIVEN $OWN $(cat)" >>` + file + `; test $(wc -l <` + file + `) -gt ` + strconv.Itoa(fails))
	s.Task, s.As = "main", UserOf(spec.Credentials{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
	s.Env, s.Input = []string{"OWN=own", "GIVEN=given"}, []byte("input")
	s.Retry = Retry{Attempts: attempts, Delay: delay, Given: []string{"GIVEN=given"}}
	s.OnFailure, s.OnSuccess = []string{"note"}, []string{"note"}
	s.Owner, s.Trigger = Owner{UID: uint32(os.Geteuid()), Name: "ada"}, "local"
	return s
}

// tries opens a Manager that has the tasks main, as tried would be without a request, and note.
func tries(t testing.TB, dir string, fails int, change ...func(*Options)) *Manager {
	t.Helper()
	m := openIn(t, dir, change...)
	m.StartTriggered(func(task string) (Spec, error) {
		if task == "note" {
			return note(filepath.Join(dir, "notes")), nil
		}
		s := tried(dir, fails, 9, 0)
		s.Env, s.Input, s.Retry.Given = []string{"OWN=new"}, nil, nil
		return s, nil
	})
	return m
}

func read(t testing.TB, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// A job that fails is tried again until it succeeds, or there were as many attempts as may be, each with the input and the variables of
// the request. Only the last one triggers, and each belongs to who started the first.
func TestRetry(t *testing.T) {
	for name, c := range map[string]struct {
		fails, attempts, want int
		status                string
	}{
		"succeeds":     {2, 5, 3, "success"},
		"never":        {9, 3, 3, "failure"},
		"at once":      {0, 3, 1, "success"},
		"one only":     {9, 1, 1, "failure"},
		"not at all":   {9, 0, 1, "failure"},
		"at last":      {2, 3, 3, "success"},
		"nearly never": {3, 3, 3, "failure"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := shared(t)
			m := tries(t, dir, c.fails)
			defer end(t, m)
			first := start(t, m, tried(dir, c.fails, c.attempts, time.Millisecond))
			wait(t, m, first.ID)
			eventually(t, "the last one has triggered", func() bool { return read(t, filepath.Join(dir, "notes"))[0] != "" })
			got := read(t, filepath.Join(dir, "tries"))
			want := []string{"local given own input"}
			for range c.want - 1 {
				want = append(want, "retry given new input")
			}
			if !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
			if notes := read(t, filepath.Join(dir, "notes")); len(notes) != 1 || !strings.Contains(notes[0], "RTASK_ON_STATUS="+c.status) {
				t.Errorf("%q", notes)
			}
			// Each names the first one and the one before it, and keeps no input when it is over.
			j, n := status(t, m, first.ID), 1
			for ; len(j.Triggered) == 1 && j.Triggered[0].Retry; n++ {
				if j.Input != nil || j.Owing {
					t.Errorf("%+v", j)
				}
				next := status(t, m, j.Triggered[0].Job)
				if next.By != j.ID || next.Retry.Of != first.ID || next.Trigger != RetryTrigger || next.Owner != first.Owner || next.share() != first.share() {
					t.Errorf("%+v", next)
				}
				j = next
			}
			if n != c.want {
				t.Errorf("%d attempts in a row, want %d", n, c.want)
			}
		})
	}
}

func status(t testing.TB, m *Manager, id string) Job {
	t.Helper()
	j, err := m.Status(id)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// An attempt that was owed when a Manager went, or whose job was lost, the next one makes, with the input of the first.
func TestRetryOfAnEarlierRun(t *testing.T) {
	dir := shared(t)
	m := openIn(t, dir) // it does not know the tasks
	j := start(t, m, tried(dir, 9, 3, time.Millisecond))
	wait(t, m, j.ID)
	eventually(t, "the end is recorded", func() bool { return m.Running() == 0 })
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		m = tries(t, dir, 9)
		eventually(t, "the last one has triggered", func() bool { return read(t, filepath.Join(dir, "notes"))[0] != "" })
		if got := read(t, filepath.Join(dir, "tries")); len(got) != 3 || got[2] != "retry given new input" {
			t.Errorf("%q", got)
		}
		lines(t, m, dir) // nothing is owed
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A job that is lost has failed, and its input is kept while it runs.
func TestRetryOfALostJob(t *testing.T) {
	dir := shared(t)
	m := tries(t, dir, 0)
	s := tried(dir, 0, 2, time.Millisecond)
	s.Args = []string{"/bin/sh", "-c", obedient}
	j := start(t, m, s)
	until(t, m, j.ID, "ready")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	shim := parent(t, j.PID)
	signal(t, shim, unix.SIGKILL)
	signal(t, j.PID, unix.SIGKILL)
	gone(t, shim)
	m = tries(t, dir, 0)
	defer end(t, m)
	eventually(t, "it is tried again", func() bool { return read(t, filepath.Join(dir, "notes"))[0] != "" })
	if got := read(t, filepath.Join(dir, "tries")); len(got) != 1 || got[0] != "retry given new input" {
		t.Errorf("%q", got)
	}
	if j = status(t, m, j.ID); j.Exit.Reason != spec.Lost {
		t.Errorf("%+v", j.Exit)
	}
}

// Who stops a job that waits to be tried again stops that, and what it would trigger. A drain does not wait for it, and it waits for the
// end of the drain.
func TestRetryRests(t *testing.T) {
	dir := shared(t)
	m := tries(t, dir, 9)
	defer end(t, m)
	j := start(t, m, tried(dir, 9, 2, time.Hour))
	wait(t, m, j.ID)
	m.Drain()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if ok, err := m.Drained(ctx); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if j = status(t, m, j.ID); !j.Owing {
		t.Errorf("%+v", j)
	}
	if _, err := m.Stop(t.Context(), j.ID, StopOptions{By: "ada"}); err != nil {
		t.Fatal(err)
	}
	if j = status(t, m, j.ID); j.Owing || len(j.Triggered) != 0 || j.Input != nil {
		t.Errorf("%+v", j)
	}
	m.Accept()
	// One whose time has come in a drain.
	if err := os.Remove(filepath.Join(dir, "tries")); err != nil {
		t.Fatal(err)
	}
	m.Drain()
	s := tried(dir, 1, 2, time.Millisecond)
	s.By = "accepted before"
	j = start(t, m, s)
	wait(t, m, j.ID)
	if ok, err := m.Drained(ctx); !ok || err != nil {
		t.Fatal(ok, err)
	}
	m.Accept()
	eventually(t, "it is tried again", func() bool { return read(t, filepath.Join(dir, "notes"))[0] != "" })
	if got := read(t, filepath.Join(dir, "tries")); len(got) != 2 {
		t.Errorf("%q", got)
	}
}

// A task that cannot run any more is not tried again: then the failure was the last. So it is with an input that is too long to keep.
func TestRetryImpossible(t *testing.T) {
	for name, long := range map[string]bool{"gone": false, "too long": true} {
		t.Run(name, func(t *testing.T) {
			dir := shared(t)
			m := openIn(t, dir)
			defer end(t, m)
			m.StartTriggered(func(task string) (Spec, error) {
				if task == "note" {
					return note(filepath.Join(dir, "notes")), nil
				}
				return Spec{}, ErrInvalid
			})
			s := tried(dir, 9, 3, time.Millisecond)
			if long {
				s.Args = []string{"/bin/sh", "-c", "exit 3"}
				s.Input = make([]byte, maxInline+1)
			}
			j := start(t, m, s)
			wait(t, m, j.ID)
			eventually(t, "its failure has triggered", func() bool { return read(t, filepath.Join(dir, "notes"))[0] != "" })
			lines(t, m, dir)
			if j = status(t, m, j.ID); len(j.Triggered) != 1 || j.Triggered[0].Task != "note" || j.Input != nil {
				t.Errorf("%+v", j)
			}
		})
	}
}

// A Manager that goes while it starts what the last failure triggers, since there can be no other attempt, leaves no attempt to the next
// one: that starts what is left, each task once.
func TestRetryImpossibleOverTwoRuns(t *testing.T) {
	dir := shared(t)
	m := openIn(t, dir)
	m.StartTriggered(func(task string) (Spec, error) {
		if task == "note" {
			return Spec{}, ErrNotNow
		}
		return Spec{}, ErrInvalid
	})
	j := start(t, m, tried(dir, 9, 3, time.Millisecond))
	wait(t, m, j.ID)
	eventually(t, "the failure was the last", func() bool {
		j = status(t, m, j.ID)
		return len(j.Triggered) > 0 && j.Triggered[len(j.Triggered)-1].Task == "note"
	})
	note := j.Triggered[len(j.Triggered)-1].Job
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = tries(t, dir, 9) // now it could be tried again
	defer end(t, m)
	lines(t, m, dir)
	if j = status(t, m, j.ID); len(j.Triggered) != 1 || j.Triggered[0].Job != note {
		t.Errorf("%+v", j.Triggered)
	}
	if got := read(t, filepath.Join(dir, "tries")); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

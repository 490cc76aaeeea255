package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// note is a task that writes down what it is told, one line for each run, into a file.
func note(file string) Spec {
	s := sh(`env | grep ^RTASK_ | sort | tr '\n' ' ' >>` + file + `; echo >>` + file)
	s.Task, s.As = "note", UserOf(spec.Credentials{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
	return s
}

// notes opens a Manager in dir that has the task note.
func notes(t testing.TB, dir string) *Manager {
	t.Helper()
	m := openIn(t, dir)
	m.StartTriggered(func(task string) (Spec, error) {
		if task != "note" {
			return Spec{}, fmt.Errorf("there is no %s", task)
		}
		return note(filepath.Join(dir, "notes")), nil
	})
	return m
}

// lines are what note wrote, once nothing is owed and nothing runs any more.
func lines(t testing.TB, m *Manager, dir string) []string {
	t.Helper()
	m.Drain()
	defer m.Accept()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if ok, err := m.Drained(ctx); !ok || err != nil {
		t.Fatal(ok, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "notes"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return slices.Collect(strings.Lines(string(b)))
}

// watched is a job of the task "main" that starts note when it fails, or succeeds.
func watched(script, trigger string) Spec {
	s := sh(script)
	s.Task = "main"
	if trigger == OnFailure {
		s.OnFailure = []string{"note"}
	} else {
		s.OnSuccess = []string{"note"}
	}
	return s
}

// Each end triggers what it should, and that is told of it.
func TestTriggers(t *testing.T) {
	long := watched("sleep 1000", OnFailure)
	slow := long
	slow.Timeout = 100 * time.Millisecond
	missing := watched("", OnFailure)
	missing.Args = []string{"/does/not/exist"}
	for name, c := range map[string]struct {
		spec Spec
		stop bool
		want string // what note is told, "" if it is not started
	}{
		"failure":                {watched("exit 3", OnFailure), false, "EXIT_CODE=3 REASON=exit-code STATUS=failure"},
		"success":                {watched("exit 0", OnSuccess), false, "EXIT_CODE=0 REASON= STATUS=success"},
		"failure, for success":   {watched("exit 3", OnSuccess), false, ""},
		"success, for failure":   {watched("exit 0", OnFailure), false, ""},
		"signal":                 {watched("kill -USR1 $$", OnFailure), false, "REASON=signal SIGNAL=SIGUSR1 STATUS=failure"},
		"real-time signal":       {watched("kill -37 $$", OnFailure), false, "REASON=signal SIGNAL=SIGRTMIN+3 STATUS=failure"},
		"timeout":                {slow, false, "REASON=timeout SIGNAL=SIGTERM STATUS=failure"},
		"setup":                  {missing, false, "EXIT_CODE=127 REASON=setup STATUS=failure"},
		"stopped":                {long, true, ""},
		"stopped, for a success": {watched("sleep 1000", OnSuccess), true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := shared(t)
			m := notes(t, dir)
			defer end(t, m)
			j := start(t, m, c.spec)
			if c.stop {
				if _, err := m.Stop(t.Context(), j.ID, StopOptions{By: "ada"}); err != nil {
					t.Fatal(err)
				}
			}
			wait(t, m, j.ID)
			got := lines(t, m, dir)
			j, err := m.Status(j.ID)
			if err != nil || j.Owing {
				t.Fatalf("%+v, %v", j, err)
			}
			if c.want == "" {
				if len(got) != 0 || len(j.Triggered) != 0 {
					t.Errorf("%q, %v", got, j.Triggered)
				}
				return
			}
			if len(j.Triggered) != 1 || len(got) != 1 {
				t.Fatalf("%q, %v", got, j.Triggered)
			}
			by, err := m.Status(j.Triggered[0].Job)
			if err != nil || by.By != j.ID || by.Task != "note" || by.Owner != (Owner{UID: uint32(os.Geteuid()), Name: "rtask"}) {
				t.Fatalf("%+v, %v", by, err)
			}
			var want []string
			for _, kv := range append(strings.Fields(c.want), "JOB_ID="+j.ID, "TASK=main") {
				want = append(want, "RTASK_ON_"+kv)
			}
			want = append(want, "RTASK_JOB_ID="+by.ID, "RTASK_TASK=note", "RTASK_TRIGGER="+by.Trigger)
			slices.Sort(want)
			if told := strings.Fields(got[0]); !slices.Equal(told, want) {
				t.Errorf("told %q, want %q", told, want)
			}
		})
	}
}

// shared is a folder that jobs can write to.
func shared(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What was owed when a Manager went, the next one starts, once, and those after it do not start it again.
func TestTriggerOfAnEarlierRun(t *testing.T) {
	dir := shared(t)
	m := openIn(t, dir) // nobody says what the tasks are: nothing is started, and nothing forgotten
	j := start(t, m, watched("exit 3", OnFailure))
	wait(t, m, j.ID)
	eventually(t, "the end is recorded", func() bool { return m.Running() == 0 })
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		m = notes(t, dir)
		if got := lines(t, m, dir); len(got) != 1 || !strings.Contains(got[0], "RTASK_ON_JOB_ID="+j.ID+" ") {
			t.Errorf("%q", got)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// As if the Manager had been killed when it had started the job, before it noted that.
	m = notes(t, dir)
	defer end(t, m)
	j, err := m.Status(j.ID)
	if err != nil || len(j.Triggered) != 1 {
		t.Fatalf("%+v, %v", j, err)
	}
	j.Owing = true
	if err := m.records.Put(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = notes(t, dir)
	defer end(t, m)
	if got := lines(t, m, dir); len(got) != 1 {
		t.Errorf("%q", got)
	}
	if j, err = m.Status(j.ID); err != nil || j.Owing {
		t.Errorf("%+v, %v", j, err)
	}
}

// A job that ends while no Manager is there, or is lost, triggers, too.
func TestTriggerWithoutManager(t *testing.T) {
	dir := shared(t)
	m := notes(t, dir)
	ends, lost := start(t, m, watched(obedient, OnFailure)), start(t, m, watched(obedient, OnFailure))
	for _, j := range []Job{ends, lost} {
		until(t, m, j.ID, "ready")
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	shims := []int{parent(t, ends.PID), parent(t, lost.PID)}
	signal(t, ends.PID, unix.SIGUSR1)
	signal(t, shims[1], unix.SIGKILL)
	signal(t, lost.PID, unix.SIGKILL)
	for _, pid := range shims {
		gone(t, pid)
	}
	m = notes(t, dir)
	defer end(t, m)
	got := strings.Join(lines(t, m, dir), "")
	for _, want := range []string{"RTASK_ON_EXIT_CODE=7 RTASK_ON_JOB_ID=" + ends.ID, "RTASK_ON_JOB_ID=" + lost.ID + " RTASK_ON_REASON=lost"} {
		if strings.Count(got, want) != 1 {
			t.Errorf("no %q in %q", want, got)
		}
	}
}

// A task that cannot run is left out; one that cannot be looked up, or has no room, comes later.
func TestTriggerTroubles(t *testing.T) {
	dir := shared(t)
	m := openIn(t, dir, func(o *Options) { o.MaxJobs = 1 })
	defer end(t, m)
	asked := make(chan string, 100)
	m.StartTriggered(func(task string) (Spec, error) {
		asked <- task
		switch {
		case task == "gone":
			return Spec{}, errors.New("it is not configured any more")
		case task == "invalid":
			return Spec{}, nil
		case len(asked) < 4:
			return Spec{}, ErrNotNow
		}
		return note(filepath.Join(dir, "notes")), nil
	})
	s := watched("exit 3", OnFailure)
	s.OnFailure = []string{"gone", "invalid", "note"}
	j := start(t, m, s)
	wait(t, m, j.ID)
	full := start(t, m, sh("sleep 1000")) // there is no room any more
	eventually(t, "it is asked again", func() bool { return len(asked) >= 5 })
	if _, err := m.Stop(t.Context(), full.ID, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := lines(t, m, dir); len(got) != 1 {
		t.Errorf("%q", got)
	}
	if j, err := m.Status(j.ID); err != nil || len(j.Triggered) != 1 || j.Triggered[0].Task != "note" {
		t.Errorf("%+v, %v", j, err)
	}
}

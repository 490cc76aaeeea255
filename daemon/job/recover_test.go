package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// gone waits for a process to end, be it reaped or not.
func gone(t *testing.T, pid int) {
	t.Helper()
	eventually(t, fmt.Sprintf("process %d ends", pid), func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err != nil || len(b) == 0
	})
}

// lent reports whether a job has the number.
func lent(m *Manager, uid uint32) bool {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	return m.pool.uids.used[uid] > 0
}

// noneInUse waits for no job to run and no number to be lent.
func noneInUse(t *testing.T, m *Manager) {
	t.Helper()
	m.runner.ender.recorder.now()
	eventually(t, "no job runs and no number is lent", func() bool {
		m.jobs.mu.Lock()
		defer m.jobs.mu.Unlock()
		m.pool.mu.Lock()
		defer m.pool.mu.Unlock()
		return m.jobs.admission.Empty() && len(m.pool.uids.used) == 0
	})
}

// Jobs run on without an engine, and the next one finds them: output, state and exit code are whole.
func TestReopen(t *testing.T) {
	for _, volatile := range []bool{false, true} {
		t.Run(fmt.Sprintf("volatile=%v", volatile), func(t *testing.T) {
			dir := t.TempDir()
			m := openIn(t, dir)
			task := func(name string) Spec {
				s := sh(obedient)
				s.Task, s.Volatile = name, volatile
				return s
			}
			runs, ends := start(t, m, task("runs")), start(t, m, task("ends"))
			until(t, m, runs.ID, "ready")
			until(t, m, ends.ID, "ready")
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			shim := parent(t, ends.PID)
			signal(t, runs.PID, unix.SIGUSR2)
			signal(t, ends.PID, unix.SIGUSR1)
			gone(t, shim)

			m = openIn(t, dir)
			defer end(t, m)
			if j, err := m.Status(ends.ID); err != nil || j.State != Ended {
				t.Errorf("what ended without an engine is %s, %v", j.State, err)
			}
			j, err := m.Status(runs.ID)
			if err != nil || j.State != Running || j.PID != runs.PID || j.Task != "runs" {
				t.Fatalf("%+v, %v", j, err)
			}
			if os.Geteuid() == 0 && !lent(m, j.Credentials.UID) {
				t.Error("the number of a job that runs is free")
			}
			if byPID, err := m.Status(fmt.Sprint(runs.PID)); err != nil || byPID.ID != runs.ID {
				t.Errorf("by PID: %s, %v", byPID.ID, err)
			}
			until(t, m, runs.ID, "two")
			signal(t, runs.PID, unix.SIGUSR1)
			for id, want := range map[string]string{runs.ID: "ready\ntwo\nthree\n", ends.ID: "ready\nthree\n"} {
				j := wait(t, m, id)
				if j.State != Ended || j.Exit.Code != 7 || j.Exit.Reason != spec.ExitCode || j.EndedAt.IsZero() {
					t.Errorf("%s %+v", j.State, j.Exit)
				}
				if got := output(t, m, id); got != want {
					t.Errorf("output %q, want %q", got, want)
				}
			}
			eventually(t, "no exit record is left", func() bool {
				left, err := os.ReadDir(dir + "/state/exits")
				return err == nil && len(left) == 0
			})
			noneInUse(t, m)
		})
	}
}

// Many ends are found at once, while the rest is still being looked for.
func TestReopenMany(t *testing.T) {
	dir := t.TempDir()
	m := openIn(t, dir)
	var ids []string
	for range 12 {
		j := start(t, m, sh(obedient))
		until(t, m, j.ID, "ready")
		ids = append(ids, j.ID)
	}
	var pids []int
	for _, j := range m.jobs.those(func(Job) bool { return true }) {
		pids = append(pids, j.PID, parent(t, j.PID))
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(pids); i += 2 {
		signal(t, pids[i], unix.SIGUSR1)
	}
	for i := 1; i < len(pids); i += 2 {
		gone(t, pids[i])
	}
	m = openIn(t, dir)
	defer end(t, m)
	for _, id := range ids {
		if j := wait(t, m, id); j.Exit.Code != 7 {
			t.Errorf("%+v", j.Exit)
		}
	}
}

// TestStoppedBeforeItHadASlot: a job was stopped when its turn had come and it had no slot, and the engine died then. The next one
// knows that it never ran.
func TestStoppedBeforeItHadASlot(t *testing.T) {
	dir := t.TempDir()
	m := openIn(t, dir)
	s := one("x")
	if err := m.starter.admitter.check(&s); err != nil {
		t.Fatal(err)
	}
	j, err := m.starter.admitter.draft(&s)
	if err != nil {
		t.Fatal(err)
	}
	j.State = Stopping
	if err := m.records.Put(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = openIn(t, dir)
	defer end(t, m)
	if j := wait(t, m, j.ID); j.Exit.Reason != spec.Stopped || !j.StartedAt.IsZero() {
		t.Errorf("%+v", j.Exit)
	}
	noneInUse(t, m)
}

// TestStopIsRecordedLast: a job is stopped in the moment in which its start is put on record. The record says so in the end.
func TestStopIsRecordedLast(t *testing.T) {
	m := open(t)
	stopper, cancel := context.WithCancel(t.Context())
	cancel() // it does not wait for the end, which never comes
	for range 50 {
		s := sh("true")
		a := admittedNow(t, m, &s)
		var stopped sync.WaitGroup
		committed, err := m.records.begin(a.l, func(j *Job) Job {
			stops := make(chan struct{})
			stopped.Go(func() {
				close(stops)
				if _, err := m.Stop(stopper, j.ID, StopOptions{By: "ada"}); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
			<-stops
			runtime.Gosched()
			return Job{Spec: Spec{Run: nameOf(newID(), j)}, State: Ended, EndedAt: time.Now()}
		})
		if err == nil {
			err = committed(t.Context())
		}
		stopped.Wait()
		j, getErr := m.records.Get(a.l.job.ID)
		if !m.starter.placer.forget(a.l) {
			t.Error("the job cannot be forgotten")
		}
		if err != nil || getErr != nil || j.State != Stopping {
			t.Fatalf("the record says %s, %v, %v", j.State, err, getErr)
		}
	}
	noneInUse(t, m)
}

// A job whose shim was killed is lost, and nothing is made up.
func TestLost(t *testing.T) {
	for name, closed := range map[string]bool{"engine runs": false, "engine away": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			m := openIn(t, dir)
			defer func() { end(t, m) }()
			j := start(t, m, sh(obedient))
			until(t, m, j.ID, "ready")
			shim := parent(t, j.PID)
			defer func() { _ = unix.Kill(j.PID, unix.SIGKILL) }()
			if closed {
				if err := m.Close(); err != nil {
					t.Fatal(err)
				}
			}
			signal(t, shim, unix.SIGKILL)
			gone(t, shim)
			if closed {
				m = openIn(t, dir)
			}
			lost := wait(t, m, j.ID)
			if lost.State != Ended || lost.Exit.Reason != spec.Lost || lost.Exit.Code != -1 || lost.Succeeded() {
				t.Errorf("%s %+v", lost.State, lost.Exit)
			}
			if got := output(t, m, j.ID); got != "ready\n" {
				t.Errorf("output %q", got)
			}
			if os.Geteuid() == 0 && !lent(m, j.Credentials.UID) {
				t.Error("its number was given back, and without a control group something of it may run under it")
			}
		})
	}
}

// A job that was told to stop is still stopping for the next engine.
func TestReopenStopping(t *testing.T) {
	dir := t.TempDir()
	m := openIn(t, dir)
	s := sh("trap 'while :; do sleep 0.02; done' TERM; echo ready; while :; do sleep 0.02; done")
	s.TimeoutStop = 1500 * time.Millisecond
	j := start(t, m, s)
	until(t, m, j.ID, "ready")
	go m.Stop(t.Context(), j.ID, StopOptions{By: "ada"})
	eventually(t, "it stops", func() bool { j, err := m.Status(j.ID); return err == nil && j.State == Stopping })
	time.Sleep(100 * time.Millisecond) // for the word to reach the shim
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = openIn(t, dir)
	defer end(t, m)
	if j, err := m.Status(j.ID); err != nil || j.State != Stopping {
		t.Errorf("%s, %v", j.State, err)
	}
	if j := wait(t, m, j.ID); j.Exit.Reason != spec.Stopped {
		t.Errorf("%+v", j.Exit)
	}
}

// A number that a job had is not at once another's, after a restart of the engine neither.
func TestNumbersGoOnAfterReopen(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start jobs as other users")
	}
	dir := t.TempDir()
	seen := map[string]bool{}
	for range 3 {
		m := openIn(t, dir)
		r, err := m.Run(t.Context(), sh("id -u"), nil)
		if err != nil || seen[string(r.Stdout)] {
			t.Errorf("%q again, %v", r.Stdout, err)
		}
		seen[string(r.Stdout)] = true
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Whoever may list the logs may read them.
func TestLogHasGroupOfFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := t.TempDir()
	m := openIn(t, dir)
	defer end(t, m)
	if err := os.Chown(dir+"/log", 0, 4); err != nil {
		t.Fatal(err)
	}
	r, err := m.Run(t.Context(), sh("echo x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(m.opts.logPath(r.ID), &st); err != nil || st.Gid != 4 || st.Mode&0o777 != 0o640 {
		t.Errorf("group %d, mode %o, %v", st.Gid, st.Mode, err)
	}
}

package job

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What an engine that was killed left of jobs that have ended goes with the next one; what a job needs stays.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	m := openIn(t, dir)
	ended := start(t, m, sh("exit 0"))
	if _, err := m.Wait(t.Context(), ended.ID); err != nil {
		t.Fatal(err)
	}
	runs := start(t, m, sh("sleep 60"))
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	file := func(folder, name string, age time.Duration) string {
		path := filepath.Join(filepath.Dir(filepath.Dir(m.opts.recordPath("x"))), folder, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	gone := []string{
		file("exits", ended.ID, 0), file("exits", newID(), 0), file("exits", ".exit-1", 2*sweepAge),
		file("inputs", ended.ID, 0), file("inputs", newID(), 0), file("inputs", runs.ID, 0),
	}
	stays := []string{file("exits", ".exit-2", 0)}
	m = openIn(t, dir)
	for _, path := range gone {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	for _, path := range stays {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if j, err := m.Stop(t.Context(), runs.ID, StopOptions{Kill: true}); err != nil || j.State != Ended {
		t.Errorf("the job that runs: %+v, %v", j, err)
	}
}

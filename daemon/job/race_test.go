package job

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Two clients want the one turn of a task, 10,000 times in all, each again as soon as it has its answer or a moment after it was
// refused. Never do two jobs have the turn, and no job is lost: each writes down that it begins and that it ends.
func TestTwoWantOneTurn(t *testing.T) {
	const times = 10000
	m := open(t)
	dir, err := os.MkdirTemp("", "rtask-turn-test-") // t.TempDir is closed to the user of the job
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	book := filepath.Join(dir, "book")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(book, nil, 0o600), os.Chmod(book, 0o666)); err != nil {
		t.Fatal(err)
	}
	s := Spec{
		Task: "one", Command: "/bin/sh", Args: []string{"-c", `echo begin $RTASK_JOB_ID >>"$BOOK"; echo end $RTASK_JOB_ID >>"$BOOK"`},
		Environment: []string{"BOOK=" + book}, MaxConcurrent: 1, Overflow: Reject, Volatile: true, Keep: time.Minute,
	}
	var tries, refused atomic.Int64
	var won [2]int
	var clients sync.WaitGroup
	for i := range won {
		clients.Go(func() {
			for tries.Add(1) <= times {
				r, err := m.Run(t.Context(), s, nil)
				switch {
				case errors.Is(err, ErrConcurrency):
					refused.Add(1)
					time.Sleep(100 * time.Microsecond)
				case err != nil || !r.Succeeded():
					t.Errorf("%v, %+v", err, r.Exit)
					return
				default:
					won[i]++
				}
			}
		})
	}
	clients.Wait()
	b, err := os.ReadFile(book)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if jobs := won[0] + won[1]; len(lines) != 2*jobs || refused.Load() != int64(times-jobs) {
		t.Fatalf("%d won, %d were refused, and %d lines were written", jobs, refused.Load(), len(lines))
	}
	seen := map[string]bool{}
	for i := 0; i < len(lines); i += 2 {
		id := strings.TrimPrefix(lines[i], "begin ")
		if lines[i+1] != "end "+id || seen[id] {
			t.Fatalf("two jobs at once:\n%s", strings.Join(lines[max(0, i-4):min(len(lines), i+6)], "\n"))
		}
		seen[id] = true
	}
	t.Logf("%d and %d won, %d were refused", won[0], won[1], refused.Load())
	if won[0] == 0 || won[1] == 0 {
		t.Error("they did not want it at once")
	}
}

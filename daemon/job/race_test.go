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

	"github.com/rtask/rtask/sandbox/spec"
)

// Two clients want the one turn of a task, 10,000 times in all and until each has had it, each again as soon as it has its answer
// or a moment after it was refused. Never do two jobs have the turn, and no job is lost: each writes down that it begins and that
// it ends.
func TestTwoWantOneTurn(t *testing.T) {
	const times, most = 10000, 10 * 10000 // most: then one of them does not get it
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
		Run: spec.Run{
			Task: "one", Args: []string{"/bin/sh", "-c", `echo begin $RTASK_JOB_ID >>"$BOOK"; echo end $RTASK_JOB_ID >>"$BOOK"`}, Env: []string{"BOOK=" + book},
		},
		Terms: Terms{Policy: spec.Policy{MaxConcurrent: 1, Overflow: spec.Reject, Keep: time.Minute}, Volatile: true},
	}
	var tries, refused atomic.Int64
	var won [2]atomic.Int64
	var clients sync.WaitGroup
	for i := range won {
		clients.Go(func() {
			for tries.Load() < times || won[0].Load()*won[1].Load() == 0 && tries.Load() < most && !t.Failed() {
				tries.Add(1)
				r, err := m.Run(t.Context(), s, nil)
				switch {
				case errors.Is(err, ErrConcurrency):
					refused.Add(1)
					time.Sleep(100 * time.Microsecond)
				case err != nil || !r.Succeeded():
					t.Errorf("%v, %+v", err, r.Exit)
					return
				default:
					won[i].Add(1)
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
	if jobs := won[0].Load() + won[1].Load(); int64(len(lines)) != 2*jobs || refused.Load() != tries.Load()-jobs {
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
	t.Logf("%d and %d won, %d were refused", won[0].Load(), won[1].Load(), refused.Load())
	if won[0].Load() == 0 || won[1].Load() == 0 {
		t.Errorf("one of them never had the turn in %d times", tries.Load())
	}
}

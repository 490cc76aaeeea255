package job

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rtask/rtask/daemon/store"
	"github.com/rtask/rtask/sandbox/spec"
)

// FuzzRecord: a job's record, or its claim, which is the same, may be any bytes after a power cut. No bytes panic, and what
// is a job stays one, also in what is known of it without its record.
func FuzzRecord(f *testing.F) {
	s, err := store.Open(filepath.Join(f.TempDir(), "jobs.db"), store.Options[Job]{
		ID:         func(j *Job) string { return j.ID },
		Time:       func(j *Job) time.Time { return j.QueuedAt },
		Unfinished: unfinished,
		Group:      group,
		Summary:    summary,
		Upgrade:    upgrade,
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	const id = "abcdefghijklmnop"
	at, code := time.Unix(1_700_000_000, 7), uint64(5)
	for _, j := range []Job{
		{
			Spec:  Spec{Run: spec.Run{ID: id, Task: "t"}, Terms: Terms{Policy: spec.Policy{MaxConcurrent: 1}, Input: []byte{0, 0xff}}},
			State: Queued, QueuedAt: at,
		},
		{
			Spec: Spec{Run: spec.Run{
				ID: id, Args: []string{"c", "\xff"}, Credentials: &spec.Credentials{UID: 70000}, Limits: spec.Limits{MemoryMax: &code},
			}},
			State: Running, Place: spec.Place{Slot: "s", Unit: "u.scope", StartedAt: at}, QueuedAt: at,
		},
		{Spec: Spec{Run: spec.Run{ID: id}}, State: Ended, QueuedAt: at, EndedAt: at, Exit: &spec.Exit{Job: id, Reason: spec.OOM}},
	} {
		b, err := s.Encode(j)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	old, err := filepath.Glob("testdata/records/*")
	if err != nil || len(old) == 0 {
		f.Fatalf("no records of before: %v", err)
	}
	for _, path := range old {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, filter := range []Filter{{}, {Succeeded: new(bool), User: "u"}} {
			filter.summaryFits("abcdefghijklmnop", at, b)
		}
		j, err := s.Decode(b)
		if err != nil || j.ID == "" || len(j.ID) > 1024 {
			return
		}
		again, err := s.Encode(j)
		if err != nil {
			return // a year that a record's time has no room for
		}
		got, err := s.Decode(again)
		if err != nil || got.ID != j.ID || got.State != j.State || got.Task != j.Task || (got.Exit == nil) != (j.Exit == nil) {
			t.Errorf("got %+v, %v, want %+v", got, err, j)
		}
		if j.State != promised && !(&Filter{Task: j.Task, Ended: true}).summaryFits(j.ID, j.QueuedAt, summary(&j)) {
			t.Errorf("the summary of %+v says something else", j)
		}
	})
}

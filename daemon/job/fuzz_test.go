package job

import (
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
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	at, code := time.Unix(1_700_000_000, 7), uint64(5)
	for _, j := range []Job{
		{ID: "abcdefghijklmnop", Task: "t", State: Queued, QueuedAt: at, Plan: Plan{Input: []byte{0, 0xff}, MaxConcurrent: 1}},
		{
			ID: "abcdefghijklmnop", Command: "c", Args: []string{"\xff"}, State: Running, QueuedAt: at, StartedAt: at, Slot: "s", Unit: "u.scope",
			Run: spec.Job{ID: "abcdefghijklmnop", Credentials: &spec.Credentials{UID: 70000}, Limits: spec.Limits{MemoryMax: &code}},
		},
		{ID: "abcdefghijklmnop", State: Ended, QueuedAt: at, EndedAt: at, Exit: &spec.Exit{Job: "abcdefghijklmnop", Reason: spec.OOM}},
	} {
		b, err := s.Encode(j)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
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
		if !(&Filter{Task: j.Task, Ended: true}).summaryFits(j.ID, j.QueuedAt, summary(&j)) {
			t.Errorf("the summary of %+v says something else", j)
		}
	})
}

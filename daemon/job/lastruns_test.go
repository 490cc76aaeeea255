package job

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/rtask/rtask/sandbox/spec"
)

// The last run is the newest job that has begun, in memory or on record; one that waits is it only where there is no other.
func TestLastRuns(t *testing.T) {
	m := open(t)
	begin := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	put := func(letter string, n int, change func(*Job)) {
		t.Helper()
		j := Job{
			Spec:  Spec{Run: spec.Run{ID: strings.Repeat(letter, idLength), Task: "a"}, Owner: Owner{Name: "ada"}},
			State: Ended, User: "u", QueuedAt: begin.Add(time.Duration(n) * time.Minute), Exit: &spec.Exit{},
		}
		change(&j)
		if err := m.records.Put(t.Context(), j); err != nil {
			t.Fatal(err)
		}
	}
	put("a", 0, func(*Job) {})
	put("b", 1, func(*Job) {})
	put("c", 2, func(j *Job) { j.Owner = Owner{Name: "ci", Key: "k"} })
	put("d", 3, func(j *Job) { j.Into = strings.Repeat("a", idLength) }) // another request for the same job
	put("e", 4, func(j *Job) { j.Task = "b" })
	put("f", 5, func(j *Job) { j.Task = "" }) // a command
	long := sh("exec sleep 1000")
	long.Task, long.MaxConcurrent, long.Overflow, long.MaxQueue = "b", 1, spec.Queue, 5
	running := start(t, m, long)
	start(t, m, long) // waits
	long.Task = "waits"
	first := start(t, m, long)
	waiting := start(t, m, long)

	got := func(visible func(Job) bool, tasks ...string) string {
		t.Helper()
		last, err := m.LastRuns(tasks, visible)
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]string{
			strings.Repeat("a", idLength): "a", strings.Repeat("b", idLength): "b", strings.Repeat("c", idLength): "c", strings.Repeat("e", idLength): "e",
			running.ID: "running", waiting.ID: "waiting", first.ID: "first",
		}
		var all []string
		for _, task := range []string{"a", "b", "waits", "none", ""} {
			if j, ok := last[task]; ok {
				all = append(all, task+"="+names[j.ID])
				delete(last, task)
			}
		}
		if len(last) > 0 {
			t.Errorf("there are %v, too", maps.Keys(last))
		}
		return strings.Join(all, " ")
	}
	for _, c := range []struct {
		name    string
		visible func(Job) bool
		want    string
	}{
		{"all", nil, "a=c b=running waits=first"},
		{"of one user", func(j Job) bool { return j.Owner.Key == "" }, "a=b b=running waits=first"},
		{"of records", func(j Job) bool { return j.ID != running.ID }, "a=c b=e waits=first"},
		{"only one that waits", func(j Job) bool { return j.ID == waiting.ID }, "waits=waiting"},
		{"none", func(Job) bool { return false }, ""},
	} {
		if got := got(c.visible, "a", "b", "waits", "none"); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if got := got(nil, "b"); got != "b=running" {
		t.Errorf("of one task: %q", got)
	}
	if got := got(nil); got != "" {
		t.Errorf("of no task: %q", got)
	}
	for _, id := range []string{waiting.ID, first.ID, running.ID} {
		if _, err := m.Stop(t.Context(), id, StopOptions{Kill: true}); err != nil {
			t.Fatal(err)
		}
	}
}

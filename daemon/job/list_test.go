package job

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rtask/rtask/sandbox/spec"
)

// fill puts n jobs that have ended on record: one a second from begin on, each as large as a usual one, of the tasks task-0 to
// task-9, and one of them of the task rare.
func fill(t testing.TB, m *Manager, begin time.Time, n int) {
	t.Helper()
	for i := range n {
		j := Job{
			Spec: Spec{Owner: Owner{Name: "ci", Key: "k2345678"}, Trigger: "http"}, User: "builder", State: Ended,
			Place:    spec.Place{PID: 1000 + i, Unit: fmt.Sprintf("rtask-task-%d.scope", i), ControlGroup: "/rtask.slice/rtask-task.scope/job"},
			QueuedAt: begin.Add(time.Duration(i) * time.Second),
		}
		j.StartedAt, j.EndedAt = j.QueuedAt.Add(time.Millisecond), j.QueuedAt.Add(2*time.Second)
		id := newID()
		j.Exit = &spec.Exit{Job: id, Ended: j.EndedAt}
		j.Run = spec.Run{
			ID: id, Task: fmt.Sprintf("task-%d", i%10), Args: []string{"/usr/bin/make", "-C", "/srv/project", "deploy"}, Path: "/usr/bin/make",
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/home/builder", "USER=builder", "LOGNAME=builder", "SHELL=/bin/sh", "LANG=C.UTF-8", "RTASK_JOB_ID=" + id},
			Dir: "/srv/project", Timeout: time.Minute, Record: m.opts.recordPath(id),
		}
		if i == n/3 {
			j.Task = "rare"
		}
		m.records.PutSoon(j)
		if i%1000 == 999 {
			if err := m.records.Put(t.Context(), j); err != nil { // waits, or more would wait than the store takes
				t.Fatal(err)
			}
		}
	}
}

func TestListFilters(t *testing.T) {
	m := open(t)
	begin := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	reasons := []spec.Reason{spec.Succeeded, spec.ExitCode, spec.OOM, spec.Succeeded}
	for i, reason := range reasons {
		j := Job{
			Spec:  Spec{Run: spec.Run{ID: strings.Repeat(string(rune('a'+i)), idLength), Task: "t"}, Owner: Owner{Name: "ada"}},
			State: Ended, User: "u", QueuedAt: begin.Add(time.Duration(i) * time.Minute), EndedAt: begin.Add(time.Duration(10-i) * time.Minute), Exit: &spec.Exit{Reason: reason},
		}
		if i == 3 {
			j.Task, j.User, j.Owner = "other", "v", Owner{Key: "k", Name: "ci"}
		}
		if err := m.records.Put(t.Context(), j); err != nil {
			t.Fatal(err)
		}
	}
	running := start(t, m, sh("exec sleep 1000"))
	yes, no := true, false
	for _, c := range []struct {
		name string
		f    Filter
		want string // the first letters of their ids, R for the one that runs
	}{
		{"running", Filter{}, "R"},
		{"all", Filter{Ended: true}, "Rdcba"},
		{"limit", Filter{Ended: true, Limit: 2}, "Rd"},
		{"state ended", Filter{States: []State{Ended}}, "dcba"},
		{"states", Filter{States: []State{Ended, Running}}, "Rdcba"},
		{"all that run", Filter{Ended: true, States: []State{Running}}, "R"},
		{"queued", Filter{States: []State{Queued}}, ""},
		{"success", Filter{Succeeded: &yes}, "da"},
		{"failure", Filter{Succeeded: &no}, "cb"},
		{"oom", Filter{Reasons: []spec.Reason{spec.OOM}}, "c"},
		{"reasons", Filter{Reasons: []spec.Reason{spec.OOM, spec.ExitCode}}, "cb"},
		{"success for a reason", Filter{Succeeded: &yes, Reasons: []spec.Reason{spec.OOM}}, ""},
		{"task", Filter{Ended: true, Task: "other"}, "d"},
		{"user", Filter{Ended: true, User: "u"}, "cba"},
		{"owner", Filter{Ended: true, Owner: "key:ci"}, "d"},
		{"owner who is a user", Filter{Ended: true, Owner: "ci"}, ""},
		{"since", Filter{Ended: true, Since: begin.Add(2 * time.Minute)}, "Rdc"},
		{"until", Filter{Ended: true, Until: begin.Add(2 * time.Minute)}, "cba"},
		{"between", Filter{Ended: true, Since: begin.Add(1), Until: begin.Add(3*time.Minute - 1)}, "cb"},
		{"ended since", Filter{EndedSince: begin.Add(8 * time.Minute)}, "cba"},
		{"ended without success since", Filter{EndedSince: begin.Add(8*time.Minute + 1), Succeeded: &no}, "b"},
		{"ended since now", Filter{EndedSince: begin.Add(time.Hour)}, ""},
		{"running until", Filter{Until: begin}, ""},
	} {
		jobs, err := m.List(c.f)
		var got strings.Builder
		for _, j := range jobs {
			if j.ID == running.ID {
				got.WriteByte('R')
			} else {
				got.WriteByte(j.ID[0])
			}
		}
		if err != nil || got.String() != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, got.String(), err, c.want)
		}
		if !slices.IsSortedFunc(jobs, func(a, b Job) int { return b.QueuedAt.Compare(a.QueuedAt) }) {
			t.Errorf("%s: not in order", c.name)
		}
	}
}

// BenchmarkRecords: what an engine with a hundred thousand records on disk takes for what people ask.
func BenchmarkRecords(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		m := open(b)
		begin := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		fill(b, m, begin, n)
		all, err := m.List(Filter{Ended: true, Limit: 1})
		if err != nil || len(all) != 1 {
			b.Fatal(len(all), err)
		}
		id := all[0].ID
		for _, c := range []struct {
			name string
			do   func() error
		}{
			{"status", func() error { _, err := m.Status(id); return err }},
			{"status of a prefix", func() error { _, err := m.Status(id[:8]); return err }},
			{"status of a prefix, one user", func() error {
				_, err := m.Find(id[:8], func(j Job) bool { return j.Owner.Name == "ci" })
				return err
			}},
			{"ps", func() error { _, err := m.List(Filter{}); return err }},
			{"ps -a -n 20", func() error { _, err := m.List(Filter{Ended: true, Limit: 20}); return err }},
			{"ps -a", func() error { _, err := m.List(Filter{Ended: true}); return err }},
			{"ps -a --task", func() error { _, err := m.List(Filter{Ended: true, Task: "task-1"}); return err }},
			{"ps -a --task rare", func() error { _, err := m.List(Filter{Ended: true, Task: "rare"}); return err }},
			{"tasks", func() error { _, err := m.LastRuns([]string{"task-1", "task-2", "rare"}, nil); return err }},
			{"tasks, one never ran", func() error { _, err := m.LastRuns([]string{"task-1", "task-2", "never"}, nil); return err }},
			{"ps of what failed lately", func() error {
				_, err := m.List(Filter{EndedSince: begin.Add(time.Duration(n-100) * time.Second), Reasons: []spec.Reason{spec.OOM}})
				return err
			}},
			{"ps -a --since --until", func() error {
				from := begin.Add(time.Duration(n/2) * time.Second)
				_, err := m.List(Filter{Ended: true, Since: from, Until: from.Add(100 * time.Second)})
				return err
			}},
		} {
			b.Run(fmt.Sprintf("%d/%s", n, c.name), func(b *testing.B) {
				for b.Loop() {
					if err := c.do(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

package store

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// indexed opens a Store whose values are in the group of their first argument, from Ended on, and are told apart by N.
func indexed(t testing.TB, path string) *Store[job] {
	t.Helper()
	o := options(t)
	o.Group = func(j *job) (string, time.Time) {
		switch {
		case j.Ended.IsZero():
			return "", time.Time{}
		case len(j.Args) > 0:
			return j.Args[0], j.Ended
		default:
			return "g", j.Ended
		}
	}
	o.Summary = func(j *job) []byte { return []byte(fmt.Sprint(j.N)) }
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// oldest is what Oldest returns of a group, as text.
func oldest(t testing.TB, s *Store[job], group string, limit int) string {
	t.Helper()
	all, err := s.Oldest(group, limit)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, f := range all {
		v, err := s.Get(f.ID)
		if err != nil || !v.Ended.Equal(f.Time) {
			t.Errorf("%s: %v, %v, want %v", f.ID, f.Time, err, v.Ended)
		}
		ids = append(ids, f.ID)
	}
	if n, err := s.Groups(); err != nil || limit > len(ids) && n[group] != len(ids) {
		t.Errorf("counted %d of %d, %v", n[group], len(ids), err)
	}
	return strings.Join(ids, " ")
}

func TestGroups(t *testing.T) {
	s := indexed(t, filepath.Join(t.TempDir(), "jobs.db"))
	check := func(want string) {
		t.Helper()
		if got := oldest(t, s, "g", 100); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	check("")
	put(t, s, job{ID: "a", Created: at(1)}, job{ID: "b", Created: at(2)}, job{ID: "c", Created: at(3), Ended: at(9)})
	check("c")
	put(t, s, job{ID: "b", Created: at(2), Ended: at(5)}, job{ID: "a", Created: at(1), Ended: at(7)})
	check("b a c")
	put(t, s, job{ID: "b", Created: at(2), Ended: at(20)}) // as it should not be
	check("a c b")
	put(t, s, job{ID: "a", Created: at(30), Ended: at(7)})
	check("a c b")
	if got := oldest(t, s, "g", 2); got != "a c" {
		t.Errorf("the first two are %q", got)
	}
	put(t, s, job{ID: "c", Created: at(3)})
	check("a b")
	if err := s.Delete("a", "nobody"); err != nil {
		t.Fatal(err)
	}
	check("b")
	for _, c := range []struct {
		id, group string
		known     bool
		t         time.Time
	}{{id: "a"}, {"b", "g", true, at(20)}, {id: "c", known: true}} {
		if known, group, got, err := s.GroupOf(c.id); known != c.known || group != c.group || !got.Equal(c.t) || err != nil {
			t.Errorf("%s: %v, %q, %v, %v", c.id, known, group, got, err)
		}
	}
	s.PutSoon(job{ID: "d", Created: at(4), Ended: at(40)})
	if known, group, got, err := s.GroupOf("d"); !known || group != "g" || !got.Equal(at(40)) || err != nil {
		t.Errorf("d, not committed yet: %v, %q, %v, %v", known, group, got, err)
	}
	check("b d")
	// Each value is in one group, and moves with its time; names that begin alike, or are long, are several.
	long := strings.Repeat("g", 2*maxGroup)
	put(t, s, job{ID: "b", Created: at(2), Ended: at(1), Args: []string{"gg"}}, job{ID: "e", Created: at(2), Ended: at(2), Args: []string{long}})
	check("d")
	if got := oldest(t, s, "gg", 100); got != "b" {
		t.Errorf("the other group has %q", got)
	}
	if got := oldest(t, s, long[:maxGroup], 100); got != "e" {
		t.Errorf("the long group has %q", got)
	}
	if err := s.Delete("b", "d", "e"); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Groups(); len(all) != 0 || err != nil {
		t.Errorf("%v, %v", all, err)
	}
}

// TestSelect selects from more values than are read at a time.
func TestSelect(t *testing.T) {
	s := indexed(t, filepath.Join(t.TempDir(), "jobs.db"))
	const n = 3 * pageRecords
	for i := range n {
		s.PutSoon(job{ID: fmt.Sprintf("%04d", i), Created: at(i), N: i % 7})
	}
	for _, c := range []struct {
		since, until time.Time
		n            string
		from, to     int
	}{
		{from: 0, to: n - 1},
		{since: at(10), from: 10, to: n - 1},
		{until: at(10), from: 0, to: 10},
		{since: at(10), until: at(10), from: 10, to: 10},
		{since: at(10).Add(1), until: at(11).Add(-1), from: 0, to: -1},
		{since: at(5), until: at(700), n: "3", from: 5, to: 700},
		{n: "8", from: 0, to: -1},
		{n: "6", from: 0, to: n - 1},
	} {
		var want, got []string
		for i := c.to; i >= c.from; i-- {
			if c.n == "" || c.n == fmt.Sprint(i%7) {
				want = append(want, fmt.Sprintf("%04d", i))
			}
		}
		var fits func(string, time.Time, []byte) bool
		if c.n != "" {
			fits = func(id string, created time.Time, summary []byte) bool {
				var i int
				if _, err := fmt.Sscan(strings.TrimLeft(id, "0")+" ", &i); id != "0000" && (err != nil || !created.Equal(at(i))) {
					t.Errorf("%s has the time %v", id, created)
				}
				return string(summary) == c.n
			}
		}
		for v, err := range s.Select(c.since, c.until, fits) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, v.ID)
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%+v: %v, want %v", c, got, want)
		}
	}
}

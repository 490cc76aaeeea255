package store

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// indexed opens a Store whose values are finished at Ended and are told apart by N.
func indexed(t testing.TB, path string) *Store[job] {
	t.Helper()
	o := options(t)
	o.Finished = func(j *job) time.Time { return j.Ended }
	o.Summary = func(j *job) []byte { return []byte(fmt.Sprint(j.N)) }
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// oldest is what Oldest returns, as text.
func oldest(t testing.TB, s *Store[job], limit int) string {
	t.Helper()
	all, err := s.Oldest(limit)
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
	if n, err := s.CountFinished(); err != nil || limit > len(ids) && n != len(ids) {
		t.Errorf("counted %d of %d, %v", n, len(ids), err)
	}
	return strings.Join(ids, " ")
}

func TestOldest(t *testing.T) {
	s := indexed(t, filepath.Join(t.TempDir(), "jobs.db"))
	check := func(want string) {
		t.Helper()
		if got := oldest(t, s, 100); got != want {
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
	if got := oldest(t, s, 2); got != "a c" {
		t.Errorf("the first two are %q", got)
	}
	put(t, s, job{ID: "c", Created: at(3)})
	check("a b")
	if err := s.Delete("a", "nobody"); err != nil {
		t.Fatal(err)
	}
	check("b")
	for _, c := range []struct {
		id    string
		known bool
		t     time.Time
	}{{"a", false, time.Time{}}, {"b", true, at(20)}, {"c", true, time.Time{}}} {
		if known, got, err := s.FinishedAt(c.id); known != c.known || !got.Equal(c.t) || err != nil {
			t.Errorf("%s: %v, %v, %v", c.id, known, got, err)
		}
	}
	s.PutSoon(job{ID: "d", Created: at(4), Ended: at(40)})
	if known, got, err := s.FinishedAt("d"); !known || !got.Equal(at(40)) || err != nil {
		t.Errorf("d, not committed yet: %v, %v, %v", known, got, err)
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

// TestFirstLayout: a file as the first version wrote it has everything afterwards, and is one of today.
func TestFirstLayout(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	s := indexed(t, path)
	put(t, s, job{ID: "a", Created: at(1), Ended: at(9), N: 1}, job{ID: "b", Created: at(2), Ended: at(5), N: 2}, job{ID: "c", Created: at(3), N: 2})
	edit(t, s, func(tx *bbolt.Tx) error {
		if err := tx.DeleteBucket([]byte(finished)); err != nil {
			return err
		}
		b := order.of(tx)
		if err := b.ForEach(func(k, _ []byte) error { return b.Put(k, nil) }); err != nil {
			return err
		}
		if err := records.of(tx).Put([]byte("bad"), []byte("no record")); err != nil {
			return err
		}
		return meta.of(tx).Put([]byte("layout"), []byte{1})
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s = indexed(t, path)
		if got := oldest(t, s, 10); got != "b a" {
			t.Errorf("oldest are %q", got)
		}
		var got []string
		for v, err := range s.Select(time.Time{}, time.Time{}, func(_ string, _ time.Time, x []byte) bool { return string(x) == "2" }) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, v.ID)
		}
		if strings.Join(got, " ") != "c b" {
			t.Errorf("selected are %v", got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

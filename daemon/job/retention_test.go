package job

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rtask/rtask/daemon/store"
	"github.com/rtask/rtask/sandbox/log"
	"github.com/rtask/rtask/sandbox/spec"
)

// shelf is what retention works on, without jobs that run.
type shelf struct {
	*retention
	t    *testing.T
	dir  string
	quit chan struct{}
	done chan struct{}
}

// newShelf opens one in dir. Whatever it is told to keep alive counts as running.
func newShelf(t *testing.T, dir string, bounds spec.Retention, live ...string) *shelf {
	t.Helper()
	o := Options{StateDir: dir, LogDir: filepath.Join(dir, "log"), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Retention: bounds}
	for _, d := range []string{o.LogDir, filepath.Join(dir, "exits")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s, err := store.Open(filepath.Join(dir, "jobs.db"), store.Options[Job]{
		ID: func(j *Job) string { return j.ID }, Time: func(j *Job) time.Time { return j.QueuedAt },
		Unfinished: unfinished, Group: group, Summary: summary,
		OnError: func(err error) { t.Error(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	r := newRetention(s, &o, func(id string) bool {
		for _, l := range live {
			if id == l {
				return true
			}
		}
		return false
	})
	return &shelf{retention: r, t: t, dir: dir, quit: make(chan struct{}), done: make(chan struct{})}
}

func (s *shelf) start() {
	go func() {
		defer close(s.done)
		s.run(s.quit)
	}()
}

func (s *shelf) close() {
	s.t.Helper()
	close(s.quit)
	<-s.done
	if err := s.store.Close(); err != nil {
		s.t.Error(err)
	}
}

// job puts a job with a log of so many KiB on record.
func (s *shelf) job(id string, state State, kib int) {
	s.t.Helper()
	j := Job{Spec: Spec{Run: spec.Run{ID: id}}, State: state, QueuedAt: time.Now(), Exit: &spec.Exit{}}
	if state == Ended {
		j.EndedAt = time.Now()
	}
	if err := os.WriteFile(s.logPath(id), bytes.Repeat([]byte("x"), kib<<10), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := s.store.Put(s.t.Context(), j); err != nil {
		s.t.Fatal(err)
	}
	if state == Ended {
		s.add(id, j.share())
	}
}

// kept are the first letters of the jobs that are on record, and of the logs, in the order of their names.
func (s *shelf) kept() string {
	s.t.Helper()
	var text strings.Builder
	jobs, err := s.store.Match("", 0)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, j := range jobs {
		text.WriteByte(j.ID[0])
	}
	text.WriteByte('/')
	entries, err := os.ReadDir(s.logs)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		text.WriteByte(e.Name()[0])
	}
	return text.String()
}

// count is how many jobs that have ended are on record.
func (s *shelf) count() int {
	s.t.Helper()
	groups, err := s.store.Groups()
	if err != nil {
		s.t.Fatal(err)
	}
	n := 0
	for _, m := range groups {
		n += m
	}
	return n
}

func named(letter rune) string { return strings.Repeat(string(letter), idLength) }

func TestRetention(t *testing.T) {
	for name, c := range map[string]struct {
		bounds spec.Retention
		want   string
	}{
		"none":  {spec.Retention{}, "abcdefr/abcdefr"},
		"jobs":  {spec.Retention{KeepJobs: 2}, "efr/efr"},
		"bytes": {spec.Retention{KeepBytes: 250 << 10}, "efr/efr"},
		// a was accepted first, but ended after the others.
		"time":     {spec.Retention{KeepFor: 3 * time.Hour}, "aefr/aefr"},
		"all":      {spec.Retention{KeepFor: 5 * time.Hour, KeepBytes: 350 << 10, KeepJobs: 4}, "aefr/aefr"},
		"infinity": {spec.Retention{KeepFor: 1000 * time.Hour, KeepBytes: 1 << 40, KeepJobs: 1000}, "abcdefr/abcdefr"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShelf(t, t.TempDir(), spec.Retention{})
				if name == "all" || name == "time" {
					s.job(named('a'), Running, 100)
				}
				s.job(named('r'), Running, 1000)
				for _, letter := range "abcdef" {
					if letter != 'a' || name != "all" && name != "time" {
						s.job(named(letter), Ended, 100)
					}
					time.Sleep(time.Hour)
				}
				if name == "all" || name == "time" {
					s.job(named('a'), Ended, 100)
					time.Sleep(time.Second)
				}
				s.start()
				time.Sleep(time.Minute)
				if got := s.kept(); got != "abcdefr/abcdefr" {
					t.Errorf("without bounds: %s", got)
				}
				s.set(c.bounds)
				time.Sleep(time.Minute)
				if got := s.kept(); got != c.want {
					t.Errorf("%s, want %s", got, c.want)
				}
				s.close()
			})
		})
	}
}

// TestRetentionByTheClock: without a job that ends, the time of each comes.
func TestRetentionByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t, t.TempDir(), spec.Retention{KeepFor: 24 * time.Hour})
		s.start()
		s.job(named('a'), Ended, 1)
		time.Sleep(10*time.Hour + 30*time.Minute) // not on the hour, when it looks in any case
		s.job(named('b'), Ended, 1)
		time.Sleep(13*time.Hour + 29*time.Minute)
		if got := s.kept(); got != "ab/ab" {
			t.Errorf("before its time: %s", got)
		}
		time.Sleep(2 * time.Minute)
		if got := s.kept(); got != "b/b" {
			t.Errorf("after the first's time: %s", got)
		}
		time.Sleep(10*time.Hour + 30*time.Minute)
		if got := s.kept(); got != "/" {
			t.Errorf("after both: %s", got)
		}
		s.close()
	})
}

// TestRetentionUnderLoad: jobs that nobody stops from ending leave no more than the bounds allow, and little more at any
// time. What jobs wrote is counted though nobody looks at all of it each time.
func TestRetentionUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keep, rate, seconds = 100, 100, 60
		s := newShelf(t, t.TempDir(), spec.Retention{KeepJobs: keep})
		s.start()
		most := 0
		for range seconds {
			for range rate {
				id := newID()
				if err := os.WriteFile(s.logPath(id), []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
				j := Job{Spec: Spec{Run: spec.Run{ID: id, Args: []string{strings.Repeat("c", 500)}}}, State: Ended, QueuedAt: time.Now(), EndedAt: time.Now()}
				s.store.PutSoon(j)
				s.add(id, j.share())
			}
			time.Sleep(time.Second)
			synctest.Wait()
			most = max(most, s.count())
		}
		// What ended in the last seconds is kept whatever the number.
		if bound := keep + rate*int((youngest+2*sweepPause)/time.Second); most > bound {
			t.Errorf("%d records at a time, more than %d", most, bound)
		}
		time.Sleep(time.Minute)
		if n := s.count(); n != keep {
			t.Errorf("%d records are left, want %d", n, keep)
		}
		entries, err := os.ReadDir(s.logs)
		if err != nil || len(entries) != keep {
			t.Errorf("%d logs are left, %v", len(entries), err)
		}
		info, err := os.Stat(filepath.Join(s.dir, "jobs.db"))
		if err != nil || info.Size() > 8<<20 {
			t.Errorf("the records' file is %d bytes long, %v", info.Size(), err)
		}
		if s.mu.Lock(); len(s.ended) > 0 || s.allBytes() != keep*4096 {
			t.Errorf("%d jobs are not counted; counted are %d bytes", len(s.ended), s.allBytes())
		}
		s.mu.Unlock()
		s.close()
	})
}

// TestRetentionLeftovers: what an engine left that was killed between any two steps is cleaned up by the next one, and nothing
// else is.
func TestRetentionLeftovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := newShelf(t, dir, spec.Retention{KeepFor: 100 * time.Hour}, named('l'))
		s.job(named('a'), Ended, 1)
		s.job(named('u'), Running, 1) // what became of it could not be found out
		if err := os.Remove(s.logPath(named('a'))); err != nil {
			t.Fatal(err)
		}
		file := func(path string, age time.Duration) {
			t.Helper()
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Hour)
		file(s.logPath(named('o')), 20*time.Hour)       // older than all records
		file(s.logPath(named('y')), 5*time.Hour)        // perhaps of a job whose record was not committed
		file(s.logPath(named('l')), 20*time.Hour)       // of one that runs
		file(filepath.Join(s.logs, "notes"), time.Hour) // somebody else's
		for name, age := range map[string]time.Duration{
			".exit-1": 20 * time.Hour, ".exit-2": time.Minute, named('o'): 20 * time.Hour, named('a'): 20 * time.Hour, "x": 20 * time.Hour,
			named('l'): 20 * time.Hour,
		} {
			file(filepath.Join(s.exits, name), age)
		}
		s.start()
		time.Sleep(time.Minute)
		if got := s.kept(); got != "au/lnuy" {
			t.Errorf("after the start: %s", got)
		}
		entries, err := os.ReadDir(s.exits)
		if got := fmt.Sprint(entries); err != nil || strings.Contains(got, ".exit-1") || strings.Contains(got, named('o')) || len(entries) != 4 {
			t.Errorf("exit records: %s, %v", got, err)
		}
		time.Sleep(100 * time.Hour) // a record without a log goes as any other
		if got := s.kept(); got != "u/lnuy" {
			t.Errorf("after its time: %s", got)
		}
		s.close()
	})
}

// TestRetentionMeasures: logs that somebody else removed make room.
func TestRetentionMeasures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t, t.TempDir(), spec.Retention{KeepBytes: 250 << 10})
		s.start()
		for _, letter := range "ab" {
			s.job(named(letter), Ended, 100)
			time.Sleep(time.Hour)
		}
		if err := os.Remove(s.logPath(named('a'))); err != nil {
			t.Fatal(err)
		}
		s.job(named('c'), Ended, 100)
		time.Sleep(time.Hour)
		if got := s.kept(); got != "abc/bc" {
			t.Errorf("%s, though there is room", got)
		}
		s.close()
	})
}

// TestRetentionOfJobs runs real jobs: those that end go, a reader reads on, and one that runs stays.
func TestRetentionOfJobs(t *testing.T) {
	m := open(t)
	running := start(t, m, sh("echo still here; exec sleep 1000"))
	until(t, m, running.ID, "still here")
	followed := start(t, m, sh("for i in $(seq 1000); do echo $i; done"))
	wait(t, m, followed.ID)
	var ids []string
	for range 20 {
		s := sh("echo done")
		s.Volatile = true
		j := start(t, m, s)
		wait(t, m, j.ID)
		ids = append(ids, j.ID)
	}
	var got strings.Builder
	err := m.StreamLogs(t.Context(), followed.ID, LogOptions{}, func(e log.Entry) error {
		if got.Len() == 0 {
			m.SetRetention(spec.Retention{KeepFor: time.Nanosecond})
			eventually(t, "jobs that have ended go", func() bool {
				_, err := m.Status(followed.ID)
				_, statErr := os.Stat(m.opts.logPath(followed.ID))
				return errors.Is(err, ErrNotFound) && errors.Is(statErr, os.ErrNotExist)
			})
		}
		got.Write(e.Data)
		return nil
	})
	if err != nil || !strings.HasSuffix(got.String(), "\n1000\n") || strings.Count(got.String(), "\n") != 1000 {
		t.Errorf("the reader got %d bytes, %v", got.Len(), err)
	}
	eventually(t, "all that have ended are gone", func() bool {
		entries, err := os.ReadDir(m.opts.LogDir)
		return err == nil && len(entries) == 1
	})
	for _, id := range ids {
		if _, err := m.Status(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if output(t, m, running.ID) != "still here\n" {
		t.Error("the job that runs lost its log")
	}
	if j, err := m.Status(running.ID); err != nil || j.State != Running {
		t.Errorf("%s, %v", j.State, err)
	}
}

// One owner's jobs push out nobody else's, by their number or by what they write; and who has most loses first.
func TestRetentionIsFair(t *testing.T) {
	for name, bounds := range map[string]spec.Retention{"jobs": {KeepJobs: 50}, "bytes": {KeepBytes: 50 * 4096}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShelf(t, t.TempDir(), bounds)
				s.start()
				add := func(n int, owner Owner, trigger string) {
					t.Helper()
					for range n {
						j := Job{Spec: Spec{Run: spec.Run{ID: newID()}, Owner: owner, Trigger: trigger}, State: Ended, QueuedAt: time.Now(), EndedAt: time.Now(), Exit: &spec.Exit{}}
						if err := os.WriteFile(s.logPath(j.ID), []byte("x"), 0o600); err != nil {
							t.Fatal(err)
						}
						if err := s.store.Put(t.Context(), j); err != nil {
							t.Fatal(err)
						}
						s.add(j.ID, j.share())
					}
				}
				quiet, loud := Owner{Key: "a", Name: "a"}, Owner{Key: "b", Name: "b"}
				add(3, quiet, "http")
				add(2, Owner{UID: 1000, Name: "ada"}, "local")
				time.Sleep(time.Hour)
				for range 20 {
					add(70, loud, "http")
					time.Sleep(time.Minute)
				}
				count := func(want map[string]int) {
					t.Helper()
					groups, err := s.store.Groups()
					if err != nil || !maps.Equal(groups, want) {
						t.Errorf("%v are kept, %v; want %v", groups, err, want)
					}
				}
				count(map[string]int{"key/a": 3, "user/1000": 2, "key/b": 45})
				// Owners with many jobs make room for new ones.
				add(70, quiet, "http")
				time.Sleep(time.Hour)
				count(map[string]int{"key/a": 24, "user/1000": 2, "key/b": 24})
				s.close()
			})
		})
	}
}

func TestFair(t *testing.T) {
	for _, c := range []struct {
		has   map[string]int64
		bound int64
		want  int64
	}{
		{nil, 10, math.MaxInt64},
		{map[string]int64{"a": 100}, 0, math.MaxInt64},
		{map[string]int64{"a": 10}, 10, math.MaxInt64},
		{map[string]int64{"a": 11}, 10, 10},
		{map[string]int64{"a": 2, "b": 100}, 50, 48},
		{map[string]int64{"a": 40, "b": 100, "c": 1}, 50, 24},
		{map[string]int64{"a": 5, "b": 5, "c": 5}, 2, 1},
	} {
		if got := fair(c.has, c.bound); got != c.want {
			t.Errorf("%v, at most %d: each has at most %d, want %d", c.has, c.bound, got, c.want)
		}
	}
}

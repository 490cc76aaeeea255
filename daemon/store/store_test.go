package store

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

type job struct {
	ID      string            `cbor:"id"`
	Created time.Time         `cbor:"created"`
	Ended   time.Time         `cbor:"ended"`
	Args    []string          `cbor:"args"`
	Env     map[string]string `cbor:"env,omitempty"`
	Output  []byte            `cbor:"output,omitempty"`
	N       int               `cbor:"n"`
}

func options(t testing.TB) Options[job] {
	return Options[job]{
		ID:         func(j *job) string { return j.ID },
		Time:       func(j *job) time.Time { return j.Created },
		Unfinished: func(j *job) bool { return j.Ended.IsZero() },
		OnError:    func(err error) { t.Errorf("OnError: %v", err) },
	}
}

func openAt(t testing.TB, path string) *Store[job] {
	t.Helper()
	s, err := Open(path, options(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func openNew(t testing.TB) *Store[job] {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "jobs.db"))
}

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 1, time.UTC)

func at(n int) time.Time { return epoch.Add(time.Duration(n) * time.Millisecond) }

func put(t testing.TB, s *Store[job], jobs ...job) {
	t.Helper()
	for _, j := range jobs {
		if err := s.Put(t.Context(), j); err != nil {
			t.Fatal(err)
		}
	}
}

func ids(jobs []job) string {
	var b strings.Builder
	for _, j := range jobs {
		b.WriteString(j.ID + " ")
	}
	return b.String()
}

func newest(t testing.TB, s *Store[job]) []job {
	t.Helper()
	var all []job
	for j, err := range s.Newest() {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, j)
	}
	return all
}

// commits counts write transactions: bbolt gives each the next number.
func commits(t testing.TB, s *Store[job]) (n int) {
	t.Helper()
	if err := s.db.View(func(tx *bbolt.Tx) error { n = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// edit changes the file behind the Store's back.
func edit(t testing.TB, s *Store[job], f func(tx *bbolt.Tx) error) {
	t.Helper()
	if err := s.db.Update(f); err != nil {
		t.Fatal(err)
	}
}

func TestPutGet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	s := openAt(t, path)
	want := job{
		ID: "a", Created: epoch, Args: []string{"", "\xff\x00not text"}, Env: map[string]string{"K\xfe": "v"},
		Output: []byte{0, 255}, N: -3,
	}
	put(t, s, want)
	for range 2 {
		got, err := s.Get("a")
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v", got, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openAt(t, path)
	}
	if _, err := s.Get("b"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("missing: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestID(t *testing.T) {
	s := openNew(t)
	for _, id := range []string{"", strings.Repeat("x", maxID+1)} {
		if err := s.Put(t.Context(), job{ID: id}); !errors.Is(err, ErrID) {
			t.Errorf("%.5q: %v", id, err)
		}
	}
	put(t, s, job{ID: strings.Repeat("x", maxID)})
}

func TestOrder(t *testing.T) {
	s := openNew(t)
	put(t, s,
		job{ID: "late", Created: at(3)}, job{ID: "early", Created: at(1)}, job{ID: "b", Created: at(2)}, job{ID: "a", Created: at(2)},
		job{ID: "zero"}, job{ID: "far", Created: time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)}, job{ID: "old", Created: time.Unix(-1, 5)})
	if got, want := ids(newest(t, s)), "far late b a early old zero "; got != want {
		t.Errorf("newest: %s, want %s", got, want)
	}
	put(t, s, job{ID: "late", Created: at(0), Ended: epoch}, job{ID: "b", Created: at(2), Ended: epoch}, job{ID: "a", Created: at(4)})
	if err := s.Delete("old", "nobody"); err != nil {
		t.Fatal(err)
	}
	if got, want := ids(newest(t, s)), "far a b early late zero "; got != want {
		t.Errorf("after changes: %s, want %s", got, want)
	}
	open, err := s.Unfinished()
	if got, want := ids(open), "zero early a far "; err != nil || got != want {
		t.Errorf("unfinished: %s, %v; want %s", got, err, want)
	}
	put(t, s, job{ID: "late", Created: at(0)})
	if open, _ := s.Unfinished(); ids(open) != "zero late early a far " {
		t.Errorf("unfinished again: %s", ids(open))
	}
	all := slices.Collect(func(yield func(string) bool) {
		for _, j := range newest(t, s) {
			yield(j.ID)
		}
	})
	if err := s.Delete(all...); err != nil {
		t.Fatal(err)
	}
	for _, b := range []bucket{records, order, unfinished} {
		edit(t, s, func(tx *bbolt.Tx) error {
			if k, _ := b.of(tx).Cursor().First(); k != nil {
				t.Errorf("%s has %q left", b, k)
			}
			return nil
		})
	}
}

func TestMatch(t *testing.T) {
	s := openNew(t)
	for _, id := range []string{"a", "ab", "abc", "abd", "b", "ab\xff"} {
		s.PutSoon(job{ID: id})
	}
	for _, c := range []struct {
		prefix string
		limit  int
		want   string
	}{
		{"ab", 0, "ab abc abd ab\xff "}, {"ab", 2, "ab abc "}, {"abc", 5, "abc "}, {"x", 0, ""}, {"", 0, "a ab abc abd ab\xff b "}, {"", 1, "a "},
	} {
		got, err := s.Match(c.prefix, c.limit)
		if err != nil || ids(got) != c.want {
			t.Errorf("%q, %d: %q, %v", c.prefix, c.limit, ids(got), err)
		}
	}
}

func TestNewestPages(t *testing.T) {
	s := openNew(t)
	const n = 3*pageRecords + 17
	for i := range n {
		j := job{ID: fmt.Sprintf("%05d", i*7919%n), Created: at(i / 3)}
		if i%100 == 0 {
			j.Output = make([]byte, pageBytes/2)
		}
		s.PutSoon(j)
	}
	all := newest(t, s)
	if len(all) != n {
		t.Fatalf("%d of %d", len(all), n)
	}
	if !slices.IsSortedFunc(all, func(a, b job) int {
		return cmpOr(b.Created.Compare(a.Created), strings.Compare(b.ID, a.ID))
	}) {
		t.Error("not in order")
	}
	// No transaction is open in the loop, what it stores or deletes does no harm, and it can be left.
	seen := 0
	for j, err := range s.Newest() {
		if err != nil {
			t.Fatal(err)
		}
		if open := s.db.Stats().OpenTxN; open != 0 {
			t.Fatalf("%d transactions are open", open)
		}
		seen++
		if seen%200 == 0 {
			if err := s.Delete(j.ID); err != nil {
				t.Fatal(err)
			}
		}
		if seen == n-1 {
			break
		}
	}
	if seen != n-1 {
		t.Errorf("saw %d", seen)
	}
	seen = 0
	for _, err := range s.Newest() {
		if seen++; err != nil {
			if seen <= pageRecords/2 || err != ErrClosed {
				t.Errorf("%d: %v", seen, err)
			}
			break
		}
		if seen == 1 {
			s.Close()
		}
	}
}

func cmpOr(a, b int) int {
	if a != 0 {
		return a
	}
	return b
}

// TestQueued reads what is not committed yet, with the disk held up by a transaction.
func TestQueued(t *testing.T) {
	s := openNew(t)
	put(t, s, job{ID: "gone"})
	tx, err := s.db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	s.PutSoon(job{ID: "a", N: 1})
	for deadline := time.Now().Add(5 * time.Second); ; { // until it is being committed
		s.mu.Lock()
		committing := s.committing != nil
		s.mu.Unlock()
		if committing || time.Now().After(deadline) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if j, err := s.Get("a"); err != nil || j.N != 1 {
		t.Errorf("being committed: %+v, %v", j, err)
	}
	s.PutSoon(job{ID: "a", N: 2})
	if j, err := s.Get("a"); err != nil || j.N != 2 {
		t.Errorf("queued: %+v, %v", j, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Put(ctx, job{ID: "a", N: 3}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("put with a deadline: %v", err)
	}
	if err := s.Put(ctx, job{ID: "late"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("put after its deadline: %v", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Delete("gone"); err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(5 * time.Second); ; {
		if _, err := s.Get("gone"); errors.Is(err, ErrNotFound) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a queued deletion is not seen")
		}
		time.Sleep(time.Millisecond)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if all := newest(t, s); len(all) != 1 || all[0].N != 3 {
		t.Errorf("in the end: %+v", all)
	}
}

func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	s := openAt(t, path)
	for i := range 1000 {
		s.PutSoon(job{ID: fmt.Sprint(i), N: i})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var reported error
	s.opts.OnError = func(err error) { reported = err }
	s.PutSoon(job{ID: "late"})
	_, unfinished := s.Unfinished()
	_, match := s.Match("", 0)
	_, get := s.Get("1")
	for name, err := range map[string]error{
		"PutSoon": reported, "Put": s.Put(t.Context(), job{ID: "x"}), "Delete": s.Delete("1"), "Close": s.Close(),
		"Get": get, "Match": match, "Unfinished": unfinished,
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := newest(t, openAt(t, path)); len(got) != 1000 {
		t.Errorf("%d records", len(got))
	}
}

func TestLock(t *testing.T) {
	s := openNew(t)
	_, err := open(s.db.Path(), options(t), 50*time.Millisecond)
	if !errors.Is(err, ErrInUse) || !strings.HasSuffix(err.Error(), s.db.Path()+": in use by another rtaskd") {
		t.Error(err)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "no", "jobs.db"), options(t)); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	other := filepath.Join(dir, "text")
	if err := os.WriteFile(other, bytes.Repeat([]byte("text"), 9000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(other, options(t)); err == nil {
		t.Error("a text file was opened")
	}
	for _, n := range []byte{layout - 1, layout + 1} {
		path := filepath.Join(dir, fmt.Sprint(n))
		s := openAt(t, path)
		edit(t, s, func(tx *bbolt.Tx) error { return meta.of(tx).Put([]byte("layout"), []byte{n}) })
		s.Close()
		if _, err := Open(path, options(t)); !errors.Is(err, ErrVersion) {
			t.Errorf("layout %d: %v", n, err)
		}
	}
}

func TestUndecodable(t *testing.T) {
	s := openNew(t)
	for i, id := range []string{"first", "version", "short", "damaged", "last"} {
		put(t, s, job{ID: id, Created: at(i)})
	}
	edit(t, s, func(tx *bbolt.Tx) error {
		record := func(id string) []byte { return bytes.Clone(records.of(tx).Get([]byte(id))) }
		v, d := record("version"), record("damaged")
		v[timeSize], d[timeSize+1] = version+1, 0xff
		return errors.Join(records.of(tx).Put([]byte("version"), v), records.of(tx).Put([]byte("damaged"), d),
			records.of(tx).Put([]byte("short"), record("short")[:timeSize]))
	})
	check := func(err error, id string) {
		t.Helper()
		var de *DecodeError
		if !errors.As(err, &de) || de.ID != id || !strings.Contains(err.Error(), `"`+id+`"`) {
			t.Errorf("%s: %v", id, err)
		}
	}
	for _, id := range []string{"version", "short", "damaged"} {
		_, err := s.Get(id)
		check(err, id)
		if errors.Is(err, ErrVersion) != (id == "version") {
			t.Errorf("%s: %v", id, err)
		}
		_, err = s.Match(id, 1)
		check(err, id)
	}
	if open, err := s.Unfinished(); ids(open) != "first last " || err == nil || strings.Count(err.Error(), "cannot decode") != 3 {
		t.Errorf("unfinished: %s, %v", ids(open), err)
	}
	var got []string
	for j, err := range s.Newest() {
		if err != nil {
			got = append(got, "!")
		}
		got = append(got, j.ID)
	}
	if s := strings.Join(got, " "); s != "last !  !  !  first" {
		t.Errorf("newest: %q", s)
	}
	put(t, s, job{ID: "version", Created: at(9)})
	if err := s.Delete("damaged", "short"); err != nil {
		t.Fatal(err)
	}
	if got := ids(newest(t, s)); got != "version last first " {
		t.Errorf("mended: %s", got)
	}
}

// TestFields reads records of a version with more and with fewer fields.
func TestFields(t *testing.T) {
	type more struct {
		ID    string         `cbor:"id"`
		Extra map[string]int `cbor:"extra"`
	}
	path := filepath.Join(t.TempDir(), "jobs.db")
	s, err := Open(path, Options[more]{
		ID:         func(m *more) string { return m.ID },
		Time:       func(*more) time.Time { return epoch },
		Unfinished: func(*more) bool { return false },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), more{ID: "a", Extra: map[string]int{"x": 1}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err := openAt(t, path).Get("a"); err != nil || j.ID != "a" || j.N != 0 {
		t.Errorf("%+v, %v", j, err)
	}
}

// TestCommitFails lets commits fail at bbolt's limit for the size of the file.
func TestCommitFails(t *testing.T) {
	s := openNew(t)
	put(t, s, job{ID: "a", N: 1})
	s.db.MaxSize = 64 << 10
	s.db.AllocSize = 0
	reported := make(chan error, 1)
	s.opts.OnError = func(err error) { reported <- err }
	big := job{ID: "a", N: 2, Output: make([]byte, 1<<20)}
	if err := s.Put(t.Context(), big); err == nil || !strings.Contains(err.Error(), `cannot store record "a": `) {
		t.Errorf("put: %v", err)
	}
	s.PutSoon(big)
	if err := <-reported; !strings.HasPrefix(err.Error(), "cannot store 1 records: ") {
		t.Errorf("reported: %v", err)
	}
	if j, err := s.Get("a"); err != nil || j.N != 1 {
		t.Errorf("after it: %+v, %v", j, err)
	}
	s.db.MaxSize = 0
	put(t, s, big)
	if j, err := s.Get("a"); err != nil || j.N != 2 {
		t.Errorf("with space again: %+v, %v", j, err)
	}
}

func TestPutSoonBehind(t *testing.T) {
	s := openNew(t)
	var reported []error
	s.opts.OnError = func(err error) { reported = append(reported, err) }
	s.mu.Lock()
	s.queue.size = maxQueue
	s.mu.Unlock()
	s.PutSoon(job{ID: "dropped"})
	s.PutSoon(job{})
	if len(reported) != 2 || !errors.Is(reported[0], ErrBehind) || !errors.Is(reported[1], ErrID) {
		t.Error(reported)
	}
	put(t, s, job{ID: "waits"})
	s.PutSoon(job{ID: "fits again"})
	if got := newest(t, s); len(got) != 2 {
		t.Errorf("%s", ids(got))
	}
}

func TestCommitsAreShared(t *testing.T) {
	const writers, each = 16, 625
	s := openNew(t)
	before := commits(t, s)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				j := job{ID: fmt.Sprintf("%d-%d", w, i/2), Created: at(i), N: i}
				if i%5 == 0 {
					s.PutSoon(j)
				} else if err := s.Put(t.Context(), j); err != nil {
					t.Error(err)
				}
				if got, err := s.Get(j.ID); err != nil || got.N != i {
					t.Errorf("put %d, got %+v, %v", i, got, err)
				}
			}
		})
	}
	wg.Wait()
	all := newest(t, s)
	n := commits(t, s) - before
	t.Logf("%d puts in %d commits", writers*each, n)
	if n > writers*each/4 {
		t.Errorf("%d puts took %d commits", writers*each, n)
	}
	if len(all) != writers*(each+1)/2 {
		t.Errorf("%d records", len(all))
	}
	for _, j := range all { // of two puts of an id the second stays
		if want := j.N/2*2 + 1; j.N != want && want < each {
			t.Errorf("%s is %d, want %d", j.ID, j.N, want)
		}
	}
}

// crashFile, set, makes the test binary a writer that waits to be killed.
const crashFile = "STORE_TEST_CRASH_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(crashFile); path != "" {
		crashWriter(path)
	}
	os.Exit(m.Run())
}

// crashWriter puts records for ever, from several goroutines, and prints the id of each that is acknowledged.
func crashWriter(path string) {
	s, err := Open(path, options(&testing.T{}))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				j := job{ID: id, Created: time.Now(), Output: make([]byte, i%3000)}
				if err := s.Put(context.Background(), j); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				fmt.Fprintf(os.Stdout, "%s\n", id)
			}
		}()
	}
	select {}
}

func TestCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	acknowledged := make(map[string]bool)
	for round := range 12 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashFile+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		for n := 0; ; n++ {
			id, err := lines.ReadString('\n')
			if err != nil {
				break // a line that was cut was not said
			}
			acknowledged[strings.TrimSuffix(id, "\n")] = true
			if n == 20+37*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatal(err)
		}
		s := openAt(t, path)
		for id := range acknowledged {
			if _, err := s.Get(id); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		open, err := s.Unfinished()
		if err != nil || len(open) != len(newest(t, s)) || len(open) < len(acknowledged) {
			t.Fatalf("round %d: %d unfinished of %d acknowledged, %v", round, len(open), len(acknowledged), err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d acknowledged puts", len(acknowledged))
}

func FuzzDecode(f *testing.F) {
	c, err := newCodec(options(f))
	if err != nil {
		f.Fatal(err)
	}
	_, op, err := c.encode(&job{ID: "a", Created: epoch, Args: []string{"x"}, Env: map[string]string{"k": "v"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(op.record)
	f.Add(op.record[:timeSize])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, record []byte) {
		j, err := c.decode("id", record)
		var de *DecodeError
		if err != nil && (!errors.As(err, &de) || de.ID != "id" || j.ID != "") {
			t.Fatalf("%+v, %v", j, err)
		}
		if err == nil && j.ID != "" && len(j.ID) <= maxID {
			if _, _, err := c.encode(&j); err != nil && j.Created.Year() < 10000 && j.Ended.Year() < 10000 {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkPut(b *testing.B) {
	for _, parallel := range []int{1, 64} {
		b.Run(fmt.Sprint(parallel), func(b *testing.B) {
			s := openNew(b)
			before := commits(b, s)
			var wg sync.WaitGroup
			n := make(chan int)
			for range parallel {
				wg.Go(func() {
					for i := range n {
						if err := s.Put(b.Context(), job{ID: fmt.Sprint(i), Created: at(i), Output: make([]byte, 500)}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			i := 0
			for b.Loop() {
				n <- i
				i++
			}
			close(n)
			wg.Wait()
			b.ReportMetric(float64(i)/float64(commits(b, s)-before), "puts/commit")
		})
	}
}

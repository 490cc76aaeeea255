package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// openHolding opens a Store in which a value holds what its first argument says, until it ended with N = 1.
func openHolding(t *testing.T, path string) *Store[job] {
	t.Helper()
	o := options(t)
	o.Hold = func(j *job) Hold {
		if len(j.Args) == 0 {
			return Hold{}
		}
		return Hold{Key: j.Args[0], Until: j.Created.Add(time.Hour), Released: j.N == 1}
	}
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestHold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	s := openHolding(t, path)
	now := time.Now()
	a, b := job{ID: "a", Created: now, Args: []string{"k"}}, job{ID: "b", Created: now, Args: []string{"k"}}
	refused := func(v job, by string) {
		t.Helper()
		var taken *HeldError
		if err := s.Put(t.Context(), v); !errors.As(err, &taken) || taken.ID != by {
			t.Errorf("%s: %v", v.ID, err)
		}
		if _, err := s.Get(v.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s is stored all the same: %v", v.ID, err)
		}
	}
	put(t, s, a)
	put(t, s, a, job{ID: "c", Created: now, Args: []string{"other"}}, job{ID: "d", Created: now})
	refused(b, "a")
	// It outlasts the record, and the Store.
	if err := s.Delete("a"); err != nil {
		t.Fatal(err)
	}
	refused(b, "a")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openHolding(t, path)
	refused(b, "a")
	if id, err := s.Holder("k", time.Time{}); id != "a" || err != nil {
		t.Errorf("%q, %v", id, err)
	}
	// Given up, it is another's; to give it up again takes it from nobody.
	a.N = 1
	put(t, s, a)
	if id, err := s.Holder("k", time.Time{}); id != "" || err != nil {
		t.Errorf("%q, %v", id, err)
	}
	put(t, s, b)
	put(t, s, a)
	refused(job{ID: "e", Created: now, Args: []string{"k"}}, "b")
}

// TestUndo: a value that came to nothing holds nothing any more, whether it was committed or not, and takes nothing from others.
func TestUndo(t *testing.T) {
	s := openHolding(t, filepath.Join(t.TempDir(), "jobs.db"))
	now := time.Now()
	a, b := job{ID: "a", Created: now, Args: []string{"k"}}, job{ID: "b", Created: now, Args: []string{"k"}}
	for i := range 10 {
		if i%2 == 0 {
			put(t, s, a)
		} else if _, err := s.Begin([]job{a}); err != nil {
			t.Fatal(err)
		}
		if err := s.Undo(a); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get("a"); !errors.Is(err, ErrNotFound) {
			t.Errorf("it is stored: %v", err)
		}
		if id, err := s.Holder("k", time.Time{}); id != "" || err != nil {
			t.Errorf("%q holds it, %v", id, err)
		}
	}
	put(t, s, b)
	if err := s.Undo(a); err != nil {
		t.Fatal(err)
	}
	if id, err := s.Holder("k", time.Time{}); id != "b" || err != nil {
		t.Errorf("%q holds it, %v", id, err)
	}
}

// TestFree: a value that has given up its hold, which is not stored yet, holds nobody up. Once it is, it takes nothing from the next
// holder.
func TestFree(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	o := options(t)
	var free atomic.Bool
	o.Hold = func(j *job) Hold { return Hold{Key: "k", Until: j.Created.Add(time.Hour), Released: j.N == 1} }
	o.Free = func(id string) bool { return id == "a" && free.Load() }
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Now()
	a, b, c := job{ID: "a", Created: now}, job{ID: "b", Created: now}, job{ID: "c", Created: now}
	put(t, s, a)
	var taken *HeldError
	if err := s.Put(t.Context(), b); !errors.As(err, &taken) || taken.ID != "a" {
		t.Errorf("%v", err)
	}
	free.Store(true)
	if id, err := s.Holder("k", time.Time{}); id != "" || err != nil {
		t.Errorf("%q holds it, %v", id, err)
	}
	put(t, s, b)
	a.N = 1
	put(t, s, a)
	if err := s.Put(t.Context(), c); !errors.As(err, &taken) || taken.ID != "b" {
		t.Errorf("%v", err)
	}
}

// A hold that has expired holds nobody up, and goes with the next ones.
func TestHoldExpires(t *testing.T) {
	s := openHolding(t, filepath.Join(t.TempDir(), "jobs.db"))
	old := time.Now().Add(-2 * time.Hour)
	for i := range 20 {
		put(t, s, job{ID: fmt.Sprint("old", i), Created: old, Args: []string{fmt.Sprint("k", i)}})
	}
	put(t, s, job{ID: "new", Created: time.Now(), Args: []string{"k3"}})
	if id, err := s.Holder("k3", time.Time{}); id != "new" || err != nil {
		t.Errorf("%q, %v", id, err)
	}
	put(t, s, job{ID: "old3", Created: old, Args: []string{"k3"}, N: 2}) // stored again, without a hold that has expired
	if id, err := s.Holder("k3", time.Time{}); id != "new" || err != nil {
		t.Errorf("%q, %v", id, err)
	}
	for i := range 4 {
		put(t, s, job{ID: fmt.Sprint("more", i), Created: time.Now(), Args: []string{fmt.Sprint("more", i)}})
	}
	if err := s.db.View(func(tx *bbolt.Tx) error {
		if n, m := holds.of(tx).Stats().KeyN, expiries.of(tx).Stats().KeyN; n != 5 || m != 5 {
			t.Errorf("%d holds and %d times are left, want 5", n, m)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// Of many that hold one key at the same time, one is stored, whether they share a commit or not.
func TestHoldRace(t *testing.T) {
	s := openHolding(t, filepath.Join(t.TempDir(), "jobs.db"))
	var wg sync.WaitGroup
	errs := make(chan error, 200)
	for i := range cap(errs) {
		wg.Go(func() {
			errs <- s.Put(t.Context(), job{ID: fmt.Sprint("j", i), Created: time.Now(), Args: []string{fmt.Sprint(i % 10)}})
		})
	}
	wg.Wait()
	close(errs)
	stored := 0
	for err := range errs {
		if taken := (*HeldError)(nil); err == nil {
			stored++
		} else if !errors.As(err, &taken) {
			t.Error(err)
		}
	}
	if all := newest(t, s); stored != 10 || len(all) != 10 {
		t.Errorf("%d were told that they are stored, and %d are", stored, len(all))
	}
}

// Of more holds than there may be, those go that expire early, and none of another source.
func TestHoldsBounded(t *testing.T) {
	const most, all = 50, 300
	o := options(t)
	o.MaxHolds = most
	o.Hold = func(j *job) Hold {
		return Hold{Key: j.Args[0], Until: j.Created, Released: j.N == 1}
	}
	s, err := Open(filepath.Join(t.TempDir(), "jobs.db"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	at := time.Now().Add(time.Hour)
	key := func(source string, i int) string {
		return fmt.Sprintf("%s/%x", source, sha256.Sum256([]byte{byte(i), byte(i >> 8)}))
	}
	value := func(source string, i int) job {
		return job{ID: fmt.Sprint(source, i), Created: at.Add(time.Duration(i) * time.Second), Args: []string{key(source, i)}}
	}
	held := func(source string, i int) bool {
		id, err := s.Holder(key(source, i), time.Time{})
		return err == nil && id == fmt.Sprint(source, i)
	}
	for i := range 10 {
		put(t, s, value("other", i))
	}
	for i := range all {
		put(t, s, value("many", i))
	}
	n := 0
	for i := range all {
		if held("many", i) {
			n++
		} else if i > all-sampled {
			t.Errorf("the hold %d of %d is forgotten", i, all)
		}
	}
	for i := range 10 {
		if !held("other", i) {
			t.Errorf("the hold %d of another source is forgotten", i)
		}
	}
	if n != most {
		t.Errorf("%d holds are known, not %d", n, most)
	}
	// What is given up makes room.
	for i := all - sampled + 1; i < all; i++ {
		v := value("many", i)
		v.N = 1
		put(t, s, v)
	}
	before := 0
	for i := range all {
		if held("many", i) {
			before++
		}
	}
	put(t, s, value("many", all))
	if after := most - sampled + 1; before != after || !held("many", all) {
		t.Errorf("%d holds are left, want %d", before, after)
	}
	if err := s.db.View(func(tx *bbolt.Tx) error {
		if n, m, c := holds.of(tx).Stats().KeyN, expiries.of(tx).Stats().KeyN, crowded(tx, []byte("many/")); n != before+11 || m != n || c != before+1 {
			t.Errorf("%d holds, %d times, %d of many", n, m, c)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

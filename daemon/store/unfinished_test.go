package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

func TestHasUnfinished(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	check := func(want bool) {
		t.Helper()
		if got, err := HasUnfinished(path); err != nil || got != want {
			t.Fatalf("%v, %v", got, err)
		}
	}
	check(false)
	if _, err := os.Stat(path); err == nil {
		t.Fatal("to look made the file")
	}
	for _, c := range []struct {
		put  job
		want bool
	}{
		{job{ID: "a", Created: at(1), Ended: at(2)}, false},
		{job{ID: "b", Created: at(3)}, true},
		{job{ID: "b", Created: at(3), Ended: at(4)}, false},
	} {
		s := openAt(t, path)
		put(t, s, c.put)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		check(c.want)
	}
	// Whoever has it open sees to them.
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := hasUnfinished(path, 1); !errors.Is(err, ErrInUse) {
		t.Fatal(err)
	}
}

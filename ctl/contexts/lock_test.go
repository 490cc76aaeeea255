package contexts

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestHold checks that the lock of a folder which was replaced meanwhile counts for nothing: the next process takes that of the new one.
func TestHold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "build")
	open := func() *os.File {
		t.Helper()
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	old := open()
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if held, err := hold(old, dir); held || err != nil {
		t.Errorf("without a folder at its path: %v, %v", held, err)
	}
	now := open()
	if held, err := hold(old, dir); held || err != nil {
		t.Errorf("with another folder at its path: %v, %v", held, err)
	}
	if held, err := hold(now, dir); !held || err != nil {
		t.Errorf("the folder of that path: %v, %v", held, err)
	}
	again, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if held, err := hold(again, dir); held || err != nil {
		t.Errorf("locked already: %v, %v", held, err)
	}
}

// TestWaitEnds checks that who waits for another process, which may be waiting for somebody to type a passphrase, can be interrupted.
func TestWaitEnds(t *testing.T) {
	f, none := Folder{Path: t.TempDir()}, func(string) error { return nil }
	c := Context{Name: "build", URL: "https://build.example.org"}
	if err := f.Save(t.Context(), c, Content{}, none, true); err != nil {
		t.Fatal(err)
	}
	for about, wait := range map[string]func(context.Context) error{
		"use":    func(ctx context.Context) error { return f.Use(ctx, "build") },
		"rename": func(ctx context.Context) error { return f.Rename(ctx, "build", "other") },
		"remove": func(ctx context.Context) error { return f.Remove(ctx, "build") },
		"login":  func(ctx context.Context) error { return f.Save(ctx, c, Content{}, none, true) },
	} {
		for _, dir := range []string{f.Path, f.Dir("build")} {
			if about == "use" && dir != f.Path {
				continue // it is about no context's folder
			}
			unlock, err := lock(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			interrupted := errors.New("interrupted")
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(interrupted)
			done := make(chan error, 1)
			go func() { done <- wait(ctx) }()
			select {
			case err = <-done:
			case <-time.After(10 * time.Second):
				t.Errorf("%s waits for %s for ever", about, dir)
				unlock()
				err = <-done
			}
			if !errors.Is(err, interrupted) {
				t.Errorf("%s, with %s locked: %v", about, dir, err)
			}
			unlock()
		}
	}
	if got, err := f.Get("build"); err != nil || got != c {
		t.Errorf("the context: %+v, %v", got, err)
	}
}

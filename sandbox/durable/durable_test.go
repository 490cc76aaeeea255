package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path, next := filepath.Join(dir, "file"), filepath.Join(dir, ".next")
	holds := func(want string) {
		t.Helper()
		b, err := os.ReadFile(path)
		if string(b) != want || err != nil {
			t.Errorf("it holds %q (%v), want %q", b, err, want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		if _, err := os.Lstat(next); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the next file is left: %v", err)
		}
	}
	for _, content := range []string{"one", "", "three"} {
		if err := Replace(path, next, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		holds(content)
	}
	// What a crash left, or somebody put there, is removed and not written to.
	other := filepath.Join(t.TempDir(), "other")
	for _, leave := range []func() error{
		func() error { return os.WriteFile(next, []byte("half of it and more"), 0o666) },
		func() error { return os.Symlink(other, next) },
	} {
		if err := leave(); err != nil {
			t.Fatal(err)
		}
		if err := Replace(path, next, []byte("four"), 0o600); err != nil {
			t.Fatal(err)
		}
		holds("four")
	}
	if _, err := os.Lstat(other); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it wrote to where a symbolic link led: %v", err)
	}
	// A failure changes nothing.
	if err := os.Mkdir(next, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(path, next, []byte("five"), 0o600); err == nil {
		t.Error("it wrote a file where there is a folder")
	}
	if err := os.Remove(next); err != nil {
		t.Fatal(err)
	}
	holds("four")
	if err := Replace(filepath.Join(dir, "none", "file"), next, nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a folder that does not exist: %v", err)
	}
	holds("four")
}

func TestCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, content := range []string{"one", "two"} {
		if err := Create(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); string(b) != content || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	}
	if err := Create(filepath.Join(path, "x"), nil, 0o600); err == nil {
		t.Error("it wrote below a file")
	}
}

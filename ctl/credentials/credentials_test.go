package credentials

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What systemd-creds itself does is tried by the script 76-ca of packaging/e2e, on a machine with systemd.

// TestWithoutProgram seals where there is no systemd-creds: nothing is written.
func TestWithoutProgram(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	s := Store{Folder: filepath.Join(t.TempDir(), "credstore.encrypted")}
	if err := s.Seal(t.Context(), "ca.key", "rtask-ca.key", []byte("secret")); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	if _, err := os.Lstat(s.Folder); err == nil {
		t.Error("there is a folder")
	}
}

// TestFiles moves and removes sealed secrets, and finds out which there are.
func TestFiles(t *testing.T) {
	s := Store{Folder: t.TempDir()}
	if err := s.Missing("a"); err != nil {
		t.Error(err)
	}
	if err := os.Symlink("/nowhere", s.Path("a")); err != nil { // which an open would not find
		t.Fatal(err)
	}
	if err := s.Missing("a"); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	if err := s.Move("a", "b"); err != nil || s.Missing("a") != nil || s.Missing("b") == nil {
		t.Error(err)
	}
	for range 2 { // the second time there is nothing
		if err := s.Remove("b"); err != nil || s.Missing("b") != nil {
			t.Error(err)
		}
	}
}

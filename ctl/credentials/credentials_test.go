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

// TestUnreadable seals where what systemd-creds seals cannot be opened again, as with systemd 252 and a TPM without PCRs, or opens as
// something else: nothing is written.
func TestUnreadable(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	for program, want := range map[string]string{
		"if [ $1 = decrypt ]; then echo PCR bank invalid >&2; exit 1; fi; echo sealed": "cannot open ca.key again once it is sealed: systemd-creds: exit status 1: PCR bank invalid",
		"echo sealed": "cannot open ca.key again once it is sealed: systemd-creds printed something else",
		"exit 1":      "cannot seal ca.key: systemd-creds: exit status 1",
		"exit 0":      "cannot seal ca.key: systemd-creds printed nothing",
	} {
		if err := os.WriteFile(filepath.Join(bin, "systemd-creds"), []byte("#!/bin/sh\n"+program+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		s := Store{Folder: filepath.Join(t.TempDir(), "credstore.encrypted")}
		if err := s.Seal(t.Context(), "ca.key", "rtask-ca.key", []byte("secret")); err == nil || err.Error() != want {
			t.Errorf("%s: %v", program, err)
		}
		if _, err := os.Lstat(s.Folder); err == nil {
			t.Errorf("%s: there is a folder", program)
		}
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

// TestArguments checks what systemd-creds is asked for: without a PCR, systemd 252 opens nothing that a TPM has sealed, and by default it
// would be bound to PCR 7. Only what is opened again is written.
func TestArguments(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	for tpm, want := range map[bool]string{
		false: "encrypt --with-key=host --name=ca.key - -\ndecrypt --name=ca.key - -\n",
		true:  "encrypt --with-key=host+tpm2 --tpm2-pcrs=16 --name=ca.key - -\ndecrypt --name=ca.key - -\n",
	} {
		asked := filepath.Join(t.TempDir(), "asked")
		if err := os.WriteFile(filepath.Join(bin, "systemd-creds"), []byte("#!/bin/sh\necho \"$@\" >>"+asked+"\nexec cat\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		s := Store{Folder: filepath.Join(t.TempDir(), "credstore.encrypted"), TPM: tpm}
		if err := s.Seal(t.Context(), "ca.key", "rtask-ca.key", []byte("secret")); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(asked); string(got) != want {
			t.Errorf("it was asked for %q (%v), want %q", got, err, want)
		}
		if got, err := os.ReadFile(s.Path("rtask-ca.key")); string(got) != "secret" {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// TestLock checks that the lock has one holder, and is given back.
func TestLock(t *testing.T) {
	s := Store{Folder: filepath.Join(t.TempDir(), "credstore.encrypted")}
	for range 2 {
		unlock, err := s.Lock()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Lock(); !errors.Is(err, ErrBusy) {
			t.Errorf("a second one: %v", err)
		}
		unlock()
	}
}

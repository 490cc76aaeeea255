// Package credentials seals secrets for systemd's services: systemd-creds(1) encrypts them, so that they are readable on this machine
// alone, and services get them as credentials (systemd.exec(5), LoadCredentialEncrypted=).
//
// It starts one program, systemd-creds, to which a secret goes through a pipe: never as an argument or in a file. Only package ctl
// imports it.
package credentials

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/durable"
)

// DefaultFolder is where services look for encrypted credentials that their units name without a path.
const DefaultFolder = "/etc/credstore.encrypted"

// patience is how long systemd-creds may take; a TPM takes some seconds.
const patience = time.Minute

var (
	// ErrNone is returned when there is no systemd-creds.
	ErrNone = errors.New("systemd-creds is not installed (systemd 250 has it)")

	// ErrExists is returned when there is a sealed secret of that name already.
	ErrExists = errors.New("there is one already")

	// ErrBusy is returned when another process has the lock.
	ErrBusy = errors.New("another process is changing the sealed keys")
)

// Store is a folder of sealed secrets.
type Store struct {
	Folder string
	// TPM seals with the machine's TPM2 chip, too. See unchanging.
	TPM bool
}

// unchanging is the PCR of the TPM that what is sealed is bound to: that for debugging, which neither firmware nor boot loader nor systemd
// uses, so that an upgrade of these breaks nothing. systemd 252 opens nothing that is bound to no PCR.
const unchanging = "16"

// Path is where a secret is.
func (s Store) Path(file string) string { return filepath.Join(s.Folder, file) }

// Lock takes the lock of the folder, without which nobody changes what is in it, and returns what gives it back. It does not wait: ErrBusy.
func (s Store) Lock() (unlock func(), err error) {
	if err := os.MkdirAll(s.Folder, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.Folder, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrBusy
		}
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // which unlocks it
}

// Missing returns ErrExists if there is a secret in a file.
func (s Store) Missing(file string) error {
	_, err := os.Lstat(s.Path(file))
	switch {
	case err == nil:
		return fmt.Errorf("%s: %w", s.Path(file), ErrExists)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

// Seal writes a secret to a file (0600), encrypted with the key of this machine for a credential of a name. What is in the file is
// replaced: after a crash there is the old one or the new one. By default systemd-creds would bind it to PCR 7 of the TPM, whose value
// changes with updates of the Secure Boot database; so the key is said. What could not be opened again is not written: the secret would be
// lost when its service starts the next time.
func (s Store) Seal(ctx context.Context, credential, file string, secret []byte) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	how := []string{"encrypt", "--with-key=host"}
	if s.TPM {
		how = []string{"encrypt", "--with-key=host+tpm2", "--tpm2-pcrs=" + unchanging}
	}
	sealed, err := run(ctx, secret, append(how, "--name="+credential, "-", "-")...)
	if err != nil {
		return fmt.Errorf("cannot seal %s: %w", credential, err)
	}
	opened, err := run(ctx, sealed, "decrypt", "--name="+credential, "-", "-")
	if err == nil && !bytes.Equal(opened, secret) {
		err = errors.New("systemd-creds printed something else")
	}
	if err != nil {
		return fmt.Errorf("cannot open %s again once it is sealed: %w", credential, err)
	}
	if err := os.MkdirAll(s.Folder, 0o700); err != nil {
		return err
	}
	return durable.Replace(s.Path(file), s.Path(file)+".new", sealed, 0o600)
}

// run runs systemd-creds, and returns what it prints.
func run(ctx context.Context, input []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "systemd-creds", args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &errs
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "SYSTEMD_COLORS=0"}
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, ErrNone
	case err != nil:
		return nil, fmt.Errorf("systemd-creds: %w%s", err, lastLine(errs.String()))
	case out.Len() == 0:
		return nil, errors.New("systemd-creds printed nothing")
	}
	return out.Bytes(), nil
}

// Move puts a sealed secret in the place of another one.
func (s Store) Move(from, to string) error {
	if err := os.Rename(s.Path(from), s.Path(to)); err != nil {
		return err
	}
	return durable.SyncFolder(s.Folder)
}

// Remove removes a sealed secret.
func (s Store) Remove(file string) error {
	if err := os.Remove(s.Path(file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// lastLine is what a program said last, to be put behind its error.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return ": " + last
	}
	return ""
}

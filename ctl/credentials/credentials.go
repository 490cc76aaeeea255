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
)

// Store is a folder of sealed secrets.
type Store struct {
	Folder string
	// TPM seals with the machine's TPM2 chip, too, and with no state of it (no PCRs), so that an upgrade of firmware breaks nothing.
	TPM bool
}

// Path is where a secret is.
func (s Store) Path(file string) string { return filepath.Join(s.Folder, file) }

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
// changes with updates of the Secure Boot database; so the key is said.
func (s Store) Seal(ctx context.Context, credential, file string, secret []byte) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	args := []string{"encrypt", "--with-key=host", "--name=" + credential, "-", "-"}
	if s.TPM {
		args = []string{"encrypt", "--with-key=host+tpm2", "--tpm2-pcrs=", "--name=" + credential, "-", "-"}
	}
	cmd := exec.CommandContext(ctx, "systemd-creds", args...)
	var sealed, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(secret), &sealed, &errs
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "SYSTEMD_COLORS=0"}
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return ErrNone
	case err != nil:
		return fmt.Errorf("cannot seal %s: systemd-creds: %w%s", credential, err, lastLine(errs.String()))
	case sealed.Len() == 0:
		return fmt.Errorf("cannot seal %s: systemd-creds printed nothing", credential)
	}
	if err := os.MkdirAll(s.Folder, 0o700); err != nil {
		return err
	}
	return durable.Replace(s.Path(file), s.Path(file)+".new", sealed.Bytes(), 0o600)
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

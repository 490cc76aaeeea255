package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rtask/rtask/sandbox/spec"
)

// writeRecord writes how a job ended where an engine that comes back finds it: whole or not at all, and on disk when it
// returns (temporary file, fsync, rename, fsync of the folder).
func writeRecord(path string, exit *spec.Exit) (err error) {
	b, err := exit.Encode()
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".exit-*")
	if err != nil {
		return fmt.Errorf("cannot write the exit record: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cannot write the exit record: %w", err), os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot sync the exit record: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("cannot sync the exit record: %w", err)
	}
	return nil
}

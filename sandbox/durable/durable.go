// Package durable writes small files so that they survive a crash and a power cut: the content is on the disk before the name is,
// and the name before the call returns (fsync(2)).
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Replace replaces a file: after a crash at any point there is the old one or the new one. The new one is first written to next,
// a path in the same folder; what an earlier crash left there is removed.
func Replace(path, next string, content []byte, mode fs.FileMode) error {
	if err := WriteFile(next, content, mode); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return SyncFolder(filepath.Dir(path))
}

// Create writes a file that no process reads before it is complete. It removes what is at its path, unless that is a folder.
func Create(path string, content []byte, mode fs.FileMode) error {
	if err := WriteFile(path, content, mode); err != nil {
		return err
	}
	return SyncFolder(filepath.Dir(path))
}

// SyncFolder makes the names in a folder durable.
func SyncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// WriteFile writes a new file and syncs it, but for its name, which SyncFolder does. On an error nothing of it is left.
func WriteFile(path string, content []byte, mode fs.FileMode) error {
	if err := unix.Unlink(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

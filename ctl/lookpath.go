package ctl

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lookPath finds the executable of a command as exec.LookPath of os/exec does, absolute: a name with a slash is taken
// from dir, any other is looked for in the folders of path. What only a relative folder of path has is errRelative; a
// name that no folder has is fs.ErrNotExist.
func lookPath(name, path, dir string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, executable(name)
	}
	if name == "" || name == "." || name == ".." {
		return "", fs.ErrNotExist
	}
	for _, folder := range filepath.SplitList(path) {
		full := filepath.Join(folder, name) // an empty folder is the current one
		if !filepath.IsAbs(folder) {
			if executable(filepath.Join(dir, full)) == nil {
				return "", errRelative
			}
			continue
		}
		if executable(full) == nil {
			return full, nil
		}
	}
	return "", fs.ErrNotExist
}

// executable returns nil for a file that the caller may execute.
func executable(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return &fs.PathError{Op: "exec", Path: path, Err: fs.ErrPermission}
	}
	err = unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		// A filter for system calls that does not know faccessat2(2).
		err = nil
		if fi.Mode()&0o111 == 0 {
			err = unix.EACCES
		}
	}
	if err != nil {
		return &fs.PathError{Op: "exec", Path: path, Err: err}
	}
	return nil
}

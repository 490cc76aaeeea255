package contexts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/ctl/keystore"
	"github.com/rtask/rtask/sandbox/durable"
)

// Check says why a context cannot be saved: its folder would take the place of what is somebody's own.
func (f Folder) Check(c Context) error {
	l, err := f.read()
	if err != nil {
		return err
	}
	return f.free(l, c)
}

// free is Check with contexts.toml at hand.
func (f Folder) free(l *list, c Context) error {
	if err := f.apart(c); err != nil {
		return err
	}
	dir := f.Dir(c.Name)
	_, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && l.Contexts[c.Name] == nil:
		return fmt.Errorf("%s exists and belongs to no context: move it away", dir)
	}
	return err
}

// apart refuses a context that is to use somebody's own files in its folder, which is replaced and removed.
func (f Folder) apart(c Context) error {
	dir := f.Dir(c.Name)
	for _, file := range []string{c.CertFile, c.KeyFile, c.CAFile} {
		if file != "" && below(file, dir) {
			return fmt.Errorf("%s is in the folder that rtask makes for the context %s: move it to another one", file, c.Name)
		}
	}
	return nil
}

// below reports whether a file is in a folder or in one below that, by its own path or by where symbolic links lead.
func below(file, dir string) bool {
	paths := []string{file}
	if path, err := filepath.EvalSymlinks(file); err == nil { // else it is not there
		paths = append(paths, path)
	}
	folder, err := os.Stat(dir)
	if err != nil {
		return false // there is no folder that it could be in
	}
	for _, path := range paths {
		for up := filepath.Dir(path); ; up = filepath.Dir(up) {
			if fi, err := os.Stat(up); err == nil && os.SameFile(fi, folder) {
				return true
			}
			if up == filepath.Dir(up) {
				break
			}
		}
	}
	return false
}

// move gives the folder of a context its new name, unless an earlier attempt, which ended before contexts.toml was written, has done so.
func (f Folder) move(l *list, from, to string) error {
	old, dir := f.Dir(from), f.Dir(to)
	_, missing := os.Lstat(old)
	_, free := os.Lstat(dir)
	switch {
	case errors.Is(missing, fs.ErrNotExist) && free == nil:
		_, err := allOurs(dir)
		return err
	case free == nil:
		return fmt.Errorf("%s exists and belongs to no context: move it away", dir)
	}
	if err := os.Rename(old, dir); err != nil {
		return err
	}
	l.undo = func() error { return os.Rename(dir, old) }
	return nil
}

// ours reports whether an entry of a context's folder is a file that rtask makes.
func ours(e fs.DirEntry) bool {
	name := strings.TrimSuffix(e.Name(), ".new") // a crash may leave that of durable.Replace
	return !e.IsDir() && slices.Contains(append(keystore.Files(), certFile, caFile, tokenFile, warnedFile), name)
}

// allOurs returns what is in a context's folder, or an error if something of that is not rtask's.
func allOurs(dir string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if !ours(e) {
			return nil, fmt.Errorf("%s is not rtask's: move it out of the folder %s", filepath.Join(dir, e.Name()), dir)
		}
	}
	return entries, err
}

// remove removes a context's folder, unless something in it is not rtask's.
func remove(dir string) error {
	entries, err := allOurs(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return os.Remove(dir)
}

// replace makes a context's folder anew and puts it into its place. Who waits for the lock of the old one finds that it is another. What
// is in the old one and not rtask's goes into the new one.
func (f Folder) replace(name string, content Content, keep func(dir string) error) error {
	dir := f.Dir(name)
	next, err := os.MkdirTemp(f.Path, ".new-") // 0700
	if err != nil {
		return err
	}
	old := next + ".old"
	err = fill(next, dir, content, keep)
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE)
		switch {
		case err == nil:
			old = next
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
			// There is none yet, or this file system cannot exchange two.
			if err = os.Rename(dir, old); err == nil || errors.Is(err, fs.ErrNotExist) {
				err = os.Rename(next, dir)
			}
		default:
			err = &fs.PathError{Op: "rename", Path: dir, Err: err}
		}
	}
	if err != nil {
		_ = os.RemoveAll(next)  // what is left of this attempt
		_ = os.Rename(old, dir) // if it was moved away
		return err
	}
	if err := takeOver(old, dir); err != nil {
		return fmt.Errorf("what is not rtask's in the old folder of the context %s is now in %s: %w", name, old, err)
	}
	return durable.SyncFolder(f.Path)
}

// fill writes the files of a context into a new folder. Without keep its key is that of the old one.
func fill(next, old string, content Content, keep func(dir string) error) error {
	for file, text := range map[string]string{certFile: content.Certificate, caFile: content.CA} {
		if text == "" {
			continue
		}
		if err := durable.Create(filepath.Join(next, file), []byte(text), 0o600); err != nil {
			return err
		}
	}
	if keep != nil {
		if err := keep(next); err != nil {
			return err
		}
		return durable.SyncFolder(next)
	}
	for _, file := range keystore.Files() {
		if err := os.Link(filepath.Join(old, file), filepath.Join(next, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return durable.SyncFolder(next)
}

// takeOver removes an old folder of a context. What is not rtask's in it goes into the new one.
func takeOver(old, dir string) error {
	fi, err := os.Lstat(old)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		return os.Remove(old) // a symbolic link; where it leads is somebody's own
	}
	entries, err := os.ReadDir(old)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(old, e.Name())
		if ours(e) {
			err = os.Remove(path)
		} else {
			err = os.Rename(path, filepath.Join(dir, e.Name()))
		}
		if err != nil {
			return err
		}
	}
	return os.Remove(old)
}

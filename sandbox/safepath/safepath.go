// Package safepath looks up, opens and makes files in folders that other users can change while a privileged process works
// there. A plain open or mkdir by path follows whatever symbolic link such a user puts in the way.
//
// It is done in two steps. Resolve follows the symbolic links of a path, but not those that lead from one user's folder to
// what another user owns. The other functions take what Resolve returned and follow no link any more: a link that somebody
// has put there since is an error (openat2(2), RESOLVE_NO_SYMLINKS).
//
// Every package that opens or makes files by a path of the configuration or of a request uses it; creates_test.go checks that.
package safepath

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links of a path are followed, as the kernel has it (path_resolution(7)).
const maxLinks = 40

// LinkError is returned by Resolve for a symbolic link that is not followed.
type LinkError struct {
	// Path is where the link is, and Target what it leads to, without symbolic links.
	Path, Target string
	// Owner is the user who owns the link.
	Owner uint32
}

// Error implements error.
func (e *LinkError) Error() string {
	return fmt.Sprintf("%s is a symbolic link of user %d's to %s, which that user does not own; name %s itself if it is what you mean", e.Path, e.Owner, e.Target, e.Target)
}

// Resolve returns an absolute path without symbolic links. It follows links of root's and of the trusted users, and another user's
// link only to what the same user owns. A process that is not root has nothing to lose, and follows every link. Errors are
// *LinkError and those of openat2(2).
func Resolve(name string, trusted ...uint32) (string, error) {
	r := resolver{trusted: trusted, all: os.Geteuid() != 0}
	return r.walk("/", name)
}

// ResolveMissing is Resolve for a path of which the end may be missing: it resolves as much as there is.
func ResolveMissing(name string, trusted ...uint32) (string, error) {
	name = path.Clean(name)
	found, err := Resolve(name, trusted...)
	if !errors.Is(err, unix.ENOENT) || name == "/" {
		return found, err
	}
	dir, err := ResolveMissing(path.Dir(name), trusted...)
	return path.Join(dir, path.Base(name)), err
}

type resolver struct {
	trusted []uint32
	all     bool // every link is followed
	links   int
}

// walk resolves name, from the folder dir, which is resolved.
func (r *resolver) walk(dir, name string) (string, error) {
	if path.IsAbs(name) {
		dir = "/"
	}
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "", ".":
			continue
		case "..":
			dir = path.Dir(dir)
			continue
		}
		at := path.Join(dir, part)
		st, target, err := look(at)
		if err != nil {
			return "", err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			dir = at
			continue
		}
		if r.links++; r.links > maxLinks {
			return "", unix.ELOOP
		}
		if dir, err = r.walk(dir, target); err != nil {
			return "", err
		}
		if r.all || st.Uid == 0 || slices.Contains(r.trusted, st.Uid) {
			continue
		}
		if to, _, err := look(dir); err != nil {
			return "", err
		} else if to.Uid != st.Uid {
			return "", &LinkError{Path: at, Target: dir, Owner: st.Uid}
		}
	}
	return dir, nil
}

// look returns what is at path, and of a symbolic link where it leads.
func look(at string) (st unix.Stat_t, target string, err error) {
	fd, err := Open(at, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return st, "", err
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return st, "", err
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return st, "", err
	}
	return st, string(buf[:n]), nil
}

// Open opens a resolved path and returns the descriptor, which is closed on exec. It makes and empties no file. ELOOP says
// that a symbolic link is on the way.
func Open(resolved string, flags int) (int, error) {
	if flags&(unix.O_CREAT|unix.O_TRUNC) != 0 {
		return -1, unix.EINVAL
	}
	for {
		fd, err := unix.Openat2(unix.AT_FDCWD, resolved, &unix.OpenHow{
			Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		})
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// Lstat returns what is at a resolved path; a symbolic link is not followed.
func Lstat(resolved string) (unix.Stat_t, error) {
	st, _, err := look(resolved)
	return st, err
}

// OpenFile resolves a path, which may be relative, and opens it for reading. It does not wait for a writer of a FIFO. Errors are
// *os.PathError.
func OpenFile(name string, trusted ...uint32) (*os.File, error) {
	resolved, err := filepath.Abs(name)
	if err == nil {
		resolved, err = Resolve(resolved, trusted...)
	}
	if err == nil {
		var fd int
		if fd, err = Open(resolved, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY); err == nil {
			return os.NewFile(uintptr(fd), name), nil
		}
	}
	return nil, &os.PathError{Op: "open", Path: name, Err: err}
}

// Maker makes what is missing of a resolved path.
type Maker struct {
	// Look calls a function with the rights that folders are looked up with; nil: those of the process.
	Look func(func() error) error
	// May returns an error if nothing may be made in the open folder dir; nil: it may everywhere.
	May func(dir int) error
	// Made, if set, is called for each folder that was made above the last part of the path, open for reading. It may change the folder.
	Made func(dir int, path string) error
}

// Make makes a folder, or an empty file, at a resolved path, with the folders above it; mode 0755 and 0644. What is there
// stays as it is, whatever it is.
func (m Maker) Make(resolved string, file bool) error {
	parts := strings.Split(strings.Trim(resolved, "/"), "/")
	dir, err := Open("/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }() // nothing was written to it
	for i, part := range parts {
		last := i == len(parts)-1
		next, err := m.enter(dir, part, last)
		if errors.Is(err, unix.ENOENT) {
			switch next, err = m.make(dir, part, last && file); {
			case errors.Is(err, unix.EEXIST): // another process just made it
				next, err = m.enter(dir, part, last)
			case err == nil && !last && m.Made != nil:
				err = m.Made(next, "/"+strings.Join(parts[:i+1], "/"))
			}
		}
		if next >= 0 {
			_ = unix.Close(dir) // likewise
			dir = next
		}
		if err != nil || next < 0 {
			return err
		}
	}
	return nil
}

// enter opens the folder part of dir. Whatever the last part is, it is enough that it is there, and next is below 0.
func (m Maker) enter(dir int, part string, last bool) (next int, err error) {
	next = -1
	look := func() error {
		if last {
			var st unix.Stat_t
			return unix.Fstatat(dir, part, &st, unix.AT_SYMLINK_NOFOLLOW)
		}
		next, err = unix.Openat(dir, part, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	}
	if m.Look != nil {
		return next, m.Look(look)
	}
	return next, look()
}

// make makes part in dir and returns it open for reading.
func (m Maker) make(dir int, part string, file bool) (int, error) {
	if m.May != nil {
		if err := m.May(dir); err != nil {
			return -1, err
		}
	}
	if file {
		return unix.Openat(dir, part, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0o644)
	}
	if err := unix.Mkdirat(dir, part, 0o755); err != nil {
		return -1, err
	}
	return unix.Openat(dir, part, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

package jail

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/safepath"
	"github.com/rtask/rtask/sandbox/spec"
)

// switchError is a step of a sandbox that failed: which switch, on what.
func switchError(by, path string, err error) error {
	return fmt.Errorf("cannot apply %s to %s: %w", by, path, err)
}

// errNotMade says that a place is missing where a tree is to be mounted.
var errNotMade = fmt.Errorf("%w, and rtask makes no mount point for a command", unix.ENOENT)

// furnisher mounts what a room has. It works in the mount namespace of its thread.
type furnisher struct {
	room  *Room
	trees []*os.File // what was copied
	// before is what folders were like on the machine, for those that are made again in an empty file system.
	before map[string]unix.Stat_t
	// caller has the rights with which paths of a user's command are looked up; nil: root's, for paths of the configuration.
	caller *spec.Credentials
}

// adopt prepares the thread for as: the thread gets the caller's groups, which give root no further rights.
func (f *furnisher) adopt(c *spec.Credentials) error {
	groups := append([]uint32{c.GID}, c.Groups...)
	// Raw, and so of this thread and no other.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0); errno != 0 {
		return fmt.Errorf("cannot take the caller's groups: %w", errno)
	}
	f.caller = c
	return nil
}

// as calls do, which looks up a path, with the caller's rights if the caller named the path. So an error tells nothing that the caller
// could not find out.
func (f *furnisher) as(named bool, do func() error) error {
	if !named || f.caller == nil {
		return do()
	}
	// Of this thread alone, as well; with them go the capabilities that pass permissions of files (capabilities(7)). A failure is
	// seen by asking, with a number that is none, since the calls return what was before.
	set := func(uid, gid uint32) error {
		unix.RawSyscall(unix.SYS_SETFSGID, uintptr(gid), 0, 0)
		unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
		if now, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, uintptr(math.MaxUint32), 0, 0); uint32(now) != uid {
			return fmt.Errorf("cannot look at files as user %d", uid)
		}
		return nil
	}
	if err := set(f.caller.UID, f.caller.GID); err != nil {
		return err
	}
	err := do()
	return errors.Join(err, set(uint32(os.Geteuid()), uint32(os.Getegid())))
}

// open returns a descriptor of path, which is resolved.
func (f *furnisher) open(path string, named bool) (fd int, err error) {
	err = f.as(named, func() error {
		fd, err = safepath.Open(path, unix.O_PATH)
		return err
	})
	return fd, err
}

// lstat returns what is at path, which is resolved.
func (f *furnisher) lstat(path string, named bool) (st unix.Stat_t, err error) {
	err = f.as(named, func() error {
		st, err = safepath.Lstat(path)
		return err
	})
	return st, err
}

// unwrapPath takes the path out of an error, where it is said already.
func unwrapPath(err error) error {
	var e *os.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// resolve makes the paths of places absolute without symbolic links, and leaves out optional ones that are missing.
func (f *furnisher) resolve(places []place) ([]place, error) {
	var all []place
	for _, p := range places {
		there := true
		err := f.as(p.named, func() (err error) {
			there, err = f.resolveOne(&p)
			return err
		})
		if err != nil {
			return nil, err
		}
		if there {
			all = append(all, p)
		}
	}
	return all, nil
}

// resolveOne resolves the paths of a place. It returns false if the place must be left out.
func (f *furnisher) resolveOne(p *place) (bool, error) {
	var trusted []uint32
	if f.caller != nil {
		trusted = []uint32{f.caller.UID}
	}
	made := p.content == bound || p.content == private // at a place that need not be there
	path, err := safepath.Resolve(p.path, trusted...)
	if errors.Is(err, unix.ENOENT) && made && !p.optional || errors.Is(err, unix.ENOENT) && p.content == bound {
		path, err = safepath.ResolveMissing(p.path, trusted...)
	}
	if (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)) && p.optional {
		return false, nil
	}
	if p.by == "workdir" && err != nil {
		return false, nil // entering it fails, and says why
	}
	if err != nil {
		return false, switchError(p.by, p.path, err)
	}
	p.path = path
	if p.content != bound {
		p.source = path
		return true, nil
	}
	source, err := safepath.Resolve(p.source, trusted...)
	if errors.Is(err, unix.ENOENT) && p.optional {
		return false, nil
	}
	if err != nil {
		return false, switchError(p.by, p.source, err)
	}
	p.source = source
	return true, nil
}

// copyTree returns the mounts at the source of p, not attached anywhere.
func (f *furnisher) copyTree(p *place) (*os.File, error) {
	fd, err := f.open(p.source, p.named)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if !p.single {
		flags |= unix.AT_RECURSIVE
	}
	tree, err := unix.OpenTree(fd, "", flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(tree), p.source), nil
}

// attach mounts a tree at path.
func (f *furnisher) attach(tree *os.File, path string, named bool) error {
	to, err := f.open(path, named)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	return unix.MoveMount(int(tree.Fd()), "", to, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// flags are the attributes of mount_setattr(2) that p asks for.
func (p place) flags() uint64 {
	var set uint64
	if p.readOnly {
		set |= unix.MOUNT_ATTR_RDONLY
	}
	if p.noExec {
		set |= unix.MOUNT_ATTR_NOEXEC
	}
	return set
}

// furnish makes places, which arrange has put in order. Trees has what is put at hidden ones, and hand puts the credentials
// in place.
func (f *furnisher) furnish(places []place, trees []*os.File, hand func() error) error {
	f.before = map[string]unix.Stat_t{}
	// Copy everything that jobs see before anything is hidden.
	for i := range places {
		p := &places[i]
		for dir := filepath.Dir(p.path); dir != "/"; dir = filepath.Dir(dir) {
			if _, known := f.before[dir]; known {
				continue
			}
			if st, err := f.lstat(dir, p.named); err == nil {
				f.before[dir] = st
			}
		}
		if p.content != bound && p.content != own || p.path == "/" {
			continue
		}
		tree, err := f.copyTree(p)
		if errors.Is(err, os.ErrNotExist) && p.optional {
			continue
		}
		if err != nil {
			return switchError(p.by, p.source, err)
		}
		f.trees = append(f.trees, tree)
		trees[i] = tree
	}
	// A mount point that is missing on the machine is made, as systemd does.
	for i, p := range places {
		if (p.content == bound && trees[i] != nil || p.content == private) && !coveredBefore(places[:i], p.path) {
			if err := f.makeTarget(p, trees[i]); err != nil {
				return switchError(p.by, p.path, err)
			}
		}
	}
	var late []*os.File // read-only once all is in it
	for i, p := range places {
		tree, err := f.put(p, trees[i])
		if err != nil {
			return switchError(p.by, p.path, err)
		}
		if tree != nil {
			late = append(late, tree)
		}
	}
	if err := hand(); err != nil {
		return fmt.Errorf("cannot apply load_credential: %w", err)
	}
	for _, tree := range late {
		if err := attributes(int(tree.Fd()), unix.MOUNT_ATTR_RDONLY, false); err != nil {
			return fmt.Errorf("cannot make a folder read-only: %w", err)
		}
	}
	return nil
}

// coveredBefore reports whether path is in an empty file system of those that are made before.
func coveredBefore(places []place, path string) bool {
	for _, p := range places {
		if (p.content == private || p.content == devices) && p.path != path && spec.Below(path, p.path) {
			return true
		}
	}
	return false
}

// put makes one place. It returns the mount if that becomes read-only later.
func (f *furnisher) put(p place, tree *os.File) (*os.File, error) {
	const safe = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	switch p.content {
	case hidden:
		if tree == nil {
			return nil, nil // optional, and not there
		}
		err := f.attach(tree, p.path, p.named)
		if errors.Is(err, os.ErrNotExist) && unix.Unmount(p.path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
			// What is mounted there was removed where it came from, and so nothing can be mounted on it.
			err = f.attach(tree, p.path, p.named)
		}
		if errors.Is(err, os.ErrNotExist) && p.optional {
			if _, gone := f.lstat(p.path, p.named); errors.Is(gone, unix.ENOENT) {
				err = nil
			}
		}
		return nil, err
	case bound, own:
		if p.path == "/" {
			fd, err := f.open("/", false)
			if err != nil {
				return nil, err
			}
			defer unix.Close(fd)
			return nil, attributes(fd, p.flags(), true)
		}
		if tree == nil {
			return nil, nil // optional, and not there
		}
		if err := attributes(int(tree.Fd()), p.flags(), true); err != nil {
			return nil, err
		}
		if err := f.makeTarget(p, tree); err != nil {
			return nil, err
		}
		return nil, f.attach(tree, p.path, p.named)
	case messages:
		tree, err := newFS("mqueue", "", safe|unix.MOUNT_ATTR_NOEXEC)
		if err != nil {
			return nil, err
		}
		defer tree.Close()
		if err := f.attach(tree, p.path, p.named); err != nil {
			return nil, err
		}
		f.room.queues, err = safepath.OpenFile(p.path)
		return nil, err
	}
	attrs := safe
	if p.content == devices {
		attrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	} else if p.noExec {
		attrs |= unix.MOUNT_ATTR_NOEXEC
	}
	tree, err := newTmpfs(p.options, attrs)
	if err != nil {
		return nil, err
	}
	f.room.own = append(f.room.own, tree)
	if p.content == devices {
		for name, to := range map[string]string{
			"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
			"core": "/proc/kcore", "ptmx": "pts/ptmx", "log": "/run/systemd/journal/dev-log",
		} {
			if err := unix.Symlinkat(to, int(tree.Fd()), name); err != nil {
				return nil, err
			}
		}
		for _, name := range []string{"shm", "mqueue"} {
			if err := unix.Mkdirat(int(tree.Fd()), name, 0o755); err != nil {
				return nil, err
			}
		}
	}
	if err := f.makeTarget(p, tree); err != nil {
		return nil, err
	}
	if err := f.attach(tree, p.path, p.named); err != nil {
		return nil, err
	}
	if p.readOnly {
		return tree, nil
	}
	f.room.tmpfs = append(f.room.tmpfs, filled{root: tree})
	return nil, nil
}

// makeTarget makes what a tree can be mounted at, if there is nothing: in file systems that the room has made for itself folders
// as they are on the machine, others for root to write to and for all to enter. On the machine it makes nothing for a command.
func (f *furnisher) makeTarget(p place, tree *os.File) error {
	file := false
	if tree != nil && p.content != private {
		var st unix.Stat_t
		if err := unix.Fstat(int(tree.Fd()), &st); err != nil {
			return err
		}
		file = st.Mode&unix.S_IFMT != unix.S_IFDIR
	}
	return safepath.Maker{
		Look: func(do func() error) error { return f.as(p.named, do) },
		May: func(dir int) error {
			if ours, err := f.isOwn(dir); ours || err != nil || f.caller == nil || !p.named {
				return err
			}
			return errNotMade
		},
		Made: f.likeBefore,
	}.Make(p.path, file)
}

// isOwn reports whether an open folder is in a file system that the room has made for itself.
func (f *furnisher) isOwn(dir int) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return false, err
	}
	for _, fs := range f.room.own {
		var own unix.Stat_t
		if err := unix.Fstat(int(fs.Fd()), &own); err != nil {
			return false, err
		}
		if own.Dev == st.Dev {
			return true, nil
		}
	}
	return false, nil
}

// likeBefore gives a folder that replaces one of the machine's the same owner and mode. A folder that is made on the machine itself stays
// root's: an operator may have removed the original on purpose.
func (f *furnisher) likeBefore(dir int, path string) error {
	st, ok := f.before[path]
	if !ok || os.Geteuid() != 0 && int(st.Uid) != os.Geteuid() {
		return nil // a process that is not root cannot give a folder to somebody else, and owns what it makes
	}
	if ours, err := f.isOwn(dir); !ours || err != nil {
		return err
	}
	if err := unix.Fchown(dir, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Fchmod(dir, st.Mode&0o7777)
}

package jail

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// switchError is a step of a sandbox that failed: which switch, on what.
func switchError(by, path string, err error) error {
	return fmt.Errorf("cannot apply %s to %s: %w", by, path, err)
}

// furnisher mounts what a room has. It works in the mount namespace of its thread.
type furnisher struct {
	room  *Room
	trees []*os.File // what was copied
	// before is what folders were like on the machine, for those that are made again in an empty file system.
	before map[string]unix.Stat_t
}

// resolve makes the paths of places absolute without symbolic links, and leaves out optional ones that are missing.
func resolve(places []place) ([]place, error) {
	var all []place
	for _, p := range places {
		made := p.content == bound || p.content == private // at a place that need not be there
		path, err := filepath.EvalSymlinks(p.path)
		if errors.Is(err, os.ErrNotExist) && made && !p.optional || errors.Is(err, os.ErrNotExist) && p.content == bound {
			path, err = resolveParent(p.path)
		}
		if (errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR)) && p.optional {
			continue
		}
		if p.by == "workdir" && err != nil {
			continue // entering it fails, and says why
		}
		if err != nil {
			return nil, switchError(p.by, p.path, unwrapPath(err))
		}
		p.path = path
		if p.content == bound {
			source, err := filepath.EvalSymlinks(p.source)
			if errors.Is(err, os.ErrNotExist) && p.optional {
				continue
			}
			if err != nil {
				return nil, switchError(p.by, p.source, unwrapPath(err))
			}
			p.source = source
		} else {
			p.source = path
		}
		all = append(all, p)
	}
	return all, nil
}

// resolveParent resolves as much of a path as there is.
func resolveParent(path string) (string, error) {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if errors.Is(err, os.ErrNotExist) {
		dir, err = resolveParent(filepath.Dir(path))
	}
	return filepath.Join(dir, filepath.Base(path)), err
}

// unwrapPath takes the path out of an error, where it is said already.
func unwrapPath(err error) error {
	var e *os.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// open returns a descriptor of path, which must have no symbolic link in it: it was resolved, and what has been put there
// since is somebody's attempt to have another place taken for it.
func open(path string) (int, error) {
	return unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// copyTree returns the mounts at path, with all below unless single, not attached anywhere.
func copyTree(path string, single bool) (*os.File, error) {
	fd, err := open(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if !single {
		flags |= unix.AT_RECURSIVE
	}
	tree, err := unix.OpenTree(fd, "", flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(tree), path), nil
}

// attributes sets attributes of mount_setattr(2) on a tree.
func attributes(fd int, set uint64, recursive bool) error {
	if set == 0 {
		return nil
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(fd, "", flags, &unix.MountAttr{Attr_set: set})
}

// newFS makes a file system that is attached nowhere.
func newFS(kind, options string, attrs int) (*os.File, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", kind); err != nil {
		return nil, err
	}
	for _, o := range strings.FieldsFunc(options, func(r rune) bool { return r == ',' }) {
		key, value, _ := strings.Cut(o, "=")
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			return nil, fmt.Errorf("%s: %w", o, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), kind), nil
}

// attach mounts a tree at path.
func attach(tree *os.File, path string) error {
	to, err := open(path)
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
	// All that is to be seen is copied before anything is hidden.
	for i := range places {
		p := &places[i]
		for dir := filepath.Dir(p.path); dir != "/"; dir = filepath.Dir(dir) {
			var st unix.Stat_t
			if _, known := f.before[dir]; !known && unix.Lstat(dir, &st) == nil {
				f.before[dir] = st
			}
		}
		if p.content != bound && p.content != own || p.path == "/" {
			continue
		}
		tree, err := copyTree(p.source, p.single)
		if errors.Is(err, os.ErrNotExist) && p.optional {
			continue
		}
		if err != nil {
			return switchError(p.by, p.source, err)
		}
		f.trees = append(f.trees, tree)
		trees[i] = tree
	}
	// Where something is to be that is not there on the machine, it is made, as systemd does.
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

// put makes one place. It returns the mount, if it is to become read-only later.
func (f *furnisher) put(p place, tree *os.File) (*os.File, error) {
	const safe = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	switch p.content {
	case hidden:
		if tree == nil {
			return nil, nil // optional, and not there
		}
		err := attach(tree, p.path)
		if errors.Is(err, os.ErrNotExist) && unix.Unmount(p.path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
			// What is mounted there was removed where it came from, and so nothing can be mounted on it.
			err = attach(tree, p.path)
		}
		var st unix.Stat_t
		if errors.Is(err, os.ErrNotExist) && p.optional && errors.Is(unix.Lstat(p.path, &st), unix.ENOENT) {
			err = nil
		}
		return nil, err
	case bound, own:
		if p.path == "/" {
			fd, err := open("/")
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
		return nil, attach(tree, p.path)
	case messages:
		tree, err := newFS("mqueue", "", safe|unix.MOUNT_ATTR_NOEXEC)
		if err != nil {
			return nil, err
		}
		defer tree.Close()
		if err := attach(tree, p.path); err != nil {
			return nil, err
		}
		f.room.queues, err = os.Open(p.path)
		return nil, err
	}
	attrs := safe
	if p.content == devices {
		attrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	} else if p.noExec {
		attrs |= unix.MOUNT_ATTR_NOEXEC
	}
	tree, err := newFS("tmpfs", p.options, attrs)
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
	if err := attach(tree, p.path); err != nil {
		return nil, err
	}
	if p.readOnly {
		return tree, nil
	}
	f.room.tmpfs = append(f.room.tmpfs, filled{root: tree})
	return nil, nil
}

// makeTarget makes what a tree can be mounted at, if there is nothing: folders as they are on the machine, others for root
// to write to and for all to enter.
func (f *furnisher) makeTarget(p place, tree *os.File) error {
	var st unix.Stat_t
	if unix.Lstat(p.path, &st) == nil {
		return nil
	}
	parts := strings.Split(strings.TrimPrefix(p.path, "/"), "/")
	for i := range parts[:len(parts)-1] {
		if err := f.makeDir("/" + strings.Join(parts[:i+1], "/")); err != nil {
			return err
		}
	}
	if tree != nil && p.content != private {
		if err := unix.Fstat(int(tree.Fd()), &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return os.WriteFile(p.path, nil, 0o644)
		}
	}
	return unix.Mkdir(p.path, 0o755)
}

func (f *furnisher) makeDir(dir string) error {
	if err := unix.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return err
	}
	// Who is not root cannot give a folder to somebody else, and has what it makes already.
	if st, ok := f.before[dir]; ok && (os.Geteuid() == 0 || int(st.Uid) == os.Geteuid()) {
		if err := unix.Chown(dir, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
		return unix.Chmod(dir, st.Mode&0o7777)
	}
	return nil
}

// piece is a file or folder that is made for jobs.
type piece struct {
	dir     bool
	mode    uint32
	content []byte
	tree    *os.File
}

// make makes pieces, none of which is attached anywhere, nor can be written to.
func (f *furnisher) make(pieces []*piece) error {
	if len(pieces) == 0 {
		return nil
	}
	// What is copied must be attached somewhere (open_tree(2)). So it is for a moment, and lives as long as its copies.
	const workshop = "/tmp"
	const attrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	fs, err := newFS("tmpfs", "mode=755", attrs)
	if err != nil {
		return err
	}
	defer fs.Close()
	if err := attach(fs, workshop); err != nil {
		return err
	}
	for i, p := range pieces {
		if err = f.makePiece(int(fs.Fd()), strconv.Itoa(i), p); err != nil {
			break
		}
	}
	return errors.Join(err, unix.Unmount(workshop, unix.MNT_DETACH))
}

func (f *furnisher) makePiece(dir int, name string, p *piece) error {
	if p.dir {
		if err := unix.Mkdirat(dir, name, p.mode); err != nil {
			return err
		}
	} else {
		fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, p.mode)
		if err != nil {
			return err
		}
		file := os.NewFile(uintptr(fd), name)
		_, err = file.Write(p.content)
		if err := errors.Join(err, unix.Fchmod(fd, p.mode), file.Close()); err != nil {
			return err
		}
	}
	tree, err := unix.OpenTree(dir, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	p.tree = os.NewFile(uintptr(tree), name)
	f.trees = append(f.trees, p.tree)
	return attributes(tree, unix.MOUNT_ATTR_RDONLY, false)
}

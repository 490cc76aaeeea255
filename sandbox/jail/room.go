package jail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// Room is the namespaces that the jobs of a slot are born into, one job at a time. It is made once and entered by each;
// Untouched tells whether a job has left something in it.
type Room struct {
	namespaces []*os.File
	// What Untouched looks at.
	mounts *os.File   // mountinfo of the mount namespace
	tmpfs  []filled   // its own temporary file systems
	tables []*os.File // of System V IPC
	queues *os.File   // of POSIX message queues, nil: none
}

// filled is a temporary file system as it was when the room was made.
type filled struct {
	root          *os.File
	files, blocks uint64
}

// NewRoom makes the namespaces that s asks for, for jobs with the credentials c. It takes the privilege to mount.
func NewRoom(s spec.Sandbox, c *spec.Credentials) (*Room, error) {
	type made struct {
		room *Room
		err  error
	}
	done := make(chan made)
	go func() {
		// The thread is of no use to anybody else afterwards: it is never unlocked, and ends with this goroutine.
		runtime.LockOSThread()
		r, err := furnish(s, c)
		done <- made{r, err}
	}()
	m := <-done
	return m.room, m.err
}

// furnish turns the calling thread into one of a new room.
func furnish(s spec.Sandbox, c *spec.Credentials) (_ *Room, err error) {
	r := &Room{}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	flags := unix.CLONE_NEWNS
	if s.PrivateIPC {
		flags |= unix.CLONE_NEWIPC
	}
	if err := unix.Unshare(flags); err != nil {
		return nil, fmt.Errorf("cannot make the job's namespaces: %w", err)
	}
	// A slave: what is mounted on the machine later is seen, what is unmounted is not held, and nothing goes back.
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return nil, fmt.Errorf("cannot separate the job's mounts from the machine's: %w", err)
	}
	if s.DynamicUser && c != nil {
		if err := nameUser(s.UserName, c); err != nil {
			return nil, err
		}
	}
	binds, err := detach(s.BindPaths)
	defer func() {
		for _, b := range binds {
			_ = b.tree.Close() // it is attached by now, or not wanted
		}
	}()
	if err != nil {
		return nil, err
	}
	if err := r.mountTemporary(s); err != nil {
		return nil, err
	}
	for _, b := range binds {
		if err := b.attach(); err != nil {
			return nil, err
		}
	}
	return r, r.watch(s)
}

// mountTemporary puts empty file systems in the place of those that all share.
func (r *Room) mountTemporary(s spec.Sandbox) error {
	var dirs []string
	if s.PrivateTmp {
		dirs = append(dirs, "/tmp", "/var/tmp")
	}
	if s.PrivateIPC {
		dirs = append(dirs, "/dev/shm")
	}
	var seen []string
	for _, dir := range dirs {
		dir, err := filepath.EvalSymlinks(dir)
		if errors.Is(err, os.ErrNotExist) || slices.Contains(seen, dir) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot give the job a folder for temporary files: %w", err)
		}
		seen = append(seen, dir)
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
			return fmt.Errorf("cannot give the job a %s of its own: %w", dir, err)
		}
		root, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return fmt.Errorf("cannot give the job a %s of its own: %w", dir, err)
		}
		r.tmpfs = append(r.tmpfs, filled{root: root})
	}
	if _, err := os.Stat("/dev/mqueue"); s.PrivateIPC && err == nil {
		if err := unix.Mount("mqueue", "/dev/mqueue", "mqueue", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("cannot give the job message queues of its own: %w", err)
		}
		if r.queues, err = os.Open("/dev/mqueue"); err != nil {
			return fmt.Errorf("cannot give the job message queues of its own: %w", err)
		}
	}
	return nil
}

// watch opens what Untouched looks at, and the namespaces themselves.
func (r *Room) watch(s spec.Sandbox) error {
	names := []string{"mnt"}
	if s.PrivateIPC {
		names = append(names, "ipc")
		// proc_sysvipc(5): the files go on to show the namespace in which they were opened.
		for _, name := range []string{"msg", "sem", "shm"} {
			f, err := os.Open("/proc/sysvipc/" + name)
			if errors.Is(err, os.ErrNotExist) {
				continue // a kernel without System V IPC
			}
			if err != nil {
				return fmt.Errorf("cannot watch the job's namespaces: %w", err)
			}
			r.tables = append(r.tables, f)
		}
	}
	for _, name := range names {
		f, err := os.Open("/proc/thread-self/ns/" + name)
		if err != nil {
			return fmt.Errorf("cannot keep the job's namespaces: %w", err)
		}
		r.namespaces = append(r.namespaces, f)
	}
	for i := range r.tmpfs {
		var err error
		if r.tmpfs[i].files, r.tmpfs[i].blocks, err = use(r.tmpfs[i].root); err != nil {
			return err
		}
	}
	var err error
	if r.mounts, err = os.Open("/proc/thread-self/mountinfo"); err != nil {
		return fmt.Errorf("cannot watch the job's namespaces: %w", err)
	}
	return nil
}

// use returns how many files and blocks a file system has in use.
func use(root *os.File) (files, blocks uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &st); err != nil {
		return 0, 0, fmt.Errorf("cannot look at the job's temporary files: %w", err)
	}
	return st.Files - st.Ffree, st.Blocks - st.Bfree, nil
}

// Untouched reports whether the room is as it was made: no file, no IPC object, no mount was left in it. What cannot be
// looked at counts as touched.
func (r *Room) Untouched() bool {
	// A file of mounts is ready with POLLPRI and POLLERR once they have changed (proc_pid_mounts(5)).
	fds := []unix.PollFd{{Fd: int32(r.mounts.Fd()), Events: unix.POLLPRI}}
	if n, err := unix.Poll(fds, 0); n != 0 || err != nil {
		return false
	}
	for _, f := range r.tmpfs {
		files, blocks, err := use(f.root)
		// More or less: what was there may have been exchanged for something else.
		if err != nil || files != f.files || blocks != f.blocks || changed(f.root) {
			return false
		}
	}
	buf := make([]byte, 4096)
	for _, t := range r.tables {
		n, err := t.ReadAt(buf, 0)
		if err != nil && !errors.Is(err, io.EOF) || bytes.Count(buf[:n], []byte{'\n'}) > 1 { // the first line has the names
			return false
		}
	}
	return r.queues == nil || empty(r.queues)
}

// changed reports whether the folder itself was given another mode or owner.
func changed(root *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(root.Fd()), &st) != nil || st.Mode&0o7777 != 0o1777 || st.Uid != 0 || st.Gid != 0
}

// empty reports whether a folder has no entry.
func empty(dir *os.File) bool {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return false
	}
	names, err := dir.Readdirnames(1)
	return len(names) == 0 && errors.Is(err, io.EOF)
}

// fds are the namespaces to enter.
func (r *Room) fds() []int {
	if r == nil {
		return nil
	}
	fds := make([]int, len(r.namespaces))
	for i, f := range r.namespaces {
		fds[i] = int(f.Fd())
	}
	return fds
}

// Close lets go of the room. Once no process is in it, it and all that is in it are gone.
func (r *Room) Close() {
	if r == nil {
		return
	}
	files := slices.Concat(r.namespaces, r.tables)
	for _, f := range r.tmpfs {
		files = append(files, f.root)
	}
	if r.mounts != nil {
		files = append(files, r.mounts)
	}
	if r.queues != nil {
		files = append(files, r.queues)
	}
	for _, f := range files {
		_ = f.Close() // nothing was written to it
	}
}

// bind is a folder of the machine, on its way to where a temporary file system hides it.
type bind struct {
	path string
	tree *os.File
}

// detach copies the mounts of paths, before they are hidden.
func detach(paths []string) ([]bind, error) {
	var binds []bind
	for _, p := range paths {
		fd, err := unix.OpenTree(unix.AT_FDCWD, p, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return binds, fmt.Errorf("cannot bind %s: %w", p, err)
		}
		binds = append(binds, bind{path: p, tree: os.NewFile(uintptr(fd), p)})
	}
	return binds, nil
}

// attach makes the folder seen again at its path.
func (b bind) attach() error {
	err := os.MkdirAll(b.path, 0o755)
	if err == nil {
		err = unix.MoveMount(int(b.tree.Fd()), "", unix.AT_FDCWD, b.path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	if err != nil {
		return fmt.Errorf("cannot bind %s: %w", b.path, err)
	}
	return nil
}

// nameUser makes /etc/passwd and /etc/group name the user of c. A machine that has no such file goes without.
func nameUser(name string, c *spec.Credentials) error {
	// The files need a file system. It is hidden again at once, and lives as long as its files are mounted elsewhere.
	const workshop = "/tmp"
	if err := unix.Mount("tmpfs", workshop, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755"); err != nil {
		return fmt.Errorf("cannot name the job's user: %w", err)
	}
	var err error
	for _, f := range []struct{ path, line string }{
		{"/etc/passwd", fmt.Sprintf("%s:x:%d:%d:%s:/:/bin/sh\n", name, c.UID, c.GID, name)},
		{"/etc/group", fmt.Sprintf("%s:x:%d:\n", name, c.GID)},
	} {
		err = errors.Join(err, replace(f.path, filepath.Join(workshop, filepath.Base(f.path)), f.line))
	}
	return errors.Join(err, unix.Unmount(workshop, unix.MNT_DETACH))
}

// replace mounts a copy of the file at path with another line over it.
func replace(path, copied, line string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		if n := len(b); n > 0 && b[n-1] != '\n' {
			b = append(b, '\n')
		}
		err = os.WriteFile(copied, append(b, line...), 0o444)
	}
	if err == nil {
		err = unix.Mount(copied, path, "", unix.MS_BIND, "")
	}
	if err == nil {
		err = unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	if err != nil {
		return fmt.Errorf("cannot name the job's user in %s: %w", path, err)
	}
	return nil
}

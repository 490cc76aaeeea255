package jail

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// watchTables opens what there is of System V IPC. By the machine's /proc, since the kernel's tables are not those of a PID
// namespace.
func (r *Room) watchTables(s spec.Sandbox, proc int) error {
	if !s.PrivateIPC {
		return nil
	}
	// proc_sysvipc(5): the files go on to show the namespace in which they were opened.
	for _, name := range []string{"msg", "sem", "shm"} {
		f, err := openAt(unix.AT_FDCWD, "/proc/sysvipc/"+name)
		if errors.Is(err, os.ErrNotExist) {
			continue // a kernel without System V IPC
		}
		if err != nil {
			return fmt.Errorf("cannot watch the job's namespaces: %w", err)
		}
		r.tables = append(r.tables, f)
	}
	return nil
}

// watch opens what Untouched looks at, and the namespaces themselves. Proc is the thread's folder in the machine's /proc.
func (r *Room) watch(s spec.Sandbox, proc int) error {
	names := []string{"mnt"}
	if s.PrivateIPC {
		names = append(names, "ipc")
	}
	if s.PrivateNetwork {
		names = append(names, "net")
	}
	if s.ProtectHostname {
		names = append(names, "uts")
	}
	for _, name := range names {
		f, err := openAt(proc, "ns/"+name)
		if err != nil {
			return fmt.Errorf("cannot keep the job's namespaces: %w", err)
		}
		r.namespaces = append(r.namespaces, f)
	}
	for i := range r.tmpfs {
		f := &r.tmpfs[i]
		var st unix.Stat_t
		err := unix.Fstat(int(f.root.Fd()), &st)
		if err == nil {
			f.mode, f.uid, f.gid = st.Mode, st.Uid, st.Gid
			f.files, f.blocks, err = use(f.root)
		}
		if err != nil {
			return fmt.Errorf("cannot watch the job's temporary files: %w", err)
		}
	}
	fd, err := unix.Openat(proc, "mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot watch the job's namespaces: %w", err)
	}
	r.mounts = os.NewFile(uintptr(fd), "mountinfo")
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
	if r.remounted() {
		return false
	}
	for _, f := range r.tmpfs {
		files, blocks, err := use(f.root)
		// More or fewer: a file may have been replaced by another one.
		if err != nil || files != f.files || blocks != f.blocks || f.changed() {
			return false
		}
	}
	buf := make([]byte, 4096)
	for _, t := range r.tables {
		n, err := unix.Pread(int(t.Fd()), buf, 0)
		if err != nil || bytes.Count(buf[:n], []byte{'\n'}) > 1 { // the first line has the names
			return false
		}
	}
	return r.queues == nil || empty(r.queues)
}

// remounted reports whether a mount of the room, or one of the machine's that is seen in it, came or went since the room was made
// or this was asked. A file of mounts is ready with POLLPRI and POLLERR once they have changed (proc_pid_mounts(5)).
func (r *Room) remounted() bool {
	fds := []unix.PollFd{{Fd: int32(r.mounts.Fd()), Events: unix.POLLPRI}}
	for {
		if n, err := unix.Poll(fds, 0); !errors.Is(err, unix.EINTR) {
			return n != 0 || err != nil
		}
	}
}

// Outdated reports whether the machine has changed so that a new room would show its jobs more: a rule of the second layer is for
// what was there when it was made, and not for what is mounted over that later.
func (r *Room) Outdated() bool { return r.layer != nil && (r.layer.outdated() || r.remounted()) }

// changed reports whether the folder itself was given another mode or owner.
func (f filled) changed() bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.root.Fd()), &st) != nil || st.Mode != f.mode || st.Uid != f.uid || st.Gid != f.gid
}

// empty reports whether a folder has no entry.
func empty(dir *os.File) bool {
	fd := int(dir.Fd())
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return false
	}
	var buf [4096]byte
	n, err := unix.Getdents(fd, buf[:])
	if err != nil {
		return false
	}
	_, entries, _ := unix.ParseDirent(buf[:n], -1, nil) // without "." and ".."
	return entries == 0
}

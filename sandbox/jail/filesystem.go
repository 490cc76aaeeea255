package jail

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

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

// newTmpfs makes an empty file system in memory, and sets the limits that options does not set: a tenth of the machine's memory,
// and as many files as that has pages. systemd has the same for what it mounts inside of others (NESTED_TMPFS_LIMITS of its
// mountpoint-util.h), with a fixed number of files, the one of a machine with 16 GiB.
func newTmpfs(options string, attrs int) (*os.File, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, err
	}
	pages := uint64(info.Totalram) * uint64(info.Unit) / uint64(os.Getpagesize())
	for _, one := range []struct{ name, value string }{{"size=", "10%"}, {"nr_inodes=", strconv.FormatUint(max(pages/10, leastInodes), 10)}} {
		if !strings.Contains(","+options, ","+one.name) {
			options += "," + one.name + one.value
		}
	}
	return newFS("tmpfs", options, attrs)
}

// leastInodes is the least default number of files in a tmpfs. They take up to 16 MiB of the kernel's memory.
const leastInodes = 16 << 10

// piece is a file or folder that is made for jobs.
type piece struct {
	dir     bool
	mode    uint32
	content []byte
	tree    *os.File
}

// make makes pieces. They are read-only and not attached anywhere.
func (f *furnisher) make(pieces []*piece) error {
	if len(pieces) == 0 {
		return nil
	}
	// What is copied must be attached somewhere (open_tree(2)). So it is for a moment, and lives as long as its copies.
	const workshop = "/tmp"
	const attrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	size := 0
	for _, p := range pieces {
		size += len(p.content) + os.Getpagesize()
	}
	fs, err := newFS("tmpfs", fmt.Sprintf("mode=755,size=%d,nr_inodes=%d", size+os.Getpagesize(), len(pieces)+2), attrs)
	if err != nil {
		return err
	}
	defer fs.Close()
	if err := f.attach(fs, workshop, false); err != nil {
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

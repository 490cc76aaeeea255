package jail

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

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

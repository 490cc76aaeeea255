package jail

import (
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

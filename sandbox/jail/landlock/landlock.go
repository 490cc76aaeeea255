// Package landlock makes rulesets of landlock(7): what a process may do with files, whatever is mounted where. A ruleset is
// made once, for the files that exist at that moment. A process puts itself under it with one system call (landlock_restrict_self(2),
// which is in package fork), for good. From then on it cannot mount either, nor look into processes that are not under the same
// ruleset.
//
// It holds nothing but the system calls. Which files are meant is for package jail to say.
package landlock

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rights are what may be done with a file, or with all in a folder and below it.
type Rights uint64

// The rights. Before version 3, Landlock has no right for truncate(2): a process that may not write can still do that.
const (
	Read    Rights = unix.LANDLOCK_ACCESS_FS_READ_FILE
	Execute Rights = unix.LANDLOCK_ACCESS_FS_EXECUTE
	Write   Rights = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_TRUNCATE

	// ofFiles are those that something that is no folder can have.
	ofFiles = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE
)

// oldest is the version of Linux 5.19. Under an earlier one no file can be moved from one folder to another.
const oldest = 2

// Version returns the kernel's version of Landlock. An error says why it cannot be used.
func Version() (int, error) {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch {
	case errors.Is(errno, unix.ENOSYS):
		return 0, errors.New("this kernel does not have it")
	case errors.Is(errno, unix.EOPNOTSUPP):
		return 0, errors.New("it is not among the lsm= of this kernel")
	case errno != 0:
		return 0, errno
	case v < oldest:
		return 0, fmt.Errorf("version %d of this kernel is older than %d", v, oldest)
	}
	return int(v), nil
}

// Ruleset is what processes can put themselves under. What no rule allows is refused.
type Ruleset struct {
	file    *os.File
	handled Rights
}

// New makes a ruleset without a rule.
func New() (*Ruleset, error) {
	v, err := Version()
	if err != nil {
		return nil, err
	}
	r := &Ruleset{handled: Read | Execute | Write}
	if v < 3 {
		r.handled &^= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: uint64(r.handled)}
	// The first field alone, which every version has. A kernel makes this descriptor close-on-exec by itself.
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr.Handled_access_fs), 0)
	if errno != 0 {
		return nil, errno
	}
	r.file = os.NewFile(fd, "landlock")
	return r, nil
}

// Allow gives rights over what fd, which may be of O_PATH, refers to, and over all below it.
func (r *Ruleset) Allow(fd int, rights Rights) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if rights &= r.handled; st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= ofFiles
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: uint64(rights), Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, r.file.Fd(), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		return syscall.Errno(errno)
	}
	return nil
}

// FD is the descriptor to give to landlock_restrict_self(2).
func (r *Ruleset) FD() int { return int(r.file.Fd()) }

// Close lets go of it. Processes that are under it stay so.
func (r *Ruleset) Close() {
	if r != nil {
		_ = r.file.Close() // nothing was written to it
	}
}

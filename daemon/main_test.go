package daemon

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestCloseOnExec: where close_range(2) fails, each descriptor from the first one on is marked, and none below it.
func TestCloseOnExec(t *testing.T) {
	const first = 900 // above all that the tests have open
	var fds []int
	for _, from := range []int{first - 100, first, first + 50} {
		fd, err := unix.FcntlInt(0, unix.F_DUPFD, from)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds = append(fds, fd)
	}
	if err := closeOnExec(first); err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || (flags&unix.FD_CLOEXEC != 0) != (fd >= first) {
			t.Errorf("descriptor %d has the flags %d, %v", fd, flags, err)
		}
	}
}

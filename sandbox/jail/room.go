package jail

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/jail/fork"
)

// Room is the namespaces that the jobs of a slot are born into, one job at a time. It is made once and entered by each;
// Untouched tells whether a job has left something in it.
type Room struct {
	namespaces []*os.File
	pids       *os.File     // the PID namespace, nil: the machine's
	users      *os.File     // the user namespace, likewise
	init       *fork.Parked // the first process of pids
	own        []*os.File   // its own file systems
	layer      *layer       // nil: none
	// What Untouched looks at.
	mounts *os.File   // mountinfo of the mount namespace; nil: not open yet
	tmpfs  []filled   // those of own that a job can write to
	tables []*os.File // of System V IPC
	queues *os.File   // of POSIX message queues, nil: none
}

// openAt opens a file of the folder dir for reading, without the poller: package os would set a mode each time that it is asked for
// the descriptor.
func openAt(dir int, name string) (*os.File, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
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
	for _, f := range slices.Concat(r.namespaces, r.tables, r.own, []*os.File{r.pids, r.users, r.queues}) {
		if f != nil {
			_ = f.Close() // nothing was written to it
		}
	}
	if r.mounts != nil {
		_ = r.mounts.Close() // likewise
	}
	r.layer.close()
	r.init.End()
}

// filled is a temporary file system as it was when the room was made.
type filled struct {
	root          *os.File
	files, blocks uint64
	mode          uint32
	uid, gid      uint32
}

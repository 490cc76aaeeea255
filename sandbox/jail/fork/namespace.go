package fork

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// inNamespace calls do on a thread whose children are born into the PID namespace of the descriptor fd; below 1: into its
// own. That thread makes no thread meanwhile, which the kernel would refuse. Only root can go back to the machine's namespace; of
// others the thread ends.
func inNamespace(fd int, do func()) error {
	switch {
	case fd <= 0:
		do()
		return nil
	case os.Geteuid() != 0:
		done := make(chan error, 1)
		go func() {
			runtime.LockOSThread() // and never unlocked
			err := bearInto(fd)
			if err == nil {
				do()
			}
			done <- err
		}()
		return <-done
	}
	runtime.LockOSThread()
	own, err := unix.Open("/proc/thread-self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("cannot open the PID namespace: %w", err)
	}
	defer unix.Close(own)
	if err := bearInto(fd); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	do()
	if err := bearInto(own); err != nil {
		return fmt.Errorf("cannot leave the PID namespace: %w", err) // and nobody else gets this thread
	}
	runtime.UnlockOSThread()
	return nil
}

// bearInto has the children of the calling thread be born into the PID namespace of the descriptor fd.
func bearInto(fd int) error {
	if err := unix.Setns(fd, unix.CLONE_NEWPID); err != nil {
		return &Error{Step: Namespaces, Errno: errnoOf(err)}
	}
	return nil
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	errors.As(err, &errno)
	return errno
}

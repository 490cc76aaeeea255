package e2e

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// deaf DIR [reads] mounts a file system on DIR that never answers, as a network file system does whose server is gone: what
// looks at it hangs. With "reads" it takes what it is asked, and the kernel lets not even SIGKILL end the wait for the answer;
// otherwise it does. It stays until the script ends, or the mount is aborted (`umount -f`).
func deaf(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 || len(args) == 2 && args[1] != "reads" {
		ts.Fatalf("usage: deaf DIR [reads]")
	}
	// fuse(4), and misc_cdev's fixed number of it: a container is not given the device.
	if err := unix.Mknod("/dev/fuse", unix.S_IFCHR|0o600, int(unix.Mkdev(10, 229))); err != nil && err != unix.EEXIST {
		ts.Fatalf("cannot make /dev/fuse: %v", err)
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		ts.Fatalf("cannot open /dev/fuse: %v", err)
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)
	if err := unix.Mount("deaf", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		ts.Fatalf("cannot mount: %v", err)
	}
	ts.Check(greetKernel(fd))
	// What it is asked is read until the mount is gone.
	var reader sync.WaitGroup
	if len(args) == 2 {
		reader.Go(func() {
			for b := make([]byte, fuseBuffer); ; {
				if _, err := unix.Read(fd, b); err != nil && err != unix.EINTR && err != unix.ENOENT {
					return
				}
			}
		})
	}
	ts.Defer(func() {
		_ = unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH) // the script may have done it
		reader.Wait()
		_ = unix.Close(fd)
	})
}

// fuseBuffer is more than the longest request (FUSE_MIN_READ_BUFFER is 8192 bytes, and a write has what max_write says).
const fuseBuffer = 64 << 10

// greetKernel answers FUSE_INIT, the first request on a mount (include/uapi/linux/fuse.h).
func greetKernel(fd int) error {
	b := make([]byte, fuseBuffer)
	n, err := unix.Read(fd, b)
	if err != nil {
		return fmt.Errorf("cannot read FUSE_INIT: %w", err)
	}
	const (
		inHeader, outHeader = 40, 16
		initOpcode, initOut = 26, 64
	)
	order := binary.NativeEndian
	if n < inHeader || order.Uint32(b[4:]) != initOpcode {
		return fmt.Errorf("the first request has %d bytes and is not FUSE_INIT", n)
	}
	reply := make([]byte, outHeader+initOut)
	order.PutUint32(reply, uint32(len(reply)))
	copy(reply[8:16], b[8:16]) // unique
	order.PutUint32(reply[16:], 7)
	order.PutUint32(reply[20:], 31)
	order.PutUint32(reply[36:], 4096) // max_write
	if _, err := unix.Write(fd, reply); err != nil {
		return fmt.Errorf("cannot answer FUSE_INIT: %w", err)
	}
	return nil
}

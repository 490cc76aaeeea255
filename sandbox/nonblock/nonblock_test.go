package nonblock_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/nonblock"
)

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	sub := filepath.Join(dir, "sub")
	check("mkdir", nonblock.Mkdir(sub, 0o700))
	if err := nonblock.Mkdir(sub, 0o700); !errors.Is(err, fs.ErrExist) {
		t.Errorf("mkdir of what is there: %v", err)
	}
	path := filepath.Join(sub, "file")
	fd, err := nonblock.Open(path, unix.O_CREAT|unix.O_RDWR, 0o600)
	check("open", err)
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("the descriptor would be inherited: %#x, %v", flags, err)
	}
	if n, err := nonblock.Write(fd, []byte("one two")); n != 7 || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	b := make([]byte, 3)
	if n, err := nonblock.Pread(fd, b, 4); n != 3 || err != nil || string(b) != "two" {
		t.Errorf("pread: %d, %q, %v", n, b, err)
	}
	if n, err := nonblock.Read(fd, b); n != 0 || err != nil {
		t.Errorf("read at the end: %d, %v", n, err)
	}
	check("rewind", nonblock.Rewind(fd))
	if n, err := nonblock.Read(fd, b); n != 3 || err != nil || string(b) != "one" {
		t.Errorf("read: %d, %q, %v", n, b, err)
	}
	var st unix.Stat_t
	check("fstat", nonblock.Fstat(fd, &st))
	if st.Size != 7 || st.Mode&0o777 != 0o600 {
		t.Errorf("size %d, mode %o", st.Size, st.Mode)
	}
	check("fchown", nonblock.Fchown(fd, os.Getuid(), os.Getgid()))
	var sfs unix.Statfs_t
	check("fstatfs", nonblock.Fstatfs(fd, &sfs))
	if sfs.Bsize == 0 {
		t.Error("the file system has no block size")
	}
	check("fcntl", nonblock.Fcntl(fd, unix.F_SETFL, unix.O_NONBLOCK))
	check("close", nonblock.File(fd).Close())
	if err := nonblock.Close(fd); !errors.Is(err, unix.EBADF) {
		t.Errorf("close of what is closed: %v", err)
	}

	folder, err := nonblock.Open(sub, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	check("open of a folder", err)
	defer nonblock.Close(folder)
	if _, err := nonblock.Read(folder, b); !errors.Is(err, unix.EISDIR) {
		t.Errorf("read of a folder: %v", err)
	}
	entries := func() int {
		t.Helper()
		check("rewind", nonblock.Rewind(folder))
		buf := make([]byte, 4096)
		n, err := nonblock.Getdents(folder, buf)
		check("getdents", err)
		_, count, _ := unix.ParseDirent(buf[:n], -1, nil)
		return count
	}
	if n := entries(); n != 1 {
		t.Errorf("%d entries", n)
	}
	check("rename", nonblock.Rename(path, path+"2"))
	if err := nonblock.Unlink(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unlink of what is not there: %v", err)
	}
	check("unlink", nonblock.Unlink(path+"2"))
	if n := entries(); n != 0 {
		t.Errorf("%d entries of nothing", n)
	}
	check("rmdir", nonblock.Rmdir(sub))
	if _, err := nonblock.Open("a\x00b", unix.O_RDONLY, 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("open of a name with a NUL: %v", err)
	}
}

// TestInterrupted: in a process that slept, which a call of this package wakes on its one processor, a goroutine that computes without
// an end keeps others from running, but not once it has been announced, or much was read.
func TestInterrupted(t *testing.T) {
	if os.Getenv("COMPUTES") != "" {
		compute()
		return
	}
	for _, how := range []string{"announced", "read"} {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestInterrupted$")
		cmd.Env = append(os.Environ(), "COMPUTES="+how, "GOMAXPROCS=1")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond) // it sleeps by then; if it does not, it is not held up
		giveUp := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		in.Write(make([]byte, 64<<10))
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", how, err)
		}
		giveUp.Stop()
	}
}

// compute is what TestInterrupted starts: it waits for standard input and then for another goroutine.
func compute() {
	if err := unix.SetNonblock(0, true); err != nil {
		panic(err)
	}
	raw, err := os.NewFile(0, "in").SyscallConn()
	if err != nil {
		panic(err)
	}
	var ran atomic.Bool
	var meter nonblock.Meter
	buf := make([]byte, 64<<10)
	for read := 0; read < len(buf); {
		n, err := nonblock.ReadFrom(raw, buf)
		if err != nil {
			panic(err)
		}
		if read += n; os.Getenv("COMPUTES") == "read" {
			meter.Add(n)
		}
	}
	if os.Getenv("COMPUTES") == "announced" {
		nonblock.Announce()
	}
	go ran.Store(true)
	for !ran.Load() {
	}
}

func TestWait(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "read x; exit 3")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ws unix.WaitStatus
	if ended, err := nonblock.Wait(cmd.Process.Pid, &ws); ended || err != nil {
		t.Fatalf("a process that runs: %v, %v", ended, err)
	}
	in.Close()
	// Until it has ended, and leaves it to be waited for.
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if ended, err := nonblock.Wait(cmd.Process.Pid, &ws); !ended || err != nil {
		t.Fatalf("a process that has ended: %v, %v", ended, err)
	}
	if !ws.Exited() || ws.ExitStatus() != 3 {
		t.Errorf("status %#x", ws)
	}
	if _, err := nonblock.Wait(cmd.Process.Pid, &ws); !errors.Is(err, unix.ECHILD) {
		t.Errorf("a process that was waited for: %v", err)
	}
}

func TestReady(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer nonblock.Close(p[0])
	if events, err := nonblock.Ready(p[0], unix.POLLIN); events != 0 || err != nil {
		t.Errorf("an empty pipe: %#x, %v", events, err)
	}
	nonblock.Write(p[1], []byte("x"))
	if events, err := nonblock.Ready(p[0], unix.POLLIN); events != unix.POLLIN || err != nil {
		t.Errorf("a pipe with something in it: %#x, %v", events, err)
	}
	nonblock.Close(p[1])
	if events, err := nonblock.Ready(p[0], unix.POLLIN); events != unix.POLLIN|unix.POLLHUP || err != nil {
		t.Errorf("a pipe without a writer: %#x, %v", events, err)
	}
}

// Command trace is a job of testdata/installed/12-slots.txtar: it looks for what an earlier job of its slot left, prints "clean" or
// what it found, and the control group that it is in, and leaves something of each kind itself. It is one small program because
// a thousand of it run one after the other.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	found, group := look()
	if found != "" {
		fmt.Println("found:", found)
		return
	}
	fmt.Printf("clean\n0::%s\n", group)
	if err := leave(); err != nil {
		fmt.Println("found: it cannot be left:", err)
	}
}

// look returns what it finds, "" if that is nothing, and the control group of this process.
func look() (found, group string) {
	// Descriptors come first, before this program opens any. The one that the folder itself is read by is closed when they are
	// looked at.
	descriptors, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err.Error(), ""
	}
	for _, d := range descriptors {
		if to, err := os.Readlink("/proc/self/fd/" + d.Name()); err == nil && !slices.Contains([]string{"0", "1", "2"}, d.Name()) {
			return "descriptor " + d.Name() + " of " + to, ""
		}
	}
	if v := os.Getenv("TRACE"); v != "" {
		return "TRACE=" + v, ""
	}
	for _, look := range []func() (string, error){files, ipc, keys, processes, mounts} {
		found, err := look()
		if err != nil {
			return err.Error(), ""
		}
		if found != "" {
			return found, ""
		}
	}
	all, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err.Error(), ""
	}
	_, group, _ = strings.Cut(string(all), "0::")
	group, _, _ = strings.Cut(group, "\n")
	crowd, err := os.ReadFile("/sys/fs/cgroup" + group + "/cgroup.procs")
	if err != nil {
		return err.Error(), ""
	}
	if n := len(strings.Fields(string(crowd))); n != 1 {
		return fmt.Sprintf("%d processes in %s", n, group), ""
	}
	return "", group
}

func files() (string, error) {
	for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue"} {
		there, err := os.ReadDir(dir)
		if err != nil {
			return "", err
		}
		for _, f := range there {
			return filepath.Join(dir, f.Name()), nil
		}
	}
	return "", nil
}

// ipc looks at what System V has.
func ipc() (string, error) {
	for _, table := range []string{"msg", "sem", "shm"} {
		b, err := os.ReadFile("/proc/sysvipc/" + table)
		if err != nil {
			return "", err
		}
		if bytes.Count(b, []byte("\n")) != 1 { // the first line has the names
			return table + ": " + string(b), nil
		}
	}
	return "", nil
}

func keys() (string, error) {
	if _, err := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", "trace", 0); err == nil {
		return "a key in @s", nil
	}
	// Those of another user than root are closed for good; those of root are root's, whoever asks.
	if os.Getenv("KEYRINGS") != "" {
		for name, ring := range map[string]int{"@u": unix.KEY_SPEC_USER_KEYRING, "@us": unix.KEY_SPEC_USER_SESSION_KEYRING} {
			if text, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, ring); err == nil {
				return name + ": " + text, nil
			}
			if _, err := unix.KeyctlBuffer(unix.KEYCTL_READ, ring, make([]byte, 64), 0); err == nil {
				return name + " can be read", nil
			}
			if _, err := unix.AddKey("user", "trace", []byte("trace"), ring); err == nil {
				return name + " can be written to", nil
			}
			if err := unix.KeyctlSetperm(ring, 0); err == nil {
				return "the permissions of " + name + " can be changed", nil
			}
			if _, err := unix.KeyctlInt(unix.KEYCTL_REVOKE, ring, 0, 0, 0); err == nil {
				return name + " can be revoked", nil
			}
		}
	}
	b, err := os.ReadFile("/proc/keys")
	if err == nil && os.Geteuid() != 0 && bytes.Contains(b, []byte("_uid")) {
		return "a keyring of the user: " + string(b), nil
	}
	return "", err
}

// processes looks for others of this user, unless that is root. One that was killed may wait to be reaped by PID 1 for a moment.
func processes() (string, error) {
	if os.Geteuid() == 0 {
		return "", nil
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		return "", err
	}
	for _, p := range all {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		status, err := os.ReadFile("/proc/" + p.Name() + "/status")
		if err != nil {
			continue // it has gone
		}
		var name, state, uid string
		for line := range strings.Lines(string(status)) {
			switch key, value, _ := strings.Cut(line, ":"); key {
			case "Name":
				name = strings.TrimSpace(value)
			case "State":
				state = strings.Fields(value)[0]
			case "Uid":
				uid = strings.Fields(value)[1]
			}
		}
		if uid == strconv.Itoa(os.Geteuid()) && state != "Z" && state != "X" {
			return fmt.Sprintf("process %d, %s", pid, name), nil
		}
	}
	return "", nil
}

func mounts() (string, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err == nil && bytes.Contains(b, []byte("traces-left")) {
		return "a mount", nil
	}
	return "", err
}

// leave leaves something of each kind.
func leave() error {
	for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm"} {
		if err := os.WriteFile(filepath.Join(dir, "trace"), []byte("trace\n"), 0o644); err != nil {
			return err
		}
	}
	const mode = unix.IPC_CREAT | 0o600
	if _, _, errno := unix.Syscall(unix.SYS_MSGGET, unix.IPC_PRIVATE, mode, 0); errno != 0 {
		return fmt.Errorf("msgget: %w", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_SEMGET, unix.IPC_PRIVATE, 1, mode); errno != 0 {
		return fmt.Errorf("semget: %w", errno)
	}
	if _, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, mode); err != nil {
		return fmt.Errorf("shmget: %w", err)
	}
	name, err := unix.BytePtrFromString("trace")
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), unix.O_CREAT|unix.O_RDWR, 0o600, 0, 0, 0); errno != 0 {
		return fmt.Errorf("mq_open: %w", errno)
	}
	if _, err := unix.AddKey("user", "trace", []byte("trace"), unix.KEY_SPEC_SESSION_KEYRING); err != nil {
		return fmt.Errorf("add_key: %w", err)
	}
	if err := os.Setenv("TRACE", "1"); err != nil {
		return err
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := stay(null, false); err != nil {
		return err
	}
	if err := stay(null, true); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		return unix.Mount("traces-left", "/mnt", "tmpfs", 0, "")
	}
	return nil
}

// stay leaves a process in a session of its own, which has null as its standard streams: a child, or an orphan, whose parent is
// gone already and which has null as its descriptor 7, too. It is a copy of this program, which may make raw system calls only.
// (Were it another program, a thousand jobs would start three thousand of them.)
func stay(null int, orphan bool) error {
	pid, err := fork()
	switch {
	case err != 0:
		return fmt.Errorf("fork: %w", err)
	case pid != 0 && orphan:
		_, err := unix.Wait4(int(pid), nil, 0, nil)
		return err
	case pid != 0:
		return nil
	}
	if orphan {
		if pid, _ := fork(); pid != 0 {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		syscall.RawSyscall(unix.SYS_DUP3, uintptr(null), 7, 0)
	}
	syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
	for fd := range uintptr(3) {
		syscall.RawSyscall(unix.SYS_DUP3, uintptr(null), fd, 0)
	}
	for {
		syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0) // until a signal
	}
}

// fork makes a copy of this process with this thread in it alone.
func fork() (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	return pid, errno
}

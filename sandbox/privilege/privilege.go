// Package privilege tells which privileges this process has to set up another one (capabilities(7)), and gives up those that it does not
// need. Being root is not enough to know: in a container root often lacks CAP_SYS_RESOURCE.
//
// The engine asks before it accepts a job, and the shim when it starts one.
package privilege

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Has reports whether this process has a capability, one of unix.CAP_….
func Has(capability int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0
}

// Keep gives up all capabilities of this process but those of set, as bits, for good, and all inheritable ones: a container's
// manager may have left some there (systemd in systemd-nspawn does), and a program that is executed as root gets those even
// where they are not in its bounding set. The bounding set stays, and such a program has all of it. Keep is of all threads at
// once, which a program that is linked with C cannot do: that keeps all.
func Keep(set uint64) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("cannot read the capabilities of this process: %w", err)
	}
	for i := range data {
		keep := uint32(set >> (32 * i))
		data[i] = unix.CapUserData{Effective: data[i].Effective & keep, Permitted: data[i].Permitted & keep}
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 && errno != syscall.ENOTSUP {
		return fmt.Errorf("cannot give up capabilities: %w", errno)
	}
	return nil
}

// HighestRLimit returns the highest hard limit of a resource that this process can set (setrlimit(2)): its own, or any with
// CAP_SYS_RESOURCE, except that the kernel has a bound of its own on open files, /proc/sys/fs/nr_open (proc_sys_fs(5)).
func HighestRLimit(resource int) (uint64, error) {
	if !Has(unix.CAP_SYS_RESOURCE) {
		var own unix.Rlimit
		if err := unix.Getrlimit(resource, &own); err != nil {
			return 0, fmt.Errorf("cannot read a resource limit: %w", err)
		}
		return own.Max, nil
	}
	if resource == unix.RLIMIT_NOFILE {
		n, err := number("/proc/sys/fs/nr_open")
		return uint64(n), err
	}
	return unix.RLIM_INFINITY, nil
}

// LowestNice returns the lowest nice value that this process can set (setpriority(2), RLIMIT_NICE).
func LowestNice() (int, error) {
	if Has(unix.CAP_SYS_NICE) {
		return -20, nil
	}
	// The bare system call returns 20 less the value, and RLIMIT_NICE is counted the same way.
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return 0, fmt.Errorf("cannot read the nice value: %w", err)
	}
	var may unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NICE, &may); err != nil {
		return 0, fmt.Errorf("cannot read a resource limit: %w", err)
	}
	return 20 - max(own, int(min(may.Cur, 40))), nil
}

// ErrOOMScore is returned by LowestOOMScore where no score can be set: the files in /proc of a process that is not dumpable,
// as a shim, are root's (proc_pid(5)).
var ErrOOMScore = errors.New("only root can set an OOM score")

// LowestOOMScore returns the lowest OOM score that a shim of this process's user can set for sure
// (proc_pid_oom_score_adj(5)): without CAP_SYS_RESOURCE its own.
func LowestOOMScore() (int, error) {
	switch {
	case os.Geteuid() != 0:
		return 0, ErrOOMScore
	case Has(unix.CAP_SYS_RESOURCE):
		return -1000, nil
	default:
		return number("/proc/self/oom_score_adj")
	}
}

func number(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("cannot read a limit of this machine: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("cannot read a limit of this machine: %w", err)
	}
	return n, nil
}

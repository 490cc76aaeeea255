package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/rtask/rtask/sandbox/spec"
)

// Current reads what a group of another process uses now. Values that the kernel does not tell stay nil. If the group is gone, all do.
//
// Processes come with their names only: to read a command line, the kernel takes a lock of the process that its user can
// keep held (a page of a FUSE file system that does not answer), and the reader would hang with it.
func Current(mount, group string) spec.Current {
	dir := filepath.Join(mount, group)
	var c spec.Current
	if v, err := keyed(dir, "cpu.stat", "usage_usec"); err == nil {
		c.CPUUsec = &v
	}
	if v, err := single(dir, "memory.current"); err == nil {
		c.Memory = &v
	}
	if v, err := single(dir, "pids.current"); err == nil {
		c.Tasks = &v
	}
	var pids []int
	err := eachProcess(dir, func(pid int) error {
		pids = append(pids, pid)
		return nil
	})
	if err != nil {
		return c
	}
	slices.Sort(pids)
	for _, pid := range pids[:min(len(pids), spec.MaxProcesses)] {
		name, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm") // it may be gone
		c.Processes = append(c.Processes, spec.Process{PID: pid, Name: strings.TrimSuffix(string(name), "\n")})
	}
	return c
}

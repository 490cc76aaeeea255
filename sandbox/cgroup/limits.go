package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// The period of cpu.max in microseconds: systemd's default (CPUQuotaPeriodSec=), the kernel's longest, and the kernel's
// least quota in a period.
const (
	period        = 100_000
	longestPeriod = 1_000_000
	leastQuota    = 1000
)

// cpuMax is the content of cpu.max for a quota in microseconds a second.
func cpuMax(quota uint64) string {
	if quota == spec.Infinity {
		return fmt.Sprintf("max %d", period)
	}
	if q := quota / (longestPeriod / period); q >= leastQuota {
		return fmt.Sprintf("%d %d", q, period)
	}
	return fmt.Sprintf("%d %d", max(quota, leastQuota), longestPeriod)
}

func number(v uint64) string {
	if v == spec.Infinity {
		return "max"
	}
	return strconv.FormatUint(v, 10)
}

// setting is one write to a file of a group.
type setting struct{ controller, file, value string }

// settings are the writes for all of l but those that name devices.
func settings(l spec.Limits) []setting {
	var all []setting
	add := func(v *uint64, controller, file string, text func(uint64) string) {
		if v != nil {
			all = append(all, setting{controller, file, text(*v)})
		}
	}
	add(l.MemoryHigh, "memory", "memory.high", number)
	add(l.MemoryMax, "memory", "memory.max", number)
	add(l.MemorySwapMax, "memory", "memory.swap.max", number)
	add(l.TasksMax, "pids", "pids.max", number)
	add(l.CPUQuota, "cpu", "cpu.max", cpuMax)
	switch {
	case l.CPUWeight == nil:
	case *l.CPUWeight == spec.CPUIdle:
		all = append(all, setting{"cpu", "cpu.idle", "1"})
	default:
		add(l.CPUWeight, "cpu", "cpu.weight", number)
	}
	if len(l.AllowedCPUs) > 0 {
		all = append(all, setting{"cpuset", "cpuset.cpus", l.AllowedCPUs.String()})
	}
	return all
}

// limit sets l on a group that has no process yet. With optional, it leaves out what cannot be enforced here.
func (t *Tree) limit(g *Group, l spec.Limits, optional bool) error {
	if slices.Contains(t.controllers, "memory") {
		// One process over the limit ends the job as a whole: half a job is worse than none.
		if err := write(g.dir, "memory.oom.group", "1"); err != nil {
			return err
		}
	}
	for _, s := range settings(l) {
		if !slices.Contains(t.controllers, s.controller) {
			continue // New has refused it, unless it is optional
		}
		if err := write(g.dir, s.file, s.value); err != nil && !optional {
			return unlimited(s.file, err)
		}
	}
	if !slices.Contains(t.controllers, "io") {
		return nil
	}
	if err := g.ioWeight(l.IOWeight); err != nil && !optional {
		return err
	}
	for _, kind := range l.IOMax() {
		for _, d := range kind.Limits {
			device, err := Device(d.Device)
			if err == nil {
				err = write(g.dir, "io.max", device+" "+kind.Key+"="+number(d.Value))
			}
			if err != nil && !optional {
				return fmt.Errorf("cannot limit the job: %w", err)
			}
		}
	}
	return nil
}

// unlimited is the error of a limit that the kernel did not take.
func unlimited(file string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot limit the job: this kernel has no %s", file)
	}
	return fmt.Errorf("cannot limit the job: %s: %w", file, err)
}

// ioWeight sets io.weight, which is there with the kernel's io.cost, and io.bfq.weight, which is there with the BFQ
// scheduler; both only act where the device uses that (systemd.resource-control(5), IOWeight=).
func (g *Group) ioWeight(weight *uint64) error {
	if weight == nil {
		return nil
	}
	cost := write(g.dir, "io.weight", "default "+number(*weight))
	bfq := write(g.dir, "io.bfq.weight", number(bfqWeight(*weight)))
	switch {
	case cost == nil || bfq == nil:
		return nil
	case errors.Is(cost, fs.ErrNotExist):
		return errors.New("cannot limit the job: this kernel has neither io.weight (CONFIG_BLK_CGROUP_IOCOST) nor the BFQ scheduler")
	default:
		return unlimited("io.weight", cost)
	}
}

// bfqWeight brings a weight of 1 to 10000 to the 1 to 1000 of BFQ with the default of 100 where it is, as systemd does
// (BFQ_WEIGHT in its src/core/cgroup.h).
func bfqWeight(weight uint64) uint64 {
	if weight <= 100 {
		return weight
	}
	return 100 + (weight-100)*(1000-100)/(10000-100)
}

// Device returns the number, "MAJOR:MINOR", of the disk that limits of path are for, found as systemd finds it: path is a
// block device, or a file on one; of a partition the whole disk is meant, and of an encrypted or mapped device the one that
// it is on, if that is one.
func Device(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("cannot find the device %s: %w", path, err)
	}
	dev := st.Dev
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		dev = st.Rdev
	} else if unix.Major(dev) == 0 {
		return "", fmt.Errorf("cannot find the device of %s: it is no block device, and its file system is not on one that the kernel names; write the device itself", path)
	}
	sys := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev))
	for {
		below, err := filepath.Glob(sys + "/slaves/*")
		if err != nil || len(below) != 1 {
			break
		}
		sys = below[0]
	}
	if _, err := os.Stat(sys + "/partition"); err == nil {
		real, err := filepath.EvalSymlinks(sys)
		if err != nil {
			return "", fmt.Errorf("cannot find the disk of %s: %w", path, err)
		}
		sys = filepath.Dir(real)
	}
	b, err := os.ReadFile(sys + "/dev")
	if err != nil {
		return "", fmt.Errorf("cannot find the disk of %s: %w", path, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// OnlineCPUs returns the processors that this machine runs on (Documentation/admin-guide/cputopology.rst).
func OnlineCPUs() (spec.CPUSet, error) {
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return nil, fmt.Errorf("cannot find the processors of this machine: %w", err)
	}
	s, err := spec.ParseCPUSet(string(b))
	if err != nil {
		return nil, fmt.Errorf("cannot find the processors of this machine: %w", err)
	}
	return s, nil
}

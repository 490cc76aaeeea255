package spec

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
)

// Infinity is the value of a limit that is named and does not limit, as "infinity" in systemd.resource-control(5).
const Infinity = math.MaxUint64

// CPUIdle is the CPUWeight of a job that runs only when the processor is idle: CPUWeight=idle.
const CPUIdle = 0

// JobOOMScore is the default OOMScoreAdjust of jobs under the profiles default and strict. The kernel kills such a job before a service,
// which has 0, unless the service uses half of the machine's memory more.
const JobOOMScore = 500

// LeastOOMScore is the lowest OOMScoreAdjust there can be, which is that of the shim. A job that is protected better would
// outlive its shim; and at -1000 the kernel finds nothing to kill, so that the job hangs at its MemoryMax for ever.
const LeastOOMScore = -900

// Limits are resource limits of a job. A nil field is not set: the limit is not touched at all. The names are those of
// the directives of systemd.resource-control(5) and systemd.exec(5) that mean the same.
type Limits struct {
	// MemoryMax is memory.max in bytes, MemoryHigh memory.high, MemorySwapMax memory.swap.max.
	MemoryMax     *uint64 `cbor:"memory_max,omitempty"`
	MemoryHigh    *uint64 `cbor:"memory_high,omitempty"`
	MemorySwapMax *uint64 `cbor:"memory_swap_max,omitempty"`
	// CPUQuota is the processor time per second of wall time in microseconds: 100 % of one processor is 1,000,000.
	CPUQuota *uint64 `cbor:"cpu_quota,omitempty"`
	// CPUWeight is cpu.weight, 1 to 10000, or CPUIdle. The kernel's default is 100.
	CPUWeight *uint64 `cbor:"cpu_weight,omitempty"`
	// TasksMax is pids.max, processes and threads.
	TasksMax *uint64 `cbor:"tasks_max,omitempty"`
	// IOWeight is io.weight, 1 to 10000. The kernel's default is 100.
	IOWeight *uint64 `cbor:"io_weight,omitempty"`
	// What of io.max is limited, in bytes and operations a second.
	IOReadBandwidthMax  []DeviceLimit `cbor:"io_read_bandwidth_max,omitempty"`
	IOWriteBandwidthMax []DeviceLimit `cbor:"io_write_bandwidth_max,omitempty"`
	IOReadIOPSMax       []DeviceLimit `cbor:"io_read_iops_max,omitempty"`
	IOWriteIOPSMax      []DeviceLimit `cbor:"io_write_iops_max,omitempty"`
	// AllowedCPUs is cpuset.cpus; empty: not set.
	AllowedCPUs CPUSet `cbor:"allowed_cpus,omitempty"`
	// Slice is the unit that the scope is put below, rtask.slice or one below that; empty: rtask.slice.
	Slice string `cbor:"slice,omitempty"`
	// Nice is the nice value (setpriority(2)), -20 to 19.
	Nice *int `cbor:"nice,omitempty"`
	// OOMScoreAdjust is oom_score_adj (proc_pid_oom_score_adj(5)), LeastOOMScore to 1000.
	OOMScoreAdjust *int `cbor:"oom_score_adjust,omitempty"`
	// RLimits are the limits of each single process (setrlimit(2)), of each resource at most one. Use SetRLimit.
	RLimits []RLimit `cbor:"rlimits,omitempty"`
}

// DeviceLimit is a limit of a block device.
type DeviceLimit struct {
	// Device is the absolute path of a device node, or of any file: then the device that its file system is on is meant.
	Device string `cbor:"device"`
	Value  uint64 `cbor:"value"`
}

// RLimit is one of the limits of setrlimit(2), in the kernel's units; Infinity is RLIM_INFINITY.
type RLimit struct {
	// Resource is its name as in the directives of systemd.exec(5), in lower case: "nofile" is LimitNOFILE=.
	Resource string `cbor:"resource"`
	Soft     uint64 `cbor:"soft"`
	Hard     uint64 `cbor:"hard"`
}

// Resources are the names of the limits of setrlimit(2), by the kernel's numbers (asm-generic/resource.h).
func Resources() []string {
	return []string{
		"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending", "msgqueue",
		"nice", "rtprio", "rttime",
	}
}

// Number returns the kernel's number of r.Resource, or false if it has none.
func (r RLimit) Number() (int, bool) {
	n := slices.Index(Resources(), r.Resource)
	return n, n >= 0
}

// IsZero reports whether no limit is set.
func (l Limits) IsZero() bool { return reflect.ValueOf(l).IsZero() }

// RLimit returns the limit of one resource, or false.
func (l Limits) RLimit(resource string) (RLimit, bool) {
	i := slices.IndexFunc(l.RLimits, func(r RLimit) bool { return r.Resource == resource })
	if i < 0 {
		return RLimit{}, false
	}
	return l.RLimits[i], true
}

// SetRLimit sets the limit of one resource. Copies of l that were made before stay as they are.
func (l *Limits) SetRLimit(r RLimit) {
	all := slices.DeleteFunc(slices.Clone(l.RLimits), func(old RLimit) bool { return old.Resource == r.Resource })
	l.RLimits = append(all, r)
	slices.SortFunc(l.RLimits, func(a, b RLimit) int { return cmp.Compare(a.Resource, b.Resource) })
}

// IOMax are the limits of one kind.
type IOMax struct {
	// Key is what io.max calls it.
	Key    string
	Limits []DeviceLimit
}

// IOMax returns the limits of io.max by kind.
func (l Limits) IOMax() []IOMax {
	return []IOMax{
		{"rbps", l.IOReadBandwidthMax}, {"wbps", l.IOWriteBandwidthMax}, {"riops", l.IOReadIOPSMax}, {"wiops", l.IOWriteIOPSMax},
	}
}

// Devices returns what l names as devices, in its order and each once.
func (l Limits) Devices() []string {
	var all []string
	for _, kind := range l.IOMax() {
		for _, d := range kind.Limits {
			if !slices.Contains(all, d.Device) {
				all = append(all, d.Device)
			}
		}
	}
	return all
}

// Controllers returns the cgroup v2 controllers that l needs, in the kernel's names.
func (l Limits) Controllers() []string {
	var c []string
	if l.CPUQuota != nil || l.CPUWeight != nil {
		c = append(c, "cpu")
	}
	if len(l.AllowedCPUs) > 0 {
		c = append(c, "cpuset")
	}
	if l.IOWeight != nil || len(l.Devices()) > 0 {
		c = append(c, "io")
	}
	if l.MemoryMax != nil || l.MemoryHigh != nil || l.MemorySwapMax != nil {
		c = append(c, "memory")
	}
	if l.TasksMax != nil {
		c = append(c, "pids")
	}
	return c
}

// CPUSet is a set of processors: a bit for each, the lowest of the first byte for processor 0, as D-Bus has it in
// AllowedCPUs (org.freedesktop.systemd1(5)).
type CPUSet []byte

// Add adds a processor.
func (s *CPUSet) Add(cpu int) {
	for len(*s) <= cpu/8 {
		*s = append(*s, 0)
	}
	(*s)[cpu/8] |= 1 << (cpu % 8)
}

// Has reports whether a processor is in s.
func (s CPUSet) Has(cpu int) bool { return cpu/8 < len(s) && s[cpu/8]&(1<<(cpu%8)) != 0 }

// Without returns those of s that are not in other.
func (s CPUSet) Without(other CPUSet) CPUSet {
	var rest CPUSet
	for cpu := range 8 * len(s) {
		if s.Has(cpu) && !other.Has(cpu) {
			rest.Add(cpu)
		}
	}
	return rest
}

// String is s as a list of cpuset(7): "0-2,4".
func (s CPUSet) String() string {
	var parts []string
	for cpu := 0; cpu < 8*len(s); cpu++ {
		if !s.Has(cpu) {
			continue
		}
		first := cpu
		for s.Has(cpu + 1) {
			cpu++
		}
		if cpu > first {
			parts = append(parts, fmt.Sprintf("%d-%d", first, cpu))
		} else {
			parts = append(parts, fmt.Sprint(first))
		}
	}
	return strings.Join(parts, ",")
}

// maxCPU is the highest number of a processor that Linux can be built for, CONFIG_NR_CPUS, less one.
const maxCPU = 8191

// ParseCPUSet reads a list of processors and ranges of them, with commas or blanks between them: "0-2,4". Its errors complete
// "… is not a list of processors: ".
func ParseCPUSet(text string) (CPUSet, error) {
	var s CPUSet
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }) {
		left, right, isRange := strings.Cut(part, "-")
		first, ok := cpuNumber(left)
		last, ok2 := first, true
		if isRange {
			last, ok2 = cpuNumber(right)
		}
		switch {
		case !ok || !ok2:
			return nil, fmt.Errorf("%q is neither the number of a processor nor a range of two", part)
		case last < first:
			return nil, fmt.Errorf("the end of %q is before its beginning", part)
		case last > maxCPU:
			return nil, fmt.Errorf("%q is above the %d that Linux knows", part, maxCPU)
		}
		for cpu := first; cpu <= last; cpu++ {
			s.Add(cpu)
		}
	}
	if len(s) == 0 {
		return nil, errors.New("it is empty")
	}
	return s, nil
}

// cpuNumber reads a number of at most five digits.
func cpuNumber(text string) (n int, ok bool) {
	if text == "" || len(text) > 5 || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	for _, c := range []byte(text) {
		n = 10*n + int(c-'0')
	}
	return n, true
}

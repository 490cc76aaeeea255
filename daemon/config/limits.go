package config

import (
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/rtask/rtask/sandbox/spec"
)

// leastMemory is the memory_max below which a suffix was most likely forgotten.
const leastMemory = 1 << 20

// limitsScope is what may stand in limits { … }. See systemd.resource-control(5), and of nice and the names below it
// systemd.exec(5).
func limitsScope() scope[spec.Limits] {
	return scope[spec.Limits]{
		where: inLimits,
		attributes: []attribute[spec.Limits]{
			{
				name: "memory_max", example: `"512M"`, directive: "MemoryMax",
				doc: `The most memory. "infinity": no limit.`,
				decode: func(d *decoder, v value, l *spec.Limits) {
					d.limit(v, &l.MemoryMax, "a size", parseMemory)
					if l.MemoryMax != nil && *l.MemoryMax < leastMemory {
						d.warnf(v.rng(), v.usage(), "memory_max = %d bytes is too small for most programs to start", *l.MemoryMax)
					}
				},
			},
			{
				name: "memory_high", example: `"384M"`, directive: "MemoryHigh",
				doc:    `The memory above which it is slowed down. "infinity": no limit.`,
				decode: func(d *decoder, v value, l *spec.Limits) { d.limit(v, &l.MemoryHigh, "a size", parseMemory) },
			},
			{
				name: "memory_swap_max", example: `"0"`, directive: "MemorySwapMax",
				doc:    `The most swap space. "infinity": no limit.`,
				decode: func(d *decoder, v value, l *spec.Limits) { d.limit(v, &l.MemorySwapMax, "a size", parseSwap) },
			},
			{
				name: "cpu_quota", example: `"150%"`, directive: "CPUQuota",
				doc:    `The most processor time; 100% is one processor. "infinity": no limit.`,
				decode: func(d *decoder, v value, l *spec.Limits) { d.limit(v, &l.CPUQuota, "a quota", parseQuota) },
			},
			{
				name: "cpu_weight", example: "100", directive: "CPUWeight",
				doc:    `Its share of the processors where jobs compete, 1 to 10000, or "idle".`,
				decode: func(d *decoder, v value, l *spec.Limits) { d.limit(v, &l.CPUWeight, "a weight", parseCPUWeight) },
			},
			{
				name: "allowed_cpus", example: `"0-2,4"`, directive: "AllowedCPUs",
				doc:    "The processors that it may run on.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.cpus(v, &l.AllowedCPUs) },
			},
			{
				name: "tasks_max", example: "64", directive: "TasksMax",
				doc:    `The most processes and threads. "infinity": no limit.`,
				decode: func(d *decoder, v value, l *spec.Limits) { d.limit(v, &l.TasksMax, "a number of tasks", parseTasks) },
			},
			{
				name: "io_weight", example: "100", directive: "IOWeight",
				doc:    "Its share of the disks where jobs compete, 1 to 10000.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.limit(v, &l.IOWeight, "a weight", parseWeight) },
			},
			{
				name: "io_read_bandwidth_max", example: `"/dev/sda 10M"`, directive: "IOReadBandwidthMax", several: true,
				doc:    "The most bytes a second that it may read from a device.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.devices(v, &l.IOReadBandwidthMax) },
			},
			{
				name: "io_write_bandwidth_max", example: `"/dev/sda 10M"`, directive: "IOWriteBandwidthMax", several: true,
				doc:    "The most bytes a second that it may write to a device.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.devices(v, &l.IOWriteBandwidthMax) },
			},
			{
				name: "io_read_iops_max", example: `"/dev/sda 1K"`, directive: "IOReadIOPSMax", several: true,
				doc:    "The most reads a second from a device.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.devices(v, &l.IOReadIOPSMax) },
			},
			{
				name: "io_write_iops_max", example: `"/dev/sda 1K"`, directive: "IOWriteIOPSMax", several: true,
				doc:    "The most writes a second to a device.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.devices(v, &l.IOWriteIOPSMax) },
			},
			{
				name: "slice", example: `"rtask-batch.slice"`, directive: "Slice",
				doc:      "The slice that its scope is put into, rtask.slice or one below it.",
				fallback: `"rtask.slice"`,
				decode:   func(d *decoder, v value, l *spec.Limits) { d.slice(v, &l.Slice) },
			},
			{
				name: "nice", example: "10", directive: "Nice",
				doc:      "The nice value of its processes, -20 to 19.",
				fallback: "0",
				decode:   func(d *decoder, v value, l *spec.Limits) { d.number(v, &l.Nice, -20, 19) },
			},
			{
				name: "oom_score_adjust", example: "500", directive: "OOMScoreAdjust",
				doc:       "How soon the kernel kills it for want of memory: 1000 first, -900 last.",
				otherwise: "500, and 0 under the profile off",
				decode:    func(d *decoder, v value, l *spec.Limits) { d.oomScore(v, &l.OOMScoreAdjust) },
			},
			{
				name: "limit_cpu", example: `"1h"`, directive: "LimitCPU",
				doc:    "The processor time of a process, to the second.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.rlimit(v, l, "cpu", parseSeconds) },
			},
			{
				name: "limit_fsize", example: `"1G"`, directive: "LimitFSIZE",
				doc:    "The largest file that a process may write.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.rlimit(v, l, "fsize", parseBytes) },
			},
			{
				name: "limit_data", example: `"1G"`, directive: "LimitDATA",
				doc:    "The data segment of a process.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.rlimit(v, l, "data", parseBytes) },
			},
			{
				name: "limit_stack", example: `"8M"`, directive: "LimitSTACK",
				doc:    "The stack of a process.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.rlimit(v, l, "stack", parseBytes) },
			},
			{
				name: "limit_core", example: `"0"`, directive: "LimitCORE",
				doc:    "The largest core file.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.rlimit(v, l, "core", parseBytes) },
			},
			{
				name: "limit_rss", example: `"1G"`, directive: "LimitRSS",
				doc:    "Linux knows it and does nothing with it.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.rlimit(v, l, "rss", parseBytes) },
			},
			{
				name: "limit_nofile", example: `"1024:4096"`, directive: "LimitNOFILE",
				doc:    "The number of open files of a process, less one.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.rlimit(v, l, "nofile", parseCount) },
			},
			{
				name: "limit_as", example: `"4G"`, directive: "LimitAS",
				doc:    "The address space of a process.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.rlimit(v, l, "as", parseBytes) },
			},
			{
				name: "limit_nproc", example: "256", directive: "LimitNPROC",
				doc:    "The number of processes and threads of its user, in this job and outside of it; tasks_max is the job's own.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.rlimit(v, l, "nproc", parseCount) },
			},
			{
				name: "limit_memlock", example: `"64K"`, directive: "LimitMEMLOCK",
				doc:    "The memory that a process may lock.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.rlimit(v, l, "memlock", parseBytes) },
			},
			{
				name: "limit_locks", example: "64", directive: "LimitLOCKS",
				doc:    "Linux knows it and does nothing with it.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.rlimit(v, l, "locks", parseCount) },
			},
			{
				name: "limit_sigpending", example: "256", directive: "LimitSIGPENDING",
				doc:    "The number of signals that may be queued for its user.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.rlimit(v, l, "sigpending", parseCount) },
			},
			{
				name: "limit_msgqueue", example: `"800K"`, directive: "LimitMSGQUEUE",
				doc:    "The bytes in POSIX message queues of its user.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.rlimit(v, l, "msgqueue", parseBytes) },
			},
			{
				name: "limit_nice", example: `"-5"`, directive: "LimitNICE",
				doc:    `The lowest nice value that a process may take: "-20" to "+19", or the kernel's number, 0 to 40.`,
				decode: func(d *decoder, v value, l *spec.Limits) { d.rlimit(v, l, "nice", parseNiceLimit) },
			},
			{
				name: "limit_rtprio", example: "0", directive: "LimitRTPRIO",
				doc:    "The highest real-time priority that a process may take.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.rlimit(v, l, "rtprio", parseCount) },
			},
			{
				name: "limit_rttime", example: `"200ms"`, directive: "LimitRTTIME",
				doc:    "How long a real-time process may run without sleeping; a number without a unit is microseconds.",
				decode: func(d *decoder, v value, l *spec.Limits) { d.rlimit(v, l, "rttime", parseMicroseconds) },
			},
		},
	}
}

// limit sets dst to what parse makes of v.
func (d *decoder) limit(v value, dst **uint64, want string, parse func(string) (uint64, error)) {
	text, ok := d.quantity(v, want)
	if !ok {
		return
	}
	got, err := parse(text)
	if err != nil {
		d.refuse(v, want, err)
		return
	}
	*dst = &got
}

// number sets dst to a whole number between least and most.
func (d *decoder) number(v value, dst **int, least, most int64) {
	n := int64(math.MinInt64)
	if d.integer(v, &n, least, most); n >= least {
		*dst = new(int)
		**dst = int(n)
	}
}

func (d *decoder) oomScore(v value, dst **int) {
	const least = -1000
	var n *int
	switch d.number(v, &n, least, 1000); {
	case n == nil:
	case *n < spec.LeastOOMScore:
		d.errorf(v.rng(), fmt.Sprintf("The least is %d.", spec.LeastOOMScore),
			"oom_score_adjust of %d would protect the job better than its supervisor, and at -1000 it could not be ended at memory_max", *n)
	default:
		*dst = n
	}
}

func (d *decoder) cpus(v value, dst *spec.CPUSet) {
	const want = "a list of processors"
	text, ok := d.quantity(v, want)
	if !ok {
		return
	}
	got, err := spec.ParseCPUSet(text)
	if err != nil {
		d.refuse(v, want, err)
		return
	}
	*dst = got
}

// slice sets dst to rtask.slice or one below it, which is where an administrator expects jobs and limits all of them.
func (d *decoder) slice(v value, dst *string) {
	text, ok := d.string(v, false)
	if !ok {
		return
	}
	name, isSlice := strings.CutSuffix(text, ".slice")
	below := strings.TrimPrefix(name, "rtask-")
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(`:_.\-`, r)
	}
	switch {
	case isSlice && name == "rtask":
	case !isSlice || below == name:
		d.errorf(v.rng(), `A job in another slice would not be under the limits of all jobs. Write "rtask.slice" or "rtask-NAME.slice".`,
			"slice %q is neither rtask.slice nor below it", text)
		return
	case slices.Contains(strings.Split(below, "-"), "") || strings.ContainsFunc(below, bad) || len(text) > 255:
		d.errorf(v.rng(), v.usage(), "slice: %q cannot be the name of a slice", text)
		return
	}
	*dst = text
}

// devices sets dst to what is written "DEVICE VALUE", once or in a list.
func (d *decoder) devices(v value, dst *[]spec.DeviceLimit) {
	values := []value{v}
	if list, diags := hcl.ExprList(v.expr); !diags.HasErrors() {
		values = nil
		for i, expr := range list {
			values = append(values, v.element(fmt.Sprintf("%s[%d]", v.name, i), expr))
		}
	}
	var got []spec.DeviceLimit
	for _, one := range values {
		text, ok := d.string(one, false)
		if !ok {
			continue
		}
		limit, err := parseDevice(text)
		switch {
		case err != nil:
			one.example = v.example
			d.refuse(one, "a device and a number", err)
		case slices.ContainsFunc(got, func(other spec.DeviceLimit) bool { return other.Device == limit.Device }):
			d.errorf(one.rng(), "", "%s names %s a second time", v.name, limit.Device)
		default:
			got = append(got, limit)
		}
	}
	*dst = got
}

// parseDevice reads "DEVICE VALUE" as IOReadBandwidthMax= and its siblings have it: the suffixes of the value are to the
// base of 1000.
func parseDevice(text string) (spec.DeviceLimit, error) {
	text = strings.TrimSpace(text)
	i := strings.LastIndexAny(text, " \t")
	if i < 0 {
		return spec.DeviceLimit{}, errors.New("there must be two, with a blank between them")
	}
	device, amount := strings.TrimSpace(text[:i]), text[i+1:]
	if inner, ok := strings.CutPrefix(device, `"`); ok && strings.HasSuffix(inner, `"`) && len(inner) > 1 {
		device = inner[:len(inner)-1]
	}
	if !path.IsAbs(device) {
		return spec.DeviceLimit{}, fmt.Errorf("the path %q is not absolute", device)
	}
	limit := spec.DeviceLimit{Device: path.Clean(device), Value: spec.Infinity}
	if strings.Contains(device+"/", "/../") {
		return spec.DeviceLimit{}, fmt.Errorf(`the path %q has ".." in it`, device)
	}
	if amount == "infinity" {
		return limit, nil
	}
	n, err := parseScaled(amount, 1000)
	if err == nil && n == 0 {
		err = errors.New("nothing can be read or written with 0")
	}
	limit.Value = uint64(n)
	return limit, err
}

// rlimit sets the limit of one resource: "SOFT:HARD", or one value for both.
func (d *decoder) rlimit(v value, l *spec.Limits, resource string, parse func(string) (uint64, error)) {
	const want = "a resource limit"
	text, ok := d.quantity(v, want)
	if !ok {
		return
	}
	r, err := parseRLimit(text, parse)
	if err != nil {
		d.refuse(v, want, err)
		return
	}
	r.Resource = resource
	l.SetRLimit(r)
}

// parseRLimit reads a resource limit but for its name.
func parseRLimit(text string, parse func(string) (uint64, error)) (r spec.RLimit, err error) {
	one := func(text string) (uint64, error) {
		if text = strings.TrimSpace(text); text == "infinity" {
			return spec.Infinity, nil
		}
		return parse(text)
	}
	soft, hard, two := strings.Cut(text, ":")
	if r.Soft, err = one(soft); err != nil {
		return spec.RLimit{}, err
	}
	r.Hard = r.Soft
	if two {
		if r.Hard, err = one(hard); err != nil {
			return spec.RLimit{}, err
		}
	}
	if r.Soft > r.Hard {
		return spec.RLimit{}, fmt.Errorf("in %q the soft limit, which comes first, is above the hard one", text)
	}
	return r, nil
}

// parseBytes, parseCount, parseSeconds, parseMicroseconds and parseNiceLimit read the values of resource limits as the
// LimitXYZ= of systemd.exec(5).
func parseBytes(text string) (uint64, error) {
	n, err := parseSize(text)
	return uint64(n), err
}

func parseCount(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf(`%q is no whole number; no limit is "infinity"`, text)
	}
	return n, nil
}

func parseSeconds(text string) (uint64, error) {
	const second = 1_000_000_000
	n, err := parseDuration(text)
	return (uint64(n) + second - 1) / second, err
}

func parseMicroseconds(text string) (uint64, error) {
	n, err := parseSpan(text, 1000)
	return uint64(n) / 1000, err
}

// parseNiceLimit reads a nice value with its sign, or without one the number that setrlimit(2) takes, which is 20 less the
// nice value.
func parseNiceLimit(text string) (uint64, error) {
	const form = `"-20" to "+19" with its sign, or without one the kernel's number, 0 to 40`
	n, err := strconv.ParseInt(text, 10, 32)
	signed := strings.HasPrefix(text, "+") || strings.HasPrefix(text, "-")
	switch {
	case err != nil || signed && (n < -20 || n > 19) || n > 40:
		return 0, fmt.Errorf("%q is none of these: %s", text, form)
	case signed:
		return uint64(20 - n), nil
	}
	return uint64(n), nil
}

// parseSwap reads memory_swap_max, which may be 0.
func parseSwap(text string) (uint64, error) {
	if strings.TrimSpace(text) == "infinity" {
		return spec.Infinity, nil
	}
	return parseBytes(text)
}

// parseWeight reads io_weight.
func parseWeight(text string) (uint64, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil || n < 1 || n > 10_000 {
		return 0, fmt.Errorf("%q is not one of 1 to 10000", text)
	}
	return n, nil
}

// parseCPUWeight reads cpu_weight.
func parseCPUWeight(text string) (uint64, error) {
	if strings.TrimSpace(text) == "idle" {
		return spec.CPUIdle, nil
	}
	n, err := parseWeight(text)
	if err != nil {
		err = fmt.Errorf(`%w, nor "idle"`, err)
	}
	return n, err
}

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
	return scope[spec.Limits]{where: inLimits, attributes: slices.Concat(jobLimits(), processLimits())}
}

// jobLimits hold for all processes of a job together.
func jobLimits() []attribute[spec.Limits] {
	return []attribute[spec.Limits]{
		{
			name: "memory_max", example: `"512M"`, directive: "MemoryMax",
			kind: kind[spec.Limits]{word: "size", decode: func(d *decoder, v value, l *spec.Limits) {
				d.limit(v, &l.MemoryMax, "a size", parseMemory)
				if l.MemoryMax != nil && *l.MemoryMax < leastMemory {
					d.warnf(v.rng(), v.usage(), "memory_max = %d bytes is too small for most programs to start", *l.MemoryMax)
				}
			}},
			doc: "The most memory. At it, the kernel kills all of the job, whose reason then is `oom`.",
		},
		{
			name: "memory_high", example: `"384M"`, directive: "MemoryHigh",
			kind: limit("size", "a size", func(l *spec.Limits) **uint64 { return &l.MemoryHigh }, parseMemory),
			doc:  "The memory above which the job is slowed down and has to give some back, but is not killed.",
		},
		{
			name: "memory_swap_max", example: `"0"`, directive: "MemorySwapMax",
			kind: limit("size", "a size", func(l *spec.Limits) **uint64 { return &l.MemorySwapMax }, parseSwap),
			doc:  "The most swap space; 0: none.",
		},
		{
			name: "cpu_quota", example: `"150%"`, directive: "CPUQuota",
			kind: limit("string", "a quota", func(l *spec.Limits) **uint64 { return &l.CPUQuota }, parseQuota),
			doc:  "The most processor time: a percentage with up to two decimals, from 0.1%, where 100% is one processor.",
		},
		{
			name: "cpu_weight", example: "100", directive: "CPUWeight",
			kind: limit("number", "a weight", func(l *spec.Limits) **uint64 { return &l.CPUWeight }, parseCPUWeight),
			doc: "The job's share of the processors while others want them, too: from 1 to 10000, where 100 is what all have that say " +
				"nothing, or `\"idle\"`: only what others leave unused.",
		},
		{
			name: "allowed_cpus", example: `"0-2,4"`, directive: "AllowedCPUs",
			kind: kind[spec.Limits]{word: "string | number", decode: func(d *decoder, v value, l *spec.Limits) { d.cpus(v, &l.AllowedCPUs) }},
			doc:  "The processors it may run on, by their numbers from 0 on: numbers and ranges with commas between them, such as `\"0-2,4\"`.",
		},
		{
			name: "tasks_max", example: "64", directive: "TasksMax",
			kind: limit("number", "a number of tasks", func(l *spec.Limits) **uint64 { return &l.TasksMax }, parseTasks),
			doc:  "The most processes and threads, up to 4194304.",
		},
		{
			name: "io_weight", example: "100", directive: "IOWeight",
			kind: limit("number", "a weight", func(l *spec.Limits) **uint64 { return &l.IOWeight }, parseWeight),
			doc: "The job's share of a disk while others want it, too, from 1 to 10000, where 100 is what all have that say nothing. It " +
				"acts on disks with the scheduler BFQ or with the kernel's io.cost.",
		},
		device("io_read_bandwidth_max", "IOReadBandwidthMax", "10M", func(l *spec.Limits) *[]spec.DeviceLimit { return &l.IOReadBandwidthMax },
			"The most bytes a second read from a device: `\"DEVICE VALUE\"`, or a list of such strings, each for another device. DEVICE is "+
				"the path of a device, or of any file, which means the device of its file system. A partition means "+
				"its whole disk. VALUE may have one of the suffixes K, M, G, T, to the base of 1000."),
		device("io_write_bandwidth_max", "IOWriteBandwidthMax", "10M", func(l *spec.Limits) *[]spec.DeviceLimit { return &l.IOWriteBandwidthMax },
			"The same for bytes written."),
		device("io_read_iops_max", "IOReadIOPSMax", "1K", func(l *spec.Limits) *[]spec.DeviceLimit { return &l.IOReadIOPSMax },
			"The same for reads a second."),
		device("io_write_iops_max", "IOWriteIOPSMax", "1K", func(l *spec.Limits) *[]spec.DeviceLimit { return &l.IOWriteIOPSMax },
			"The same for writes a second."),
		{
			name: "slice", example: `"rtask-batch.slice"`, directive: "Slice", fallback: `"rtask.slice"`,
			kind: text(func(d *decoder, v value, l *spec.Limits) { d.slice(v, &l.Slice) }),
			doc: "The slice that the job's scope is put into: `\"rtask.slice\"` or one below it, which is named `\"rtask-NAME.slice\"`. " +
				"What it may use together is set as for any slice, with `systemctl edit rtask-NAME.slice`.",
		},
	}
}

// processLimits hold for each process by itself.
func processLimits() []attribute[spec.Limits] {
	return []attribute[spec.Limits]{
		{
			name: "nice", example: "10", directive: "Nice", fallback: "0",
			kind: signed(func(d *decoder, v value, l *spec.Limits) { d.number(v, &l.Nice, -20, 19) }, -20, 19),
			doc:  "The nice value; -20 is the most processor time.",
		},
		{
			name: "oom_score_adjust", example: "500", directive: "OOMScoreAdjust", otherwise: "500, and 0 under the profile off",
			kind: signed(func(d *decoder, v value, l *spec.Limits) { d.oomScore(v, &l.OOMScoreAdjust) }, spec.LeastOOMScore, 1000),
			doc: "How soon the kernel kills the job when the machine is out of memory: 1000 is the first, -900 the last. Less than -900 is " +
				"an error: rtask's own process beside the job has that, and a job at -1000 could not be ended at its " +
				"`memory_max`. With the default the kernel kills a job before a service, which has 0. A daemon that is not root leaves " +
				"the number as it is.",
		},
		rlimit("limit_cpu", "LimitCPU", `"1h"`, "duration", parseSeconds,
			"Processor time, rounded up to seconds: at the soft limit SIGXCPU, at the hard one SIGKILL."),
		rlimit("limit_fsize", "LimitFSIZE", `"1G"`, "size", parseBytes, "The largest file that it may write."),
		rlimit("limit_data", "LimitDATA", `"1G"`, "size", parseBytes, "The data segment."),
		rlimit("limit_stack", "LimitSTACK", `"8M"`, "size", parseBytes, "The stack."),
		rlimit("limit_core", "LimitCORE", `"0"`, "size", parseBytes, "The largest core file."),
		rlimit("limit_rss", "LimitRSS", `"1G"`, "size", parseBytes, "Linux knows it and does nothing with it."),
		rlimit("limit_nofile", "LimitNOFILE", `"1024:4096"`, "number", parseCount, "The highest number of an open file, plus one."),
		rlimit("limit_as", "LimitAS", `"4G"`, "size", parseBytes, "The address space."),
		rlimit("limit_nproc", "LimitNPROC", "256", "number", parseCount,
			"The processes and threads of the user that the job runs as, outside of the job, too. `tasks_max` limits those of the job only."),
		rlimit("limit_memlock", "LimitMEMLOCK", `"64K"`, "size", parseBytes, "The memory that it may lock."),
		rlimit("limit_locks", "LimitLOCKS", "64", "number", parseCount, "Linux knows it and does nothing with it."),
		rlimit("limit_sigpending", "LimitSIGPENDING", "256", "number", parseCount, "The signals that may be queued for its user."),
		rlimit("limit_msgqueue", "LimitMSGQUEUE", `"800K"`, "size", parseBytes, "The bytes in POSIX message queues of its user."),
		rlimit("limit_nice", "LimitNICE", `"-5"`, "string | number", parseNiceLimit,
			"The lowest nice value that it may give itself: from `\"-20\"` to `\"+19\"`, or without a sign the number of setrlimit(2)."),
		rlimit("limit_rtprio", "LimitRTPRIO", "0", "number", parseCount, "The highest real-time priority that it may give itself."),
		rlimit("limit_rttime", "LimitRTTIME", `"200ms"`, "duration", parseMicroseconds,
			"How long it may run with a real-time priority without sleeping. A number without a unit is in microseconds."),
	}
}

// limit is a number that parse reads.
func limit(word, want string, field func(*spec.Limits) **uint64, parse func(string) (uint64, error)) kind[spec.Limits] {
	return kind[spec.Limits]{word: word, decode: func(d *decoder, v value, l *spec.Limits) { d.limit(v, field(l), want, parse) }}
}

// signed is a whole number that may be below 0.
func signed(decode func(*decoder, value, *spec.Limits), least, most int) kind[spec.Limits] {
	return kind[spec.Limits]{word: "number", least: strconv.Itoa(least), most: strconv.Itoa(most), decode: decode}
}

// device is a limit for each of several devices.
func device(name, directive, example string, field func(*spec.Limits) *[]spec.DeviceLimit, doc string) attribute[spec.Limits] {
	return attribute[spec.Limits]{
		name: name, example: `"/dev/sda ` + example + `"`, directive: directive, doc: doc,
		kind: kind[spec.Limits]{word: "string | list", several: true, decode: func(d *decoder, v value, l *spec.Limits) { d.devices(v, field(l)) }},
	}
}

// rlimit is a resource limit, "SOFT:HARD" or one value for both.
func rlimit(name, directive, example, word string, parse func(string) (uint64, error), doc string) attribute[spec.Limits] {
	resource := strings.TrimPrefix(name, "limit_")
	return attribute[spec.Limits]{
		name: name, example: example, directive: directive, doc: doc,
		kind: kind[spec.Limits]{word: word, decode: func(d *decoder, v value, l *spec.Limits) { d.rlimit(v, l, resource, parse) }},
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

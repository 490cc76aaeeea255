package sandbox

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/cgroup"
	"github.com/rtask/rtask/sandbox/scope"
	"github.com/rtask/rtask/sandbox/spec"
)

// Check returns an error that wraps ErrUnenforceable when l has a limit that this machine cannot enforce: a control group
// controller, a device or a processor is missing, or the engine may not give what is asked for.
func (h *Host) Check(l spec.Limits) error {
	controllers := l.Controllers()
	if h.manager == nil && (len(controllers) > 0 || l.Slice != "") {
		return fmt.Errorf("cannot limit jobs: there is no systemd here: %w", ErrUnenforceable)
	}
	if missing := h.missing(controllers); len(missing) > 0 {
		return fmt.Errorf("cannot limit jobs: the control group controllers %s are not in the cgroup v2 hierarchy: %w",
			strings.Join(missing, ", "), ErrUnenforceable)
	}
	for _, d := range l.Devices() {
		if _, err := cgroup.Device(d); err != nil {
			return fmt.Errorf("cannot limit jobs: %w: %w", err, ErrUnenforceable)
		}
	}
	if len(l.AllowedCPUs) > 0 {
		online, err := cgroup.OnlineCPUs()
		if err != nil {
			return fmt.Errorf("cannot limit jobs: %w: %w", err, ErrUnenforceable)
		}
		if absent := l.AllowedCPUs.Without(online); len(absent) > 0 {
			return fmt.Errorf("cannot limit jobs: allowed_cpus names %s, this machine has the processors %s: %w", absent, online, ErrUnenforceable)
		}
	}
	return checkProcess(l)
}

// checkProcess checks the limits that are set in the job's process itself.
func checkProcess(l spec.Limits) error {
	root := os.Geteuid() == 0
	for _, r := range l.RLimits {
		most, err := mostRLimit(r, root)
		if err != nil {
			return fmt.Errorf("cannot limit jobs: %w: %w", err, ErrUnenforceable)
		}
		if r.Hard > most {
			return fmt.Errorf("cannot limit jobs: the most that rtaskd can give as limit_%s is %d: %w", r.Resource, most, ErrUnenforceable)
		}
	}
	if root {
		return nil
	}
	if l.OOMScoreAdjust != nil && *l.OOMScoreAdjust < 0 {
		return fmt.Errorf("cannot limit jobs: only an rtaskd that runs as root can give an oom_score_adjust below 0: %w", ErrUnenforceable)
	}
	if l.Nice != nil {
		var may unix.Rlimit
		own, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		if err == nil {
			err = unix.Getrlimit(unix.RLIMIT_NICE, &may)
		}
		if err != nil {
			return fmt.Errorf("cannot limit jobs: cannot read the nice value: %w: %w", err, ErrUnenforceable)
		}
		// The system call itself returns 20 less the value (getpriority(2)), and RLIMIT_NICE is counted the same way.
		if want := 20 - *l.Nice; want > own && uint64(want) > may.Cur {
			return fmt.Errorf("cannot limit jobs: the lowest nice value that an rtaskd that is not root can give is %d: %w",
				20-max(own, int(min(may.Cur, 40))), ErrUnenforceable)
		}
	}
	return nil
}

// mostRLimit returns the highest hard limit that can be set.
func mostRLimit(r spec.RLimit, root bool) (uint64, error) {
	number, ok := r.Number()
	if !ok {
		return 0, fmt.Errorf("there is no resource limit %q", r.Resource)
	}
	if !root {
		var own unix.Rlimit
		if err := unix.Getrlimit(number, &own); err != nil {
			return 0, fmt.Errorf("cannot read limit_%s: %w", r.Resource, err)
		}
		return own.Max, nil
	}
	if number == unix.RLIMIT_NOFILE && r.Hard != spec.Infinity { // which becomes the most that there can be
		b, err := os.ReadFile("/proc/sys/fs/nr_open")
		if err != nil {
			return 0, fmt.Errorf("cannot read the most of limit_nofile: %w", err)
		}
		return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	}
	return spec.Infinity, nil
}

// The headroom of a scope above its job's limits, for the shim, so that what the job does never takes the shim with it.
// Weights and processors are as they are, since it is scopes that compete for them; and maxima of IO are on the job alone,
// where they do not hold up the shim.
const (
	memoryHeadroom = 32 << 20
	tasksHeadroom  = 64
	quotaHeadroom  = 200_000 // 20 %, in microseconds a second
)

// resources are the limits of a job's scope.
func resources(l spec.Limits) scope.Resources {
	return scope.Resources{
		MemoryMax: plus(l.MemoryMax, memoryHeadroom), MemoryHigh: plus(l.MemoryHigh, memoryHeadroom),
		MemorySwapMax: plus(l.MemorySwapMax, memoryHeadroom),
		TasksMax:      plus(l.TasksMax, tasksHeadroom), CPUQuotaPerSecUSec: plus(l.CPUQuota, quotaHeadroom),
		CPUWeight: l.CPUWeight, IOWeight: l.IOWeight, AllowedCPUs: l.AllowedCPUs,
	}
}

func plus(v *uint64, headroom uint64) *uint64 {
	if v == nil {
		return nil
	}
	sum := uint64(spec.Infinity)
	if *v < spec.Infinity-headroom {
		sum = *v + headroom
	}
	return &sum
}

// Unlimited are the limits that hold for a job of which nothing is said, as far as somebody could want more: what systemd
// gives to any unit, and what the engine was given itself.
func (h *Host) Unlimited() spec.Limits {
	l := spec.Limits{TasksMax: h.tasksMax}
	for _, name := range spec.Resources() {
		r := spec.RLimit{Resource: name}
		var own unix.Rlimit
		if number, ok := r.Number(); ok && unix.Getrlimit(number, &own) == nil {
			r.Soft, r.Hard = own.Cur, own.Max
			l.SetRLimit(r)
		}
	}
	return l
}

func (h *Host) missing(wanted []string) []string {
	return slices.DeleteFunc(slices.Clone(wanted), func(c string) bool { return slices.Contains(h.controllers, c) })
}

package sandbox

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/cgroup"
	"github.com/rtask/rtask/sandbox/privilege"
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
	refuse := func(err error) error { return fmt.Errorf("cannot limit jobs: %w: %w", err, ErrUnenforceable) }
	for _, r := range l.RLimits {
		number, ok := r.Number()
		if !ok {
			return refuse(fmt.Errorf("there is no resource limit %q", r.Resource))
		}
		most, err := privilege.HighestRLimit(number)
		if err != nil {
			return refuse(err)
		}
		// With the privilege for it, no limit of open files becomes the highest that there can be.
		if r.Hard > most && !(number == unix.RLIMIT_NOFILE && r.Hard == spec.Infinity && privilege.Has(unix.CAP_SYS_RESOURCE)) {
			return refuse(fmt.Errorf("the highest limit_%s that rtaskd may give is %d", r.Resource, most))
		}
	}
	if l.Nice != nil {
		lowest, err := privilege.LowestNice()
		if err != nil {
			return refuse(err)
		}
		if *l.Nice < lowest {
			return refuse(fmt.Errorf("the lowest nice value that rtaskd may give is %d", lowest))
		}
	}
	if l.OOMScoreAdjust != nil {
		lowest, err := privilege.LowestOOMScore()
		if err != nil {
			return refuse(err)
		}
		if *l.OOMScoreAdjust < lowest {
			return refuse(fmt.Errorf("the lowest oom_score_adjust that rtaskd may give is %d", lowest))
		}
	}
	return nil
}

// A scope's limits are higher than its job's by this headroom for the shim, so that a job at its limits does not affect the shim. Weights
// and processors have none, since scopes compete for them. Maxima of IO apply to the job only, and do not slow the shim.
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

// Unlimited returns the limits of a job that sets none, as far as a job may want more: what systemd gives to any unit, and the engine's
// own limits.
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

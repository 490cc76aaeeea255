package jail

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/jail/fork"
	"github.com/rtask/rtask/sandbox/spec"
)

// limit adds to p the limits that are the process's own. Where they are optional, what may not be set becomes the most that
// may.
func limit(p *fork.Process, l spec.Limits, optional bool) error {
	p.Nice = l.Nice
	if l.OOMScoreAdjust != nil {
		// The shim is as well protected as a job can be at most. One that is protected better could not be killed at its limit.
		score := strconv.Itoa(max(*l.OOMScoreAdjust, spec.LeastOOMScore))
		p.OOMScoreAdj = &score
	}
	for _, r := range l.RLimits {
		number, ok := r.Number()
		if !ok {
			return fmt.Errorf("cannot limit the job: there is no resource limit %q", r.Resource)
		}
		most, err := mostHard(number)
		if err != nil {
			return err
		}
		if optional || number == unix.RLIMIT_NOFILE && r.Hard == spec.Infinity {
			r.Soft, r.Hard = min(r.Soft, most), min(r.Hard, most)
		}
		if number == unix.RLIMIT_NOFILE {
			p.NoFile = unix.Rlimit{Cur: r.Soft, Max: r.Hard}
			continue
		}
		p.RLimits = append(p.RLimits, fork.RLimit{Name: "limit_" + r.Resource, Resource: number, Limit: unix.Rlimit{Cur: r.Soft, Max: r.Hard}})
	}
	return nil
}

// mostHard returns the highest hard limit that this process can set: its own, unless it is root; and of descriptors there
// is a highest number for root, too (/proc/sys/fs/nr_open, proc_sys_fs(5)).
func mostHard(number int) (uint64, error) {
	switch {
	case os.Geteuid() != 0:
		var own unix.Rlimit
		if err := unix.Getrlimit(number, &own); err != nil {
			return 0, fmt.Errorf("cannot read a resource limit: %w", err)
		}
		return own.Max, nil
	case number == unix.RLIMIT_NOFILE:
		b, err := os.ReadFile("/proc/sys/fs/nr_open")
		if err != nil {
			return 0, fmt.Errorf("cannot read the most of limit_nofile: %w", err)
		}
		most, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("cannot read the most of limit_nofile: %w", err)
		}
		return most, nil
	default:
		return spec.Infinity, nil
	}
}

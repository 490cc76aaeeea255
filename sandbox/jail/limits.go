package jail

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/jail/fork"
	"github.com/rtask/rtask/sandbox/privilege"
	"github.com/rtask/rtask/sandbox/spec"
)

// limit adds to p the limits that are the process's own. Where they are optional, what may not be set becomes the most that
// may.
func limit(p *fork.Process, l spec.Limits, optional bool) error {
	p.Nice = l.Nice
	if optional && p.Nice != nil {
		lowest, err := privilege.LowestNice()
		if err != nil {
			return err
		}
		nice := max(*p.Nice, lowest)
		p.Nice = &nice
	}
	if l.OOMScoreAdjust != nil {
		// The shim is as well protected as a job can be at most. One that is protected better could not be killed at its limit.
		n := max(*l.OOMScoreAdjust, spec.LeastOOMScore)
		lowest, err := privilege.LowestOOMScore()
		switch {
		case err == nil && optional:
			n = max(n, lowest)
		case err != nil && !optional:
			return fmt.Errorf("cannot limit the job: %w", err)
		}
		if score := strconv.Itoa(n); err == nil {
			p.OOMScoreAdj = &score
		}
	}
	for _, r := range l.RLimits {
		number, ok := r.Number()
		if !ok {
			return fmt.Errorf("cannot limit the job: there is no resource limit %q", r.Resource)
		}
		most, err := privilege.HighestRLimit(number)
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

package sandbox

import (
	"github.com/rtask/rtask/sandbox/cgroup"
	"github.com/rtask/rtask/sandbox/spec"
)

// Current returns what the job in a control group uses now. Without systemd nothing is known.
func (h *Host) Current(controlGroup string) spec.Current {
	if h.mount == "" || controlGroup == "" {
		return spec.Current{}
	}
	return cgroup.Current(h.mount, controlGroup)
}

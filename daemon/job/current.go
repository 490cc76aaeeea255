package job

import "github.com/rtask/rtask/sandbox/spec"

// Current returns what a job uses now, as far as its control group tells. Of a job that does not run that is nothing.
func (m *Manager) Current(j Job) spec.Current {
	if j.State != Running && j.State != Stopping {
		return spec.Current{}
	}
	return m.opts.Host.Current(j.ControlGroup)
}

package job

import "github.com/rtask/rtask/sandbox/spec"

// Count returns how many jobs that have not ended are in each state, and how many of each task wait for their turn. Tasks of
// which none waits, and commands, are left out.
func (m *Manager) Count() (states map[State]int, waiting map[string]int) {
	states = map[State]int{}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.live {
		if j := l.snapshot(); j.State != Ended {
			states[j.State]++
		}
	}
	return states, m.admission.Waiting()
}

// Running returns how many jobs have not ended.
func (m *Manager) Running() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, l := range m.live {
		if l.snapshot().State != Ended { // else its end is not recorded yet
			n++
		}
	}
	return n
}

// Current returns what a job uses now, as far as its control group tells. Of a job that does not run that is nothing.
func (m *Manager) Current(j Job) spec.Current {
	if j.State != Running && j.State != Stopping {
		return spec.Current{}
	}
	return m.opts.Host.Current(j.ControlGroup)
}

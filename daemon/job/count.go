package job

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

package job

// Count returns how many jobs that have not ended are in each state, and how many of each task wait for their turn. Tasks of
// which none waits, and commands, are left out.
func (m *Manager) Count() (states map[State]int, waiting map[string]int) {
	states, waiting = map[State]int{}, map[string]int{}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.live {
		if l.job.State != Ended {
			states[l.job.State]++
		}
	}
	for task, t := range m.tasks {
		if task != "" && t.waiting > 0 {
			waiting[task] = t.waiting
		}
	}
	return states, waiting
}

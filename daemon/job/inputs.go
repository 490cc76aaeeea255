package job

import (
	"fmt"
	"os"
)

// maxWaitingInputs is how many bytes the inputs of all jobs that wait for their turn may have, on disk or in memory.
const maxWaitingInputs = 1 << 30

// charge sets how many bytes of the room for inputs that wait are a job's. Manager.mu is held.
func (m *Manager) charge(l *live, n int64) {
	s := l.job.share()
	m.waiting += n - l.charged
	if m.inputs[s] += n - l.charged; m.inputs[s] <= 0 {
		delete(m.inputs, s)
	}
	l.charged = n
}

// chargeNew is charge for a job that comes, or takes a longer input over, and returns an error if there is no room. Manager.mu is
// held.
func (m *Manager) chargeNew(l *live, n int64) error {
	more := n - l.charged
	if has := m.inputs[l.job.share()]; more > 0 && !mayHold(has+more, maxWaitingInputs-m.waiting-more) {
		return fmt.Errorf("%w: the inputs of queued jobs take up %d MiB, %d of them for %s", ErrQueueFull, m.waiting>>20, has>>20, l.job.Owner)
	}
	m.charge(l, n)
	return nil
}

// inputSize is how long the input of a job is that an earlier engine left.
func (m *Manager) inputSize(j *Job) int64 {
	if !j.Plan.InputFile {
		return int64(len(j.Plan.Input))
	}
	fi, err := os.Stat(m.inputPath(j))
	if err != nil {
		return 0 // its start says what is wrong
	}
	return fi.Size()
}

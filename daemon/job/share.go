package job

import (
	"fmt"
	"strconv"
	"strings"
)

// A share is what one owner may take of what there is for all: of the jobs that run, of what is kept of those that have
// ended, of the inputs that wait. An API key has one, a local user, each webhook of each task, and what the ends of other
// jobs start, by task. So nobody can take what others need.

// share names the one that a job counts towards.
func (j *Job) share() string {
	switch {
	case j.Owner.Key != "":
		return "key/" + j.Owner.Key
	case j.Trigger == "local" || j.Trigger == "":
		return "user/" + strconv.FormatUint(uint64(j.Owner.UID), 10)
	default:
		return strings.Join([]string{j.Trigger, j.Task, j.Owner.Name}, "/")
	}
}

// shareFactor says how unequal shares may be: an owner gets one more place while it has fewer than shareFactor times as many as
// are free. Alone it can have 8 of 9 places, two have 8 of 17 each, and so on, so that some are left for others. With up to 8
// places each of them can be one owner's.
const shareFactor = 8

// mayHold reports whether a share that has some of a number of places gets one more of those that are free.
func mayHold(has, free int64) bool { return free > 0 && has < shareFactor*free }

// reserve is how many jobs may run beyond Options.MaxJobs, each for an owner that has few: one in reservePart.
func (m *Manager) reserve() int { return m.maxJobs / reservePart }

const reservePart = 8

// room returns an error if a job cannot have its turn now: MaxJobs run, and its owner has as many of the reserve as are left of
// it. So nobody can take the last place. Manager.mu is held.
func (m *Manager) room(j *Job) error {
	if m.active < m.maxJobs || m.holds[j.share()] < m.maxJobs+m.reserve()-m.active {
		return nil
	}
	return fmt.Errorf("%w: max_jobs = %d", ErrTooMany, m.maxJobs)
}

// hold counts a job that has its turn, and release one that has it no more. Manager.mu is held.
func (m *Manager) hold(j *Job) {
	m.active++
	m.holds[j.share()]++
}

func (m *Manager) release(j *Job) {
	m.active--
	s := j.share()
	if m.holds[s]--; m.holds[s] <= 0 {
		delete(m.holds, s)
	}
}

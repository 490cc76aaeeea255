package job

import "time"

// finishedAt is what retention counts the age of a job from, the zero time while it has not ended.
func finishedAt(j *Job) time.Time {
	switch {
	case j.State != Ended:
		return time.Time{}
	case j.EndedAt.IsZero(): // the end was not seen
		return j.QueuedAt
	}
	return j.EndedAt
}

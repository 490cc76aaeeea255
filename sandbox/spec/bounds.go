package spec

import "time"

// Overflow is what becomes of a request for a job when as many jobs of its task run as may.
type Overflow string

// The values of Overflow.
const (
	// Reject refuses it.
	Reject Overflow = "reject"
	// Queue lets it wait for its turn.
	Queue Overflow = "queue"
	// Coalesce lets it wait, too, and makes one job of requests for the same thing.
	Coalesce Overflow = "coalesce"
)

// UIDRange is a range of user numbers, both ends included.
type UIDRange struct{ First, Last uint32 }

// Has reports whether a number is in r.
func (r UIDRange) Has(uid uint32) bool { return r.First <= uid && uid <= r.Last }

// Retention bounds what is kept of jobs that have ended: their records and their logs. When one of the bounds is exceeded,
// the oldest go; 0 is no bound.
type Retention struct {
	// KeepFor is how long a job is known after its end.
	KeepFor time.Duration
	// KeepBytes is how much space on disk their logs take up, in bytes.
	KeepBytes int64
	// KeepJobs is how many there are.
	KeepJobs int
}

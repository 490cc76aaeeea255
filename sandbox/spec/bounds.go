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

// Policy is how many jobs of a task run at a time, and how long a slot stays for the next job. Records have only the fields with a name.
type Policy struct {
	// Rate is how many jobs may be started in one second, on average; 0: any number.
	Rate float64 `cbor:"-"`
	// MaxConcurrent is how many may run at a time; 0: any number. Overflow says what happens to further ones, and MaxQueue how many
	// may wait.
	MaxConcurrent int      `cbor:"max_concurrent,omitempty"`
	Overflow      Overflow `cbor:"-"`
	MaxQueue      int      `cbor:"-"`
	// Keep is how long the slot stays for another job of the task with the same Config, which names all that they share; 0: the
	// slot runs one job only. Warm is how many slots are kept ready at any time.
	Keep   time.Duration `cbor:"keep,omitempty"`
	Warm   int           `cbor:"-"`
	Config string        `cbor:"config,omitempty"`
}

// Single reports whether each slot runs one job only.
func (p Policy) Single() bool { return p.Keep <= 0 }

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

package config

import "time"

const (
	// maxAttempts is how many jobs one start may become, and maxRetryDelay the longest time between two of them.
	maxAttempts   = 100
	maxRetryDelay = 24 * time.Hour
)

// Retry is how often a task is tried again after a failure. The zero value: never.
type Retry struct {
	// Attempts is how many jobs there are in all.
	Attempts int
	// Delay is the time between the end of one and the start of the next.
	Delay time.Duration
}

// retryScope is what may stand in retry { … }.
func retryScope() scope[Retry] {
	return scope[Retry]{
		where: inRetry,
		attributes: []attribute[Retry]{
			{
				name: "attempts", example: "3", fallback: "3",
				kind: integer(func(r *Retry) *int { return &r.Attempts }, 1, maxAttempts),
				doc:  "How many jobs there are in all, the first one included.",
			},
			{
				name: "delay", example: `"10s"`, fallback: `"10s"`,
				kind: kind[Retry]{word: "duration", most: "24h", decode: func(d *decoder, v value, r *Retry) {
					got := r.Delay
					if d.duration(v, &got, false); got > maxRetryDelay {
						d.errorf(v.rng(), v.usage(), "delay must be 24h at most")
						return
					}
					r.Delay = got
				}},
				doc: "The time between the end of a job and the start of the next one.",
			},
		},
	}
}

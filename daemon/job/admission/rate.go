package admission

import "time"

// bucket is a token bucket: it admits jobs of one task at a rate, with a burst of one second's worth, at least one.
type bucket struct {
	tokens float64
	at     time.Time // when there were that many; zero: it was full
}

// take takes one token, or says how long it is until there is one.
func (b *bucket) take(rate float64, now time.Time) time.Duration {
	full := max(1, rate)
	if b.at.IsZero() {
		b.tokens = full
	}
	b.tokens = min(full, b.tokens+rate*max(0, now.Sub(b.at).Seconds()))
	b.at = now
	if b.tokens < 1 {
		return max(time.Nanosecond, time.Duration((1-b.tokens)/rate*float64(time.Second)))
	}
	b.tokens--
	return 0
}

// limitRate lets a job in, or returns a *RateError.
func (a *Admission) limitRate(r *Request) error {
	if r.Rate <= 0 || r.Owed {
		return nil
	}
	b := a.rates[r.Task]
	if b == nil {
		b = &bucket{}
		a.rates[r.Task] = b
	}
	if wait := b.take(r.Rate, time.Now()); wait > 0 {
		return &RateError{RetryAfter: wait, rate: r.Rate}
	}
	return nil
}

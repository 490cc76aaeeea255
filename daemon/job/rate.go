package job

import (
	"fmt"
	"time"
)

// RateError is returned by Start when Spec.Rate does not let another job of the task in yet.
type RateError struct {
	// RetryAfter is how long from then on one more is let in, if nobody comes before.
	RetryAfter time.Duration
	rate       float64
}

// Error implements error.
func (e *RateError) Error() string {
	return fmt.Sprintf("rate limit reached: %g requests a second (rate_limit)", e.rate)
}

// bucket lets jobs of one task in at a rate (a token bucket): as many at once as come to one second's share, at least one.
// It is guarded by Manager.mu.
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

// limitRate lets a job in, or returns a *RateError. What the end of another job starts is owed, and not held to it.
// Manager.mu is held.
func (m *Manager) limitRate(s *Spec) error {
	if s.Rate <= 0 || s.by != "" {
		return nil
	}
	b := m.rates[s.Task]
	if b == nil {
		b = &bucket{}
		m.rates[s.Task] = b
	}
	if wait := b.take(s.Rate, time.Now()); wait > 0 {
		return &RateError{RetryAfter: wait, rate: s.Rate}
	}
	return nil
}

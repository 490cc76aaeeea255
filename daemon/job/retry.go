package job

import "time"

// Retry is what becomes of a job after a failure: another job of its task, until one has not failed or there were Attempts of them. Each
// attempt has what the request brought of environment and input; what the task is, is looked up again for each.
type Retry struct {
	// Attempts is how many jobs there may be in all; below 2: one.
	Attempts int `cbor:"attempts,omitempty"`
	// Delay is the time between the end of one and the start of the next.
	Delay time.Duration `cbor:"delay,omitempty"`
	// Given are those variables of Spec.Env that come from the request.
	Given []string `cbor:"given,omitempty"`
	// Of is the id of the first attempt, and After how many attempts came before this one; the Manager sets both, and Trigger, which
	// is that of the first.
	Of      string `cbor:"of,omitempty"`
	After   int    `cbor:"after,omitempty"`
	Trigger string `cbor:"trigger,omitempty"`
	// Lost says that the input is not kept, since it is longer than a record should be: there is no further attempt.
	Lost bool `cbor:"lost,omitempty"`
}

// again reports whether there may be another attempt after this one.
func (r *Retry) again() bool { return r.After+1 < r.Attempts }

package job

import (
	"context"
	"time"

	"github.com/rtask/rtask/daemon/store"
)

// maxHolds is how many Onces of one source are known, which is all of their names up to the last slash. Of more, the ones that
// would be forgotten first go.
const maxHolds = 1_000_000

// Once names something that is to be done once, until a time.
type Once struct {
	// Key is its name; "": it may be done any number of times.
	Key string `cbor:"key,omitempty"`
	// Until is when that is forgotten. It must be later than any time at which a repeat could still be let in.
	Until time.Time `cbor:"until,omitzero"`
	// At is the time at which the request was looked at: what holds then, holds for the request, however long it takes. The zero
	// Time: now.
	At time.Time `cbor:"-"`
	// Answer says that a repeat is answered with the existing job, if that is still on record, as when its ID is asked for
	// again.
	Answer bool `cbor:"-"`
}

// hold is what a job's record holds, in the transaction that records the job: while it has not failed, there is no other of
// its Once.
func hold(j *Job) store.Hold {
	return store.Hold{Key: j.Once.Key, Until: j.Once.Until, At: j.Once.At, Released: j.State == Ended && !j.Succeeded()}
}

// notYet returns *RepeatError if a job of o is on record, before a new one takes somebody's turn. Of two that come at the same
// time, the transaction that records them refuses one.
func (m *Manager) notYet(s *Spec) error {
	if s.Once.Key == "" {
		return nil
	}
	id, err := m.records.Holder(s.Once.Key, s.Once.At)
	if err != nil || id == "" || id == s.ID {
		return err
	}
	l, j, _ := m.remembered(id)
	failed := j.State == Ended && !j.Succeeded()
	if !failed {
		return &RepeatError{ID: id}
	}
	// Its end waits for others to be recorded with it, and so does its hold. Or it was recorded meanwhile, and maybe what came after.
	l.writing.Lock()
	defer l.writing.Unlock()
	if again, j, _ := m.remembered(id); again == l {
		if err := m.records.Put(context.Background(), j); err != nil {
			return recordError(err)
		}
	}
	return nil
}

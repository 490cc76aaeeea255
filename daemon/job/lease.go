package job

import (
	"fmt"

	"github.com/rtask/rtask/sandbox/spec"
)

// errNoUID is why a slot cannot be lent now.
var errNoUID = fmt.Errorf("%w: every number of dynamic_uids is taken", ErrTooMany)

// lease lends a job a slot, and writes down in the job which: one that waits under key, or one that is still to be opened, with a
// scope and a uid of its own. It returns errNoUID, or the error of lend.
func (p *pool) lease(j *Job, key string) (*slot, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.waiting(key)
	if s == nil {
		var ok bool
		if s, ok = p.newSlot(j, key, true); !ok {
			return nil, errNoUID
		}
	}
	if w := p.warm[j.configuration()]; w != nil && key != "" && !p.closed {
		p.replace(w, key)
		p.warmUp(w)
	}
	if err := s.lend(j); err != nil {
		p.drop(s, nil)
		return nil, err
	}
	j.Place = spec.Place{Slot: s.id, Unit: s.unit, Boot: p.host.Boot()}
	return s, nil
}

// leaseTo is lease for a live job.
func (p *pool) leaseTo(l *live, key string) (err error) {
	l.change(func(j *Job) { l.slot, err = p.lease(j, key) })
	return err
}

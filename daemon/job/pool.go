package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rtask/rtask/sandbox"
	"github.com/rtask/rtask/sandbox/scope"
	"github.com/rtask/rtask/sandbox/spec"
)

// pool has the slots that jobs run in: it lends each to one job at a time, with a uid of its own where the job names no user, keeps
// some for the next job, and keeps others ready (warm.go). It knows neither the queue nor the records.
//
// Its lock is its own. Nothing is called with it that takes another one, so it may be taken with any other held.
type pool struct {
	host   *sandbox.Host
	logger *slog.Logger
	quit   <-chan struct{} // closed before close is called

	workers sync.WaitGroup // those that open slots
	ends    sync.WaitGroup // those that end slots or wait for them to end

	mu     sync.Mutex // guards what follows
	closed bool
	idle   map[string][]*slot // those that wait for a job, by key; the last was used last
	// warm is what setTasks wants to be kept ready, by task and configuration.
	warm map[configuration]*warm
	// current are those in force, nil before setTasks.
	current map[configuration]bool
	uids    *uids
	unit    uint64 // number of the next task's scope
}

func newPool(o *Options, quit <-chan struct{}) *pool {
	return &pool{host: o.Host, logger: o.Logger, quit: quit, idle: map[string][]*slot{}, uids: newUIDs(o.UIDs), unit: 1}
}

// setUIDs changes the range of numbers that are lent.
func (p *pool) setUIDs(r spec.UIDRange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.uids.setRange(r)
}

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

// waiting takes a slot from those that wait under a key, or returns nil. The lock is held.
func (p *pool) waiting(key string) *slot {
	for list := p.idle[key]; key != "" && len(list) > 0; list = p.idle[key] {
		s := list[len(list)-1]
		p.unidle(s)
		if !isGone(s) {
			return s
		}
		p.drop(s, nil)
	}
	return nil
}

// newSlot returns a slot that is to be opened. For a uid, it may end one that waits. The lock is held.
func (p *pool) newSlot(j *Job, key string, evict bool) (*slot, bool) {
	s := &slot{id: newID(), of: j.configuration(), key: key, keep: j.Keep}
	if j.Dynamic {
		uid, ok := p.uids.take()
		if !ok && evict {
			uid, ok = p.evict()
		}
		if !ok {
			return nil, false
		}
		s.uid = uid
	}
	if p.host.Kind() != "none" {
		s.unit = p.unitName(j)
	}
	return s, true
}

// evict ends a slot that waits and returns its uid, under which nothing runs. The lock is held.
func (p *pool) evict() (uint32, bool) {
	for _, list := range p.idle {
		for _, s := range list {
			if uid := s.uid; uid != 0 {
				s.uid = 0
				p.unidle(s)
				p.drop(s, nil)
				return uid, true
			}
		}
	}
	return 0, false
}

// unitName returns the name of a new scope.
func (p *pool) unitName(j *Job) string {
	if j.Task == "" {
		return "rtask-cmd-" + j.ID + ".scope"
	}
	n := p.unit
	p.unit++
	return "rtask-" + j.Task + "-" + strconv.FormatUint(n, 10) + ".scope"
}

// isOpen reports whether a slot was opened.
func (p *pool) isOpen(s *slot) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return s.open != nil
}

const (
	// startAttempts is how often a scope whose name is taken gets another number.
	startAttempts = 5
	// takenPause is how long a scope of the name that a command is to have may take to go.
	takenPause = 200 * time.Millisecond
)

// openSlot opens the slot of a job, also when the scope's name is taken: another engine's, or one of before a crash that
// the records do not know of. A command's scope has the name of its job; it is taken by the attempt of an engine that died
// before the job began.
func (p *pool) openSlot(ctx context.Context, s *slot, j *Job) error {
	at := spec.Place{Slot: s.id, Unit: s.unit}
	for range startAttempts {
		opened, err := p.host.OpenSlot(ctx, at, &j.Run, s.keep <= 0)
		p.mu.Lock()
		if err == nil {
			s.open, s.unit, s.shown = opened, opened.Unit, j.ID
			p.watch(s)
			p.mu.Unlock()
			return nil
		}
		at.Unit = p.unitName(j)
		p.mu.Unlock()
		if !errors.Is(err, scope.ErrExists) {
			return err
		}
		if j.Task == "" {
			p.host.ClearUnit(ctx, s.unit)
			if err := pause(takenPause, p.quit); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("cannot start %s: %w", s.unit, scope.ErrExists)
}

// watch ends a slot whose shim ends while no job is in it: somebody stopped the scope.
func (p *pool) watch(s *slot) {
	p.ends.Go(func() {
		<-s.open.Gone()
		p.mu.Lock()
		defer p.mu.Unlock()
		if slices.Contains(p.idle[s.key], s) {
			p.unidle(s)
			p.drop(s, nil)
			if w := p.warm[s.of]; w != nil && !p.closed {
				p.rest(w)
			}
		}
	})
}

// describe makes the description of a job's scope that of the job, where it was that of another job before.
func (p *pool) describe(s *slot, j *Job) {
	p.mu.Lock()
	other := s.open != nil && s.key != "" && s.shown != j.ID
	if other {
		s.shown = j.ID
	}
	p.mu.Unlock()
	if !other {
		return
	}
	if err := s.open.Describe(context.Background(), &j.Run); err != nil {
		p.logger.Warn("cannot describe the scope of a job", "job", j.ID, "unit", j.Unit, "error", err)
	}
}

// spoil has a slot take no other job: who knows what became of the last one.
func (p *pool) spoil(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.key = ""
}

// keepNumber has nobody else get the uid of a slot, nor the slot: what is left of its job may run on under the one, in the other.
func (p *pool) keepNumber(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.uid, s.key = 0, ""
}

// giveBack takes a slot back whose job has ended. It returns false for one that takes no other job; it is to be ended once that
// job's end is on record.
func (p *pool) giveBack(s *slot) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || s.dropped || s.open == nil || s.key == "" || s.open.Single() || isGone(s) || p.current != nil && !p.current[s.of] {
		return false
	}
	p.idle[s.key] = append(p.idle[s.key], s)
	s.expiry = time.AfterFunc(s.keep, func() { p.expire(s) })
	return true
}

// end ends a slot for good, and calls then, if set, when its shim is gone.
func (p *pool) end(s *slot, then func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(s, then)
}

// drop is end. The shim is waited for by a goroutine. The lock is held.
func (p *pool) drop(s *slot, then func()) {
	if s.dropped {
		return
	}
	s.dropped = true
	if s.open == nil {
		p.uids.giveBack(s.uid)
		if then != nil {
			then()
		}
		return
	}
	p.ends.Go(func() {
		s.open.End()
		p.mu.Lock()
		p.uids.giveBack(s.uid)
		p.mu.Unlock()
		if then != nil {
			then()
		}
	})
}

// leave lets go of a slot whose job's end could not be recorded: its shim writes a record.
func (p *pool) leave(s *slot) {
	if p.isOpen(s) {
		s.open.Leave()
	}
}

// unidle takes a slot out of those that wait.
func (p *pool) unidle(s *slot) {
	if s.expiry != nil {
		s.expiry.Stop()
		s.expiry = nil
	}
	list := slices.DeleteFunc(p.idle[s.key], func(o *slot) bool { return o == s })
	if len(list) == 0 {
		delete(p.idle, s.key)
	} else {
		p.idle[s.key] = list
	}
}

// expire ends a slot that nobody needed in time.
func (p *pool) expire(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[s.key]
	if !slices.Contains(list, s) {
		return // somebody did
	}
	s.expiry = nil
	if w := p.warm[s.of]; w != nil && w.key == s.key && len(list) <= w.want {
		return
	}
	p.unidle(s)
	p.drop(s, nil)
}

// remember has the numbers of scopes and uids go on after those of a job of an earlier run, the newest that had a uid.
func (p *pool) remember(j *Job, newest bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unit = max(p.unit, sandbox.UnitNumber(j.Unit)+1)
	if c := j.Credentials; newest && c != nil && p.uids.r.Has(c.UID) {
		p.uids.next = c.UID + 1 // not at once another's; take wraps around
	}
}

// adopt returns the slot of a job of an earlier run, which takes no other job: who knows what it has seen.
func (p *pool) adopt(j *Job, open *sandbox.Slot) *slot {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &slot{id: j.Slot, unit: j.Unit, open: open}
	if c := j.Credentials; c != nil && j.Dynamic {
		s.uid = c.UID
		p.uids.mark(c.UID)
	}
	return s
}

// close ends all slots that wait, and returns when no other is being opened. Slots of jobs are left to wait.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	var all []*slot
	for _, list := range p.idle {
		all = append(all, list...)
	}
	p.idle = map[string][]*slot{}
	p.mu.Unlock()
	var ends sync.WaitGroup
	for _, s := range all {
		if s.expiry != nil {
			s.expiry.Stop()
		}
		ends.Go(s.open.End)
	}
	ends.Wait()
	p.workers.Wait()
}

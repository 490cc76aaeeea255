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

// pool has the slots that jobs run in. It lends each slot to one job at a time, with a uid of its own if the job names no user. It
// keeps some slots for the next job and others ready in advance (warm.go). It knows neither the queue nor the records.
//
// No other lock is taken while its lock is held, so it can be taken while any other lock is held.
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

// newSlot returns a slot that is not open yet. With evict, it may end an idle slot to get its uid. The lock is held.
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

// evict ends an idle slot and returns its uid, under which nothing runs. The lock is held.
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
	// startAttempts is how many names openSlot tries.
	startAttempts = 5
	// takenPause is how long an older scope with a command's name may take to disappear.
	takenPause = 200 * time.Millisecond
)

// openSlot opens the slot of a job. If the scope's name is taken, it tries others: another engine may have used the name, or an engine
// that crashed before it recorded that. A command's scope is named after its job; its name is taken if an engine died before the job
// began.
func (p *pool) openSlot(ctx context.Context, s *slot, j *Job) error {
	at := spec.Place{Slot: s.id, Unit: s.unit}
	for range startAttempts {
		opened, err := p.host.OpenSlot(ctx, at, &j.Run, s.keep <= 0)
		p.mu.Lock()
		if err == nil {
			s.open, s.unit, s.shown = opened, opened.Unit, j.ID
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

// describe sets the description of a job's scope if it still describes an earlier job.
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

// spoil marks a slot so that it takes no other job, since the state of its last job is unknown.
func (p *pool) spoil(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.key = ""
}

// keepNumber reserves a slot and its uid for good: processes of its job may still run.
func (p *pool) keepNumber(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.uid, s.key = 0, ""
}

// giveBack takes a slot back whose job has ended. It returns false if the slot takes no other job: the caller ends it once the job's
// end is on record.
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

// end ends a slot for good. It calls then, if set, when the slot's shim is gone.
func (p *pool) end(s *slot, then func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(s, then)
}

// drop is end. A goroutine waits for the shim. The lock is held.
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

// leave disconnects from a slot whose job's end could not be recorded, so that its shim writes an exit record.
func (p *pool) leave(s *slot) {
	if p.isOpen(s) {
		s.open.Leave()
	}
}

// unidle removes a slot from the idle ones.
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

// expire ends a slot that no job needed in time.
func (p *pool) expire(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[s.key]
	if !slices.Contains(list, s) {
		return // a job did
	}
	s.expiry = nil
	if w := p.warm[s.of]; w != nil && w.key == s.key && len(list) <= w.want {
		return
	}
	p.unidle(s)
	p.drop(s, nil)
}

// remember continues the numbers of scopes and uids after those of a job of an earlier run. newest says that it is the newest job.
func (p *pool) remember(j *Job, newest bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unit = max(p.unit, sandbox.UnitNumber(j.Unit)+1)
	if c := j.Credentials; newest && c != nil && p.uids.r.Has(c.UID) {
		p.uids.next = c.UID + 1 // it should rest before it is lent again; take wraps around
	}
}

// adopt returns the slot of a job of an earlier run. It takes no other job, since its history is unknown.
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

// close ends all idle slots, and returns when no slot is being opened any more. Slots of running jobs stay.
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

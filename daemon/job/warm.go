package job

import (
	"context"
	"slices"
	"time"
)

// warm is a number of slots to be kept ready.
type warm struct {
	key      string // of the slots; another one once a file that they bind was replaced
	template Job
	want     int
	opening  int
	pause    bool // the last one could not be opened
}

// openAgain is the time after which a warm slot is opened in the place of one that came to nothing.
const openAgain = time.Second

// setTasks says which tasks the configuration in force has, each by what a job of it is, and how many slots of each are kept ready
// from now on. Slots of another configuration are ended, those that run a job after that.
func (p *pool) setTasks(current map[configuration]bool, want map[configuration]*warm) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.current, p.warm = current, want
	var old []*slot
	for _, list := range p.idle {
		for _, s := range list {
			if !current[s.of] {
				old = append(old, s)
			}
		}
	}
	for _, s := range old {
		p.unidle(s)
		p.drop(s, nil)
	}
	for _, w := range want {
		p.warmUp(w)
	}
}

// replace ends the slots that are kept ready where they bind what is not there any more: from now on they have another key. The lock
// is held.
func (p *pool) replace(w *warm, key string) {
	if w.key == key {
		return
	}
	for _, s := range slices.Clone(p.idle[w.key]) {
		p.unidle(s)
		p.drop(s, nil)
	}
	w.key = key
}

// warmUp opens slots until as many wait as are to be ready, as far as there are uids for them. The lock is held.
func (p *pool) warmUp(w *warm) {
	for !w.pause && len(p.idle[w.key])+w.opening < w.want {
		j := w.template
		s, ok := p.newSlot(&j, w.key, false)
		if !ok {
			return // it is tried again with the next job
		}
		if err := s.lend(&j); err != nil {
			p.logger.Error("cannot keep a slot ready", "task", j.Task, "error", err)
			p.drop(s, nil)
			return
		}
		w.opening++
		p.workers.Go(func() { p.openWarm(s, &j, w) })
	}
}

func (p *pool) openWarm(s *slot, j *Job, w *warm) {
	j.Timeout = 0 // of the scope: it may wait for its job for long
	err := p.openSlot(context.Background(), s, j)
	p.mu.Lock()
	defer p.mu.Unlock()
	w.opening--
	switch {
	case err != nil:
		p.logger.Error("cannot keep a slot ready", "task", j.Task, "error", err)
		p.drop(s, nil)
		p.rest(w)
	case p.closed || p.warm[s.of] != w || w.key != s.key:
		p.drop(s, nil)
	case isGone(s):
		p.drop(s, nil)
		p.rest(w)
	default:
		p.idle[s.key] = append(p.idle[s.key], s)
	}
}

// rest opens further slots after a while: the last one came to nothing. The lock is held.
func (p *pool) rest(w *warm) {
	if w.pause || p.closed {
		return
	}
	w.pause = true
	p.workers.Go(func() {
		if pause(openAgain, p.quit) != nil {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		w.pause = false
		if p.warm[w.template.configuration()] == w && !p.closed {
			p.warmUp(w)
		}
	})
}

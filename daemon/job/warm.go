package job

import (
	"context"
	"slices"
	"time"
)

// openAgain is how long the pool waits after a warm slot could not be opened, or was lost.
const openAgain = time.Second

// setTasks says which tasks the current configuration has, and how many slots of each to keep ready. It ends slots of other
// configurations, those of running jobs when the job ends.
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

// replace ends the slots that were kept ready under another key: a file that they bind was replaced. The lock is held.
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

// warmUp opens slots until enough are ready, or no uid is left. The lock is held.
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
	err := p.open(context.Background(), s, j)
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

// rest opens further slots after a pause: the last one could not be opened, or was lost. The lock is held.
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

// open opens the slot of a job, and ends it once its shim does.
func (p *pool) open(ctx context.Context, s *slot, j *Job) error {
	if err := p.openSlot(ctx, s, j); err != nil {
		return err
	}
	p.watch(s)
	return nil
}

// watch ends a slot whose shim ends while no job is in it, for example because somebody stopped the scope.
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

package job

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox"
	"github.com/rtask/rtask/sandbox/scope"
	"github.com/rtask/rtask/sandbox/spec"
)

// slot is a slot that is lent to one job at a time, and waits for the next in between. All of it is guarded by Manager.mu
// but what is set before anybody else knows of it.
type slot struct {
	id   string
	unit string
	// key is what its jobs have in common (see slotKey), "" for a slot of one job alone.
	key  string
	of   configuration
	keep time.Duration
	uid  uint32 // lent to it, 0: none

	open    *sandbox.Slot // nil before it is opened
	shown   string        // the id of the job that the scope's description names
	expiry  *time.Timer   // while it waits
	dropped bool
}

// slots are those that wait for a job.
type slots struct {
	idle map[string][]*slot // by key; the last was used last
	// warm is what SetTasks wants to be kept ready, by task and configuration.
	warm map[configuration]*warm
	// current are those in force, nil before SetTasks.
	current map[configuration]bool
}

// configuration is a task as one configuration has it.
type configuration struct{ task, config string }

func (j *Job) configuration() configuration { return configuration{j.Task, j.Config} }

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

// slotKey names what the jobs of a slot have in common: the task's configuration, the user, and the very files that the slot
// binds. A folder that was replaced since has another key. To look at those may take its time (a dead network file system), so
// no lock is held meanwhile.
func slotKey(j *Job) string {
	if j.Single() && j.Task == "" {
		return ""
	}
	shared := struct {
		Task, Config string
		Keep         time.Duration
		User         *spec.Credentials
		Limits       spec.Limits
		Sandbox      spec.Sandbox
		Stop         time.Duration
		Files        []string
	}{Task: j.Task, Config: j.Config, Keep: j.Keep, User: j.Credentials, Limits: j.Limits, Sandbox: j.Sandbox, Stop: j.TimeoutStop}
	if j.Dynamic {
		shared.User = &spec.Credentials{Groups: shared.User.Groups}
		if j.Group != nil {
			shared.User.GID = *j.Group
		}
	}
	for _, f := range j.Sandbox.Sources(j.Dir) {
		shared.Files = append(shared.Files, identity(f))
	}
	b, err := json.Marshal(shared)
	if err != nil {
		return "" // its own slot then; there is nothing in it that could not be encoded
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// identity tells the file at path from another one that takes its place, and for a file that is copied, from what it was.
func identity(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err.Error()
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Sprint(st.Dev, " ", st.Ino)
	}
	return fmt.Sprint(st.Dev, " ", st.Ino, " ", st.Size, " ", st.Mtim.Sec, " ", st.Mtim.Nsec)
}

// lease gives a job its slot: one that waits under key, or one that is still to be opened, with a scope and a uid of its own.
// Manager.mu is held. It returns false when there is no uid.
func (m *Manager) lease(l *live, key string) bool {
	j := &l.job
	for list := m.slots.idle[key]; key != "" && len(list) > 0; list = m.slots.idle[key] {
		s := list[len(list)-1]
		m.unidle(s)
		if isGone(s) {
			m.drop(s)
			continue
		}
		l.slot = s
		break
	}
	if l.slot == nil {
		s, ok := m.newSlot(j, key, true)
		if !ok {
			return false
		}
		l.slot = s
	}
	if w := m.slots.warm[j.configuration()]; w != nil && key != "" && !m.closed {
		if w.key != key { // what they bind is not there any more
			for _, s := range slices.Clone(m.slots.idle[w.key]) {
				m.unidle(s)
				m.drop(s)
			}
			w.key = key
		}
		m.warmUp(w)
	}
	m.occupy(l)
	return true
}

// occupy writes down whose slot it is.
func (m *Manager) occupy(l *live) {
	j := &l.job
	j.Slot, j.Unit, j.Boot = l.slot.id, l.slot.unit, m.boot
	if j.Dynamic {
		c := *j.Credentials // the snapshots of before keep theirs
		c.UID, c.GID = l.slot.uid, l.slot.uid
		if j.Group != nil {
			c.GID = *j.Group
		}
		j.Credentials = &c
	}
}

// newSlot returns a slot that is to be opened. For a uid, it may end one that waits. Manager.mu is held.
func (m *Manager) newSlot(j *Job, key string, evict bool) (*slot, bool) {
	s := &slot{id: newID(), of: j.configuration(), key: key, keep: j.Keep}
	if j.Dynamic {
		uid, ok := m.uids.take()
		if !ok && evict {
			uid, ok = m.evict()
		}
		if !ok {
			return nil, false
		}
		s.uid = uid
	}
	if m.opts.Host.Kind() != "none" {
		s.unit = m.unitName(*j)
	}
	return s, true
}

// evict ends a slot that waits and returns its uid, under which nothing runs. Manager.mu is held.
func (m *Manager) evict() (uint32, bool) {
	for _, list := range m.slots.idle {
		for _, s := range list {
			if uid := s.uid; uid != 0 {
				s.uid = 0
				m.unidle(s)
				m.drop(s)
				return uid, true
			}
		}
	}
	return 0, false
}

// unidle takes a slot out of those that wait. Manager.mu is held.
func (m *Manager) unidle(s *slot) {
	if s.expiry != nil {
		s.expiry.Stop()
		s.expiry = nil
	}
	list := slices.DeleteFunc(m.slots.idle[s.key], func(o *slot) bool { return o == s })
	if len(list) == 0 {
		delete(m.slots.idle, s.key)
	} else {
		m.slots.idle[s.key] = list
	}
}

// reusable reports whether another job may have the slot of one that has ended. Manager.mu is held.
func (m *Manager) reusable(s *slot) bool {
	return !m.closed && !s.dropped && s.open != nil && s.key != "" && s.keep > 0 && !isGone(s) &&
		(m.slots.current == nil || m.slots.current[s.of])
}

// vacate takes back a slot of which nothing came. Manager.mu is held.
func (m *Manager) vacate(s *slot) {
	if m.reusable(s) {
		m.keepIdle(s)
	} else {
		m.drop(s)
	}
}

// keepIdle lets a slot wait for a job. Manager.mu is held.
func (m *Manager) keepIdle(s *slot) {
	m.slots.idle[s.key] = append(m.slots.idle[s.key], s)
	s.expiry = time.AfterFunc(s.keep, func() { m.expire(s) })
}

// expire ends a slot that nobody needed in time.
func (m *Manager) expire(s *slot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.slots.idle[s.key]
	if !slices.Contains(list, s) {
		return // somebody did
	}
	s.expiry = nil
	if w := m.slots.warm[s.of]; w != nil && w.key == s.key && len(list) <= w.want {
		return
	}
	m.unidle(s)
	m.drop(s)
}

// drop ends a slot for good; its shim is waited for by a goroutine. Manager.mu is held.
func (m *Manager) drop(s *slot) { m.ending(s, nil) }

// ending is drop, and calls then when the shim is gone. Manager.mu is held, by a worker or the recorder once the Manager is
// closed.
func (m *Manager) ending(s *slot, then func()) {
	if s.dropped {
		return
	}
	s.dropped = true
	if s.open == nil {
		m.uids.giveBack(s.uid)
		return
	}
	m.background.Go(func() {
		s.open.End()
		m.mu.Lock()
		m.uids.giveBack(s.uid)
		m.startQueued() // one may have waited for it
		m.mu.Unlock()
		if then != nil {
			then()
		}
	})
}

// isGone reports whether the shim of a slot has ended.
func isGone(s *slot) bool {
	select {
	case <-s.open.Gone():
		return true
	default:
		return false
	}
}

// watch ends a slot whose shim ends while no job is in it: somebody stopped the scope. Manager.mu is held.
func (m *Manager) watch(s *slot) {
	m.background.Go(func() {
		<-s.open.Gone()
		m.mu.Lock()
		defer m.mu.Unlock()
		if slices.Contains(m.slots.idle[s.key], s) {
			m.unidle(s)
			m.drop(s)
			if w := m.slots.warm[s.of]; w != nil && !m.closed {
				m.rest(w)
			}
		}
	})
}

// takenPause is how long a scope of the name that a command is to have may take to go.
const takenPause = 200 * time.Millisecond

// openSlot opens the slot of a job, also when the scope's name is taken: another engine's, or one of before a crash that
// the records do not know of. A command's scope has the name of its job; it is taken by the attempt of an engine that died
// before the job began.
func (m *Manager) openSlot(ctx context.Context, s *slot, j *Job, single bool) error {
	r := sandbox.SlotRequest{ID: s.id, Unit: s.unit, Description: description(*j), Job: j.Run, Single: single}
	for range startAttempts {
		opened, err := m.opts.Host.OpenSlot(ctx, r)
		m.mu.Lock()
		if err == nil {
			s.open, s.unit, s.shown = opened, opened.Unit, j.ID
			m.watch(s)
			m.mu.Unlock()
			return nil
		}
		r.Unit = m.unitName(*j)
		m.mu.Unlock()
		if !errors.Is(err, scope.ErrExists) {
			return err
		}
		if j.Task == "" {
			m.opts.Host.ClearUnit(ctx, s.unit)
			if err := m.pause(takenPause); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("cannot start %s: %w", s.unit, scope.ErrExists)
}

// describeAfter is how long a job runs before its scope is renamed for it: a call to systemd that most jobs are not worth.
const describeAfter = time.Second

// describe makes the description of a job's scope that of the job, where it was that of another job before.
func (m *Manager) describe(l *live) {
	m.mu.Lock()
	s, j := l.slot, l.job
	other := s != nil && s.open != nil && s.key != "" && s.shown != j.ID
	if other {
		s.shown = j.ID
	}
	m.mu.Unlock()
	if !other {
		return
	}
	if err := s.open.Describe(context.Background(), description(j)); err != nil {
		m.opts.Logger.Warn("cannot describe the scope of a job", "job", j.ID, "unit", j.Unit, "error", err)
	}
}

// SetTasks says which tasks the configuration in force has, each by what a job of it is. Slots of another configuration are
// ended, those that run a job after that; for each task, Spec.Warm slots are kept ready from now on. Specs that Start would
// refuse are left out.
func (m *Manager) SetTasks(specs []Spec) {
	current, want := map[configuration]bool{}, map[configuration]*warm{}
	for _, s := range specs {
		if err := m.check(&s); err != nil {
			continue
		}
		j, err := m.draft(&s)
		if err != nil {
			continue
		}
		key := slotKey(&j)
		current[j.configuration()] = true
		if s.Warm > 0 && key != "" {
			want[j.configuration()] = &warm{key: key, template: j, want: s.Warm}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.slots.current, m.slots.warm = current, want
	for _, list := range maps.Clone(m.slots.idle) {
		for _, s := range slices.Clone(list) {
			if !current[s.of] {
				m.unidle(s)
				m.drop(s)
			}
		}
	}
	for _, w := range want {
		m.warmUp(w)
	}
}

// warmUp opens slots until as many wait as are to be ready, as far as there are uids for them. Manager.mu is held.
func (m *Manager) warmUp(w *warm) {
	for !w.pause && len(m.slots.idle[w.key])+w.opening < w.want {
		j := w.template
		s, ok := m.newSlot(&j, w.key, false)
		if !ok {
			return // it is tried again with the next job
		}
		if j.Dynamic {
			c := *j.Credentials
			if c.UID, c.GID = s.uid, s.uid; j.Group != nil {
				c.GID = *j.Group
			}
			j.Credentials = &c
		}
		w.opening++
		m.workers.Go(func() { m.openWarm(s, &j, w) })
	}
}

func (m *Manager) openWarm(s *slot, j *Job, w *warm) {
	err := m.openSlot(context.Background(), s, j, false) // it may wait for its job for long
	m.mu.Lock()
	defer m.mu.Unlock()
	w.opening--
	switch {
	case err != nil:
		m.opts.Logger.Error("cannot keep a slot ready", "task", j.Task, "error", err)
		m.uids.giveBack(s.uid)
		m.rest(w)
	case m.closed || m.slots.warm[s.of] != w || w.key != s.key:
		m.drop(s)
	case isGone(s):
		m.drop(s)
		m.rest(w)
	default:
		m.slots.idle[s.key] = append(m.slots.idle[s.key], s)
	}
}

// rest opens further slots after a while: the last one came to nothing. Manager.mu is held.
func (m *Manager) rest(w *warm) {
	if w.pause {
		return
	}
	w.pause = true
	m.after(openAgain, func() {
		w.pause = false
		for _, now := range m.slots.warm {
			if now == w {
				m.warmUp(w)
			}
		}
	})
}

// after calls do with Manager.mu held after d, unless the Manager is closed before. Manager.mu is held.
func (m *Manager) after(d time.Duration, do func()) {
	if m.closed {
		return
	}
	m.workers.Go(func() {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-m.quit:
			return
		case <-t.C:
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.closed {
			do()
		}
	})
}

// endIdle ends all slots that wait, and waits for that. It is Close's part.
func (m *Manager) endIdle() {
	m.mu.Lock()
	var all []*slot
	for _, list := range m.slots.idle {
		all = append(all, list...)
	}
	m.slots.idle = map[string][]*slot{}
	m.mu.Unlock()
	var ends sync.WaitGroup
	for _, s := range all {
		if s.expiry != nil {
			s.expiry.Stop()
		}
		ends.Go(s.open.End)
	}
	ends.Wait()
}

// bootID tells one run of the machine from the next (random(4)).
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("cannot read the boot id: %w", err)
	}
	return string(b[:max(0, len(b)-1)]), nil
}

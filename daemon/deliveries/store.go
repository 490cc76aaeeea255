// Package deliveries keeps requests to webhooks on disk, so that they can run again: of each webhook that says so, the last ones that
// proved who sent them. Each is a file of mode 0600 in the engine's state folder, which survives a crash and a power cut as soon as
// Put has returned.
//
// It knows nothing of what a request means: the engine's handlers decide what is kept, and about a request that runs again. Only the
// engine's packages import it.
package deliveries

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/daemon/jobid"
	"github.com/rtask/rtask/sandbox/durable"
)

const (
	// maxCount and maxBytes are how many deliveries are kept in all, and how much of the disk they take. Beyond it, the oldest one of
	// the webhook that has the most goes.
	maxCount = 10_000
	maxBytes = 256 << 20
	// maxWrites is how many files are written at a time, each with a copy of its delivery in memory.
	maxWrites = 4
	// next ends the name of a file that is not complete.
	next = ".new"
)

// Hook names a webhook.
type Hook struct{ Task, Webhook string }

// Meta is what is known of a delivery without its file.
type Meta struct {
	// ID names it: that of the job that it was accepted as, or would have been.
	ID string `json:"id"`
	// Task and Webhook are whose it is.
	Task    string `json:"task"`
	Webhook string `json:"webhook"`
	// At is when it came.
	At time.Time `json:"at"`
	// Delivery is the sender's name for it, Event and Ref what it is about; "": that is not known.
	Delivery string `json:"delivery,omitempty"`
	Event    string `json:"event,omitempty"`
	Ref      string `json:"ref,omitempty"`
	// Decision is what became of it: "accepted", "ignored" or "refused". Kind is that of a refusal.
	Decision string `json:"decision"`
	Kind     string `json:"kind,omitempty"`
	Reason   string `json:"reason,omitempty"`
	// Key is the same for repeats of each other; "": there are none.
	Key string `json:"key,omitempty"`
	// Bytes is the length of its body.
	Bytes int64 `json:"bytes"`
}

// Hook returns the webhook that it is of.
func (m Meta) Hook() Hook { return Hook{m.Task, m.Webhook} }

// Delivery is a request that is kept. Its URL is not, since that of a token webhook is a secret.
type Delivery struct {
	Meta
	Request webhook.Request
}

// entry is a delivery on disk.
type entry struct {
	Meta
	size int64 // of its file
}

// shelf are the deliveries of one webhook, in the order in which they came.
type shelf struct {
	all   []*entry
	bytes int64
}

// Store keeps deliveries in a folder. It is safe for concurrent use.
type Store struct {
	dir      string
	logger   *slog.Logger
	counter  atomic.Uint64 // makes names of files
	writes   chan struct{} // has a value for each write under way
	maxCount int
	maxBytes int64

	mu      sync.Mutex // guards what follows
	keep    map[Hook]int
	byID    map[string]*entry
	shelves map[Hook]*shelf
	bytes   int64
}

// Open returns the store in the folder at dir, which must be the caller's own. It is made when there is something to keep. Nothing is
// removed before Configure has said what is to be kept.
func Open(dir string, logger *slog.Logger) (*Store, error) {
	s := &Store{
		dir: dir, logger: logger, writes: make(chan struct{}, maxWrites), maxCount: maxCount, maxBytes: maxBytes,
		byID: map[string]*entry{}, shelves: map[Hook]*shelf{},
	}
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the deliveries that are kept: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*entry
	for _, n := range names {
		path := filepath.Join(dir, n.Name())
		if strings.HasSuffix(n.Name(), next) { // an engine ended while it wrote
			s.unlink(path)
			continue
		}
		e, err := readMeta(path)
		if err != nil || e.ID != n.Name() || !jobid.Valid(e.ID) {
			s.logger.Error("removed a delivery that cannot be read", "file", path, "error", err)
			s.unlink(path)
			continue
		}
		found = append(found, e)
	}
	slices.SortFunc(found, func(a, b *entry) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID)) })
	for _, e := range found {
		s.add(e)
	}
	return s, nil
}

// Configure says how many deliveries of each webhook are kept. Those beyond it, and all of a webhook that is not in keep, are removed.
func (s *Store) Configure(keep map[Hook]int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep = keep
	before := len(s.byID)
	for hook := range s.shelves {
		s.trim(hook)
	}
	s.trimAll()
	var err error
	if len(s.byID) != before {
		err = durable.SyncFolder(s.dir)
	}
	if len(keep) > 0 {
		err = errors.Join(err, os.MkdirAll(s.dir, 0o700), durable.SyncFolder(filepath.Dir(s.dir)))
	}
	return err
}

// Put writes a delivery, in place of one of the same id. It does nothing where its webhook keeps none, and where a repeat of it is kept
// that tells more: one that was accepted, or that was not either, but came first. More than what is to be kept stays until Settle.
func (s *Store) Put(d *Delivery) error {
	if !jobid.Valid(d.ID) {
		return fmt.Errorf("cannot keep a delivery: %w", errBroken)
	}
	if !s.wanted(d) {
		s.Drop(d.ID) // what was put before it was decided
		return nil
	}
	if err := s.write(d); err != nil {
		s.amend(d.Meta)
		return fmt.Errorf("cannot keep a delivery: %w", err)
	}
	return nil
}

// write writes a delivery's file.
func (s *Store) write(d *Delivery) error {
	s.writes <- struct{}{}
	defer func() { <-s.writes }()
	content, err := encode(d)
	if err != nil {
		return err
	}
	file := fmt.Sprintf("%s.%d%s", filepath.Join(s.dir, d.ID), s.counter.Add(1), next)
	if err := durable.WriteFile(file, content, 0o600); err != nil {
		return err
	}
	if err := s.place(d, int64(len(content)), file); err != nil {
		return err
	}
	return durable.SyncFolder(s.dir)
}

// amend says, until the engine ends, what became of a delivery that was put before and cannot be written again, as on a full disk: one
// that was refused after that must not stay as accepted, or no repeat of it would be kept.
func (s *Store) amend(m Meta) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byID[m.ID]; e != nil && e.Hook() == m.Hook() {
		e.Decision, e.Kind, e.Reason = m.Decision, m.Kind, m.Reason
	}
}

// place gives a written file its name. What is known of it changes in the same step, or it could be removed in between.
func (s *Store) place(d *Delivery, size int64, file string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keep[d.Hook()] == 0 { // the configuration has changed
		s.unlink(file)
		return nil
	}
	if err := os.Rename(file, filepath.Join(s.dir, d.ID)); err != nil {
		s.unlink(file)
		return err
	}
	e := &entry{Meta: d.Meta, size: size}
	e.Bytes = int64(len(d.Request.Body))
	if was := s.byID[d.ID]; was != nil && was.Hook() == d.Hook() {
		s.bytes += e.size - was.size
		s.shelf(d.Hook()).bytes += e.size - was.size
		*was = *e
		return nil
	} else if was != nil {
		s.forget(was)
	}
	s.add(e)
	return nil
}

// wanted reports whether a delivery is to be kept.
func (s *Store) wanted(d *Delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keep[d.Hook()] == 0 {
		return false
	}
	for _, e := range s.shelf(d.Hook()).all {
		if d.Key != "" && e.Key == d.Key && e.ID != d.ID && (e.Decision == Accepted || d.Decision != Accepted) {
			return false
		}
	}
	return true
}

// Accepted is the Decision about a delivery that became a job.
const Accepted = "accepted"

// Settle removes what is beyond what is to be kept, now that the delivery with an id is to stay, and those that it is a repeat of and
// that were not accepted.
func (s *Store) Settle(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byID[id]
	if e == nil {
		return
	}
	for _, other := range slices.Clone(s.shelf(e.Hook()).all) {
		if e.Decision == Accepted && e.Key != "" && other.Key == e.Key && other != e && other.Decision != Accepted {
			s.remove(other)
		}
	}
	s.trim(e.Hook())
	s.trimAll()
}

// Drop removes a delivery. One that is not kept is no error.
func (s *Store) Drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byID[id]; e != nil {
		s.remove(e)
	}
}

// List returns what is kept of the webhooks that fit, the newest first. It asks about each of them once, and nothing waits for that.
func (s *Store) List(fits func(Hook) bool) []Meta {
	s.mu.Lock()
	hooks := slices.Collect(maps.Keys(s.shelves))
	s.mu.Unlock()
	hooks = slices.DeleteFunc(hooks, func(h Hook) bool { return !fits(h) })
	var all []Meta
	s.mu.Lock()
	for _, h := range hooks {
		if on := s.shelves[h]; on != nil {
			for _, e := range on.all {
				all = append(all, e.Meta)
			}
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b Meta) int { return cmp.Or(b.At.Compare(a.At), cmp.Compare(b.ID, a.ID)) })
	return all
}

// shortest is how many characters of an id may name a delivery.
const shortest = 4

// Find returns the delivery with an id, or else the only one that is meant: whose id begins so, or that is the newest of a webhook that
// its sender calls so. Senders choose their names, so a name never goes before another delivery's id, or another webhook's name. It
// returns ErrNotFound and ErrAmbiguous.
func (s *Store) Find(ref string, fits func(Hook) bool) (Meta, error) {
	all := s.List(fits)
	if i := slices.IndexFunc(all, func(m Meta) bool { return m.ID == ref }); i >= 0 {
		return all[i], nil
	}
	var meant []Meta
	for _, m := range all {
		called := ref != "" && m.Delivery == ref && !slices.ContainsFunc(meant, func(newer Meta) bool { return newer.Hook() == m.Hook() && newer.Delivery == ref })
		if called || len(ref) >= shortest && strings.HasPrefix(m.ID, ref) {
			meant = append(meant, m)
		}
	}
	switch len(meant) {
	case 0:
		return Meta{}, ErrNotFound
	case 1:
		return meant[0], nil
	default:
		return Meta{}, ErrAmbiguous
	}
}

// Read returns a delivery. It returns ErrNotFound if it is not kept any more.
func (s *Store) Read(id string) (*Delivery, error) {
	s.mu.Lock()
	known := s.byID[id] != nil
	s.mu.Unlock()
	if !known {
		return nil, ErrNotFound
	}
	d, err := readAll(filepath.Join(s.dir, id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the delivery %s: %w", id, err)
	}
	return d, nil
}

// shelf returns that of a webhook. s.mu is held.
func (s *Store) shelf(h Hook) *shelf {
	if s.shelves[h] == nil {
		s.shelves[h] = &shelf{}
	}
	return s.shelves[h]
}

// add takes a delivery up. s.mu is held.
func (s *Store) add(e *entry) {
	on := s.shelf(e.Hook())
	on.all = append(on.all, e)
	on.bytes += e.size
	s.bytes += e.size
	s.byID[e.ID] = e
}

// forget is the reverse of add. s.mu is held.
func (s *Store) forget(e *entry) {
	on := s.shelf(e.Hook())
	on.all = slices.DeleteFunc(on.all, func(o *entry) bool { return o == e })
	on.bytes -= e.size
	s.bytes -= e.size
	delete(s.byID, e.ID)
	if len(on.all) == 0 {
		delete(s.shelves, e.Hook())
	}
}

// remove forgets a delivery and removes its file. s.mu is held.
func (s *Store) remove(e *entry) {
	s.forget(e)
	s.unlink(filepath.Join(s.dir, e.ID))
}

// unlink removes a file. It is not waited for the disk: what comes back after a power cut is removed again.
func (s *Store) unlink(path string) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.logger.Error("cannot remove a delivery", "error", err)
	}
}

// trim removes the oldest deliveries of a webhook that has too many. s.mu is held.
func (s *Store) trim(h Hook) {
	for on := s.shelves[h]; on != nil && len(on.all) > s.keep[h]; on = s.shelves[h] {
		s.remove(on.all[0])
	}
}

// trimAll removes deliveries while all webhooks together have too many or too large ones. s.mu is held.
func (s *Store) trimAll() {
	for len(s.byID) > s.maxCount || s.bytes > s.maxBytes {
		var most *shelf
		for _, on := range s.shelves {
			switch {
			case most == nil, s.bytes > s.maxBytes && on.bytes > most.bytes, s.bytes <= s.maxBytes && len(on.all) > len(most.all):
				most = on
			}
		}
		s.remove(most.all[0])
	}
}

package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"go.etcd.io/bbolt"
	bberrors "go.etcd.io/bbolt/errors"
)

const (
	// pageRecords and pageBytes bound what Newest reads in one transaction.
	pageRecords = 256
	pageBytes   = 1 << 20
	// scanned bounds how many entries of an index are looked at in one transaction, most of them in vain.
	scanned = 64 << 10
)

// raw is a record that has not been decoded.
type raw struct {
	id     string
	record []byte
}

// Get returns the value with id, also one that is not committed yet. Its errors are ErrNotFound, *DecodeError, ErrClosed
// and those of the disk.
func (s *Store[T]) Get(id string) (T, error) {
	record, err := s.record(id)
	if err != nil {
		var zero T
		return zero, err
	}
	return s.decode(id, record)
}

// record returns the newest record of id.
func (s *Store[T]) record(id string) ([]byte, error) {
	// The queue comes first: what leaves it is in the file before.
	s.mu.Lock()
	op, queued := s.queued(id)
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	record := op.record
	if !queued {
		if err := s.view(func(tx *bbolt.Tx) {
			record = bytes.Clone(records.of(tx).Get([]byte(id)))
		}); err != nil {
			return nil, err
		}
	}
	if record == nil {
		return nil, fmt.Errorf("%w: %q", ErrNotFound, id)
	}
	return record, nil
}

// queued returns what waits for the disk to be done with id. mu is held.
func (s *Store[T]) queued(id string) (o op, ok bool) {
	o, ok = s.queue.ops[id]
	if !ok && s.committing != nil {
		o, ok = s.committing.ops[id]
	}
	return o, ok
}

// Match returns the values whose ids begin with prefix, ordered by id, at most limit of them; 0 or less: all. It waits
// for the commit of what was put before. Where records cannot be decoded it returns the others and a *DecodeError for
// each of these, joined.
func (s *Store[T]) Match(prefix string, limit int) ([]T, error) {
	s.settle()
	var found []raw
	err := s.view(func(tx *bbolt.Tx) {
		c := records.of(tx).Cursor()
		for k, v := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
			if limit > 0 && len(found) == limit {
				return
			}
			found = append(found, raw{string(k), bytes.Clone(v)})
		}
	})
	if err != nil {
		return nil, err
	}
	return s.decodeAll(found)
}

// Unfinished returns the values for which Options.Unfinished was true when they were put, oldest first. It reads no others, and waits
// and reports errors as Match does.
func (s *Store[T]) Unfinished() ([]T, error) {
	s.settle()
	var found []raw
	err := s.view(func(tx *bbolt.Tx) {
		all, c := records.of(tx), unfinished.of(tx).Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			if r, ok := lookUp(all, k); ok {
				found = append(found, r)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return s.decodeAll(found)
}

// Newest returns all values, newest first. It waits for the commit of what was put before the loop begins. A record that
// cannot be decoded is an error in its place and does not end the loop; an error of the disk or ErrClosed does. It reads
// in pages, so the loop may take its time and use the Store: no transaction is open meanwhile, which would keep bbolt
// from using freed pages again. A value that is put during the loop may or may not be seen, and one whose time changes
// may be seen twice.
func (s *Store[T]) Newest() iter.Seq2[T, error] { return s.Select(time.Time{}, time.Time{}, nil) }

// Select is Newest without the values whose time is before since or after until, and without those whose id, time
// and summary (see Options.Summary) fits says no to; it does not read these. The zero time is no bound, a nil fits no condition. fits
// must be pure, must not wait for the Store, and must not keep the summary.
func (s *Store[T]) Select(since, until time.Time, fits func(id string, t time.Time, summary []byte) bool) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		s.settle()
		var zero T
		var p page
		if !since.IsZero() {
			p.least = appendTime(nil, since)
		}
		if !until.IsZero() {
			p.before = appendTime(nil, until.Add(1))
		}
		for more := true; more; more = p.before != nil {
			if err := s.view(func(tx *bbolt.Tx) { p.read(tx, fits) }); err != nil {
				yield(zero, err)
				return
			}
			for _, r := range p.found {
				if !yield(s.decode(r.id, r.record)) {
					return
				}
			}
		}
	}
}

// page is a part of the index order, newest first.
type page struct {
	// least is the first key that is still to be read, before the one that it ends before; a nil key is the end. After read
	// before is where to go on, nil if there is no more.
	least, before []byte
	found         []raw
}

// read reads the next page.
func (p *page) read(tx *bbolt.Tx, fits func(string, time.Time, []byte) bool) {
	p.found = nil
	all, c := records.of(tx), order.of(tx).Cursor()
	var k, x []byte
	if p.before != nil {
		k, _ = c.Seek(p.before)
	}
	if k != nil {
		k, x = c.Prev()
	} else {
		k, x = c.Last()
	}
	size := 0
	for n := 1; k != nil && bytes.Compare(k, p.least) >= 0; n++ {
		if fits == nil || len(k) > timeSize && fits(string(k[timeSize:]), keyTime(k), summaryOf(x)) {
			if r, ok := lookUp(all, k); ok {
				p.found = append(p.found, r)
				size += len(r.record)
			}
		}
		if len(p.found) == pageRecords || size >= pageBytes || n == scanned {
			p.before = bytes.Clone(k)
			return
		}
		k, x = c.Prev()
	}
	p.before = nil
}

// lookUp returns the record that an index key stands for.
func lookUp(all *bbolt.Bucket, key []byte) (raw, bool) {
	if len(key) <= timeSize {
		return raw{}, false
	}
	record := all.Get(key[timeSize:])
	return raw{string(key[timeSize:]), bytes.Clone(record)}, record != nil
}

// decodeAll decodes what it can.
func (s *Store[T]) decodeAll(found []raw) ([]T, error) {
	values := make([]T, 0, len(found))
	var errs []error
	for _, r := range found {
		v, err := s.decode(r.id, r.record)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		values = append(values, v)
	}
	return values, errors.Join(errs...)
}

// settle waits until what is queued now was committed, or could not be. Errors go to the callers of the puts.
func (s *Store[T]) settle() {
	s.mu.Lock()
	b := s.queue
	if len(b.ops) == 0 {
		b = s.committing
	}
	s.mu.Unlock()
	if b != nil {
		<-b.done
	}
}

// view runs read in a transaction. read must copy what it keeps.
func (s *Store[T]) view(read func(tx *bbolt.Tx)) error {
	err := s.db.View(func(tx *bbolt.Tx) error {
		read(tx)
		return nil
	})
	switch {
	case errors.Is(err, bberrors.ErrDatabaseNotOpen):
		return ErrClosed
	case err != nil:
		return fmt.Errorf("cannot read records: %w", err)
	}
	return nil
}

// Groups returns how many values are in each group, but for what is not committed yet.
func (s *Store[T]) Groups() (map[string]int, error) {
	all := map[string]int{}
	err := s.view(func(tx *bbolt.Tx) {
		c := counts.of(tx).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if len(v) == 8 {
				all[string(k)] = int(binary.BigEndian.Uint64(v))
			}
		}
	})
	return all, err
}

// Member is a value in a group, and its time there.
type Member struct {
	ID   string
	Time time.Time
}

// Oldest returns the values of a group whose time comes first, in that order, at most limit of them. It waits for the
// commit of what was put before, and reads no records.
func (s *Store[T]) Oldest(group string, limit int) ([]Member, error) {
	s.settle()
	var found []Member
	prefix := append([]byte{byte(len(group))}, group...)
	err := s.view(func(tx *bbolt.Tx) {
		c := groups.of(tx).Cursor()
		for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix) && len(found) < limit; k, _ = c.Next() {
			if rest := k[len(prefix):]; len(rest) > timeSize {
				found = append(found, Member{ID: string(rest[timeSize:]), Time: keyTime(rest)})
			}
		}
	})
	return found, err
}

// GroupOf returns whether there is a value with id, also one that is not committed yet, and its group and its time there.
func (s *Store[T]) GroupOf(id string) (known bool, group string, at time.Time, err error) {
	s.mu.Lock()
	op, queued := s.queued(id)
	closed := s.closed
	s.mu.Unlock()
	extract := op.extract
	known = op.record != nil
	switch {
	case closed:
		return false, "", at, ErrClosed
	case !queued:
		err = s.view(func(tx *bbolt.Tx) {
			record := records.of(tx).Get([]byte(id))
			known = record != nil
			extract = bytes.Clone(order.of(tx).Get(indexKey(record, id)))
		})
	}
	if g := grouped(extract); g != nil {
		group, at = string(g[1:1+int(g[0])]), keyTime(g[1+int(g[0]):])
	}
	return known, group, at, err
}

// Holder returns the id of the value that holds a key at a time, or "". It sees committed holds only. The zero Time: now.
func (s *Store[T]) Holder(key string, at time.Time) (string, error) {
	if at.IsZero() {
		at = time.Now()
	}
	id := ""
	err := s.view(func(tx *bbolt.Tx) { id = holder(tx, key, at) })
	return unless(s.opts.Free, id), err // after the transaction: what Free waits for may wait for that
}

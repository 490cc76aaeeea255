package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// An extract is what is known of a value without its record: its group (one byte of length, then the name), its time in
// the group (timeSize bytes, not there without a group), and its summary. A key of the index groups is the same without the
// summary, and then the id.

// maxGroup is the longest name of a group, in bytes. A longer one is cut.
const maxGroup = 255

// appendGroup appends the beginning of an extract.
func appendGroup(x []byte, name string, at time.Time) []byte {
	name = name[:min(len(name), maxGroup)]
	x = append(x, byte(len(name)))
	if name == "" {
		return x
	}
	return appendTime(append(x, name...), at)
}

// grouped returns the beginning of an extract that has a group, and nil for one that has none.
func grouped(extract []byte) []byte {
	if len(extract) == 0 || extract[0] == 0 || len(extract) < 1+int(extract[0])+timeSize {
		return nil
	}
	return extract[:1+int(extract[0])+timeSize]
}

// summaryOf returns the summary in an extract.
func summaryOf(extract []byte) []byte {
	if len(extract) == 0 {
		return nil
	}
	return extract[max(1, len(grouped(extract))):]
}

// regroup moves a value from the group in the extract before to the one in after; nil: it is in none.
func regroup(tx *bbolt.Tx, id string, before, after []byte) error {
	before, after = bytes.Clone(grouped(before)), grouped(after) // what is read is good until the next write
	if bytes.Equal(before, after) {
		return nil
	}
	var errs []error
	if before != nil {
		errs = append(errs, groups.of(tx).Delete(append(slices.Clip(before), id...)), count(tx, before, -1))
	}
	if after != nil {
		errs = append(errs, groups.of(tx).Put(append(slices.Clip(after), id...), nil), count(tx, after, 1))
	}
	return errors.Join(errs...)
}

// count adds to the number of values in a group.
func count(tx *bbolt.Tx, group []byte, n int) error {
	b, name := counts.of(tx), group[1:1+int(group[0])]
	if v := b.Get(name); len(v) == 8 {
		n += int(binary.BigEndian.Uint64(v))
	}
	if n <= 0 {
		return b.Delete(name)
	}
	return b.Put(name, binary.BigEndian.AppendUint64(nil, uint64(n)))
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

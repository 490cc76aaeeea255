package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// expireAtOnce is how many holds that have expired one commit of a new hold removes.
const expireAtOnce = 8

// Hold is a key that only one value may hold. It outlasts the value's Delete.
type Hold struct {
	// Key is what is held; "": nothing.
	Key string
	// Until is when it expires. At is the time that another one's Until is held against; the zero Time: that of the commit.
	Until, At time.Time
	// Released gives it up before.
	Released bool
}

// HeldError is returned by Put for a new value whose Hold another one holds. It is not stored then.
type HeldError struct {
	// ID of the value that holds it, and Of that of the value that was not stored.
	ID, Of string
}

// Error implements error.
func (e *HeldError) Error() string { return fmt.Sprintf("record %q holds the same key", e.ID) }

// Holder returns the id of the value that holds a key at a time, as far as that is committed, or "". The zero Time: now.
func (s *Store[T]) Holder(key string, at time.Time) (string, error) {
	if at.IsZero() {
		at = time.Now()
	}
	id := ""
	err := s.view(func(tx *bbolt.Tx) { id = holder(tx, key, at) })
	return id, err
}

// A hold's value is the time when it expires (timeSize bytes), then the id. In the index expiry are times and keys.

// holder returns who holds a key in a transaction, or "".
func holder(tx *bbolt.Tx, key string, now time.Time) string {
	v := holds.of(tx).Get([]byte(key))
	if len(v) <= timeSize || keyTime(v).Before(now) {
		return ""
	}
	return string(v[timeSize:])
}

// hold gives a key to the value with id, or takes it back. It returns *HeldError if another one holds it.
func hold(tx *bbolt.Tx, id string, c Hold, most int, now time.Time) error {
	if c.Key == "" {
		return nil
	}
	held, expiry := holds.of(tx), expiries.of(tx)
	before := bytes.Clone(held.Get([]byte(c.Key)))
	at := now
	if !c.At.IsZero() {
		at = c.At
	}
	other := holder(tx, c.Key, at)
	switch {
	case other != "" && other != id && (c.Released || c.At.IsZero() && c.Until.Before(now)):
		return nil // it has changed hands
	case other != "" && other != id:
		return &HeldError{ID: other, Of: id}
	}
	var errs []error
	if len(before) > timeSize {
		errs = append(errs, expiry.Delete(append(before[:timeSize:timeSize], c.Key...)))
	}
	if c.Released {
		if before != nil {
			errs = append(errs, crowd(tx, []byte(c.Key), -1))
		}
		return errors.Join(append(errs, held.Delete([]byte(c.Key)))...)
	}
	if before == nil {
		errs = append(errs, makeRoom(tx, []byte(c.Key), most), crowd(tx, []byte(c.Key), 1))
	}
	until := appendTime(nil, c.Until)
	errs = append(errs, held.Put([]byte(c.Key), append(bytes.Clone(until), id...)), expiry.Put(append(until, c.Key...), nil), expire(tx, now))
	return errors.Join(errs...)
}

// expire removes some of the holds that have expired.
func expire(tx *bbolt.Tx, now time.Time) error {
	held, expiry := holds.of(tx), expiries.of(tx)
	var old [][]byte
	c := expiry.Cursor()
	for k, _ := c.First(); k != nil && len(old) < expireAtOnce && len(k) > timeSize && keyTime(k).Before(now); k, _ = c.Next() {
		old = append(old, bytes.Clone(k))
	}
	var errs []error
	for _, k := range old {
		errs = append(errs, expiry.Delete(k), held.Delete(k[timeSize:]), crowd(tx, k[timeSize:], -1))
	}
	return errors.Join(errs...)
}

// crowdOf is what a key has in common with others that come from the same source.
func crowdOf(key []byte) []byte { return key[:bytes.LastIndexByte(key, '/')+1] }

// crowd adds to the number of holds whose keys begin as this one does.
func crowd(tx *bbolt.Tx, key []byte, n int) error {
	b, name := crowds.of(tx), crowdOf(key)
	if len(name) == 0 {
		return nil
	}
	if n += crowded(tx, key); n <= 0 {
		return b.Delete(name)
	}
	return b.Put(name, binary.BigEndian.AppendUint64(nil, uint64(n)))
}

// crowded returns that number.
func crowded(tx *bbolt.Tx, key []byte) int {
	name := crowdOf(key)
	if len(name) == 0 {
		return 0
	}
	v := crowds.of(tx).Get(name)
	if len(v) != 8 {
		return 0
	}
	return int(binary.BigEndian.Uint64(v))
}

// sampled is how many holds makeRoom looks at.
const sampled = 32

// makeRoom forgets a hold whose key begins as this one does if there are as many as there may be: of some that are next to the
// key, which ends in a hash, the one that expires first. So no recent one goes, and none of another source.
func makeRoom(tx *bbolt.Tx, key []byte, most int) error {
	if most <= 0 || crowded(tx, key) < most {
		return nil
	}
	held, name := holds.of(tx), crowdOf(key)
	var victim, until []byte
	looked := 0
	look := func(from []byte) {
		c := held.Cursor()
		for k, v := c.Seek(from); bytes.HasPrefix(k, name) && looked < sampled; k, v = c.Next() {
			if looked++; len(v) > timeSize && (victim == nil || bytes.Compare(v[:timeSize], until) < 0) {
				victim, until = bytes.Clone(k), bytes.Clone(v[:timeSize])
			}
		}
	}
	if look(key); looked < sampled {
		look(name)
	}
	if victim == nil {
		return nil
	}
	return errors.Join(held.Delete(victim), expiries.of(tx).Delete(append(until, victim...)), crowd(tx, victim, -1))
}

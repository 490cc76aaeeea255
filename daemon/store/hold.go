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

// Hold is a key that only one value may hold. Deleting the value does not end it.
type Hold struct {
	// Key is what is held; "": nothing.
	Key string
	// Until is when it expires. At is the time at which holds of others must have expired; the zero Time: that of the commit.
	Until, At time.Time
	// Released gives it up early.
	Released bool
}

// HeldError is returned by Put for a new value whose Hold another one holds. It is not stored then.
type HeldError struct {
	// ID of the value that holds it, and Of that of the value that was not stored.
	ID, Of string
}

// Error implements error.
func (e *HeldError) Error() string { return fmt.Sprintf("record %q holds the same key", e.ID) }

// A hold's value is the time when it expires (timeSize bytes), then the id. In the index expiry are times and keys.

// holder returns the id of the value that holds a key in a transaction, or "".
func holder(tx *bbolt.Tx, key string, now time.Time) string {
	v := holds.of(tx).Get([]byte(key))
	if len(v) <= timeSize || keyTime(v).Before(now) {
		return ""
	}
	return string(v[timeSize:])
}

// unless returns the id of a holder, or "" if that has given up its hold.
func unless(free func(id string) bool, id string) string {
	if id == "" || free != nil && free(id) {
		return ""
	}
	return id
}

// hold gives a key to the value with id, or takes it back. It returns *HeldError if another one holds it.
func hold(tx *bbolt.Tx, id string, h Hold, most int, free func(id string) bool, now time.Time) error {
	if h.Key == "" {
		return nil
	}
	held, expiry := holds.of(tx), expiries.of(tx)
	before := bytes.Clone(held.Get([]byte(h.Key)))
	at := now
	if !h.At.IsZero() {
		at = h.At
	}
	other := unless(free, holder(tx, h.Key, at))
	switch {
	case other != "" && other != id && (h.Released || h.At.IsZero() && h.Until.Before(now)):
		return nil // it has changed hands
	case other != "" && other != id:
		return &HeldError{ID: other, Of: id}
	}
	var errs []error
	if len(before) > timeSize {
		errs = append(errs, expiry.Delete(append(before[:timeSize:timeSize], h.Key...)))
	}
	if h.Released {
		if before != nil {
			errs = append(errs, crowd(tx, []byte(h.Key), -1))
		}
		return errors.Join(append(errs, held.Delete([]byte(h.Key)))...)
	}
	if before == nil {
		errs = append(errs, makeRoom(tx, []byte(h.Key), most), crowd(tx, []byte(h.Key), 1))
	}
	until := appendTime(nil, h.Until)
	errs = append(errs, held.Put([]byte(h.Key), append(bytes.Clone(until), id...)), expiry.Put(append(until, h.Key...), nil), expire(tx, now))
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

// crowdOf returns the part of a key that all keys of the same source begin with.
func crowdOf(key []byte) []byte { return key[:bytes.LastIndexByte(key, '/')+1] }

// crowd adds n to the number of holds of a key's source.
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

// crowded returns the number of holds of a key's source.
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

// makeRoom removes a hold of the same source if the source has its maximum. It looks at some neighbours of the key, which are random
// since keys end in a hash, and removes the one that expires first. So recent holds stay, and those of other sources.
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

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

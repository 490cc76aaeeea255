package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"
)

const (
	// version is how a record's value is encoded: CBOR (RFC 8949).
	version = 1
	// maxID is the longest id, in bytes. bbolt's own limit is 32768 for a key.
	maxID = 1024
)

// A record is the value's time (timeSize bytes, whatever the version), the version (one byte), and the encoded value.
// The time stands in front so that a record's index entries are found without decoding it.

// codec turns values into records and back.
type codec[T any] struct {
	opts Options[T]
	enc  cbor.EncMode
	dec  cbor.DecMode
}

func newCodec[T any](opts Options[T]) (codec[T], error) {
	// The default would cut times to seconds.
	enc, err := cbor.EncOptions{Time: cbor.TimeRFC3339NanoUTC}.EncMode()
	if err != nil {
		return codec[T]{}, fmt.Errorf("cannot set up CBOR: %w", err)
	}
	dec, err := cbor.DecOptions{
		// Arguments and environment of a process are any bytes. They are encoded as text without a look at them.
		UTF8: cbor.UTF8DecodeInvalid,
		// More than execve(2) takes in its 6 MiB of arguments at most.
		MaxArrayElements: 1 << 20,
		MaxMapPairs:      1 << 20,
	}.DecMode()
	if err != nil {
		return codec[T]{}, fmt.Errorf("cannot set up CBOR: %w", err)
	}
	return codec[T]{opts: opts, enc: enc, dec: dec}, nil
}

// encode returns v's id and record.
func (c *codec[T]) encode(v *T) (string, op, error) {
	id := c.opts.ID(v)
	if id == "" || len(id) > maxID {
		return "", op{}, fmt.Errorf("cannot encode record %.64q: %w", id, ErrID)
	}
	w := *v
	if c.opts.Downgrade != nil {
		c.opts.Downgrade(&w)
	}
	value, err := c.enc.Marshal(&w)
	if err != nil {
		return "", op{}, fmt.Errorf("cannot encode record %q: %w", id, err)
	}
	record := make([]byte, 0, timeSize+1+len(value))
	record = appendTime(record, c.opts.Time(v))
	record = append(record, version)
	record = append(record, value...)
	o := op{record: record, extract: c.extract(v), unfinished: c.opts.Unfinished(v)}
	if c.opts.Hold != nil {
		o.hold = c.opts.Hold(v)
	}
	return id, o, nil
}

// extract returns the extract of v: its group, its time in that, and its summary.
func (c *codec[T]) extract(v *T) []byte {
	name, at := "", time.Time{}
	if c.opts.Group != nil {
		name, at = c.opts.Group(v)
	}
	x := appendGroup(nil, name, at)
	if c.opts.Summary != nil {
		x = append(x, c.opts.Summary(v)...)
	}
	return x
}

// decode returns the value of a record. Its errors are *DecodeError.
func (c *codec[T]) decode(id string, record []byte) (T, error) {
	var v, zero T
	if len(record) <= timeSize {
		return zero, &DecodeError{ID: id, Err: errors.New("record is cut short")}
	}
	if n := record[timeSize]; n != version {
		return zero, &DecodeError{ID: id, Err: fmt.Errorf("%w %d", ErrVersion, n)}
	}
	if err := c.dec.Unmarshal(record[timeSize+1:], &v); err != nil {
		return zero, &DecodeError{ID: id, Err: err}
	}
	if c.opts.Upgrade != nil {
		c.opts.Upgrade(&v)
	}
	return v, nil
}

// Encode returns v as the Store keeps it, for a value that is kept elsewhere; Decode reads it.
func (c *codec[T]) Encode(v T) ([]byte, error) {
	_, op, err := c.encode(&v)
	return op.record, err
}

// Decode is the opposite of Encode. Its errors are *DecodeError.
func (c *codec[T]) Decode(record []byte) (T, error) { return c.decode("", record) }

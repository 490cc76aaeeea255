package spec

import (
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// recordVersion is the version of an exit record on disk.
const recordVersion = 1

// ErrRecord is returned for bytes that are no exit record.
var ErrRecord = errors.New("not an exit record")

type record struct {
	Version int  `cbor:"v"`
	Exit    Exit `cbor:"exit"`
}

// Encode returns e as an exit record on disk has it: a CBOR map (RFC 8949) with a version.
func (e *Exit) Encode() ([]byte, error) {
	enc, err := cbor.EncOptions{Time: cbor.TimeRFC3339NanoUTC}.EncMode()
	if err != nil {
		return nil, fmt.Errorf("cannot encode an exit record: %w", err)
	}
	b, err := enc.Marshal(record{recordVersion, *e})
	if err != nil {
		return nil, fmt.Errorf("cannot encode an exit record: %w", err)
	}
	return b, nil
}

// DecodeExit reads an exit record. Fields that it does not know are those of a newer shim and are passed over.
func DecodeExit(b []byte) (Exit, error) {
	dec, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, UTF8: cbor.UTF8DecodeInvalid}.DecMode()
	if err != nil {
		return Exit{}, fmt.Errorf("cannot decode an exit record: %w", err)
	}
	var r record
	if err := dec.Unmarshal(b, &r); err != nil {
		return Exit{}, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if r.Version < 1 || r.Exit.Job == "" || !ValidTime(r.Exit.Ended) {
		return Exit{}, ErrRecord
	}
	return r.Exit, nil
}

// ValidTime reports whether RFC 3339 has a form for t, which is how times are written. CBOR can hold others, and they
// could not be written again.
func ValidTime(t time.Time) bool {
	y := t.UTC().Year()
	return y >= 0 && y <= 9999
}

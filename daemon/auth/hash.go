package auth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/crypto/argon2"

	"github.com/rtask/rtask/sandbox/nonblock"
)

// Argon2Params are what Argon2id (RFC 9106) costs. The zero value of a field is its default.
type Argon2Params struct {
	// Memory in KiB: 19456 (19 MiB) by default, at least 8 for each thread, at most 1048576 (1 GiB).
	Memory uint32
	// Time is the number of passes: 2 by default, at most 64.
	Time uint32
	// Threads is the number of lanes: 1 by default, at most 64.
	Threads uint8
}

const (
	maxArgon2Memory  = 1 << 20 // KiB
	maxArgon2Time    = 64
	maxArgon2Threads = 64

	saltLen = 16
	sumLen  = 32
)

// WithDefaults returns p with the default in place of each zero. They are those of the OWASP Password Storage Cheat
// Sheet.
func (p Argon2Params) WithDefaults() Argon2Params {
	if p.Memory == 0 {
		p.Memory = 19 * 1024
	}
	if p.Time == 0 {
		p.Time = 2
	}
	if p.Threads == 0 {
		p.Threads = 1
	}
	return p
}

// Check returns ErrBadParams, and which of them, if p is out of bounds. Defaults are not filled in.
func (p Argon2Params) Check() error {
	switch {
	case p.Threads < 1 || p.Threads > maxArgon2Threads:
		return fmt.Errorf("%w: threads is %d, and must be 1 to %d", ErrBadParams, p.Threads, maxArgon2Threads)
	case p.Time < 1 || p.Time > maxArgon2Time:
		return fmt.Errorf("%w: time is %d, and must be 1 to %d", ErrBadParams, p.Time, maxArgon2Time)
	case p.Memory < 8*uint32(p.Threads) || p.Memory > maxArgon2Memory:
		return fmt.Errorf("%w: memory is %d KiB, and must be %d KiB (8 for each thread) to %d KiB", ErrBadParams,
			p.Memory, 8*uint32(p.Threads), maxArgon2Memory)
	}
	return nil
}

// hashFunc is Argon2id of a key's secret, where a test counts the calls.
type hashFunc func(secret, salt []byte, p Argon2Params) []byte

func argon2id(secret, salt []byte, p Argon2Params) []byte {
	nonblock.Announce() // it takes tens of milliseconds, and others are to run meanwhile
	return argon2.IDKey(secret, salt, p.Time, p.Memory, p.Threads, sumLen)
}

// hashRecord is what is kept of a key's secret: the Argon2id hash of its 32 bytes, and everything to compute it again.
// In a keys file it is the base64 of its CBOR.
type hashRecord struct {
	Version uint   `cbor:"v"`
	Memory  uint32 `cbor:"m"` // KiB
	Time    uint32 `cbor:"t"`
	Threads uint8  `cbor:"p"`
	Salt    []byte `cbor:"salt"`
	Sum     []byte `cbor:"sum"`
}

const (
	hashVersion = 1
	// maxHashText bounds the work on a text: a record takes about 110 characters.
	maxHashText = 256
)

func (h hashRecord) params() Argon2Params {
	return Argon2Params{Memory: h.Memory, Time: h.Time, Threads: h.Threads}
}

// equal reports whether two records are of the same hash.
func (h hashRecord) equal(o hashRecord) bool {
	return h.params() == o.params() && bytes.Equal(h.Salt, o.Salt) && bytes.Equal(h.Sum, o.Sum)
}

// MarshalText returns the record as a keys file has it.
func (h hashRecord) MarshalText() ([]byte, error) {
	record, err := cbor.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("cannot encode a key's hash: %w", err)
	}
	return base64.StdEncoding.AppendEncode(nil, record), nil
}

// UnmarshalText takes exactly what MarshalText returns, with parameters that are not out of bounds. Encoding the
// record again and comparing refuses at once unknown and doubled names, trailing bytes and every other way to say the
// same.
func (h *hashRecord) UnmarshalText(text []byte) error {
	malformed := errors.New("the hash is not one that rtask wrote")
	if len(text) > maxHashText {
		return malformed
	}
	record, err := base64.StdEncoding.Strict().AppendDecode(nil, text)
	if err != nil {
		return malformed
	}
	var got hashRecord
	if err := cbor.Unmarshal(record, &got); err != nil {
		return malformed
	}
	if again, err := got.MarshalText(); err != nil || !bytes.Equal(again, text) {
		return malformed
	}
	if got.Version != hashVersion {
		return fmt.Errorf("the hash has version %d, and this rtask knows %d", got.Version, hashVersion)
	}
	if len(got.Salt) != saltLen || len(got.Sum) != sumLen {
		return malformed
	}
	if err := got.params().Check(); err != nil {
		return err
	}
	*h = got
	return nil
}

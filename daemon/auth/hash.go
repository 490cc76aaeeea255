package auth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/crypto/argon2"

	"github.com/rtask/rtask/daemon/auth/cost"
)

// Argon2Params are what Argon2id costs. Package cost has their bounds.
type Argon2Params = cost.Params

const (
	saltLen = 16
	sumLen  = 32
)

// hashFunc is Argon2id of a key's secret, where a test counts the calls.
type hashFunc func(secret, salt []byte, p Argon2Params) []byte

func argon2id(secret, salt []byte, p Argon2Params) []byte {
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

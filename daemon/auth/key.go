package auth

import (
	"bytes"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
)

// An API key reads
//
//	rtk_ + base62(record) + base62(crc)
//
// The prefix and the checksum are for scanners that look for secrets in what people publish. The record is the CBOR
// array (RFC 8949) of version 1, the key's id and its secret; of that, all but id and secret is fixed, and so is its
// length. The checksum is the CRC-32 (IEEE) of everything before it. Numbers are big-endian, in the digits 0-9A-Za-z.
// Each key has this one text and no other.
const (
	keyPrefix    = "rtk_"
	keyIDLen     = 8
	keySecretLen = 32

	// keyRecordLen is 45: an array head, the version, and two byte strings with heads of 1 and 2 bytes.
	keyRecordLen = 1 + 1 + 1 + keyIDLen + 2 + keySecretLen
	// keyRecordDigits is how many digits the record has: its first byte is never 0, so it is always as many.
	keyRecordDigits = 61
	keyCRCDigits    = 6

	// KeyLen is the length of a key's text.
	KeyLen = len(keyPrefix) + keyRecordDigits + keyCRCDigits

	base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// The fixed bytes of a record: array of 3, unsigned 1, byte string of 8; byte string of 32.
const (
	keyRecordHead   = "\x83\x01\x48"
	keyRecordMiddle = "\x58\x20"
)

// Key is an API key taken apart. However it is printed or logged, its secret does not show.
type Key struct {
	id     keyID
	secret [keySecretLen]byte
}

// ParseKey takes a key's text apart. It returns ErrMalformedKey for anything that is not, to the byte, what a key
// looks like. It says nothing of whether such a key exists.
func ParseKey(text []byte) (Key, error) {
	if len(text) != KeyLen || string(text[:len(keyPrefix)]) != keyPrefix {
		return Key{}, ErrMalformedKey
	}
	body, sum := text[:KeyLen-keyCRCDigits], text[KeyLen-keyCRCDigits:]
	var crc [4]byte
	if !decodeBase62(crc[:], sum) || binary.BigEndian.Uint32(crc[:]) != crc32.ChecksumIEEE(body) {
		return Key{}, ErrMalformedKey
	}
	var record [keyRecordLen]byte
	if !decodeBase62(record[:], body[len(keyPrefix):]) {
		return Key{}, ErrMalformedKey
	}
	var k Key
	rest, head := bytes.CutPrefix(record[:], []byte(keyRecordHead))
	if !head {
		return Key{}, ErrMalformedKey
	}
	rest = rest[copy(k.id[:], rest):]
	rest, middle := bytes.CutPrefix(rest, []byte(keyRecordMiddle))
	if !middle {
		return Key{}, ErrMalformedKey
	}
	copy(k.secret[:], rest)
	return k, nil
}

// text is what ParseKey takes apart.
func (k Key) text() []byte {
	record := make([]byte, 0, keyRecordLen)
	record = append(record, keyRecordHead...)
	record = append(record, k.id[:]...)
	record = append(record, keyRecordMiddle...)
	record = append(record, k.secret[:]...)

	text := make([]byte, 0, KeyLen)
	text = append(text, keyPrefix...)
	return appendCRC(appendBase62(text, record, keyRecordDigits))
}

func appendCRC(text []byte) []byte {
	crc := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(text))
	return appendBase62(text, crc, keyCRCDigits)
}

// ID returns the key's id, 13 characters a-z and 2-7. It is no secret.
func (k Key) ID() string { return k.id.String() }

// String returns the key's id behind the prefix, and nothing of its secret.
func (k Key) String() string { return keyPrefix + k.ID() + "…" }

// GoString is String.
func (k Key) GoString() string { return k.String() }

// Format is String for every verb, %d and %x among them.
func (k Key) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

// LogValue is String.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// keyID is the part of a key that names it.
type keyID [keyIDLen]byte

func (id keyID) String() string { return string(id.append(nil)) }

func (id keyID) append(b []byte) []byte { return keyIDEncoding.AppendEncode(b, id[:]) }

// MarshalText returns the id's 13 characters.
func (id keyID) MarshalText() ([]byte, error) { return id.append(nil), nil }

// UnmarshalText takes exactly what MarshalText returns.
func (id *keyID) UnmarshalText(text []byte) error {
	var got keyID
	if len(text) == keyIDEncoding.EncodedLen(keyIDLen) {
		if n, err := keyIDEncoding.Decode(got[:], text); err == nil && n == keyIDLen &&
			bytes.Equal(got.append(nil), text) {
			*id = got
			return nil
		}
	}
	return fmt.Errorf("a key's id is %d characters a-z and 2-7", keyIDEncoding.EncodedLen(keyIDLen))
}

// keyIDEncoding is never changed.
var keyIDEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// appendBase62 appends a big-endian number as exactly so many digits, which must be enough.
func appendBase62(to, number []byte, digits int) []byte {
	number = bytes.Clone(number)
	at := len(to)
	to = append(to, make([]byte, digits)...)
	for i := len(to) - 1; i >= at; i-- {
		var rest uint // number /= 62
		for j, b := range number {
			rest = rest<<8 | uint(b)
			number[j] = byte(rest / 62)
			rest %= 62
		}
		to[i] = base62[rest]
	}
	return to
}

// decodeBase62 fills number, big-endian, from all of the digits. It reports whether they are digits and fit.
func decodeBase62(number, digits []byte) bool {
	for _, c := range digits {
		var carry uint // number = number * 62 + digit
		switch {
		case '0' <= c && c <= '9':
			carry = uint(c - '0')
		case 'A' <= c && c <= 'Z':
			carry = uint(c-'A') + 10
		case 'a' <= c && c <= 'z':
			carry = uint(c-'a') + 36
		default:
			return false
		}
		for j := len(number) - 1; j >= 0; j-- {
			carry += uint(number[j]) * 62
			number[j] = byte(carry)
			carry >>= 8
		}
		if carry != 0 {
			return false
		}
	}
	return true
}

// Package join is the text of a join token: what an administrator hands to a person or a machine, so that it can enrol once. The
// engine makes and checks such texts, and rtaskctl reads from one where to enrol and which authority to expect there.
//
// It is text in, values out: whether a token is known, used or expired is daemon/auth/authority's to say. The engine and rtaskctl may
// import it.
package join

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strconv"
	"strings"
)

// A join token reads
//
//	rtj1_ + base62(version ‖ HOST:PORT ‖ pin ‖ secret ‖ CRC-32 (IEEE) of all before it)
//
// The number is big-endian, in the digits 0-9A-Za-z. The version is one byte that is not 0, so that each token has this one text and no
// other.
const (
	prefix  = "rtj1_"
	version = 1
	// PinLen is how many bytes of the SHA-256 of the authority's public key a token has, and SecretLen how many random ones.
	PinLen, SecretLen = 16, 16
	crcLen            = 4
	fixed             = 1 + PinLen + SecretLen + crcLen
	// maxAddress is a name of DNS (RFC 1035, section 2.3.4), a colon and a port.
	maxAddress = 253 + 1 + 5
	// maxText is more than the longest token has: a digit holds almost 6 bits.
	maxText = len(prefix) + (fixed+maxAddress)*8/5

	digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// ErrMalformed is returned when a text is not a join token, or one that was changed on its way.
var ErrMalformed = errors.New("not a join token: it begins with rtj1_, and was copied whole")

// Token is a join token taken apart. However it is printed or logged, its secret does not show.
type Token struct {
	// Address is where to enrol, host:port.
	Address string
	// Pin is the beginning of the SHA-256 of the public key (SubjectPublicKeyInfo) of the authority that is to be expected there.
	Pin [PinLen]byte
	// Secret is random. The engine knows its hash.
	Secret [SecretLen]byte
}

// PinOf returns the pin of an authority's certificate.
func PinOf(authority *x509.Certificate) (pin [PinLen]byte) {
	sum := sha256.Sum256(authority.RawSubjectPublicKeyInfo)
	copy(pin[:], sum[:])
	return pin
}

// CheckAddress returns an error for what is no HOST:PORT that a token can have.
func CheckAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not HOST:PORT", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("%q is not HOST:PORT: a port is a number from 1 to 65535", address)
	}
	if host == "" || len(address) > maxAddress || strings.ContainsFunc(host, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`/\@?#"'<>[]`, r)
	}) {
		return fmt.Errorf("%q is not HOST:PORT: the host is not a name or an address", address)
	}
	return nil
}

// Parse takes a token apart. It returns ErrMalformed for anything that is not, to the byte, what Text returns.
func Parse(text string) (Token, error) {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok || len(text) > maxText || rest == "" || rest[0] == '0' {
		return Token{}, ErrMalformed
	}
	number, base, digit := new(big.Int), big.NewInt(int64(len(digits))), new(big.Int)
	for _, c := range []byte(rest) {
		at := strings.IndexByte(digits, c)
		if at < 0 {
			return Token{}, ErrMalformed
		}
		number.Add(number.Mul(number, base), digit.SetInt64(int64(at)))
	}
	record := number.Bytes()
	if len(record) <= fixed || len(record) > fixed+maxAddress || record[0] != version {
		return Token{}, ErrMalformed
	}
	body, sum := record[:len(record)-crcLen], record[len(record)-crcLen:]
	if binary.BigEndian.Uint32(sum) != crc32.ChecksumIEEE(body) {
		return Token{}, ErrMalformed
	}
	var t Token
	at := len(body) - SecretLen
	copy(t.Secret[:], body[at:])
	copy(t.Pin[:], body[at-PinLen:at])
	t.Address = string(body[1 : at-PinLen])
	if CheckAddress(t.Address) != nil {
		return Token{}, ErrMalformed
	}
	return t, nil
}

// Text is what Parse takes apart. It is a secret.
func (t Token) Text() string {
	record := bytes.NewBuffer([]byte{version})
	record.WriteString(t.Address)
	record.Write(t.Pin[:])
	record.Write(t.Secret[:])
	number := new(big.Int).SetBytes(binary.BigEndian.AppendUint32(record.Bytes(), crc32.ChecksumIEEE(record.Bytes())))
	var reversed []byte
	for base, digit := big.NewInt(int64(len(digits))), new(big.Int); number.Sign() > 0; {
		number.DivMod(number, base, digit)
		reversed = append(reversed, digits[digit.Int64()])
	}
	text := make([]byte, 0, len(prefix)+len(reversed))
	text = append(text, prefix...)
	for i := len(reversed) - 1; i >= 0; i-- {
		text = append(text, reversed[i])
	}
	return string(text)
}

// String returns the prefix and where to enrol, and nothing of the secret.
func (t Token) String() string { return prefix + "… for " + t.Address }

// GoString is String.
func (t Token) GoString() string { return t.String() }

// Format is String for every verb, %d and %x among them.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// LogValue is String.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// Package jobid makes and checks the ids of jobs: 16 characters a–z and 2–7, the first one a letter, so that an id is never taken
// for a PID. The engine gives them to jobs, and the gateway to requests, so that a request made again finds its job.
package jobid

import (
	"crypto/rand"
	"encoding/base32"
	"strings"
)

// Length is the length of an id: 10 bytes in base32.
const Length = 16

// New returns a random id of 80 bits, less a little for the rule that it begins with a letter.
func New() string {
	for {
		var b [10]byte
		_, _ = rand.Read(b[:]) // it never fails (crypto/rand)
		if id := encode(b[:]); id[0] >= 'a' {
			return id
		}
	}
}

// Of makes an id of a hash: the same one of the same hash.
func Of(sum [32]byte) string {
	text := encode(sum[:])
	for i := range len(text) - Length {
		if text[i] >= 'a' {
			return text[i : i+Length]
		}
	}
	return "a" + text[1:Length] // that none of 36 characters is a letter happens once in 10^25 times
}

// Valid reports whether s has the form of an id.
func Valid(s string) bool {
	if len(s) != Length {
		return false
	}
	for i, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (i == 0 || c < '2' || c > '7') {
			return false
		}
	}
	return true
}

func encode(b []byte) string {
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
}

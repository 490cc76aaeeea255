// Package cost has the parameters of Argon2id and their bounds, which stand here only: the configuration is checked with
// them, and keys are hashed and read with them. So a configuration that is accepted can be used.
//
// It imports nothing of the project; daemon/auth and daemon/config may import it.
package cost

import (
	"errors"
	"fmt"
)

// ErrBadParams is returned when parameters of Argon2id are out of bounds.
var ErrBadParams = errors.New("bad parameters of argon2")

// Params are what Argon2id (RFC 9106) costs. The zero value of a field is its default.
type Params struct {
	// Memory in KiB: 19456 (19 MiB) by default, at least 8 for each thread, at most MaxMemory.
	Memory uint32
	// Time is the number of passes: 2 by default, at most MaxTime.
	Time uint32
	// Threads is the number of lanes: 1 by default, at most MaxThreads.
	Threads uint8
}

// The upper bounds. They keep a slip of the finger from making every login a minute's work.
const (
	MaxMemory  = 1 << 20 // KiB
	MaxTime    = 64
	MaxThreads = 64

	// perThread is the least memory for each thread, in KiB (RFC 9106, section 3.1).
	perThread = 8
)

// WithDefaults returns p with the default in place of each zero. They are those of the OWASP Password Storage Cheat
// Sheet.
func (p Params) WithDefaults() Params {
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
func (p Params) Check() error {
	switch {
	case p.Threads < 1 || p.Threads > MaxThreads:
		return fmt.Errorf("%w: threads is %d, and must be 1 to %d", ErrBadParams, p.Threads, MaxThreads)
	case p.Time < 1 || p.Time > MaxTime:
		return fmt.Errorf("%w: time is %d, and must be 1 to %d", ErrBadParams, p.Time, MaxTime)
	case p.Memory < perThread*uint32(p.Threads) || p.Memory > MaxMemory:
		return fmt.Errorf("%w: memory is %d KiB, and must be %d KiB (%d for each thread) to %d KiB", ErrBadParams,
			p.Memory, perThread*uint32(p.Threads), perThread, MaxMemory)
	}
	return nil
}

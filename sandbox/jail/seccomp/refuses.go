package seccomp

import (
	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// Refuses reports whether s.SystemCallFilter refuses every call of a group of systemd's, or a call, by its name. What is none, and
// a filter that is wrong, refuses nothing.
func Refuses(s spec.Sandbox, name string) bool {
	f, err := filterOf(s)
	if err != nil || f == nil {
		return false
	}
	calls, err := expand(name)
	if err != nil {
		return false
	}
	for _, c := range calls {
		if f.verdict(c) == unix.SECCOMP_RET_ALLOW {
			return false
		}
	}
	return true
}

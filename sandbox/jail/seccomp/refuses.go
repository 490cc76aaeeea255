package seccomp

import (
	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// Refuses reports whether s.SystemCallFilter refuses a call, or every call of a group of systemd's, by its name. An invalid filter
// refuses nothing, and unknown names are not refused.
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

package seccomp

import "golang.org/x/sys/unix"

// Refuses reports whether p.Filter refuses every call of a group of systemd's, or a call, by its name. What is none, and a
// filter that is wrong, refuses nothing.
func (p Policy) Refuses(name string) bool {
	f, err := p.filter()
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

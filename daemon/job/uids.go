package job

import "github.com/rtask/rtask/sandbox/spec"

// uids lends the numbers of a range, each to one job at a time. It uses all numbers in turn, so that a number is not lent again soon:
// files of its last job may still exist.
type uids struct {
	r    spec.UIDRange
	next uint32
	used map[uint32]int // how often: two jobs of an earlier run may have had one slot
}

func newUIDs(r spec.UIDRange) *uids { return &uids{r: r, next: r.First, used: map[uint32]int{}} }

// take returns a free number, or false.
func (u *uids) take() (uint32, bool) {
	if u.r.Last < u.r.First {
		return 0, false
	}
	for range u.r.Last - u.r.First + 1 {
		if !u.r.Has(u.next) {
			u.next = u.r.First
		}
		uid := u.next
		if u.next++; u.next > u.r.Last {
			u.next = u.r.First
		}
		if u.used[uid] == 0 {
			u.used[uid] = 1
			return uid, true
		}
	}
	return 0, false
}

// setRange changes the range; what is lent stays lent.
func (u *uids) setRange(r spec.UIDRange) {
	if u.r = r; !u.r.Has(u.next) {
		u.next = r.First
	}
}

func (u *uids) mark(uid uint32) { u.used[uid]++ }

func (u *uids) giveBack(uid uint32) {
	if u.used[uid]--; u.used[uid] <= 0 {
		delete(u.used, uid)
	}
}

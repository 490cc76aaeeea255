package auth

import (
	"net/netip"
	"time"
)

const (
	// failureBurst is how many bad keys from one address, or with one key id, are verified like good ones, and failureEvery the
	// time after which there may be one more.
	failureBurst = 10
	failureEvery = 6 * time.Second
	// maxFailures is how many addresses and ids are remembered. When there are more, those go first that have calmed down.
	maxFailures = 10_000
)

// failures are the bad keys of late, by whom and for what. It is guarded by Keys.mu.
type failures struct {
	until map[string]time.Time // when all of them are forgiven
}

// Address is what of a client's address counts as one: all of it, or of IPv6 the /64 that one customer has. It is "" for what is
// no address.
func Address(remote string) string {
	a, err := netip.ParseAddr(remote)
	if err != nil {
		return ""
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	p, err := a.Prefix(64)
	if err != nil {
		return ""
	}
	return p.String()
}

// around is the wider network of an address, of which one customer may have many: of IPv6 the /48, of IPv4 the /24.
func around(remote string) string {
	a, err := netip.ParseAddr(remote)
	if err != nil {
		return ""
	}
	a = a.Unmap().WithZone("")
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}

// any reports whether there was one of a kind.
func (f *failures) any(kind string, now time.Time) bool {
	return kind == "" || f.until[kind].After(now)
}

// over reports whether there were too many of one kind.
func (f *failures) over(kind string, now time.Time) bool {
	return kind != "" && f.until[kind].Sub(now) > (failureBurst-1)*failureEvery
}

// add counts one.
func (f *failures) add(kind string, now time.Time) {
	if kind == "" {
		return
	}
	if len(f.until) >= maxFailures {
		f.calm(now)
	}
	from := f.until[kind]
	if from.Before(now) {
		from = now
	}
	if limit := now.Add(failureBurst * failureEvery); from.Add(failureEvery).Before(limit) {
		f.until[kind] = from.Add(failureEvery)
	} else {
		f.until[kind] = limit
	}
}

// calm forgets what is forgiven; if that is nothing, half of all.
func (f *failures) calm(now time.Time) {
	for kind, until := range f.until {
		if !until.After(now) {
			delete(f.until, kind)
		}
	}
	for kind := range f.until {
		if len(f.until) <= maxFailures/2 {
			return
		}
		delete(f.until, kind)
	}
}

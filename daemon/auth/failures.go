package auth

import (
	"net/netip"
	"sync"
	"time"

	"github.com/rtask/rtask/daemon/origin"
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

// Address is what of a client's address counts as one: see origin.Client. It is "" for what is no address.
func Address(remote string) string {
	a, _ := netip.ParseAddr(remote)
	p := origin.Client(a)
	switch {
	case !p.IsValid():
		return ""
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

// around is the wider network of an address: see origin.Network.
func around(remote string) string {
	a, _ := netip.ParseAddr(remote)
	if p := origin.Network(a); p.IsValid() {
		return p.String()
	}
	return ""
}

// Failures are failures of late by the address of a client, of which each has a few and may then have one more now and then. It is safe
// for concurrent use.
type Failures struct {
	mu sync.Mutex // guards of
	of failures
}

// Over reports whether there were too many from an address.
func (f *Failures) Over(remote string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.of.over(Address(remote), time.Now())
}

// Add counts one from an address.
func (f *Failures) Add(remote string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of.until == nil {
		f.of.until = map[string]time.Time{}
	}
	f.of.add(Address(remote), time.Now())
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

package control

import (
	"sync"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
)

// Anybody can have refusals, and requests that change nothing, as often as it likes. So that they crowd nothing out of the
// journal, only the first ones of each kind and source in a minute are entries of their own. The others are counted, and
// their number is one more entry.
const (
	// strangerEntries is how many entries of their own a source has in a minute that is not known, and allStrangers all of these
	// together. A source that is known has knownEntries.
	strangerEntries = 30
	allStrangers    = 300
	knownEntries    = 300
	// maxSources is how many sources are told apart. The rest are one source for each kind of decision.
	maxSources = 256
)

// source is what decisions that are counted together have in common.
type source struct {
	decision, action, keyID, user, webhook, address, subject string
	kind                                                     rtaskv1.Kind
	stranger                                                 bool
}

// tally is what there was of a source in this minute.
type tally struct {
	written int
	more    int
	last    decision // of those that were not written
}

// tallies are those of the sources. It is safe for concurrent use.
type tallies struct {
	mu        sync.Mutex // guards what follows
	of        map[source]*tally
	strangers int // entries of strangers in this minute
}

// add reports whether a decision is an entry of its own, and counts it otherwise.
func (t *tallies) add(d decision) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := source{
		decision: d.decision, action: d.action, kind: d.kind, keyID: d.keyID, user: d.user, webhook: d.webhook, address: auth.Address(d.remote),
		stranger: d.stranger, subject: d.subject,
	}
	if t.of[of] == nil && len(t.of) >= maxSources {
		of = source{decision: d.decision, kind: d.kind, stranger: d.stranger}
		d = decision{decision: d.decision, kind: d.kind, reason: d.reason, stranger: d.stranger} // of several
	}
	one := t.of[of]
	if one == nil {
		if t.of == nil {
			t.of = map[source]*tally{}
		}
		one = &tally{}
		t.of[of] = one
	}
	most := knownEntries
	if d.stranger {
		most = strangerEntries
	}
	if one.written >= most || d.stranger && t.strangers >= allStrangers {
		one.more++
		one.last = d
		return false
	}
	one.written++
	if d.stranger {
		t.strangers++
	}
	return true
}

// take returns one decision for each source of which not all were written, and begins anew.
func (t *tallies) take() []decision {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []decision
	for _, one := range t.of {
		if one.more > 0 {
			one.last.more = one.more
			all = append(all, one.last)
		}
	}
	t.of, t.strangers = nil, 0
	return all
}

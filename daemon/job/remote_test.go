package job

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// A client on another machine is an owner of its own, whatever else the jobs of two of them have in common.
func TestRemoteOwner(t *testing.T) {
	m := open(t)
	defer end(t, m)
	const alice, bob = "spiffe://example.org/user/alice", "spiffe://example.org/user/bob"
	s := sh("exec sleep 1000")
	s.Owner, s.Trigger, s.Unique = RemoteOwner(alice), "remote", true
	first := start(t, m, s)
	var duplicate *DuplicateError
	if _, err := m.Start(t.Context(), s); !errors.As(err, &duplicate) || duplicate.ID != first.ID {
		t.Errorf("the same command again: %v", err)
	}
	s.Owner.Identity = "spiffe://example.org/machine/ci-1"
	if _, err := m.Start(t.Context(), s); !errors.As(err, &duplicate) || duplicate.ID != first.ID {
		t.Errorf("the same command again, with another certificate: %v", err)
	}
	s.Owner = RemoteOwner(bob)
	other := start(t, m, s)
	if first.share() == other.share() || first.Owner.String() != alice {
		t.Errorf("shares %q and %q, owner %q", first.share(), other.share(), first.Owner)
	}
	local := Job{Spec: Spec{Owner: Owner{UID: 0, Name: alice}, Trigger: "local"}}
	if local.share() == first.share() {
		t.Error("a local user has the share of a client on another machine")
	}
	if _, err := m.Stop(t.Context(), first.ID, StopOptions{Kill: true}); err != nil {
		t.Fatal(err)
	}
	wait(t, m, first.ID)
	mine := Filter{Ended: true, Visible: func(j Job) bool { return j.Owner.Subject == alice }}
	if jobs, err := m.List(mine); err != nil || len(jobs) != 1 || jobs[0].ID != first.ID || jobs[0].Owner != RemoteOwner(alice) {
		t.Errorf("%+v, %v", jobs, err)
	}
	ended, err := m.records.Get(first.ID)
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.records.Encode(ended)
	if err != nil {
		t.Fatal(err)
	}
	var before struct {
		Owner struct {
			UID  uint32 `cbor:"uid"`
			Name string `cbor:"name,omitempty"`
			Key  string `cbor:"key,omitempty"`
		} `cbor:"owner"`
	}
	const head = 12 + 1 // see package store
	if err := cbor.Unmarshal(b[head:], &before); err != nil || before.Owner.UID != 0 || before.Owner.Key != "" || before.Owner.Name != alice {
		t.Errorf("to an engine of before it is of %+v, %v", before.Owner, err)
	}
	// What that engine has summed up is read all the same.
	old := summary(&ended)
	old = old[:bytes.LastIndexByte(old, 0)]
	f := Filter{Ended: true, Visible: func(j Job) bool { return j.Owner == Owner{Name: alice} }}
	if !f.summaryFits(ended.ID, time.Now(), old) {
		t.Error("a summary of before does not fit")
	}
	if f.summaryFits(ended.ID, time.Now(), summary(&ended)) {
		t.Error("a summary of today does not know the subject")
	}
}

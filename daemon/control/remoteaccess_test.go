package control

import (
	"strings"
	"testing"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
)

// Local callers are told what clients on other machines depend on, and what is wrong with it; the clients are not.
func TestRemoteAccess(t *testing.T) {
	f := newFixture(t, tasks)
	info := func() *rtaskv1.RemoteAccess {
		t.Helper()
		return must[rtaskv1.InfoResponse](t)(f.as(peers()[auth.Admin]).Info(t.Context(), &rtaskv1.InfoRequest{})).RemoteAccess
	}
	if m := info(); m != nil {
		t.Errorf("%v", m)
	}
	r := newRemote(t)
	f, r.Authority = r.fixture, r.authority
	if m := info(); m.GetAuthority() != "example.org" || m.Url != remoteURL || m.AuthorityExpiresAt == nil || len(m.Problems) != 0 {
		t.Errorf("%v", m)
	}
	r.root = ""
	r.configure(remoteTasks)
	if m := info(); len(m.Problems) != 1 || !strings.Contains(m.Problems[0], "no roles") {
		t.Errorf("%v", m)
	}
	r.root = remoteRoles
	r.configure(remoteTasks)
	if m := must[rtaskv1.InfoResponse](t)(r.jobs(r.enrol("op")).Info(t.Context(), &rtaskv1.InfoRequest{})).RemoteAccess; m != nil {
		t.Errorf("a remote client is told %v", m)
	}
}

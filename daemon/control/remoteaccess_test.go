package control

import (
	"errors"
	"strings"
	"testing"
	"time"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/auth/provider"
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
	// So are those of providers whose users cannot log in.
	fetched := time.Now().Add(-26 * time.Hour)
	r.Options.Providers = func() []provider.State {
		of := func(name, file string) provider.Settings { return provider.Settings{Name: name, JWKSFile: file} }
		return []provider.State{
			{Settings: of("good", ""), Keys: 2, Fetched: time.Now()}, {Settings: of("old", ""), Keys: 1, Fetched: fetched, Expired: true}, {Settings: of("never", "")},
			{Settings: of("file", "/etc/rtask/x.jwks"), Problem: errors.New("no such file")},
		}
	}
	if got := strings.Join(info().GetProblems(), "\n"); strings.Contains(got, "good") || strings.Count(got, "\n") != 2 ||
		!strings.Contains(got, "logins of old are refused, since its keys were last fetched on "+fetched.Local().Format(time.DateTime)) ||
		!strings.Contains(got, "logins of never are refused, since its keys have not been fetched") || !strings.Contains(got, "jwks_file cannot be used: no such file") {
		t.Errorf("the problems of providers: %s", got)
	}
	if m := must[rtaskv1.InfoResponse](t)(r.jobs(r.enrol("op")).Info(t.Context(), &rtaskv1.InfoRequest{})).RemoteAccess; m != nil {
		t.Errorf("a remote client is told %v", m)
	}
}

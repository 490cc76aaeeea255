package authority

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.etcd.io/bbolt"

	"github.com/rtask/rtask/daemon/auth/join"
)

// TestJoin uses a join token once, twice, too late, changed, and for a request that is not good.
func TestJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := opened(t)
		csr := csrOf(t, newP256(t), nil)
		newToken := func() string {
			t.Helper()
			token, until, err := a.NewJoin(Grant{Kind: Machine, Name: "ci-1", Roles: []string{"operator"}}, "build.example.org:8843")
			if err != nil {
				t.Fatal(err)
			}
			if token.Pin != join.PinOf(a.Certificates()[0]) || time.Until(until) != time.Hour {
				t.Errorf("the token is %v until %s", token, until)
			}
			return token.Text()
		}
		text := newToken()
		_, err := a.Join(text, []byte("x"), "192.0.2.9")
		wantRefusal(t, err, KindBadRequest)
		i, err := a.Join(text, csr, "192.0.2.9")
		if err != nil {
			t.Fatal(err)
		}
		if id, err := a.Verify(leafOf(t, i), nil); err != nil || id.URI != "spiffe://example.org/machine/ci-1" || !slices.Equal(id.Roles, []string{"operator"}) {
			t.Errorf("%+v, %v", id, err)
		}
		if string(i.Authorities) != string(a.PEM()) {
			t.Error("the authorities are others")
		}
		_, err = a.Join(text, csr, "192.0.2.10")
		wantRefusal(t, err, KindJoinUsed)
		if want := "this join token was used on 01-01 00:00 UTC from 192.0.2.9; if that was not you, tell your administrator"; fmt.Sprint(err) != want {
			t.Errorf("%q", err)
		}
		other, _ := opened(t)
		_, err = other.Join(newToken(), csr, "")
		wantRefusal(t, err, KindJoinUnknown)
		_, err = a.Join("rtj1_x", csr, "")
		wantRefusal(t, err, KindJoinUnknown)

		late := newToken()
		time.Sleep(time.Hour)
		_, err = a.Join(late, csr, "")
		wantRefusal(t, err, KindJoinExpired)
		a.Tick()
		_, err = a.Join(late, csr, "")
		wantRefusal(t, err, KindJoinExpired)
		time.Sleep(25 * time.Hour)
		a.Tick()
		_, err = a.Join(late, csr, "")
		wantRefusal(t, err, KindJoinUnknown)
		if len(a.joins) != 0 {
			t.Errorf("%d tokens are remembered", len(a.joins))
		}

		// Of two at the same time one gets the certificate.
		text = newToken()
		var all sync.WaitGroup
		results := make(chan error, 8)
		for range cap(results) {
			all.Go(func() { _, err := a.Join(text, csr, ""); results <- err })
		}
		all.Wait()
		good := 0
		for range cap(results) {
			if <-results == nil {
				good++
			}
		}
		if good != 1 {
			t.Errorf("%d clients got a certificate for one token", good)
		}
	})
}

func TestJoinsAreBounded(t *testing.T) {
	a, _ := opened(t)
	for i := range maxJoins {
		a.joins[joinID{byte(i), byte(i >> 8)}] = &joinRecord{}
	}
	if _, _, err := a.NewJoin(Grant{Kind: User, Name: "a"}, "a:1"); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v", err)
	}
}

// TestDevice enrols devices: approved, denied, forgotten, impatient.
func TestDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := opened(t)
		ask := func(name string) DeviceStart {
			t.Helper()
			d, err := a.StartDevice(csrOf(t, newEd25519(t), nil), name, "192.0.2.7")
			if err != nil {
				t.Fatal(err)
			}
			if len(d.UserCode) != 9 || d.UserCode[4] != '-' || strings.Trim(d.UserCode, userLetters+"-") != "" || len(d.DeviceCode) != 43 {
				t.Errorf("the codes are %+v", d)
			}
			return d
		}
		want := func(d DeviceStart, kind string) {
			t.Helper()
			_, err := a.PollDevice(d.DeviceCode)
			wantRefusal(t, err, kind)
		}
		d := ask("admin1")
		want(d, KindPending)
		want(d, KindSlowDown)
		time.Sleep(9 * time.Second) // 10 are due now
		want(d, KindSlowDown)
		time.Sleep(15 * time.Second)
		want(d, KindPending)
		if _, err := a.PollDevice("x"); true {
			wantRefusal(t, err, KindNoCode)
		}
		waiting, err := a.Device(strings.ToLower(strings.ReplaceAll(d.UserCode, "-", "")))
		if err != nil || waiting.Name != "admin1" || waiting.Remote != "192.0.2.7" || !strings.HasPrefix(waiting.Fingerprint, "SHA256:") || len(a.Devices()) != 1 {
			t.Errorf("%+v, %v", waiting, err)
		}
		if _, err := a.Approve(d.UserCode, "SHA256:x", Grant{Kind: User}); !errors.Is(err, ErrNoSuch) {
			t.Errorf("another key than was seen: %v", err)
		}
		if _, err := a.Approve(d.UserCode, "", Grant{Kind: User, Name: "a/b"}); !errors.Is(err, ErrBadName) {
			t.Errorf("a bad name: %v", err)
		}
		if _, err := a.Approve(d.UserCode, waiting.Fingerprint, Grant{Kind: User, Name: "admin2", Roles: []string{"operator"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Approve(d.UserCode, "", Grant{Kind: User}); !errors.Is(err, ErrNoSuch) || len(a.Devices()) != 0 {
			t.Errorf("approved twice: %v", err)
		}
		time.Sleep(15 * time.Second)
		i, err := a.PollDevice(d.DeviceCode)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := a.Verify(leafOf(t, i), nil); err != nil || id.URI != "spiffe://example.org/user/admin2" || !slices.Equal(id.Roles, []string{"operator"}) {
			t.Errorf("%+v, %v", id, err)
		}
		time.Sleep(15 * time.Second)
		if again, err := a.PollDevice(d.DeviceCode); err != nil || string(again.Certificate) != string(i.Certificate) || len(a.List()) != 1 {
			t.Errorf("asked again, since the answer was lost: %v", err)
		}

		d = ask("admin1")
		if _, err := a.Deny(d.UserCode); err != nil {
			t.Fatal(err)
		}
		want(d, KindDenied)
		time.Sleep(5 * time.Second)
		want(d, KindDenied)

		d = ask("admin1")
		time.Sleep(10 * time.Minute)
		want(d, KindOver)
		if _, err := a.Approve(d.UserCode, "", Grant{Kind: User}); !errors.Is(err, ErrNoSuch) {
			t.Errorf("approved too late: %v", err)
		}
		a.Tick()
		want(d, KindOver)
		time.Sleep(10*time.Minute + time.Second)
		a.Tick()
		want(d, KindNoCode)
		if len(a.devices.of) != 0 {
			t.Errorf("%d codes are remembered", len(a.devices.of))
		}

		// Approved, and revoked before it was fetched.
		d = ask("admin1")
		if _, err := a.Approve(d.UserCode, "", Grant{Kind: User}); err != nil {
			t.Fatal(err)
		}
		issued(t, a, Grant{Kind: User, Name: "admin1"})
		if _, err := a.Revoke("admin1", "root"); err != nil {
			t.Fatal(err)
		}
		want(d, KindDenied)
		for _, name := range []string{"", "a b", "a\n", strings.Repeat("a", 200)} {
			_, err := a.StartDevice(csrOf(t, newP256(t), nil), name, "")
			wantRefusal(t, err, KindBadRequest)
		}
		_, err = a.StartDevice([]byte("x"), "a", "")
		wantRefusal(t, err, KindBadRequest)
	})
}

// TestDevicesAreBounded has more devices ask than may wait.
func TestDevicesAreBounded(t *testing.T) {
	a, _ := opened(t)
	csr := csrOf(t, newP256(t), nil)
	ask := func(address string) error { _, err := a.StartDevice(csr, "a", address); return err }
	for range devicesOfClient {
		if err := ask("192.0.2.7"); err != nil {
			t.Fatal(err)
		}
	}
	wantRefusal(t, ask("192.0.2.7"), KindSlowDown)
	for i := range devicesOfNetwork - devicesOfClient {
		if err := ask(fmt.Sprintf("192.0.2.%d", 10+i)); err != nil {
			t.Fatal(err)
		}
	}
	wantRefusal(t, ask("192.0.2.200"), KindSlowDown)
	for i := range maxDevices - devicesOfNetwork {
		if err := ask(fmt.Sprintf("2001:db8:%x::1", i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(a.Devices()); n != maxDevices {
		t.Errorf("%d wait", n)
	}
}

// TestDevicesGiveWay has strangers of 8 networks take all places: who came before keeps its place, though it is the oldest, others get
// one all the same, and who was approved keeps it, too.
func TestDevicesGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := opened(t)
		csr := csrOf(t, newP256(t), nil)
		ask := func(address string) DeviceStart {
			t.Helper()
			time.Sleep(time.Millisecond)
			s, err := a.StartDevice(csr, "a", address)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		var first []DeviceStart
		flood := func(networks, each int) {
			for n := range networks {
				for i := range each {
					first = append(first, ask(fmt.Sprintf("192.0.%d.%d", n, i+1)))
				}
			}
		}
		good := ask("198.51.100.1") // the oldest of all
		flood(maxDevices/devicesOfNetwork, devicesOfNetwork)
		if _, err := a.Approve(first[1].UserCode, "", Grant{Kind: User}); err != nil {
			t.Fatal(err)
		}
		for i := range 3 * maxDevices / devicesOfNetwork { // each network has lost one by then
			ask(fmt.Sprintf("203.0.%d.1", i))
		}
		if n := len(a.devices.of); n != maxDevices {
			t.Errorf("%d are held", n)
		}
		_, err := a.PollDevice(good.DeviceCode)
		wantRefusal(t, err, KindPending)
		if _, err := a.PollDevice(first[1].DeviceCode); err != nil {
			t.Errorf("the one that was approved: %v", err)
		}
		_, err = a.PollDevice(first[0].DeviceCode)
		wantRefusal(t, err, KindNoCode)
	})
}

// TestDevicesAllDecided refuses one more if all places are of devices that were approved and have not asked yet. Those that were denied
// hold none.
func TestDevicesAllDecided(t *testing.T) {
	csr := csrOf(t, newP256(t), nil)
	for about, decide := range map[string]func(a *Authority, code string) (Device, error){
		"approved": func(a *Authority, code string) (Device, error) { return a.Approve(code, "", Grant{Kind: Machine}) },
		"denied":   (*Authority).Deny,
	} {
		a, _ := opened(t)
		for i := range maxDevices {
			s, err := a.StartDevice(csr, "a", fmt.Sprintf("2001:db8:%x::1", i))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decide(a, s.UserCode); err != nil {
				t.Fatal(err)
			}
		}
		_, err := a.StartDevice(csr, "a", "198.51.100.1")
		if about == "approved" {
			wantRefusal(t, err, KindSlowDown)
		} else if err != nil {
			t.Errorf("all are %s: %v", about, err)
		}
	}
}

// TestRenew renews a machine's certificate over its connection, until it is too late, and after it was revoked.
func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := opened(t)
		key := newP256(t)
		i, err := a.Issue(csrOf(t, key, nil), Grant{Kind: Machine, Name: "ci-1", Roles: []string{"operator"}})
		if err != nil {
			t.Fatal(err)
		}
		leaf := leafOf(t, i)
		id, err := a.Verify(leaf, nil)
		if err != nil {
			t.Fatal(err)
		}
		next, err := a.Renew(id, csrOf(t, newEd25519(t), nil), "192.0.2.7")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := a.Verify(leafOf(t, next), nil); err != nil || got.URI != id.URI || !slices.Equal(got.Roles, id.Roles) || !got.Machine {
			t.Errorf("%+v, %v", got, err)
		}
		states := map[string]int{}
		for _, e := range a.List() {
			states[e.State(time.Now())]++
			if e.Serial == id.Serial && e.RenewedBy != next.Identity.Serial {
				t.Errorf("renewed by %s", e.RenewedBy)
			}
		}
		if states["good"] != 1 || states["renewed"] != 1 {
			t.Errorf("%v", states)
		}
		user, err := a.Verify(issued(t, a, Grant{Kind: User, Name: "admin1"}), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Renew(user, csrOf(t, newP256(t), nil), "")
		wantRefusal(t, err, KindExpired)
		_, err = a.Renew(Identity{Subject: "CN=ops"}, csrOf(t, newP256(t), nil), "")
		wantRefusal(t, err, KindUnknown)

		// Over, but not for long.
		jws := signed(t, key, leaf, derOf(csrOf(t, newP256(t), nil)))
		time.Sleep(30*24*time.Hour + 71*time.Hour)
		if _, err := a.RenewExpired(jws, "192.0.2.7"); err != nil {
			t.Fatal(err)
		}
		bad := map[string]string{
			"another key": signed(t, newP256(t), leaf, derOf(csrOf(t, newP256(t), nil))), "no request": signed(t, key, leaf, []byte("x")),
			"no certificate": signed(t, key, nil, derOf(csrOf(t, newP256(t), nil))), "nothing": "", "JSON": "{}", "dots": "..", "four parts": jws + ".x",
			"no signature": jws[:strings.LastIndexByte(jws, '.')+1], "a changed payload": strings.Replace(jws, ".MI", ".MJ", 1), "too long": jws + strings.Repeat("x", maxJWS),
			"none": base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","x5c":["`+base64.StdEncoding.EncodeToString(leaf.Raw)+`"]}`)) + jws[strings.IndexByte(jws, '.'):strings.LastIndexByte(jws, '.')+1],
		}
		for about, text := range bad {
			if _, err := a.RenewExpired(text, ""); err == nil {
				t.Errorf("%s: a certificate", about)
			} else {
				wantRefusal(t, err, KindBadRequest)
			}
		}
		_, err = a.RenewExpired(signed(t, key, newOther(t, nil).leaf(nil), derOf(csrOf(t, newP256(t), nil))), "")
		wantRefusal(t, err, KindUnknown)
		time.Sleep(2 * time.Hour)
		_, err = a.RenewExpired(jws, "")
		wantRefusal(t, err, KindExpired)
		if err := a.Configure(Settings{Own: true}); err != nil { // renew_expired = 0
			t.Fatal(err)
		}
		fresh, err := a.Issue(csrOf(t, key, nil), Grant{Kind: Machine, Name: "ci-2"})
		if err != nil {
			t.Fatal(err)
		}
		jws = signed(t, key, leafOf(t, fresh), derOf(csrOf(t, newP256(t), nil)))
		if _, err := a.RenewExpired(jws, ""); err != nil {
			t.Errorf("before its end: %v", err)
		}
		if _, err := a.Revoke("ci-2", "root"); err != nil {
			t.Fatal(err)
		}
		_, err = a.RenewExpired(jws, "")
		wantRefusal(t, err, KindRevoked)
		_, err = a.Renew(fresh.Identity, csrOf(t, newP256(t), nil), "")
		wantRefusal(t, err, KindRevoked)
		time.Sleep(31 * 24 * time.Hour)
		third, err := a.Issue(csrOf(t, key, nil), Grant{Kind: Machine, Name: "ci-3"})
		if err != nil {
			t.Fatal(err)
		}
		jws = signed(t, key, leafOf(t, third), derOf(csrOf(t, newP256(t), nil)))
		time.Sleep(30*24*time.Hour + time.Second)
		_, err = a.RenewExpired(jws, "")
		wantRefusal(t, err, KindExpired)
	})
}

// TestRenewIsOneCommit renews a certificate whose record goes for that of the next one: it does not come back, and what is on record has
// been written at once, so that no error comes between.
func TestRenewIsOneCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := opened(t)
		key := newP256(t)
		first, err := a.Issue(csrOf(t, key, nil), Grant{Kind: Machine, Name: "ci-1"})
		if err != nil {
			t.Fatal(err)
		}
		writes := func() (n int) {
			t.Helper()
			if err := a.db.View(func(tx *bbolt.Tx) error { n = tx.ID(); return nil }); err != nil {
				t.Fatal(err)
			}
			return n
		}
		before := writes()
		if _, err := a.Again("ci-1"); err != nil {
			t.Fatal(err)
		}
		if n := writes() - before; n != 1 {
			t.Errorf("a renewal writes %d times", n)
		}
		if e := a.record(first.Identity.Serial); e.State(time.Now()) != "renewed" {
			t.Errorf("%+v", e)
		}
		for range maxEndedOfIdentity {
			time.Sleep(time.Second)
			issued(t, a, Grant{Kind: Machine, Name: "ci-1"})
		}
		time.Sleep(30*24*time.Hour + time.Hour)
		if _, err := a.RenewExpired(signed(t, key, leafOf(t, first), derOf(csrOf(t, newP256(t), nil))), ""); err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		for about, of := range map[string]*Authority{"in memory": a, "on disk": reopened(t, a.dir)} {
			if of.record(first.Identity.Serial) != nil {
				t.Errorf("%s, the record is back that went for the next one", about)
			}
		}
	})
}

// TestAgain has an administrator renew the certificate of a machine that cannot call.
func TestAgain(t *testing.T) {
	a, _ := opened(t)
	key := newEd25519(t)
	if _, err := a.Issue(csrOf(t, key, nil), Grant{Kind: Host, Name: "web-1"}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		i, err := a.Again("web-1")
		if err != nil {
			t.Fatal(err)
		}
		c := leafOf(t, i)
		if !bytes.Equal(c.PublicKey.(ed25519.PublicKey), key.Public().(ed25519.PublicKey)) || !slices.Equal(c.DNSNames, []string{"web-1"}) ||
			!slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}) {
			t.Errorf("%v", c)
		}
	}
	if _, err := a.Again("web-2"); !errors.Is(err, ErrNoSuch) {
		t.Error(err)
	}
}

// signed makes a request to renew.
func signed(t *testing.T, key any, leaf *x509.Certificate, payload []byte) string {
	t.Helper()
	options := &jose.SignerOptions{}
	if leaf != nil {
		options.WithHeader("x5c", []string{base64.StdEncoding.EncodeToString(leaf.Raw)})
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	j, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := j.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestRevoke revokes by what a person may call an identity or a certificate.
func TestRevoke(t *testing.T) {
	a, _ := opened(t)
	one, two := issued(t, a, Grant{Kind: Machine, Name: "ci-1"}), issued(t, a, Grant{Kind: Machine, Name: "ci-1"})
	both := []*x509.Certificate{issued(t, a, Grant{Kind: User, Name: "both"}), issued(t, a, Grant{Kind: Machine, Name: "both"})}
	corp := issued(t, a, Grant{Kind: User, Provider: "corp", ProviderSubject: "1234@example.com"})
	left := issued(t, a, Grant{Kind: User, Name: "left"})
	token, _, err := a.NewJoin(Grant{Kind: Machine, Name: "ci-1"}, "a:1")
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	a.Changed(func() { told++ })
	good := func(want bool, all ...*x509.Certificate) {
		t.Helper()
		for _, c := range all {
			_, err := a.Verify(c, nil)
			if want && err != nil {
				t.Error(err)
			} else if !want {
				wantRefusal(t, err, KindRevoked)
			}
		}
	}
	good(true, one, two, both[0], both[1], corp, left)
	serial := serialText(one.SerialNumber.Bytes())
	r, err := a.Revoke(serial[:11]+"…", "root")
	if err != nil || len(r.Certificates) != 1 || r.Certificates[0].Serial != serial || r.Whole || r.URI != "spiffe://example.org/machine/ci-1" || told != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	good(false, one)
	good(true, two)
	if r, err = a.Revoke("ci-1", "root"); err != nil || len(r.Certificates) != 1 || r.Joins != 1 || !r.Whole || r.Certificates[0].RevokedBy != "root" {
		t.Errorf("%+v, %v", r, err)
	}
	good(false, one, two)
	_, err = a.Join(token.Text(), csrOf(t, newP256(t), nil), "")
	wantRefusal(t, err, KindJoinUnknown)
	if r, err = a.Revoke("machine/ci-1", "root"); err != nil || len(r.Certificates) != 0 {
		t.Errorf("again: %+v, %v", r, err)
	}
	if _, err = a.Revoke("both", "root"); !errors.Is(err, ErrAmbiguous) || !strings.HasSuffix(err.Error(), "spiffe://example.org/machine/both and spiffe://example.org/user/both") {
		t.Error(err)
	}
	good(true, both...)
	if _, err = a.Revoke("spiffe://example.org/machine/both", "root"); err != nil {
		t.Error(err)
	}
	good(false, both[1])
	good(true, both[0])
	if _, err = a.Revoke("1234@example.com", "root"); err != nil {
		t.Error(err)
	}
	good(false, corp)
	for _, ref := range []string{"", "nobody", "0", "00", "spiffe://example.org/", "spiffe://example.com/user/left", "…", ":::::"} {
		if _, err := a.Revoke(ref, "root"); !errors.Is(err, ErrNoSuch) {
			t.Errorf("%q: %v", ref, err)
		}
	}
	// A token that was made by mistake goes without a certificate.
	if _, _, err := a.NewJoin(Grant{Kind: User, Name: "mistake"}, "a:1"); err != nil {
		t.Fatal(err)
	}
	if r, err = a.Revoke("mistake", "root"); err != nil || r.Joins != 1 || len(r.Certificates) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	good(true, left)
	id, err := a.Verify(left, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.RevokeOwn(id, "left"); err != nil {
		t.Error(err)
	}
	good(false, left)
	if _, err := a.RevokeOwn(Identity{Subject: "CN=ops"}, "ops"); !errors.Is(err, ErrNoSuch) {
		t.Error(err)
	}
	// All of them are in what the gateway hears, and after a restart.
	if n := len(a.Trust().Revoked); n != 5 {
		t.Errorf("the gateway hears of %d", n)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = reopened(t, a.dir)
	good(false, one, two, both[1], corp, left)
}

// TestRevokeApproved revokes a new identity between its approval and the next question of its device.
func TestRevokeApproved(t *testing.T) {
	a, _ := opened(t)
	devices := 0
	start := func(g Grant) DeviceStart {
		t.Helper()
		devices++
		s, err := a.StartDevice(csrOf(t, newP256(t), nil), "laptop", fmt.Sprintf("192.0.2.%d", devices))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Approve(s.UserCode, "", g); err != nil {
			t.Fatal(err)
		}
		return s
	}
	gone := start(Grant{Kind: Machine, Name: "ci-1"})
	others := map[string]DeviceStart{ // whose names begin and end with that
		"machine/ci-10": start(Grant{Kind: Machine, Name: "ci-10"}), "machine/x-ci-1": start(Grant{Kind: Machine, Name: "x-ci-1"}),
	}
	if r, err := a.Revoke("ci-1", "root"); err != nil || r.URI != "spiffe://example.org/machine/ci-1" || !r.Whole {
		t.Errorf("%+v, %v", r, err)
	}
	_, err := a.PollDevice(gone.DeviceCode)
	wantRefusal(t, err, KindDenied)
	for path, other := range others {
		if i, err := a.PollDevice(other.DeviceCode); err != nil || i.Identity.URI != "spiffe://example.org/"+path {
			t.Errorf("%s: %+v, %v", path, i.Identity, err)
		}
	}
	if _, err := a.Revoke("ci-1", "root"); !errors.Is(err, ErrNoSuch) {
		t.Errorf("the second time: %v", err)
	}
	// One of a name that is a user's and a machine's.
	user, machine := start(Grant{Kind: User, Name: "ci-2"}), start(Grant{Kind: Machine, Name: "ci-2"})
	if _, err := a.Revoke("machine/ci-2", "root"); err != nil {
		t.Fatal(err)
	}
	_, err = a.PollDevice(machine.DeviceCode)
	wantRefusal(t, err, KindDenied)
	if _, err := a.PollDevice(user.DeviceCode); err != nil {
		t.Errorf("of the user of the machine's name: %v", err)
	}
}

// TestSweep has certificates forgotten some time after their end, and makes the list of revoked ones anew in time.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := opened(t)
		leaf := issued(t, a, Grant{Kind: User, Name: "admin1"})
		list := func() *x509.RevocationList {
			t.Helper()
			der, err := a.CRL()
			if err != nil {
				t.Fatal(err)
			}
			l, err := x509.ParseRevocationList(der)
			if err != nil {
				t.Fatal(err)
			}
			if l.CheckSignatureFrom(a.Certificates()[0]) != nil || l.NextUpdate.Sub(l.ThisUpdate) != 24*time.Hour {
				t.Error("the list is not right")
			}
			return l
		}
		first := list()
		time.Sleep(5 * time.Hour)
		a.Tick()
		if list().Number.Cmp(first.Number) != 0 {
			t.Error("the list was made anew too early")
		}
		time.Sleep(time.Hour)
		a.Tick()
		second := list()
		if second.Number.Cmp(first.Number) <= 0 || len(second.RevokedCertificateEntries) != 0 {
			t.Error("the list was not made anew in time")
		}
		if _, err := a.Revoke("admin1", "root"); err != nil {
			t.Fatal(err)
		}
		if l := list(); l.Number.Cmp(second.Number) <= 0 || len(l.RevokedCertificateEntries) != 1 || l.RevokedCertificateEntries[0].SerialNumber.Cmp(leaf.SerialNumber) != 0 {
			t.Errorf("%+v", l)
		}
		time.Sleep(16*time.Hour + 6*24*time.Hour)
		a.Tick()
		if n := len(list().RevokedCertificateEntries); n != 1 || len(a.Trust().Revoked) != 0 {
			t.Errorf("a week has not passed: %d", n)
		}
		time.Sleep(24 * time.Hour)
		a.Tick()
		if n := len(list().RevokedCertificateEntries); n != 0 || len(a.List()) != 0 {
			t.Errorf("a week has passed: %d", n)
		}
	})
}

// TestOpenSSL has openssl read what the authority makes.
func TestOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl on this machine")
	}
	a, _ := opened(t)
	good, bad := issued(t, a, Grant{Kind: User, Name: "good"}), issued(t, a, Grant{Kind: User, Name: "bad"})
	if _, err := a.Revoke("bad", "root"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	crl, err := a.CRL()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"ca.pem": a.PEM(), "crl.pem": a.CRLs(), "crl.der": crl, "good.pem": pemOf(good), "bad.pem": pemOf(bad)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, error) {
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("crl", "-inform", "DER", "-in", "crl.der", "-CAfile", "ca.pem", "-text", "-noout"); err != nil || !strings.Contains(out, "verify OK") || strings.Count(out, "Serial Number:") != 1 {
		t.Errorf("%v: %s", err, out)
	}
	check := []string{"verify", "-crl_check", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca.pem", "-CRLfile", "crl.pem"}
	if out, err := run(append(check, "good.pem")...); err != nil || out != "good.pem: OK\n" {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := run(append(check, "bad.pem")...); err == nil || !strings.Contains(out, "certificate revoked") {
		t.Errorf("%v: %s", err, out)
	}
}

func FuzzRenew(f *testing.F) {
	head, err := json.Marshal(map[string]any{"alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(newOther(f, nil).cert.Raw)}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(base64.RawURLEncoding.EncodeToString(head))
	f.Fuzz(func(t *testing.T, head string) {
		if c := certificateOf(head); c != nil && len(c.Raw) == 0 {
			t.Error("an empty certificate")
		}
	})
}

// FuzzUserCode types codes of devices.
func FuzzUserCode(f *testing.F) {
	var ds devices
	if err := ds.add(joinID{}, &device{Device: Device{UserCode: "WDJB-MJHT", Until: time.Now().Add(time.Hour)}}); err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"WDJB-MJHT", "wdjbmjht", "WDJB MJHT", "", "ſ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, code string) {
		d := ds.byUserCode(code)
		var typed []rune
		for _, r := range code {
			if r != '-' && r != ' ' {
				typed = append(typed, r)
			}
		}
		if d != nil && !strings.EqualFold(string(typed), "WDJBMJHT") {
			t.Errorf("%q is taken for the code", code)
		}
	})
}

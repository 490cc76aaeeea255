package authority

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRequest has requests with names of somebody else, for an authority, of other keys, and with broken signatures.
func TestRequest(t *testing.T) {
	a, _ := opened(t)
	stranger := &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "root"}, URIs: []*url.URL{uri(t, "spiffe://example.org/user/root")}, DNSNames: []string{"example.org"},
		EmailAddresses: []string{"root@example.org"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)},
		// basicConstraints: CA
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 0x03, 0x01, 0x01, 0xff}}},
	}
	for _, key := range []crypto.Signer{newP256(t), newEd25519(t)} {
		for _, csr := range [][]byte{csrOf(t, key, stranger), derOf(csrOf(t, key, stranger))} {
			i, err := a.Issue(csr, Grant{Kind: User, Name: "guest"})
			if err != nil {
				t.Fatal(err)
			}
			c := leafOf(t, i)
			if c.Subject.String() != "CN=guest" || len(c.URIs) != 1 || c.URIs[0].String() != "spiffe://example.org/user/guest" || c.DNSNames != nil ||
				c.EmailAddresses != nil || c.IPAddresses != nil || c.IsCA || !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) ||
				c.KeyUsage != x509.KeyUsageDigitalSignature {
				t.Errorf("the certificate says more than it should: %+v", c)
			}
			if !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(c.PublicKey) {
				t.Error("it is for another key")
			}
		}
	}
	r2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := csrOf(t, newP256(t), nil)
	broken := derOf(good)
	broken = bytes.Clone(broken)
	broken[len(broken)-1] ^= 1
	for about, csr := range map[string][]byte{
		"RSA": csrOf(t, r2048, nil), "P-384": csrOf(t, p384, nil), "a broken signature": broken, "nothing": nil, "text": []byte("x"), "a certificate": pemOf(a.Certificates()[0]),
		"two": append(bytes.Clone(good), good...), "too long": append(bytes.Clone(good), make([]byte, maxCSR)...), "half": broken[:len(broken)/2],
		"behind it": append(bytes.Clone(derOf(good)), 0),
	} {
		_, err := a.Issue(csr, Grant{Kind: User, Name: "guest"})
		if err == nil {
			t.Errorf("%s: a certificate", about)
			continue
		}
		wantRefusal(t, err, KindBadRequest)
	}
	for _, name := range []string{"", ".", "..", "a/b", "a b", "-a", "ä", strings.Repeat("a", 129), "a\x00", "*", "a@b"} {
		if _, err := a.Issue(good, Grant{Kind: User, Name: name}); !errors.Is(err, ErrBadName) {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func derOf(text []byte) []byte { b, _ := pem.Decode(text); return b.Bytes }

// TestSegment looks for two subjects of a provider that are one identity.
func TestSegment(t *testing.T) {
	seen := map[string]string{}
	for _, s := range []string{
		"1234", "a@b", "a-b", "a.b", "a/b", "a//b", "..", ".", "../user/root", "ä", "a\x00", strings.Repeat("a", 16), strings.Repeat("a", 17), strings.Repeat("a", 41),
		segment("a@b"), segment("a/b"), segment(segment("a@b")), "*", "",
	} {
		got := segment(s)
		if other, ok := seen[got]; ok {
			t.Errorf("%q and %q are both %q", s, other, got)
		}
		seen[got] = s
		if strings.Trim(got, alphanumeric+".-_") != "" || strings.Trim(got, ".") == "" {
			t.Errorf("%q is %q", s, got)
		}
	}
}

// TestProvidersTextsAreBounded has a provider say more of a user than a record has room for.
func TestProvidersTextsAreBounded(t *testing.T) {
	a, _ := opened(t)
	csr := csrOf(t, newP256(t), nil)
	for _, subject := range []string{"", strings.Repeat("a", maxText+1), strings.Repeat("a", 300) + "@example.org"} {
		if _, err := a.Issue(csr, Grant{Kind: User, Provider: "corp", ProviderSubject: subject, Email: true}); !errors.Is(err, ErrBadName) {
			t.Errorf("a subject of %d bytes: %v", len(subject), err)
		}
	}
}

// TestInit makes an authority, once, and opens it again.
func TestInit(t *testing.T) {
	dir := t.TempDir()
	a := reopened(t, dir)
	if _, err := os.Stat(filepath.Join(dir, databaseName)); err == nil {
		t.Error("there is a file before there is an authority")
	}
	if _, err := a.Issue(csrOf(t, newP256(t), nil), Grant{Kind: User, Name: "a"}); !errors.Is(err, ErrNone) {
		t.Errorf("without an authority: %v", err)
	}
	if _, err := a.CRL(); !errors.Is(err, ErrNone) {
		t.Errorf("without an authority: %v", err)
	}
	if _, _, err := a.NewJoin(Grant{Kind: User, Name: "a"}, "a:1"); !errors.Is(err, ErrNone) {
		t.Errorf("without an authority: %v", err)
	}
	if _, err := a.StartDevice(csrOf(t, newP256(t), nil), "a", ""); !errors.Is(err, ErrNone) {
		t.Errorf("without an authority: %v", err)
	}
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "Example.org", "a b", "a/b", ".a", strings.Repeat("a", 65), "ä", "a*"} {
		if err := a.Init(name, key); !errors.Is(err, ErrBadName) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	for _, k := range []string{"", "x", string(csrOf(t, newP256(t), nil)), string(key) + string(key)} {
		if err := a.Init(domain, []byte(k)); !errors.Is(err, ErrBadKey) {
			t.Errorf("key %.20q: %v", k, err)
		}
	}
	if err := a.Init(domain, key); err != nil {
		t.Fatal(err)
	}
	if err := a.Init(domain, key); !errors.Is(err, ErrExists) {
		t.Errorf("the second time: %v", err)
	}
	c := a.Certificates()[0]
	if !c.IsCA || c.MaxPathLen != 0 || !c.MaxPathLenZero || c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || c.Subject.CommonName != domain ||
		time.Until(c.NotAfter).Round(time.Hour) != ownLife {
		t.Errorf("its certificate: %+v", c)
	}
	if info, err := os.Stat(filepath.Join(dir, databaseName)); err != nil || info.Mode() != 0o600 {
		t.Errorf("its file: %v, %v", info, err)
	}
	leaf := issued(t, a, Grant{Kind: User, Name: "admin1", Groups: []string{"g"}})
	token, _, err := a.NewJoin(Grant{Kind: Machine, Name: "ci-1"}, "build.example.org:8843")
	if err != nil {
		t.Fatal(err)
	}
	before, err := a.Verify(leaf, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}

	b := reopened(t, dir)
	if exists, unlocked := b.Exists(); !exists || unlocked || b.Name() != domain {
		t.Errorf("opened again: %v, %v, %s", exists, unlocked, b.Name())
	}
	if after, err := b.Verify(leaf, nil); err != nil || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("opened again, without the key: %v, %v, want %v", after, err, before)
	}
	if _, err := b.Join(token.Text(), csrOf(t, newP256(t), nil), ""); !errors.Is(err, ErrLocked) {
		t.Errorf("opened again, without the key: %v", err)
	}
	other, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Rotate(other, false); !errors.Is(err, ErrLocked) {
		t.Errorf("the next key, without the one before: %v", err)
	}
	if err := b.Unlock(other); !errors.Is(err, ErrOtherKey) {
		t.Errorf("another key: %v", err)
	}
	if err := b.Unlock(key); err != nil {
		t.Fatal(err)
	}
	if i, err := b.Join(token.Text(), csrOf(t, newP256(t), nil), ""); err != nil || i.Identity.URI != "spiffe://example.org/machine/ci-1" {
		t.Errorf("%v, %v", i.Identity, err)
	}
	for _, e := range b.List() {
		if e.URI == before.URI && e.LastUsed.IsZero() {
			t.Error("when it was used was forgotten")
		}
	}
}

// TestServer has the gateway's certificate made, and made anew when it is time, for other names, and by the next authority.
func TestServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := opened(t)
		told := 0
		a.Changed(func() { told++ })
		key := newP256(t)
		names := []string{"build.example.org", "localhost", "127.0.0.1", "::1"}
		if err := a.Configure(Settings{Own: true, ServerNames: names}); err != nil {
			t.Fatal(err)
		}
		if c := a.Trust().Server; c != nil {
			t.Errorf("without a key: %v", c)
		}
		if err := a.SetServer(csrOf(t, key, nil)); err != nil {
			t.Fatal(err)
		}
		current := func() *x509.Certificate {
			t.Helper()
			c := a.Trust().Server
			if len(c) != 2 {
				t.Fatalf("the chain has %d certificates", len(c))
			}
			roots := x509.NewCertPool()
			roots.AddCert(c[1])
			for _, name := range names {
				if _, err := c[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: time.Now()}); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if !key.PublicKey.Equal(c[0].PublicKey) {
				t.Error("it is for another key")
			}
			// It is nobody's who calls.
			_, err := a.Verify(c[0], nil)
			wantRefusal(t, err, KindUnknown)
			return c[0]
		}
		first := current()
		time.Sleep(59 * 24 * time.Hour)
		a.Tick()
		if !current().Equal(first) {
			t.Error("it was made anew too early")
		}
		before := told
		time.Sleep(2 * 24 * time.Hour)
		a.Tick()
		second := current()
		if second.Equal(first) || told == before {
			t.Error("it was not made anew in time, or nobody was told")
		}
		names = []string{"other.example.org", "192.0.2.1"}
		if err := a.Configure(Settings{Own: true, ServerNames: names}); err != nil {
			t.Fatal(err)
		}
		third := current()
		if err := a.SetServer(csrOf(t, key, nil)); err != nil {
			t.Fatal(err)
		}
		a.Tick()
		if third.Equal(second) || !current().Equal(third) {
			t.Error("it is made anew for other names, and for no others")
		}
	})
}

// TestRotate makes the next certificate of the authority, and looks at what the one before is still good for.
func TestRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, key := opened(t)
		if err := a.Configure(Settings{Own: true, ServerNames: []string{"localhost"}}); err != nil {
			t.Fatal(err)
		}
		if err := a.SetServer(csrOf(t, newP256(t), nil)); err != nil {
			t.Fatal(err)
		}
		first, old := a.Certificates()[0], issued(t, a, Grant{Kind: Machine, Name: "ci-1"})
		if err := a.Rotate(key, false); !errors.Is(err, ErrBadKey) {
			t.Errorf("the same key: %v", err)
		}
		next, err := NewKey()
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Rotate(next, false); err != nil {
			t.Fatal(err)
		}
		if all := a.Certificates(); len(all) != 2 || !all[1].Equal(first) || all[0].Subject.String() == first.Subject.String() {
			t.Errorf("there are %v", all)
		}
		fresh := issued(t, a, Grant{Kind: User, Name: "admin1"})
		if fresh.CheckSignatureFrom(a.Certificates()[0]) != nil {
			t.Error("the one before signs")
		}
		verify := func() {
			t.Helper()
			for _, c := range []*x509.Certificate{old, fresh} {
				if _, err := a.Verify(c, nil); err != nil {
					t.Error(err)
				}
			}
		}
		verify()
		// Clients of before know the first authority alone.
		if c := a.Trust().Server; !c[1].Equal(first) {
			t.Error("the gateway's certificate is one that nobody knows yet")
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		a = reopened(t, a.dir)
		if err := a.Unlock(key); !errors.Is(err, ErrOtherKey) {
			t.Errorf("the key of before: %v", err)
		}
		if err := a.Unlock(next); err != nil {
			t.Fatal(err)
		}
		if err := a.Configure(Settings{Own: true, ServerNames: []string{"localhost"}}); err != nil {
			t.Fatal(err)
		}
		verify()
		if _, err := a.Revoke("ci-1", "root"); err != nil {
			t.Fatal(err)
		}
		lists := 0
		for rest := a.CRLs(); len(rest) > 0; lists++ {
			var b *pem.Block
			b, rest = pem.Decode(rest)
			list, err := x509.ParseRevocationList(b.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(list.RevokedCertificateEntries); n != lists || list.CheckSignatureFrom(a.Certificates()[lists]) != nil {
				t.Errorf("list %d has %d entries", lists, n)
			}
		}
		if lists != 2 {
			t.Errorf("there are %d lists", lists)
		}
		a.Tick()
		if n := len(a.Certificates()); n != 2 {
			t.Errorf("%d certificates of the authority, while one of the first has not ended", n)
		}
		time.Sleep(31 * 24 * time.Hour)
		a.Tick()
		if all := a.Certificates(); len(all) != 1 || all[0].Equal(first) {
			t.Errorf("there are %d after the last one that the first has signed", len(all))
		}
		if c := a.Trust().Server; len(c) != 2 || c[1].Equal(first) {
			t.Errorf("the gateway has %d certificates, or still that of the first", len(c))
		}

		// What the key has signed that others know is good for nothing.
		fresh = issued(t, a, Grant{Kind: User, Name: "admin1"})
		if _, err := a.Verify(fresh, nil); err != nil {
			t.Fatal(err)
		}
		third, err := NewKey()
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Rotate(third, true); err != nil {
			t.Error(err)
		}
		_, err = a.Verify(fresh, nil)
		wantRefusal(t, err, KindUnknown)
	})
}

// TestDistrust renews a certificate that a distrusted key of the authority has signed.
func TestDistrust(t *testing.T) {
	a, _ := opened(t)
	key := newP256(t)
	got, err := a.Issue(csrOf(t, key, nil), Grant{Kind: Machine, Name: "ci-1"})
	if err != nil {
		t.Fatal(err)
	}
	leaf := leafOf(t, got)
	next, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Rotate(next, true); err != nil {
		t.Fatal(err)
	}
	_, err = a.RenewExpired(signed(t, key, leaf, derOf(csrOf(t, newP256(t), nil))), "")
	wantRefusal(t, err, KindRevoked)
	_, err = a.Again("ci-1")
	wantRefusal(t, err, KindRevoked)
	if all := a.List(); len(all) != 1 || all[0].State(time.Now()) != "revoked" {
		t.Errorf("%+v", all)
	}
}

// TestDropped renews a certificate of the authority that goes since there are too many after it.
func TestDropped(t *testing.T) {
	a, _ := opened(t)
	key := newP256(t)
	got, err := a.Issue(csrOf(t, key, nil), Grant{Kind: Machine, Name: "ci-1"})
	if err != nil {
		t.Fatal(err)
	}
	for n := range maxOwn {
		next, err := NewKey()
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Rotate(next, false); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Verify(leafOf(t, got), nil); (err != nil) != (n == maxOwn-1) {
			t.Errorf("after rotation %d: %v", n, err)
		}
	}
	_, err = a.RenewExpired(signed(t, key, leafOf(t, got), derOf(csrOf(t, newP256(t), nil))), "")
	wantRefusal(t, err, KindRevoked)
	if n := len(a.Certificates()); n != maxOwn {
		t.Errorf("the authority has %d certificates", n)
	}
}

// TestRevokeEnded revokes a machine whose certificate has ended and could still be renewed.
func TestRevokeEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := opened(t)
		key := newP256(t)
		got, err := a.Issue(csrOf(t, key, nil), Grant{Kind: Machine, Name: "ci-1"})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(30*24*time.Hour + time.Hour)
		if r, err := a.Revoke("ci-1", "root"); err != nil || len(r.Certificates) != 0 {
			t.Errorf("%+v, %v", r, err)
		}
		_, err = a.RenewExpired(signed(t, key, leafOf(t, got), derOf(csrOf(t, newP256(t), nil))), "")
		wantRefusal(t, err, KindRevoked)
	})
}

// TestFull issues as many certificates of one identity as there may be.
func TestFull(t *testing.T) {
	a, _ := opened(t)
	now := time.Now()
	for i := range maxOfIdentity {
		e := &Enrolment{Serial: fmt.Sprintf("%04x", i), URI: "spiffe://example.org/user/admin1", Until: now.Add(time.Hour)}
		a.records[e.Serial] = e
	}
	csr := csrOf(t, newP256(t), nil)
	if _, err := a.Issue(csr, Grant{Kind: User, Name: "admin1"}); !errors.Is(err, ErrFull) {
		t.Errorf("one more of the same: %v", err)
	}
	if _, err := a.Issue(csr, Grant{Kind: User, Name: "admin2"}); err != nil {
		t.Error(err)
	}
	// Those that were revoked count for their identity until they end, and hold nobody else up.
	for _, e := range a.records {
		e.Revoked = now
	}
	if _, err := a.Issue(csr, Grant{Kind: User, Name: "admin1"}); !errors.Is(err, ErrFull) {
		t.Errorf("one more behind revoked ones: %v", err)
	}
	// Also after their end, while a list may need them: that place is not free.
	for _, e := range a.records {
		e.Until = now.Add(-time.Hour)
	}
	if _, err := a.Issue(csr, Grant{Kind: User, Name: "admin1"}); !errors.Is(err, ErrFull) {
		t.Errorf("one more behind revoked ones that have just ended: %v", err)
	}
	for _, e := range a.records {
		e.Until = now.Add(time.Hour)
	}
	// What has ended makes room, and what may still be renewed does not.
	for i := len(a.records); i < maxEnrolments; i++ {
		e := &Enrolment{Serial: fmt.Sprintf("%04x", i), URI: fmt.Sprint(i), Until: now.Add(-time.Hour), Grant: Grant{Kind: Machine}}
		a.records[e.Serial] = e
	}
	if _, err := a.Issue(csr, Grant{Kind: User, Name: "admin3"}); !errors.Is(err, ErrFull) {
		t.Errorf("one more of all: %v", err)
	}
	a.records["ffff"] = &Enrolment{Serial: "ffff", URI: "of a user", Until: now.Add(-time.Hour), Grant: Grant{Kind: User}}
	delete(a.records, fmt.Sprintf("%04x", maxEnrolments-1))
	if _, err := a.Issue(csr, Grant{Kind: User, Name: "admin3"}); err != nil || len(a.records) != maxEnrolments || a.records["ffff"] != nil {
		t.Errorf("with one that has ended: %v, %d records", err, len(a.records))
	}
}

// TestEnded gets certificates again and again: those of one identity that have ended stay for a while, and not all of them.
func TestEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := opened(t)
		for range 2 * maxEndedOfIdentity {
			if _, err := a.Issue(csrOf(t, newP256(t), nil), Grant{Kind: User, Name: "admin1", Life: time.Hour}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Hour)
		}
		if n := len(a.List()); n != maxEndedOfIdentity {
			t.Errorf("%d are on record", n)
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add(csrOf(f, newP256(f), nil))
	f.Add(derOf(csrOf(f, newEd25519(f), nil)))
	f.Fuzz(func(t *testing.T, csr []byte) {
		r, err := ParseRequest(csr)
		if err == nil && (checkKey(r.public) != nil || len(r.Key) > 128) {
			t.Errorf("a key %T of %d bytes", r.public, len(r.Key))
		}
		if _, ok := errors.AsType[*Refusal](err); err != nil && !ok {
			t.Error(err)
		}
	})
}

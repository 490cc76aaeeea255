package authority

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestVerifyOwn issues certificates of each kind, and has them verified until they end.
func TestVerifyOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := opened(t)
		for _, c := range []struct {
			grant   Grant
			uri     string
			life    time.Duration
			machine bool
		}{
			{Grant{Kind: User, Name: "admin1", Roles: []string{"operator"}}, "spiffe://example.org/user/admin1", 16 * time.Hour, false},
			{Grant{Kind: Machine, Name: "ci-1"}, "spiffe://example.org/machine/ci-1", 30 * 24 * time.Hour, true},
			{Grant{Kind: Host, Name: "web-1.example.org"}, "spiffe://example.org/host/web-1.example.org", 90 * 24 * time.Hour, true},
			{Grant{Kind: User, Provider: "corp", ProviderSubject: "admin1@example.org", Email: true, Groups: []string{"ops"}}, "spiffe://example.org/user/admin1", 16 * time.Hour, false},
			{Grant{Kind: User, Provider: "corp", ProviderSubject: "admin1@example.org"}, "spiffe://example.org/user/corp/admin1-example.org.", 16 * time.Hour, false},
			{Grant{Kind: User, Provider: "corp", ProviderSubject: "admin1@example.com", Email: true}, "spiffe://example.org/user/corp/admin1-example.com.", 16 * time.Hour, false},
			{Grant{Kind: User, Provider: "github", ProviderSubject: "repo:a/b:ref:x", Life: time.Hour}, "spiffe://example.org/user/github/repo-a-b-ref-x.", time.Hour, false},
			{Grant{Kind: User, Provider: "corp", ProviderSubject: "1234"}, "spiffe://example.org/user/corp/1234", 16 * time.Hour, false},
		} {
			leaf := issued(t, a, c.grant)
			id, err := a.Verify(leaf, nil)
			if err != nil {
				t.Fatal(err)
			}
			if id.URI[:min(len(id.URI), len(c.uri))] != c.uri || len(id.URI) != len(c.uri) && len(id.URI) != len(c.uri)+16 {
				t.Errorf("the identity is %s, want %s", id.URI, c.uri)
			}
			end := time.Now().Add(c.life)
			want := Identity{
				URI: id.URI, Serial: serialText(leaf.SerialNumber.Bytes()), Until: leaf.NotAfter, Provider: c.grant.Provider, ProviderSubject: c.grant.ProviderSubject,
				Groups: c.grant.Groups, Roles: c.grant.Roles, Machine: c.machine, Own: true,
			}
			if !reflect.DeepEqual(id, want) || !leaf.NotAfter.Equal(end.UTC().Truncate(time.Second)) {
				t.Errorf("%+v until %s, want %+v until %s", id, leaf.NotAfter, want, end)
			}
			if len(id.Serial) != 47 {
				t.Errorf("the serial number is %s", id.Serial)
			}
			time.Sleep(c.life - time.Second)
			if _, err := a.Verify(leaf, nil); err != nil {
				t.Error(err)
			}
			time.Sleep(2 * time.Second)
			_, err = a.Verify(leaf, nil)
			wantRefusal(t, err, KindExpired)
		}
	})
}

// TestVerifyOthers verifies certificates of another authority, most of which are not good.
func TestVerifyOthers(t *testing.T) {
	corp, unknown := newOther(t, nil), newOther(t, nil)
	forged := newOther(t, nil) // of the same name
	constrained := newOther(t, func(c *x509.Certificate) { c.PermittedURIDomains = []string{"corp.example.com"} })
	a, _ := opened(t)
	if err := a.Configure(Settings{Own: true, Roots: [][]byte{pemOf(corp.cert, constrained.cert)}}); err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	middle := corp.under(10)
	var long []*x509.Certificate
	deep := corp
	for i := range int64(12) {
		deep = deep.under(100 + i)
		long = append(long, deep.cert)
	}
	ops := Identity{Subject: "CN=ops,O=Example", Serial: "4d"}
	spiffe := func(all ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			for _, u := range all {
				c.URIs = append(c.URIs, uri(t, u))
			}
		}
	}
	for _, c := range []struct {
		about string
		leaf  *x509.Certificate
		chain []*x509.Certificate
		want  Identity
		kind  string
	}{
		{"good", corp.leaf(nil), nil, ops, ""},
		{"under a middle", middle.leaf(nil), []*x509.Certificate{middle.cert}, ops, ""},
		{"an ID", corp.leaf(spiffe("spiffe://corp.example.com/ns/a/sa/b")), nil, Identity{URI: "spiffe://corp.example.com/ns/a/sa/b", Subject: ops.Subject, Serial: "4d"}, ""},
		{"another URI", corp.leaf(spiffe("https://corp.example.com/")), nil, ops, ""},
		{"an ID with a query", corp.leaf(spiffe("spiffe://corp.example.com/a?b")), nil, ops, ""},
		{"an ID with dots", corp.leaf(spiffe("spiffe://corp.example.com/a/../b")), nil, ops, ""},
		{"an ID with an escape", corp.leaf(spiffe("spiffe://corp.example.com/a%2fb")), nil, ops, ""},
		{"an ID with a port", corp.leaf(spiffe("spiffe://corp.example.com:1/a")), nil, ops, ""},
		{"two IDs", corp.leaf(spiffe("spiffe://corp.example.com/a", "spiffe://corp.example.com/b")), nil, Identity{}, KindUnknown},
		{"an ID of ours", corp.leaf(spiffe("spiffe://example.org/user/admin1")), nil, Identity{}, KindUnknown},
		{"no name", corp.leaf(func(c *x509.Certificate) { c.Subject = pkix.Name{}; c.DNSNames = []string{"a"} }), nil, Identity{}, KindUnknown},
		{"without the middle", middle.leaf(nil), nil, Identity{}, KindUnknown},
		{"of an unknown authority", unknown.leaf(nil), []*x509.Certificate{unknown.cert}, Identity{}, KindUnknown},
		{"of a copied name", forged.leaf(nil), []*x509.Certificate{forged.cert}, Identity{}, KindUnknown},
		{"signed by itself", unknown.cert, nil, Identity{}, KindUnknown},
		{"an authority's", corp.cert, nil, Identity{}, KindUnknown},
		{"an authority's under it", middle.cert, nil, Identity{}, KindUnknown},
		{"a leaf's leaf", (&other{cert: corp.leafFor(unknown.key.Public(), nil), key: unknown.key, t: t}).leaf(nil), []*x509.Certificate{corp.leafFor(unknown.key.Public(), nil)}, Identity{}, KindUnknown},
		{"over", corp.leaf(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), nil, Identity{}, KindExpired},
		{"not yet", corp.leaf(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), nil, Identity{}, KindExpired},
		{"a server's", corp.leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), nil, Identity{}, KindUnknown},
		{"a short key", corp.leafFor(small.Public(), nil), nil, Identity{}, KindUnknown},
		{"a chain of 12", deep.leaf(nil), long, Identity{}, KindUnknown},
		{"against a constraint", constrained.leaf(spiffe("spiffe://elsewhere.example.com/a")), nil, Identity{}, KindUnknown},
		{"in a constraint", constrained.leaf(spiffe("spiffe://corp.example.com/a")), nil, Identity{URI: "spiffe://corp.example.com/a", Subject: ops.Subject, Serial: "4d"}, ""},
	} {
		t.Run(c.about, func(t *testing.T) {
			for range 2 { // the second time from memory
				id, err := a.Verify(c.leaf, c.chain)
				if c.kind != "" {
					wantRefusal(t, err, c.kind)
					continue
				}
				c.want.Until = c.leaf.NotAfter
				if err != nil || !reflect.DeepEqual(id, c.want) {
					t.Errorf("%+v, %v, want %+v", id, err, c.want)
				}
			}
		})
	}

	// What was good a moment ago is not, once it is not trusted any more.
	leaf, own := corp.leaf(nil), issued(t, a, Grant{Kind: User, Name: "admin1"})
	for _, l := range []*x509.Certificate{leaf, own} {
		if _, err := a.Verify(l, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Configure(Settings{}); err != nil {
		t.Fatal(err)
	}
	for _, l := range []*x509.Certificate{leaf, own} {
		_, err := a.Verify(l, nil)
		wantRefusal(t, err, KindUnknown)
	}
}

// TestVerifyForgotten verifies certificates that the authority's key has signed, and that are not on record.
func TestVerifyForgotten(t *testing.T) {
	a, key := opened(t)
	signer, err := parseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	same := &other{cert: a.Certificates()[0], key: signer, t: t}
	_, err = a.Verify(same.leaf(func(c *x509.Certificate) { c.URIs = []*url.URL{uri(t, "spiffe://example.org/user/admin1")} }), nil)
	wantRefusal(t, err, KindUnknown)
	// Number and name of one, with another key.
	known := issued(t, a, Grant{Kind: User, Name: "admin1"})
	_, err = a.Verify(same.leaf(func(c *x509.Certificate) { c.SerialNumber, c.URIs = known.SerialNumber, known.URIs }), nil)
	wantRefusal(t, err, KindUnknown)
	// The number of one, with the name of another.
	good := issued(t, a, Grant{Kind: User, Name: "guest"})
	_, err = a.Verify(same.leaf(func(c *x509.Certificate) {
		c.SerialNumber, c.URIs = good.SerialNumber, []*url.URL{uri(t, "spiffe://example.org/user/admin1")}
	}), nil)
	wantRefusal(t, err, KindUnknown)
}

// TestSubject shows certificates of another authority with subjects that are nearly the one of a role.
func TestSubject(t *testing.T) {
	a, _ := opened(t)
	o := newOther(t, nil)
	if err := a.Configure(Settings{Own: true, Roots: [][]byte{pemOf(o.cert)}}); err != nil {
		t.Fatal(err)
	}
	cn, org := asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.ObjectIdentifier{2, 5, 4, 10}
	for want, names := range map[string][]pkix.AttributeTypeAndValue{
		"CN=ops,O=Example":            {{Type: org, Value: "Example"}, {Type: cn, Value: "ops"}},
		"CN=ops,CN=mallory,O=Example": {{Type: org, Value: "Example"}, {Type: cn, Value: "mallory"}, {Type: cn, Value: "ops"}},
		"O=Example,CN=ops":            {{Type: cn, Value: "ops"}, {Type: org, Value: "Example"}},
		`CN=ops\,O=Example`:           {{Type: cn, Value: "ops,O=Example"}},
	} {
		var all pkix.RDNSequence
		for _, n := range names {
			all = append(all, pkix.RelativeDistinguishedNameSET{n})
		}
		raw, err := asn1.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		id, err := a.Verify(o.leaf(func(c *x509.Certificate) { c.RawSubject = raw }), nil)
		if err != nil || id.Subject != want {
			t.Errorf("%q, and not %q: %v", id.Subject, want, err)
		}
	}
}

func TestRoots(t *testing.T) {
	a, _ := opened(t)
	o := newOther(t, nil)
	for about, text := range map[string][]byte{
		"empty": nil, "no PEM": []byte("x"), "a leaf": pemOf(o.leaf(nil)), "a key": []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
		"garbage": []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
	} {
		if err := a.Configure(Settings{Own: true, Roots: [][]byte{pemOf(o.cert), text}}); err == nil {
			t.Errorf("%s: no error", about)
		}
		if n := len(a.Trust().Roots); n != 1 {
			t.Errorf("%s: %d authorities are good", about, n)
		}
	}
}

// TestLists verifies certificates with lists of revoked ones: good, too old, of somebody else, unreadable, and exchanged.
func TestLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		corp, forged := newOther(t, nil), newOther(t, nil)
		middle := corp.under(10)
		leaf, below := corp.leaf(nil), middle.leaf(nil)
		a, _ := opened(t)
		path := filepath.Join(t.TempDir(), "corp.crl")
		write := func(content []byte) {
			t.Helper()
			if err := os.WriteFile(path+".new", content, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}
		s := Settings{Own: true, Roots: [][]byte{pemOf(corp.cert)}, CRLFiles: []string{path}}
		want := func(about, kind string) {
			t.Helper()
			for _, c := range []struct {
				leaf  *x509.Certificate
				chain []*x509.Certificate
			}{{leaf, nil}, {below, []*x509.Certificate{middle.cert}}} {
				_, err := a.Verify(c.leaf, c.chain)
				if kind == "" && err != nil {
					t.Errorf("%s: %v", about, err)
				} else if kind != "" {
					wantRefusal(t, err, kind)
				}
			}
		}
		configure := func() {
			t.Helper()
			if err := a.Configure(s); err != nil {
				t.Fatal(err)
			}
		}
		configure()
		want("no file", KindStaleCRL)
		s.WarnStale = true
		configure()
		want("no file, warn", "")
		s.WarnStale = false
		write(corp.list(24 * time.Hour))
		configure()
		want("an empty list", "")
		for range 2 {
			write(corp.list(24*time.Hour, 77, 10)) // the leaf, and the authority in the middle
			want("before the file is looked at", "")
			a.Tick()
			want("revoked", KindRevoked)
			if n := len(a.Trust().Revoked); n != 2 {
				t.Errorf("the gateway hears of %d", n)
			}
			write(corp.list(24 * time.Hour))
			a.Tick()
			want("taken back", "")
		}
		write(forged.list(24*time.Hour, 77, 10))
		a.Tick()
		want("a list of somebody else of the same name", KindStaleCRL)
		for about, content := range map[string][]byte{"garbage": []byte("x"), "nothing": {}} {
			write(corp.list(24*time.Hour, 77, 10))
			a.Tick()
			write(content)
			a.Tick()
			want(about+" after a good one", KindRevoked)
			configure()
			want(about+" after a good one, reloaded", KindRevoked)
		}
		// The wrong file: of an authority that nobody here knows.
		write(corp.list(24*time.Hour, 77, 10))
		a.Tick()
		stranger := newOther(t, func(c *x509.Certificate) { c.Subject.CommonName = "Other CA" })
		write(stranger.list(24 * time.Hour))
		for range 2 {
			a.Tick()
			want("a list of somebody else after a good one", KindRevoked)
			configure()
			want("a list of somebody else after a good one, reloaded", KindRevoked)
		}
		if !errors.Is(a.lists[0].err, errUnsigned) {
			t.Errorf("a list of somebody else: %v", a.lists[0].err)
		}
		// Which is the right one as soon as its authority is known.
		known, theirs := s, stranger.leaf(nil)
		known.Roots = [][]byte{pemOf(corp.cert), pemOf(stranger.cert)}
		if err := a.Configure(known); err != nil {
			t.Fatal(err)
		}
		want("the list of the next authority", "")
		write(stranger.list(24*time.Hour, 77))
		a.Tick()
		_, err := a.Verify(theirs, nil)
		wantRefusal(t, err, KindRevoked)
		configure()
		write(corp.list(time.Hour))
		a.Tick()
		want("short", "")
		time.Sleep(time.Hour + time.Second)
		if _, err := a.Verify(leaf, nil); true {
			wantRefusal(t, err, KindStaleCRL)
		}
		s.WarnStale = true
		configure()
		want("too old, warn", "")
		s.CRLFiles = nil
		s.WarnStale = false
		configure()
		want("no lists", "")
		if own := issued(t, a, Grant{Kind: User, Name: "admin1"}); true {
			s.CRLFiles = []string{"/nowhere"}
			configure()
			if _, err := a.Verify(own, nil); err != nil {
				t.Errorf("an own certificate hangs on a list of others: %v", err)
			}
		}
	})
}

// TestListOfMiddle verifies against a list that an authority has signed which the client shows.
func TestListOfMiddle(t *testing.T) {
	corp := newOther(t, nil)
	middle := corp.under(10)
	a, _ := opened(t)
	path := filepath.Join(t.TempDir(), "middle.crl")
	if err := os.WriteFile(path, middle.list(time.Hour, 77), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.Configure(Settings{Roots: [][]byte{pemOf(corp.cert)}, CRLFiles: []string{path}}); err != nil {
		t.Fatal(err)
	}
	_, err := a.Verify(middle.leaf(nil), []*x509.Certificate{middle.cert})
	wantRefusal(t, err, KindRevoked)
	if _, err := a.Verify(corp.leaf(nil), nil); err != nil { // of another issuer, the same number
		t.Error(err)
	}
}

// TestVerifiedIsBounded shows more certificates than are remembered.
func TestVerifiedIsBounded(t *testing.T) {
	var v verified
	for i := range 3 * maxVerified {
		v.put([32]byte{byte(i), byte(i >> 8)}, v.now(), result{})
		if len(v.of) > maxVerified {
			t.Fatalf("%d are remembered", len(v.of))
		}
	}
	epoch := v.now()
	v.forget()
	v.put([32]byte{1}, epoch, result{until: time.Now().Add(time.Hour)}) // begun before
	if len(v.of) != 0 {
		t.Error("what was verified before a change is remembered after it")
	}
}

func FuzzList(f *testing.F) {
	o := newOther(f, nil)
	f.Add(o.list(time.Hour, 1, 2))
	f.Fuzz(func(t *testing.T, content []byte) {
		list, err := parseList(content)
		if err == nil && (list == nil || list.NextUpdate.IsZero()) {
			t.Error("a list without an end")
		}
	})
}

// TestPartialLists reads lists that are not about all certificates of their issuer, or do not say until when they are good.
func TestPartialLists(t *testing.T) {
	o := newOther(t, nil)
	make := func(change func(*x509.RevocationList)) []byte {
		t.Helper()
		l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
		change(l)
		der, err := x509.CreateRevocationList(rand.Reader, l, o.cert, o.key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	critical := func(last int) pkix.Extension {
		return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, last}, Critical: true, Value: []byte{0x30, 0x00}}
	}
	whole := make(func(*x509.RevocationList) {})
	for about, content := range map[string][]byte{"DER": whole, "PEM": pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: whole})} {
		if _, err := parseList(content); err != nil {
			t.Errorf("%s: %v", about, err)
		}
	}
	for about, content := range map[string][]byte{
		"a distribution point's": make(func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{critical(28)} }),
		"a delta":                make(func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{critical(27)} }),
		"of other issuers, too": make(func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(1), RevocationTime: time.Now(), ExtraExtensions: []pkix.Extension{critical(29)}}}
		}),
		"two in PEM":    slices.Repeat(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: whole}), 2),
		"a certificate": pemOf(o.cert), "half": whole[:len(whole)/2], "more": append(slices.Clone(whole), 0), "nothing": nil,
	} {
		if _, err := parseList(content); err == nil {
			t.Errorf("%s: no error", about)
		}
	}
}

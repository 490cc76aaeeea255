package gateway

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/packaging/testkit"
)

// Each certificate that is not good is refused in the handshake, with an alert that says to its holder what is wrong, and the engine is
// told.
func TestMutualRefuses(t *testing.T) {
	f := newRemoteFixture(t)
	ca := f.authority
	foreign := newPKI(t, "other.example.org")
	copied := rootOf(t, &x509.Certificate{RawSubject: ca.cert.RawSubject, SubjectKeyId: ca.cert.SubjectKeyId}) // the name of ours, another key
	rsaKey := func(bits int) crypto.Signer {
		t.Helper()
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	t.Setenv("GODEBUG", "rsa1024min=0")
	weak, short, medium := rsaKey(1024), rsaKey(2047), rsaKey(2048)
	usage := func(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = u }
	}
	chain := func(n int) tls.Certificate { // n authorities between the client and ours
		at := ca
		var sent [][]byte
		for i := range n {
			at = at.under(fmt.Sprint("between ", i))
			sent = append([][]byte{at.cert.Raw}, sent...)
		}
		c := at.client()
		c.Certificate = append(c.Certificate, sent...)
		return c
	}
	constrained := ca.issue(ecKey(t), func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "for others"}
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		c.PermittedURIDomains, c.PermittedDNSDomainsCritical = []string{"elsewhere.example.org"}, true
	})
	outside := (&pki{t: t, cert: constrained.Leaf, key: constrained.PrivateKey.(crypto.Signer)}).client()
	outside.Certificate = append(outside.Certificate, constrained.Leaf.Raw)
	revoked, between := ca.client(), ca.under("revoked")
	under := between.client()
	under.Certificate = append(under.Certificate, between.cert.Raw)
	trust := f.trusting(revoked)
	trust.Revoked = append(trust.Revoked, &rtaskv1.RevokedCertificates{Issuer: ca.keyHash(), Serials: [][]byte{between.cert.SerialNumber.Bytes()}})
	// The serial number of another issuer's certificate revokes nothing here.
	good := ca.client()
	trust.Revoked = append(trust.Revoked, &rtaskv1.RevokedCertificates{Issuer: foreign.keyHash(), Serials: [][]byte{good.Leaf.SerialNumber.Bytes()}})
	f.tell(trust)
	selfSigned := func() tls.Certificate {
		key := ecKey(t)
		template := &x509.Certificate{SerialNumber: serial(t), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), Subject: pkix.Name{CommonName: "alice"}}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	ed := func() crypto.Signer {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	long := ca.client(func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{strings.Repeat("x", 20<<10)} })
	longer := ca.client(func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{strings.Repeat("x", 60<<10)} })
	// A certificate of somebody else, without its key.
	stolen := ca.client()
	stolen.PrivateKey = ecKey(t)

	const missing, unknown, expired, bad = "certificate required", "unknown certificate authority", "expired certificate", "bad certificate"
	for name, c := range map[string]struct {
		certificates []tls.Certificate
		alert        string // "": it is let in
		kind         string // of what the engine is told; "": nothing
	}{
		"good":                        {[]tls.Certificate{good}, "", ""},
		"ed25519":                     {[]tls.Certificate{ca.issue(ed(), usage(x509.ExtKeyUsageClientAuth))}, "", ""},
		"rsa 2048":                    {[]tls.Certificate{ca.issue(medium, usage(x509.ExtKeyUsageClientAuth))}, "", ""},
		"for both ends":               {[]tls.Certificate{ca.issue(ecKey(t), usage(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth))}, "", ""},
		"a chain of 5":                {[]tls.Certificate{chain(4)}, "", ""},
		"none":                        {nil, missing, "certificate-missing"},
		"self-signed":                 {[]tls.Certificate{selfSigned()}, unknown, "certificate-unknown"},
		"a foreign authority":         {[]tls.Certificate{foreign.client()}, unknown, "certificate-unknown"},
		"our name with another key":   {[]tls.Certificate{copied.client()}, unknown, "certificate-unknown"},
		"expired":                     {[]tls.Certificate{ca.client(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })}, expired, "certificate-expired"},
		"not yet valid":               {[]tls.Certificate{ca.client(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })}, expired, "certificate-expired"},
		"for servers alone":           {[]tls.Certificate{ca.issue(ecKey(t), usage(x509.ExtKeyUsageServerAuth))}, bad, "certificate-bad"},
		"the authority itself":        {[]tls.Certificate{{Certificate: [][]byte{ca.cert.Raw}, PrivateKey: ca.key}}, bad, "certificate-bad"},
		"an authority below":          {[]tls.Certificate{{Certificate: [][]byte{between.cert.Raw}, PrivateKey: between.key}}, bad, "certificate-bad"},
		"rsa 1024":                    {[]tls.Certificate{ca.issue(weak, usage(x509.ExtKeyUsageClientAuth))}, bad, "certificate-bad"},
		"rsa 2047":                    {[]tls.Certificate{ca.issue(short, usage(x509.ExtKeyUsageClientAuth))}, bad, "certificate-bad"},
		"a chain of 6":                {[]tls.Certificate{chain(5)}, bad, "certificate-bad"},
		"a chain of 12":               {[]tls.Certificate{chain(11)}, bad, "certificate-bad"},
		"outside of name constraints": {[]tls.Certificate{outside}, bad, "certificate-bad"},
		"long":                        {[]tls.Certificate{long}, bad, "certificate-bad"},
		"too long to be read":         {[]tls.Certificate{longer}, "", "tls"},
		"revoked":                     {[]tls.Certificate{revoked}, bad, "certificate-revoked"},
		"below one that is revoked":   {[]tls.Certificate{under}, bad, "certificate-revoked"},
		"without its key":             {[]tls.Certificate{stolen}, "decrypt", "tls"},
	} {
		before := f.refusals()
		err := f.handshake(f.tls(c.certificates...))
		switch {
		case name == "too long to be read":
			if err == nil {
				t.Errorf("%s: it is let in", name)
			}
		case (err == nil) != (c.alert == "") || err != nil && !strings.Contains(err.Error(), c.alert):
			t.Errorf("%s: %v, want %q", name, err, c.alert)
		}
		if c.kind == "" {
			continue
		}
		testkit.Eventually(t, name+": the engine is told", func() bool { return f.refusals()[c.kind] == before[c.kind]+1 })
	}
	if weakness(p224.Public()) == "" || weakness(nil) == "" {
		t.Error("keys of other curves, and of no kind, are good")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, r := range f.refused {
		if f.from[i] != "127.0.0.1" || r.Reason == "" || len(r.Reason) > 1000 {
			t.Errorf("%s from %s: %s", r.Kind, f.from[i], r.Reason)
		}
	}
	if s := f.log.String(); strings.Contains(s, "level=ERROR") || strings.Contains(s, "handshake") {
		t.Errorf("logged\n%s", s)
	}
}

// A client that sends its request behind the handshake without waiting reads why that was refused.
func TestMutualAlertArrives(t *testing.T) {
	f := newRemoteFixture(t)
	for range 100 {
		c, err := tls.Dial("tcp", f.address, f.tls())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		for range 4 {
			if _, err := c.Write(make([]byte, 4<<10)); err != nil {
				t.Errorf("the connection was reset: %v", err)
			}
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "certificate required") {
			t.Errorf("%v", err)
		}
		c.Close()
	}
}

// What is no TLS 1.3 has no answer but an alert.
func TestMutualSpeaksTLS13(t *testing.T) {
	f := newRemoteFixture(t)
	old := f.tls(f.authority.client())
	old.MaxVersion = tls.VersionTLS12
	if err := f.handshake(old); err == nil || !strings.Contains(err.Error(), "protocol version not supported") {
		t.Errorf("TLS 1.2: %v", err)
	}
	testkit.Eventually(t, "the engine is told", func() bool { return f.refusals()["tls"] == 1 })
	for name, text := range map[string]string{
		"HTTP/1.1": "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "a byte": "\x00", "SSH": "SSH-2.0-x\r\n",
	} {
		before := f.refusals()["tls"]
		c, err := net.Dial("tcp", f.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(c); len(b) != 0 {
			t.Errorf("%s: answered with %q", name, b)
		}
		testkit.Eventually(t, name+": the engine is told", func() bool { return f.refusals()["tls"] == before+1 })
	}
	// What begins like TLS and is none.
	c, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "\x16GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(c); strings.Contains(string(b), "HTTP") || len(b) > 7 {
		t.Errorf("answered with %q", b)
	}
	// A client that trusts another authority than ours, or one that only looks whether somebody is there, was not refused.
	before := f.refusals()
	trusting := f.tls(f.authority.client())
	trusting.RootCAs = newPKI(t, "other").pool()
	if err := f.handshake(trusting); err == nil {
		t.Error("the client lets anybody in")
	}
	there, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	there.Close()
	if err := f.handshake(f.tls()); err == nil {
		t.Error("a client without a certificate is let in")
	}
	testkit.Eventually(t, "the engine is told of another one", func() bool { return f.refusals()["certificate-missing"] == 1 })
	if after := f.refusals()["tls"]; after > before["tls"]+1 { // what began like TLS
		t.Errorf("%d, and then %d", before["tls"], after)
	}
}

// A certificate that is revoked is not let in any more, and what its connections do ends within a second, that of others goes on.
// Nobody asks for it: the engine says it.
func TestMutualRevokes(t *testing.T) {
	f := newRemoteFixture(t)
	mine, other := f.authority.client(), f.authority.client()
	type following struct {
		name string
		err  chan error
	}
	var all []following
	begin := func(name string, c tls.Certificate) following {
		t.Helper()
		one := following{name, make(chan error, 1)}
		stream, err := f.jobs(f.transport(c), "grpc").StreamLogs(t.Context(), &rtaskv1.StreamLogsRequest{Job: "wait"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Receive(); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _, err := follow(stream)
			one.err <- err
		}()
		all = append(all, one)
		return one
	}
	mineOne, mineTwo, others := begin("mine", mine), begin("mine again", mine), begin("another's", other)
	f.tell(f.trusting(mine))
	for _, one := range []following{mineOne, mineTwo} {
		if err := <-one.err; err == nil {
			t.Errorf("%s: it ended well", one.name)
		}
	}
	if err := f.handshake(f.tls(mine)); err == nil || !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("it is let in again: %v", err)
	}
	if err := f.handshake(f.tls(other)); err != nil {
		t.Errorf("another one is not: %v", err)
	}
	select {
	case err := <-others.err:
		t.Errorf("another's stream has ended: %v", err)
	default:
	}
	// The authority is replaced by another one: nobody is known any more but those of the new one.
	next := newPKI(t, "next.example.org")
	trust := f.trusting()
	trust.Authorities = [][]byte{next.cert.Raw}
	f.tell(trust)
	if err := <-others.err; err == nil {
		t.Error("the stream of a client whose authority is not one any more ended well")
	}
	if err := f.handshake(f.tls(other)); err == nil || !strings.Contains(err.Error(), "unknown certificate authority") {
		t.Errorf("it is let in again: %v", err)
	}
	if err := f.handshake(f.tls(next.client())); err != nil {
		t.Errorf("a client of the next authority is not let in: %v", err)
	}
	testkit.Eventually(t, "closed connections are forgotten", func() bool {
		f.inner.mutual.mu.Lock()
		defer f.inner.mutual.mu.Unlock()
		return len(f.inner.mutual.open) == 0
	})
}

// While its connection ends, a revoked certificate has no more requests.
func TestMutualRevokedRequest(t *testing.T) {
	f := newRemoteFixture(t)
	mine := f.authority.client()
	jobs := f.jobs(f.transport(mine), "grpc")
	if _, err := jobs.Status(t.Context(), &rtaskv1.StatusRequest{Job: "x"}); err != nil {
		t.Fatal(err)
	}
	f.inner.mutual.mu.Lock()
	for _, s := range f.inner.mutual.open {
		s.refused = &refusal{kind: rtaskv1.KindCertificateRevoked, text: "it was revoked"}
	}
	f.inner.mutual.mu.Unlock()
	before := f.calls()
	if _, err := jobs.Status(t.Context(), &rtaskv1.StatusRequest{Job: "x"}); connect.CodeOf(err) != connect.CodeUnauthenticated || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("%v", err)
	}
	if f.calls() != before {
		t.Error("the engine was asked")
	}
}

// A gateway that nobody uses has no stream of Watch, and one whose stream ends opens another one while a request is under way, so that
// revocations are heard of.
func TestMutualWatches(t *testing.T) {
	f := newRemoteFixture(t)
	streams := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.watches
	}
	if n := streams(); n != 0 {
		t.Errorf("%d streams before anybody came", n)
	}
	stream, err := f.jobs(f.transport(f.authority.client()), "connect").StreamLogs(t.Context(), &rtaskv1.StreamLogsRequest{Job: "wait"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); err != nil {
		t.Fatal(err)
	}
	if n := streams(); n != 1 {
		t.Errorf("%d streams for one request", n)
	}
	w := f.inner.mutual.watch
	hang := func() { // the engine says nothing for too long
		w.mu.Lock()
		w.silence = time.Millisecond
		w.mu.Unlock()
	}
	hang()
	testkit.Eventually(t, "another stream is opened", func() bool { return streams() > 2 })
	w.mu.Lock()
	w.silence = longestSilence
	w.mu.Unlock()
	_ = stream.Close()
	testkit.Eventually(t, "nobody wants it any more", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.held == 0
	})
}

// No session is resumed, whatever happened since: openssl has no ticket to show.
func TestMutualResumesNothing(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("the tests need openssl")
	}
	f := newRemoteFixture(t)
	c := f.authority.client()
	dir := t.TempDir()
	path := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	ca := path("ca.pem", pemOf(t, nil, f.authority.cert.Raw))
	both := path("client.pem", pemOf(t, c.PrivateKey.(crypto.Signer), c.Certificate...))
	session := filepath.Join(dir, "session")
	connect := func(more ...string) string {
		t.Helper()
		cmd := exec.Command(openssl, append([]string{
			"s_client", "-connect", f.address, "-CAfile", ca, "-verify_return_error", "-cert", both, "-alpn", "http/1.1", "-ign_eof",
		}, more...)...)
		cmd.Stdin = strings.NewReader("GET /token HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		b, _ := cmd.CombinedOutput() // a refusal is its exit status
		return string(b)
	}
	first := connect("-sess_out", session)
	if !strings.Contains(first, "200 OK") || !strings.Contains(first, "Verify return code: 0 (ok)") {
		t.Fatalf("%s", first)
	}
	if strings.Contains(first, "Post-Handshake New Session Ticket") {
		t.Errorf("it got a ticket\n%s", first)
	}
	var resume []string
	if _, err := os.Stat(session); err == nil { // openssl has something that it takes for a session
		resume = []string{"-sess_in", session}
		if again := connect(resume...); strings.Contains(again, "Reused, TLS") || !strings.Contains(again, "200 OK") {
			t.Errorf("%s", again)
		}
	}
	next := newPKI(t, "next.example.org")
	trust := f.trusting()
	trust.Authorities = [][]byte{next.cert.Raw}
	f.tell(trust)
	testkit.Eventually(t, "the gateway was told", func() bool { return f.handshake(f.tls(c)) != nil })
	if out := connect(resume...); !strings.Contains(out, "alert unknown ca") || strings.Contains(out, "200 OK") || strings.Contains(out, "Reused, TLS") {
		t.Errorf("after its authority was replaced: %s", out)
	}
}

// The settings of HTTP/2 (RFC 9113, section 6.5), over TLS with a certificate: as many streams as Go's clients send at once.
func TestMutualSettings(t *testing.T) {
	f := newRemoteFixture(t)
	if n := remoteStreams; n < 100 {
		t.Errorf("%d streams", n)
	}
	c, err := tls.Dial("tcp", f.address, f.tls(f.authority.client()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := settings(t, c); got[0x3] != 128 || got[0x4] != 256<<10 || got[0x6] == 0 {
		t.Errorf("%v", got)
	}
	if p := c.ConnectionState().NegotiatedProtocol; p != "h2" {
		t.Errorf("%q", p)
	}
	// A stream whose client may still send is not ended by the clock, and HTTP/2 is not off.
	s := service{remote: f.inner}.server(slog.New(slog.DiscardHandler))
	if s.ReadTimeout != 0 || s.WriteTimeout != 0 || s.ReadHeaderTimeout == 0 || !s.Protocols.HTTP2() {
		t.Errorf("%+v", s)
	}
}

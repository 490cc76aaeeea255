package gateway

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/packaging/testkit"
)

// What the port cannot be served with is one line in the log, and each handshake ends with an alert.
func TestMutualUnserved(t *testing.T) {
	for name, c := range map[string]struct {
		credentials func(f *remoteFixture) string
		trust       func(f *remoteFixture) *rtaskv1.Trust
		want        string
	}{
		"no credentials": {func(*remoteFixture) string { return "" }, nil, "there are no credentials, remote.key is needed"},
		"no key":         {func(f *remoteFixture) string { return remoteCredentials(t, nil, nil) }, nil, "there is no credential remote.key"},
		"no key in it":   {func(f *remoteFixture) string { return remoteCredentials(t, []byte("s3cret"), nil) }, nil, "has no private key in PEM that can be used"},
		"half a key": {func(f *remoteFixture) string {
			return remoteCredentials(t, []byte("-----BEGIN PRIVATE KEY-----\nczNjcmV0\n-----END PRIVATE KEY-----\n"), nil)
		}, nil, "has no private key in PEM that can be used"},
		"another certificate": {func(f *remoteFixture) string {
			return remoteCredentials(t, pemOf(t, ecKey(t)), pemOf(t, nil, f.server.Certificate[0]))
		}, nil, "is not one of the key"},
		"off":      {nil, func(*remoteFixture) *rtaskv1.Trust { return &rtaskv1.Trust{} }, "there is no authority whose certificates are good"},
		"no chain": {nil, func(f *remoteFixture) *rtaskv1.Trust { trust := f.trusting(); trust.ServerChain = nil; return trust }, "has issued no certificate for the key"},
		"another key's chain": {nil, func(f *remoteFixture) *rtaskv1.Trust {
			trust := f.trusting()
			trust.ServerChain = f.authority.server().Certificate
			return trust
		}, "is not one of the key"},
		"no chain, but bytes": {nil, func(f *remoteFixture) *rtaskv1.Trust {
			trust := f.trusting()
			trust.ServerChain = [][]byte{{1}}
			return trust
		}, "cannot read the server's certificate"},
		"an authority of noise": {nil, func(f *remoteFixture) *rtaskv1.Trust {
			trust := f.trusting()
			trust.Authorities = append(trust.Authorities, []byte{1})
			return trust
		}, "the certificates of the authorities cannot be read"},
	} {
		f := newRemoteFixture(t)
		if c.trust != nil {
			f.tell(c.trust(f))
		}
		log, at := f.log, f.address
		if c.credentials != nil {
			log = &testkit.Logs{}
			all, _, _ := serveGateway(t, Options{
				Engine: filepath.Join(f.dir, "gateway.sock"), RemoteAddress: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(log, nil)), CredentialsDir: c.credentials(f),
			}, nil)
			at = all["remote"]
		}
		for range 3 {
			if _, err := tls.Dial("tcp", at, f.tls(f.authority.client())); err == nil || !strings.Contains(err.Error(), "internal error") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if got := log.String(); strings.Count(got, "level=ERROR") != 1 || !strings.Contains(got, "remote clients are not served") || !strings.Contains(got, c.want) || strings.Contains(got, "s3cret") {
			t.Errorf("%s: logged\n%s", name, got)
		}
		if n := len(f.refusals()); n != 0 {
			t.Errorf("%s: the engine was told of %d refusals", name, n)
		}
		if c.trust == nil {
			continue
		}
		f.tell(f.trusting()) // and now it is served, without a restart
		testkit.Eventually(t, name+": it is served", func() bool { return f.handshake(f.tls(f.authority.client())) == nil })
		if got := log.String(); !strings.Contains(got, "remote clients are served") {
			t.Errorf("%s: logged\n%s", name, got)
		}
	}
}

// A certificate of one's own PKI is shown in place of what the engine says.
func TestMutualOwnCertificate(t *testing.T) {
	f := newRemoteFixture(t)
	corp := newPKI(t, "corp.example.org")
	middle := corp.under("servers")
	own := middle.server()
	at, _, _ := serveGateway(t, Options{
		Engine: filepath.Join(f.dir, "gateway.sock"), RemoteAddress: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
		CredentialsDir: remoteCredentials(t, pemOf(t, own.PrivateKey.(crypto.Signer)), pemOf(t, nil, own.Certificate[0], middle.cert.Raw)),
	}, nil)
	c := f.tls(f.authority.client())
	c.RootCAs = corp.pool()
	conn, err := tls.Dial("tcp", at["remote"], c)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	// The same from a stream, as rtaskd run hands it over.
	at, _, _ = serveGateway(t, Options{
		Engine: filepath.Join(f.dir, "gateway.sock"), RemoteAddress: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
		RemoteKey: strings.NewReader(string(pemOf(t, own.PrivateKey.(crypto.Signer), own.Certificate[0], middle.cert.Raw))),
	}, nil)
	if conn, err = tls.Dial("tcp", at["remote"], c); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	// And the key in the form of SEC 1, as openssl ecparam writes it.
	der, err := x509.MarshalECPrivateKey(own.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	if key, err := privateKey(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})); err != nil || !key.Public().(*ecdsa.PublicKey).Equal(own.Leaf.PublicKey) {
		t.Errorf("%v", err)
	}
}

// A certificate that clients refuse is served, and said once in the log; with the next one all is well.
func TestMutualExpired(t *testing.T) {
	f := newRemoteFixture(t)
	key := f.server.PrivateKey.(crypto.Signer)
	good := f.trusting()
	for name, change := range map[string]func(*x509.Certificate){
		"has expired, on 2":     func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) },
		"is not valid before 2": func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) },
	} {
		bad := f.trusting()
		bad.ServerChain = f.authority.issue(key, change).Certificate
		f.tell(bad)
		testkit.Eventually(t, "the certificate is refused", func() bool { return f.handshake(f.tls(f.authority.client())) != nil })
		for range 3 {
			_ = f.handshake(f.tls(f.authority.client())) // the client refuses it
		}
		if got := f.log.String(); strings.Count(got, "level=ERROR") != strings.Count(got, "clients refuse it") || strings.Count(got, name) != 1 {
			t.Errorf("logged\n%s", got)
		}
		f.tell(good)
		testkit.Eventually(t, "the next one is not", func() bool { return f.handshake(f.tls(f.authority.client())) == nil })
	}
}

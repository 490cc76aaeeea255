package gateway

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rtask/rtask/daemon/logging"
	"github.com/rtask/rtask/packaging/testkit"
)

// certify makes a certificate for 127.0.0.1 that is valid for a time around now, and its key.
func certify(t *testing.T, from, to time.Duration) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

// credentials makes a folder of credentials; of what is nil there is none.
func credentials(t *testing.T, cert, key []byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range map[string][]byte{"https.cert": cert, "https.key": key} {
		if b == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// trusting is a client that trusts one certificate.
func trusting(t *testing.T, cert []byte, protocols ...func(*http.Protocols, bool)) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, Protocols: new(http.Protocols)}
	for _, p := range protocols {
		p(transport.Protocols, true)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func TestHTTPS(t *testing.T) {
	f := newFixture(t)
	cert, key := certify(t, -time.Hour, time.Hour)
	at := f.serve(Options{HTTPSAddress: "127.0.0.1:0", CredentialsDir: credentials(t, cert, key), Logger: slog.New(slog.DiscardHandler)}, nil)["https"]
	for version, c := range map[string]*http.Client{
		"HTTP/1.1": trusting(t, cert, (*http.Protocols).SetHTTP1), "HTTP/2.0": trusting(t, cert, (*http.Protocols).SetHTTP2),
	} {
		fresh := 0 // connections
		do := func(path, key, body string, header ...string) *http.Response {
			t.Helper()
			trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
				if !i.Reused {
					fresh++
				}
			}}
			r, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "POST", "https://"+at+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+key)
			for i := 0; i < len(header); i += 2 {
				r.Header.Set(header[i], header[i+1])
			}
			res, err := c.Do(r)
			if err != nil {
				t.Fatal(version, err)
			}
			b, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(version, err)
			}
			res.Body.Close()
			res.Body = io.NopCloser(bytes.NewReader(b))
			if res.Proto != version {
				t.Errorf("%s: %s", version, res.Proto)
			}
			return res
		}
		res := do("/tasks/hello", f.key, "Ada\n")
		if b, _ := io.ReadAll(res.Body); res.StatusCode != 200 || !strings.Contains(string(b), `"stdout":"hello Ada\n"`) {
			t.Errorf("%s: %d %s", version, res.StatusCode, b)
		}
		// Trailers of a stream, the bounds of a body and of a head: all as on the other port.
		res = do("/tasks/hello", f.key, "Ada\n", "Accept", "text/plain")
		if b, _ := io.ReadAll(res.Body); string(b) != "hello Ada\n" || res.Trailer.Get("Rtask-Status") != "success" {
			t.Errorf("%s: %q, %v", version, b, res.Trailer)
		}
		if version == "HTTP/1.1" { // over HTTP/2 Go's client does not even send it; curl does, in packaging/e2e
			if res = do("/tasks/hello", f.key, "", "X", strings.Repeat("x", 100<<10)); res.StatusCode != 431 {
				t.Errorf("a head of 100 KiB: %d", res.StatusCode)
			}
		}
		do("/tasks/hello", f.key, "")
		before := fresh
		if res = do("/tasks/count", f.key, strings.Repeat("x", 400<<10)); res.StatusCode != 413 {
			t.Errorf("%s: a body of 400 KiB: %d", version, res.StatusCode)
		}
		if res = do("/tasks/hello", "x", strings.Repeat("x", 1<<20)); res.StatusCode != 401 {
			t.Errorf("%s: %d", version, res.StatusCode)
		}
		if res = do("/wh/x", "", strings.Repeat("x", 1<<20)); res.StatusCode != 404 {
			t.Errorf("%s: %d", version, res.StatusCode)
		}
		// What is refused over HTTP/2 does not take the other requests of its connection with it.
		if do("/tasks/hello", f.key, ""); version == "HTTP/2.0" && fresh != before {
			t.Errorf("%d connections instead of one", fresh-before)
		}
	}
}

// The port speaks TLS 1.2 and 1.3 and resumes no session.
func TestTLS(t *testing.T) {
	f := newFixture(t)
	cert, key := certify(t, -time.Hour, time.Hour)
	both := io.MultiReader(bytes.NewReader(cert), bytes.NewReader(key)) // as rtaskd run hands them over
	at := f.serve(Options{HTTPSAddress: "127.0.0.1:0", Certificate: both, Logger: slog.New(slog.DiscardHandler)}, nil)["https"]
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	cache := tls.NewLRUClientSessionCache(10)
	for version, good := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		for range 2 {
			c, err := tls.Dial("tcp", at, &tls.Config{RootCAs: pool, MinVersion: version, MaxVersion: version, ClientSessionCache: cache})
			if (err == nil) != good {
				t.Errorf("%s: %v", tls.VersionName(version), err)
			}
			if err != nil {
				continue
			}
			if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(c) // tickets come with it
			if err != nil || !bytes.HasSuffix(b, []byte("ok\n")) || c.ConnectionState().DidResume {
				t.Errorf("%s: %q, %v, resumed %v", tls.VersionName(version), b, err, c.ConnectionState().DidResume)
			}
			c.Close()
		}
	}
	if c, err := tls.Dial("tcp", at, &tls.Config{RootCAs: pool, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}, MaxVersion: tls.VersionTLS12}); err == nil {
		c.Close()
		t.Error("it speaks without forward secrecy")
	}

	// The settings of HTTP/2 (RFC 9113, sections 3.4 and 6.5).
	c, err := tls.Dial("tcp", at, &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := settings(t, c)
	for id, want := range map[uint16]uint32{0x3: 64, 0x4: 128 << 10, 0x5: 16 << 10} { // streams, window, frame
		if got[id] != want {
			t.Errorf("setting %d is %d, want %d", id, got[id], want)
		}
	}
}

// settings begins HTTP/2 on a connection and returns what the server says of it.
func settings(t *testing.T, c net.Conn) map[uint16]uint32 {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 9)
	if _, err := io.ReadFull(c, head); err != nil || head[3] != 4 {
		t.Fatalf("% x, %v", head, err)
	}
	payload := make([]byte, int(head[1])<<8|int(head[2]))
	if _, err := io.ReadFull(c, payload); err != nil {
		t.Fatal(err)
	}
	got := map[uint16]uint32{}
	for ; len(payload) >= 6; payload = payload[6:] {
		got[binary.BigEndian.Uint16(payload)] = binary.BigEndian.Uint32(payload[2:])
	}
	return got
}

// What strangers send behind the handshake is nothing to log, but what goes wrong here is.
func TestComplaints(t *testing.T) {
	f := newFixture(t)
	cert, key := certify(t, -time.Hour, time.Hour)
	var log, all testkit.Logs
	both := slog.New(slog.NewMultiHandler(
		slog.NewTextHandler(&log, nil), slog.NewTextHandler(&all, &slog.HandlerOptions{Level: slog.LevelDebug})))
	at := f.serve(Options{HTTPSAddress: "127.0.0.1:0", CredentialsDir: credentials(t, cert, key), Logger: both}, nil)["https"]
	for _, text := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n        ",                                                                 // no preface
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x01",                                      // SETTINGS of a stream
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x00\x05\x00\x00\x00\x00x", // HEADERS of stream 0
	} {
		c, err := tls.Dial("tcp", at, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.Copy(io.Discard, c) // until it is closed
	}
	testkit.Eventually(t, "net/http complains", func() bool { return strings.Contains(all.String(), "level=DEBUG msg=\"http2: ") })
	l := logging.ForServer(both).Writer()
	for _, text := range []string{"http: panic serving 192.0.2.7:1: x\n", "http2: panic serving 192.0.2.7:1: x\n", "http: Accept error: x; retrying in 5ms\n"} {
		if n, err := l.Write([]byte(text)); n != len(text) || err != nil || !strings.Contains(log.String(), strings.TrimSpace(text)) {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
	if got := log.String(); strings.Count(got, "level=WARN") != 3 || strings.Contains(got, "preface") || strings.Contains(got, "connection error") {
		t.Errorf("logged\n%s", got)
	}
}

// A certificate that cannot be used is one line in the log, and holds back nothing else.
func TestBadCertificate(t *testing.T) {
	f := newFixture(t)
	cert, key := certify(t, -time.Hour, time.Hour)
	_, other := certify(t, -time.Hour, time.Hour)
	old, oldKey := certify(t, -2*time.Hour, -time.Hour)
	young, youngKey := certify(t, time.Hour, 2*time.Hour)
	for name, c := range map[string]struct {
		cert, key []byte
		want      string
		served    bool
	}{
		"none":            {nil, nil, "there is no credential https.cert", false},
		"no key":          {cert, nil, "there is no credential https.key", false},
		"another's key":   {cert, other, "private key does not match public key", false},
		"swapped":         {key, cert, "PEM inputs may have been switched", false},
		"no certificate":  {[]byte("x"), key, "certificate input", false},
		"an empty key":    {cert, []byte{}, "key input", false},
		"half":            {cert[:len(cert)/2], key, "certificate input", false},
		"expired":         {old, oldKey, "has expired, on 2", true},
		"not yet valid":   {young, youngKey, "is not valid before 2", true},
		"a wrong PEM key": {cert, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "failed to parse private key", false},
	} {
		var log testkit.Logs
		at := f.serve(Options{
			APIAddress: "127.0.0.1:0", HTTPSAddress: "127.0.0.1:0", CredentialsDir: credentials(t, c.cert, c.key), Logger: log.Logger(),
		}, nil)
		_, err := trusting(t, c.cert, (*http.Protocols).SetHTTP2).Get("https://" + at["https"] + "/healthz")
		if err == nil || c.served != strings.Contains(err.Error(), "certificate has expired or is not yet valid") || !c.served && !strings.Contains(err.Error(), "internal error") {
			t.Errorf("%s: %v", name, err)
		}
		if _, port, _ := net.SplitHostPort(at["api"]); !healthy(port) {
			t.Errorf("%s: the API is not served", name)
		}
		got := log.String()
		if strings.Count(got, "level=ERROR") != 1 || !strings.Contains(got, c.want) || strings.Contains(got, "serving what=https") != c.served || strings.Contains(got, "AAAA") {
			t.Errorf("%s: logged\n%s", name, got)
		}
		if strings.Contains(got, "handshake") {
			t.Errorf("%s: what strangers do on the port is logged:\n%s", name, got)
		}
	}
	// One that expires meanwhile is an error then.
	var later testkit.Logs
	soon, soonKey := certify(t, -time.Hour, 3*time.Second)
	f.serve(Options{HTTPSAddress: "127.0.0.1:0", CredentialsDir: credentials(t, soon, soonKey), Logger: later.Logger()}, nil)
	testkit.Eventually(t, "it is logged that a certificate has expired", func() bool { return strings.Contains(later.String(), "has expired, on 2") })
	// Without a socket for HTTPS, that there is no certificate is nothing to complain of.
	var log testkit.Logs
	f.serve(Options{APIAddress: "127.0.0.1:0", Logger: log.Logger()}, nil)
	if strings.Contains(log.String(), "HTTPS") {
		t.Errorf("logged\n%s", log.String())
	}
	// A port that is taken holds back nothing, either.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := f.serve(Options{APIAddress: "127.0.0.1:0", HTTPSAddress: l.Addr().String(), CredentialsDir: credentials(t, cert, key), Logger: log.Logger()}, nil)
	if _, port, _ := net.SplitHostPort(at["api"]); !healthy(port) || at["https"] != "" || !strings.Contains(log.String(), "address already in use") {
		t.Errorf("%v, logged\n%s", at, log.String())
	}
}

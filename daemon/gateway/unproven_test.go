package gateway

import (
	"context"
	"crypto"
	"crypto/tls"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// A client of TLS 1.3 takes the handshake for over when it has sent its part, and sends requests behind it. It can do so until it has
// read why it was refused: the gateway does not reset the connection, of which clients would tell instead.
func TestMutualRefusalIsRead(t *testing.T) {
	f := newRemoteFixture(t)
	raw, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	config := f.tls()
	config.ServerName = "127.0.0.1"
	c := tls.Client(raw, config)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("a client without a certificate reads: %v", err)
	}
	for range 50 {
		if _, err := raw.Write(make([]byte, 100)); err != nil {
			t.Fatalf("the rest of a request: %v", err)
		}
		time.Sleep(2 * time.Millisecond) // for a reset to come
	}
}

// A client whose key share is of a group that is not known here is asked for another one (RFC 8446, section 4.1.4), and is served. What
// the server sends then, HelloRetryRequest and six bytes of ChangeCipherSpec, ends no connection.
func TestMutualAsksForAnotherKeyShare(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("the tests need openssl")
	}
	f := newRemoteFixture(t)
	f.enrol = func(context.Context, *rtaskv1.EnrollRequest) (*rtaskv1.EnrollResponse, error) {
		return &rtaskv1.EnrollResponse{Status: 200, ContentType: "application/json", Body: []byte("{}")}, nil
	}
	c := f.authority.client()
	dir := remoteCredentials(t, pemOf(t, c.PrivateKey.(crypto.Signer), c.Certificate...), pemOf(t, nil, f.authority.cert.Raw))
	for protocol, request := range map[string]string{"http/1.1": "GET /token", enrollProtocol: "GET /ca"} {
		cmd := exec.Command(openssl, "s_client", "-connect", f.address, "-groups", "X448:X25519", "-msg", "-alpn", protocol, "-ign_eof",
			"-verify_return_error", "-CAfile", filepath.Join(dir, "remote.cert"), "-cert", filepath.Join(dir, "remote.key"))
		cmd.Stdin = strings.NewReader(request + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		b, _ := cmd.CombinedOutput() // a refusal is its exit status
		if out := string(b); !strings.Contains(out, "200 OK") || strings.Count(out, "ClientHello") != 2 {
			t.Errorf("%s:\n%s", protocol, out)
		}
	}
}

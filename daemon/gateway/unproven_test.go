package gateway

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"
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

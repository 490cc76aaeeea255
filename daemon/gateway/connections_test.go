package gateway

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// queue is a listener whose connections come from addresses of a test's choice.
type queue struct{ from []string }

func (q *queue) Accept() (net.Conn, error) {
	if len(q.from) == 0 {
		return nil, errors.New("no more")
	}
	c, _ := net.Pipe()
	a := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(q.from[0]))
	q.from = q.from[1:]
	return &from{c, a}, nil
}
func (*queue) Close() error   { return nil }
func (*queue) Addr() net.Addr { return nil }

type from struct {
	net.Conn
	addr net.Addr
}

func (f *from) RemoteAddr() net.Addr { return f.addr }

// One client does not take all connections, all clients together not more than there are, and what is closed is free again.
func TestConnections(t *testing.T) {
	q := &queue{from: []string{
		"192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3", "[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "127.0.0.1:1", "127.0.0.1:2",
		"127.0.0.1:3", "[::1]:1", "192.0.2.9:1", "192.0.2.8:1",
	}}
	l := capped(q, 9, 2)
	var got []net.Conn
	for {
		c, err := l.Accept()
		if err != nil {
			break
		}
		got = append(got, c)
	}
	var addresses []string
	for _, c := range got {
		addresses = append(addresses, c.RemoteAddr().String())
	}
	want := []string{"192.0.2.1:1", "192.0.2.1:2", "[2001:db8::1]:1", "[2001:db8::2]:1", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "[::1]:1", "192.0.2.9:1"}
	if len(addresses) != len(want) {
		t.Fatalf("%v, want %v", addresses, want)
	}
	for i := range want {
		if addresses[i] != want[i] {
			t.Errorf("%s, want %s", addresses[i], want[i])
		}
	}
	for range 2 { // twice counts once
		got[0].Close()
	}
	q.from = []string{"192.0.2.1:4", "192.0.2.1:5"}
	if c, err := l.Accept(); err != nil || c.RemoteAddr().String() != "192.0.2.1:4" {
		t.Errorf("%v, %v", c, err)
	}
	if c, err := l.Accept(); err == nil {
		t.Errorf("%v is let in", c.RemoteAddr())
	}
	for _, c := range got {
		c.Close()
	}
	if l.all != 1 || len(l.open) != 1 {
		t.Errorf("%d, %v", l.all, l.open)
	}
}

// The client of the newest connection has a second for its first request when the gateway stops.
func TestStopWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := capped(&queue{from: []string{"192.0.2.1:1", "192.0.2.1:2"}}, 9, 9)
		if d := l.stop(); d != 0 {
			t.Errorf("without a connection %v", d)
		}
		var open []net.Conn
		for range 2 {
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
			time.Sleep(300 * time.Millisecond)
		}
		if d := l.stop(); d != 700*time.Millisecond {
			t.Errorf("%v", d)
		}
		if time.Sleep(time.Minute); l.stop() != 0 {
			t.Error("connections are waited for that had their time")
		}
		for _, c := range open {
			c.Close()
		}
	})
}

// What is said last reaches a client that is still sending: net/http ends its side first, where a connection can do that.
func TestCloseWrite(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	client, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := capped(inner, 9, 9).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w, ok := c.(interface{ CloseWrite() error })
	if !ok {
		t.Fatalf("a %T cannot", c)
	}
	if err := w.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := client.Read(b); err != io.EOF {
		t.Errorf("the client reads %v", err)
	}
	if _, err := client.Write(b); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(b); err != nil {
		t.Errorf("what the client still sends: %v", err)
	}
}

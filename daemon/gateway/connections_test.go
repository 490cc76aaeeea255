package gateway

import (
	"errors"
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

package e2e

import (
	"crypto/tls"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// held are the connections that hold made.
type held struct {
	conns []net.Conn
	ended []chan struct{} // of each: closed when it has ended
	wg    sync.WaitGroup
}

// heldKey is where a script's are kept.
type heldKey struct{}

// hold [-from ADDRESS] N URL [TEXT] opens N connections to a server, sends TEXT on each (a Go string without its quotes), goes
// on sending a letter now and then, and keeps them until the script ends, as clients do that are to wear a server out.
// Without TEXT it sends nothing. A connection that the server does not take, or has closed before it was set up, counts.
func hold(ts *testscript.TestScript, neg bool, args []string) {
	from := ""
	if len(args) > 1 && args[0] == "-from" {
		from, args = args[1], args[2:]
	}
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: hold [-from ADDRESS] N URL [TEXT]")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	u, err := url.Parse(args[1])
	ts.Check(err)
	text := ""
	if len(args) == 3 {
		text, err = strconv.Unquote(`"` + args[2] + `"`)
		ts.Check(err)
	}
	h, _ := ts.Value(heldKey{}).(*held)
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	for range n {
		c, err := dialer.Dial("tcp", u.Host)
		ts.Check(err)
		if u.Scheme == "https" && text != "" {
			c = tls.Client(c, &tls.Config{InsecureSkipVerify: true}) // it is after no answer
		}
		ended := make(chan struct{})
		h.conns, h.ended = append(h.conns, c), append(h.ended, ended)
		h.wg.Go(func() {
			defer close(ended)
			if text == "" {
				_, _ = c.Read(make([]byte, 1)) // until either end closes
				return
			}
			more := []byte(text)
			for {
				if _, err := c.Write(more); err != nil {
					return
				}
				more = []byte("a")
				time.Sleep(200 * time.Millisecond)
			}
		})
	}
}

// held-to N waits until the server has closed all connections that hold made but for the last N, and those must still be open.
func heldTo(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: held-to N")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	h, _ := ts.Value(heldKey{}).(*held)
	if len(h.ended) <= n {
		ts.Fatalf("there are no more than %d connections", len(h.ended))
	}
	first := len(h.ended) - n
	late := time.After(2 * time.Minute)
	for i, ended := range h.ended[:first] {
		select {
		case <-ended:
		case <-late:
			ts.Fatalf("the server keeps connection %d", i+1)
		}
	}
	for i, ended := range h.ended[first:] {
		select {
		case <-ended:
			ts.Fatalf("the server has closed connection %d, for which there was room", first+i+1)
		default:
		}
	}
}

// held-closed waits until the server has closed every connection that hold made.
func heldClosed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: held-closed")
	}
	h, _ := ts.Value(heldKey{}).(*held)
	done := make(chan struct{})
	go func() { h.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		ts.Fatalf("the server keeps connections of clients that never come to an end")
	}
}

// holdings prepares a script for hold.
func holdings(e *testscript.Env) {
	h := &held{}
	e.Values[heldKey{}] = h
	e.Defer(func() {
		for _, c := range h.conns {
			_ = c.Close() // the server may have done so
		}
		h.wg.Wait()
	})
}

// serve-while N COMMAND… runs a command N times, one after the other, and each must succeed and say "status":"success".
func serveWhile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: serve-while N COMMAND…")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	for i := range n {
		ts.Check(ts.Exec(args[1], args[2:]...))
		if out := ts.ReadFile("stdout"); !strings.Contains(out, `"status":"success"`) {
			ts.Fatalf("time %d: %s", i+1, out)
		}
	}
}

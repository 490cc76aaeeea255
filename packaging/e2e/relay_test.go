package e2e

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// relay is a socket in front of the engine's, or a port in front of the gateway's, whose connections break off: what is behind it is the
// engine itself.
type relay struct {
	network, to string

	mu sync.Mutex // guards what follows
	// breakAfter is how many bytes of the engine's the next connection carries before it breaks off; 0: any number.
	breakAfter, breakMost int
	broken                int
	// asked are the connections whose client waits for an answer.
	asked map[net.Conn]bool
}

// relays are a script's, by path.
type relays struct {
	all map[string]*relay
}

type relaysKey struct{}

// startRelay is the command relay PATH BYTES MOST: a socket at PATH that leads to $RTASK_SOCKET. Its first connection breaks off
// after BYTES of the engine's, the next after twice as many, and so on up to MOST; then it carries everything. The command
// relay VAR BYTES MOST ADDRESS is the same for a port of this machine that leads to ADDRESS; its number is in VAR.
func startRelay(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 && len(args) != 4 {
		ts.Fatalf("usage: relay PATH BYTES MOST, or relay VAR BYTES MOST ADDRESS")
	}
	bytes, err := strconv.Atoi(args[1])
	ts.Check(err)
	most, err := strconv.Atoi(args[2])
	ts.Check(err)
	r := &relay{network: "unix", to: ts.Getenv("RTASK_SOCKET"), breakAfter: bytes, breakMost: most, asked: map[net.Conn]bool{}}
	at := ts.MkAbs(args[0])
	if len(args) == 4 {
		r.network, r.to, at = "tcp", args[3], "127.0.0.1:0"
	}
	l, err := net.Listen(r.network, at)
	ts.Check(err)
	if address, ok := l.Addr().(*net.TCPAddr); ok {
		ts.Setenv(args[0], strconv.Itoa(address.Port))
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { r.serve(c) })
		}
	})
	ts.Defer(func() {
		_ = l.Close() // it was open
		r.closeAll()
		wg.Wait()
	})
	ts.Value(relaysKey{}).(*relays).all[filepath.Base(args[0])] = r
}

// serve carries bytes both ways until either end, or r, has enough.
func (r *relay) serve(client net.Conn) {
	defer client.Close()
	engine, err := net.Dial(r.network, r.to)
	if err != nil {
		return
	}
	defer engine.Close()
	r.mu.Lock()
	left := r.breakAfter
	if r.breakAfter *= 2; r.breakAfter > r.breakMost {
		r.breakAfter = 0
	}
	r.asked[client] = false
	r.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer engine.Close()
		_, _ = io.Copy(engine, noting{client, func(int) { r.note(client, true) }})
	})
	limited := io.Reader(engine)
	if left > 0 {
		limited = io.LimitReader(engine, int64(left))
	}
	n, _ := io.Copy(client, noting{limited, func(int) { r.note(client, false) }})
	_ = client.Close() // ends the other way, too
	wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if left > 0 && n == int64(left) {
		r.broken++
	}
	delete(r.asked, client)
}

func (r *relay) note(c net.Conn, asked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, open := r.asked[c]; open {
		r.asked[c] = asked
	}
}

func (r *relay) closeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.asked {
		_ = c.Close() // its end may have gone already
	}
}

// noting tells of every piece that is read.
type noting struct {
	io.Reader
	each func(int)
}

// Read implements io.Reader.
func (n noting) Read(p []byte) (int, error) {
	k, err := n.Reader.Read(p)
	if k > 0 {
		n.each(k)
	}
	return k, err
}

// cut PATH breaks off a connection of a relay whose client waits for an answer, once there is one.
func cut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: cut PATH")
	}
	r := ts.Value(relaysKey{}).(*relays).all[args[0]]
	try := func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		for c, asked := range r.asked {
			if asked {
				return c.Close()
			}
		}
		return errors.New("nobody waits for an answer")
	}
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	ts.Check(err)
}

// broke PATH N checks that at least N connections of a relay broke off by themselves.
func broke(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: broke PATH N")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	r := ts.Value(relaysKey{}).(*relays).all[args[0]]
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken < n {
		ts.Fatalf("%d connections broke off", r.broken)
	}
}

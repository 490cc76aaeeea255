package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// nowhere is a connection that takes no deadlines.
type nowhere struct{}

func (nowhere) SetReadDeadline(time.Time) error { return errors.ErrUnsupported }

// pieces is a body that comes in pieces of one size, each after a pause, and then nothing more until the deadline.
type pieces struct {
	size, left int
	pause      time.Duration
	rest       int // of a piece that came
	deadline   time.Time
}

func (p *pieces) SetReadDeadline(t time.Time) error {
	p.deadline = t
	return nil
}

func (p *pieces) Read(b []byte) (int, error) {
	wait := p.pause
	switch {
	case p.rest > 0:
		wait = 0
	case p.left == 0:
		wait = time.Hour
	}
	if until := time.Until(p.deadline); wait >= until {
		time.Sleep(until)
		return 0, os.ErrDeadlineExceeded
	}
	if p.rest == 0 {
		time.Sleep(wait)
		p.rest = p.size
		p.left--
	}
	n := min(p.rest, len(b))
	p.rest -= n
	return n, nil
}

func TestReadBody(t *testing.T) {
	for _, c := range []struct {
		body        string
		size, limit int64
		want        string
		err         error
	}{
		{"abc", 3, 3, "abc", nil}, {"abc", -1, 3, "abc", nil}, {"abcd", -1, 3, "", errTooLong}, {"", 0, 0, "", nil}, {"", -1, 0, "", nil},
		{"a", -1, 0, "", errTooLong}, {"ab", 3, 3, "", io.ErrUnexpectedEOF}, {strings.Repeat("x", 100_000), 100_000, 1 << 20, strings.Repeat("x", 100_000), nil},
		{strings.Repeat("x", 1<<20), -1, 1 << 20, strings.Repeat("x", 1<<20), nil}, {strings.Repeat("x", 1<<20+1), -1, 1 << 20, "", errTooLong},
	} {
		r := newMemory(0)
		got, held, err := r.read(nowhere{}, bytes.NewBufferString(c.body), "a", c.size, c.limit)
		if !errors.Is(err, c.err) || string(got) != c.want {
			t.Errorf("%d bytes of %d, at most %d: %d bytes, %v", len(c.body), c.size, c.limit, len(got), err)
		}
		if held != nil {
			if c.size >= 0 && bodyMemory-r.free != c.size || c.size < 0 && bodyMemory-r.free > max(firstPiece, 2*int64(len(got))) {
				t.Errorf("%d bytes take up %d", len(got), bodyMemory-r.free)
			}
			held.leave()
			held.leave()
		}
		empty(t, r)
	}
}

// empty checks that all room is free again.
func empty(t *testing.T, r *memory) {
	t.Helper()
	if r.free != bodyMemory || len(r.senders) != 0 || len(r.reading[0])+len(r.reading[1]) != 0 {
		t.Errorf("%d of %d bytes are free, %d senders and %d that are read are left", r.free, bodyMemory, len(r.senders), len(r.reading[0])+len(r.reading[1]))
	}
}

// A body has ten seconds, and one more for each 64 KiB that came. What was announced is no matter.
func TestSlowBody(t *testing.T) {
	for _, c := range []struct {
		body pieces
		err  error
		took time.Duration
	}{
		{pieces{size: 1, left: 1}, errSlow, bodyGrace},
		{pieces{size: 1, left: 1 << 20, pause: time.Second / 2}, errSlow, bodyGrace},
		{pieces{size: 2 * bodyRate, left: 8, pause: time.Second}, nil, 8 * time.Second},
		{pieces{size: bodyRate, left: 16, pause: 3 * time.Second / 2}, nil, 24 * time.Second},
		{pieces{size: bodyRate, left: 16, pause: 2 * time.Second}, errSlow, 18 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			r, began, body := newMemory(0), time.Now(), c.body
			_, held, err := r.read(&body, &body, "a", 1<<20, 1<<20)
			if took := time.Since(began).Round(time.Second); !errors.Is(err, c.err) || took != c.took || (err == nil) != body.deadline.IsZero() || time.Until(body.deadline) > lingerTime {
				t.Errorf("%+v: %v after %v", c.body, err, took)
			}
			if held != nil {
				held.leave()
			}
			empty(t, r)
		})
	}
}

// A client whose body was refused does not keep its connection by sending the rest of it slowly.
func TestRestOfBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		theirs, ours := net.Pipe()
		o := once{conns: make(chan net.Conn, 1)}
		o.conns <- ours
		s := service{handler: newAPI(&stub{}, slog.New(slog.DiscardHandler))}.server(slog.New(slog.DiscardHandler))
		served := make(chan error)
		go func() { served <- s.Serve(o) }()
		began, ended := time.Now(), make(chan time.Duration)
		go func() {
			_, _ = io.Copy(io.Discard, theirs) // the reply, and then the end
			ended <- time.Since(began)
		}()
		if _, err := io.WriteString(theirs, "POST /tasks/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nContent-Length: 9000\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		var sender sync.WaitGroup
		sender.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Second / 5):
					_, _ = theirs.Write([]byte("a")) // until it is closed
				}
			}
		})
		if took := <-ended; took > bodyGrace+10*time.Second {
			t.Errorf("the connection ended after %v", took)
		}
		theirs.Close()
		close(stop)
		sender.Wait()
		close(o.conns)
		<-served
		_ = s.Close()
	})
}

// waiting is a body of which so many bytes are there, and no more come until it is woken.
type waiting struct {
	left  int
	came  chan struct{} // closed when all of it was read
	woken chan struct{}
	ended chan error // how its reading ended
}

func newWaiting(n int) *waiting {
	return &waiting{left: n, came: make(chan struct{}), woken: make(chan struct{}), ended: make(chan error, 1)}
}

func (w *waiting) SetReadDeadline(t time.Time) error {
	if t.Equal(time.Unix(1, 0)) {
		close(w.woken)
	}
	return nil
}

func (w *waiting) Read(b []byte) (int, error) {
	if w.left == 0 {
		close(w.came)
		<-w.woken
		return 0, os.ErrDeadlineExceeded
	}
	n := min(len(b), w.left)
	w.left -= n
	return n, nil
}

// Room is for bytes that came. When it is full, whoever has most of it makes room, and not who has little, or was good lately.
func TestBodyRoom(t *testing.T) {
	r := newMemory(bodyMemory / 4)
	var all []*waiting
	// begin has a client send n bytes of a large body, and then no more.
	begin := func(who any, n int) *waiting {
		w := newWaiting(n)
		go func() {
			_, held, err := r.read(w, w, who, 25<<20, 25<<20)
			if held != nil {
				held.leave()
			}
			w.ended <- err
		}()
		select {
		case <-w.came:
			all = append(all, w)
			return w
		case err := <-w.ended:
			if !errors.Is(err, errFull) {
				t.Error(err)
			}
			return nil
		}
	}
	from := func(i int) netip.Prefix { return clientOf(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})) }
	good := from(60_000)
	r.praise(good)
	r.praise("not an address")
	if len(r.good) != 1 {
		t.Errorf("%v", r.good)
	}

	// Bodies of which one byte came take up little, however large they are.
	for i := range 1000 {
		if begin(from(i%100), 1) == nil {
			t.Fatal("no room for a byte")
		}
	}
	if used := bodyMemory - r.free; used != 1000*firstPiece {
		t.Errorf("1,000 bytes take up %d", used)
	}
	// One client has half at most, and so many bodies at most.
	var big []*waiting
	for {
		w := begin(from(200), 8<<20-1)
		if w == nil {
			break
		}
		big = append(big, w)
	}
	if n := len(big); n != bodyMemory/2/(8<<20) {
		t.Errorf("one client has %d times 8 MiB", n)
	}
	// Another one takes what is left, but for what is kept.
	second := begin(from(201), 8<<20-1)
	third := begin(from(202), 16<<20-1)
	if second == nil || third == nil {
		t.Fatal("no room for another client")
	}
	// A client that sends more than the others is refused. One that sends less gets room: the client with the most loses its oldest body.
	lost := func(w *waiting) bool {
		select {
		case <-w.woken:
			return true
		default:
			return false
		}
	}
	if begin(from(203), 24<<20) == nil {
		t.Error("one with less than the largest has no room")
	}
	if !lost(big[0]) || lost(big[len(big)-1]) || lost(second) || lost(third) {
		t.Error("another one than the oldest body of the largest client makes room")
	}
	small := 0
	for _, w := range all[:1000] {
		if lost(w) {
			small++
		}
	}
	if small > 0 {
		t.Errorf("%d small bodies made room", small)
	}
	// Who was good lately has the rest, and then gets what it needs from others.
	for i := range 9 {
		if begin(good, 8<<20-1) == nil {
			t.Errorf("a client that was good has no room after %d bodies", i)
		}
	}
	// And nobody takes it away again.
	for i := range 20 {
		begin(from(300+i), 4<<20-1)
	}
	if c := r.senders[good]; c == nil || c.reads.Len() != 9 {
		t.Errorf("%+v", c)
	}
	// Small ones still find room.
	if begin(from(999), 10_000) == nil {
		t.Error("a small body has no room")
	}
	for _, w := range all {
		if !lost(w) {
			close(w.woken)
		}
		if err := <-w.ended; err == nil {
			t.Error("a body that did not come was read")
		}
	}
	empty(t, r)
}

// A client has so many bodies at a time.
func TestBodiesOfOne(t *testing.T) {
	r := newMemory(0)
	var all []*held
	for range maxBodies {
		all = append(all, r.enter("a", nil))
	}
	if r.enter("a", nil) != nil {
		t.Error("one more")
	}
	if other := r.enter("b", nil); other == nil {
		t.Error("others have none")
	} else {
		other.leave()
	}
	all[0].keep(0)
	if r.enter("a", nil) != nil {
		t.Error("what was read does not count")
	}
	for _, held := range all {
		held.leave()
	}
	empty(t, r)
	for i := range maxGood + 10 {
		r.praise(clientOf(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})))
	}
	if len(r.good) != maxGood || r.praised.Len() != maxGood {
		t.Errorf("%d, %d", len(r.good), r.praised.Len())
	}
}

// Senders that announce large bodies and send a byte of each hold up nobody: signed webhooks, and good keys' bodies of any size.
func TestSlowSenders(t *testing.T) {
	f := newFixture(t)
	path := f.url("large")
	for i := range 400 {
		c, err := net.Dial("tcp", f.api)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		head := "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 26214400\r\n\r\nx"
		switch i % 4 {
		case 1:
			head = "POST /tasks/count HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer nonsense\r\nContent-Length: 10000\r\n\r\nx"
		case 2:
			head = "POST /tasks/count HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + f.key + "\r\nContent-Length: 300000\r\n\r\nx"
		case 3:
			head = "POST " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
		}
		if _, err := io.WriteString(c, head); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.do("POST", path, strings.NewReader("x"), "X-Hub-Signature-256", signed("x")); got.status != 202 || got.header.Get("Location") != "" || got.header.Get("Rtask-Job-Id") != got.json["task_id"] {
		t.Errorf("%d %s", got.status, got.body)
	}
	large := strings.Repeat("x", 20<<20)
	if got := f.do("POST", path, strings.NewReader(large), "X-Hub-Signature-256", signed(large)); got.status != 202 {
		t.Errorf("%d %s", got.status, got.body)
	}
	for _, size := range []int{1, uncheckedBody, uncheckedBody + 1, 300 << 10} {
		if got := f.run("count", strings.Repeat("x", size)); got.status != 200 || got.json["stdout"] != fmt.Sprintf("%d\n", size) {
			t.Errorf("%d bytes: %d %s", size, got.status, got.body)
		}
	}
}

// Of what comes with a bad key, or for a task that the key may not use, no more is read than a little.
func TestKeyBeforeBody(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct{ task, key, want string }{{"count", "nonsense", "401"}, {"count", f.key[:len(f.key)-1], "401"}, {"others", f.key, "403"}, {"none", f.key, "403"}} {
		for _, head := range []string{"Content-Length: 300000", "Content-Length: 1000000000000", "Transfer-Encoding: chunked", "Content-Length: 300000\r\nExpect: 100-continue"} {
			if got := f.raw("POST /tasks/" + c.task + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + c.key + "\r\n" + head + "\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 "+c.want) {
				t.Errorf("%s, %s: %.60q", c.task, head, got)
			}
		}
	}
	// It is counted once, as a request with a short body is.
	m := f.scrape()
	for _, want := range []string{
		`task_rejection_total{reason="unauthorized",task=""} 8`, `task_rejection_total{reason="forbidden",task="others"} 4`,
		`task_rejection_total{reason="forbidden",task=""} 4`, `rtask_requests_total{key="demo",result="forbidden",task=""} 8`, "rtask_key_failures_total 8",
	} {
		if !strings.Contains(m, want+"\n") {
			t.Errorf("no %s in\n%s", want, m)
		}
	}
	// A key that may use the task is told how much it takes before a byte is sent.
	if got := f.raw("POST /tasks/count HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + f.key + "\r\nContent-Length: 1000000000000\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 413") || !strings.Contains(got, "307200") {
		t.Errorf("%q", got)
	}
}

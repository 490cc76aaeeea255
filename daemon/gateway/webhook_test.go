package gateway

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// url is the path of a webhook of the task "hooked".
func (f *fixture) url(name string) string {
	f.t.Helper()
	people := client.Dial(f.dir + "/run/rtask.sock")
	defer people.Close()
	r, err := people.Jobs.ListWebhooks(f.t.Context(), connect.NewRequest(&rtaskv1.ListWebhooksRequest{}))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, w := range r.Msg.Webhooks {
		if w.Name == name {
			return "/wh/" + w.Url[strings.LastIndex(w.Url, "/")+1:]
		}
	}
	f.t.Fatalf("no webhook %s", name)
	return ""
}

func signed(body string) string {
	mac := hmac.New(sha256.New, []byte("s3cret"))
	mac.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// The body gets to the job byte for byte, up to the bound of its webhook and not beyond, with a length or in chunks.
func TestWebhookBodies(t *testing.T) {
	f := newFixture(t)
	path := f.url("counts")
	const limit = 300 << 10
	for size, want := range map[int]int{0: 200, 1: 200, 16<<10 + 1: 200, limit: 200, limit + 1: 413, 2 << 20: 413} {
		body := strings.Repeat("x", size)
		for _, chunked := range []bool{false, true} {
			var r io.Reader = strings.NewReader(body)
			if chunked {
				r = struct{ io.Reader }{r}
			}
			got := f.do("POST", path, r, "X-Hub-Signature-256", signed(body))
			if got.status != want || want == 200 && got.json["stdout"] != fmt.Sprintf("%d\n", size) {
				t.Errorf("%d bytes, in chunks %v: %d %s", size, chunked, got.status, got.body)
			}
		}
	}
	// Any bytes are signed as they are.
	body := "\x00\xff\r\n \x80"
	if got := f.do("POST", path, strings.NewReader(body), "X-Hub-Signature-256", signed(body)); got.json["stdout"] != "6\n" {
		t.Errorf("%s", got.body)
	}
}

// Who comes to no webhook's URL is answered while the body is still being sent, or never is.
func TestWebhookStrangers(t *testing.T) {
	f := newFixture(t)
	for _, head := range []string{"Content-Length: 1000000000000", "Transfer-Encoding: chunked", "Content-Length: 1000\r\nExpect: 100-continue"} {
		if got := f.raw("POST /wh/none HTTP/1.1\r\nHost: x\r\n" + head + "\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 404") {
			t.Errorf("%s: %.60q", head, got)
		}
	}
	path := f.url("counts")
	if got := f.raw("POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 413") {
		t.Errorf("%.60q", got)
	}
	got := f.do("POST", path, strings.NewReader("x"), "X-Hub-Signature-256", signed("y"))
	if got.status != 401 || got.json["kind"] != "signature" || got.header.Get("WWW-Authenticate") != "" {
		t.Errorf("%d %v %s", got.status, got.header, got.body)
	}
	// Nor is a key of any use, or the query.
	if got := f.do("POST", path+"?signature="+signed("x"), strings.NewReader("x"), "Authorization", "Bearer "+f.key); got.status != 401 {
		t.Errorf("%d", got.status)
	}
}

// What is refused for want of a body is the engine's to know, too.
func TestRefusedBodies(t *testing.T) {
	f := newFixture(t)
	broken := "HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
	for _, head := range []string{"POST " + f.url("counts") + " " + broken, "POST /tasks/hello " + broken + "Authorization: Bearer " + f.key + "\r\n", "POST /tasks/hello " + broken + "Authorization: Bearer x\r\n"} {
		if got := f.raw(head + "\r\nno chunk\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400") {
			t.Errorf("%.60q", got)
		}
	}
	m := f.scrape()
	for _, task := range []string{"hooked", "hello", ""} {
		if want := `task_rejection_total{reason="bad-request",task="` + task + `"} 1`; !strings.Contains(m, want) {
			t.Errorf("no %s in\n%s", want, m)
		}
	}
}

// Senders that declare large bodies and do not send them hold up no small one.
func TestWebhookSlowSenders(t *testing.T) {
	f := newFixture(t)
	path := f.url("large")
	for range 2 * largeBodies / (25 << 20) {
		c, err := net.Dial("tcp", f.api)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 26214400\r\n\r\nx"); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.do("POST", path, strings.NewReader("x"), "X-Hub-Signature-256", signed("x")); got.status != 202 || got.header.Get("Location") != "" || got.header.Get("Rtask-Job-Id") != got.json["task_id"] {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := f.run("hello", "x"); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// There is room for so many bytes, first come first served, and none is lost.
func TestBodyRoom(t *testing.T) {
	b := newBodies()
	var taken []*turn
	takeFrom := func(from string, n int64) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		var client netip.Prefix
		if from != "" {
			client = clientOf(netip.MustParseAddr(from))
		}
		turn, err := b.take(ctx, client, n)
		if err == nil {
			taken = append(taken, turn)
		}
		return err
	}
	take := func(n int64) error { return takeFrom("", n) }
	giveBack := func() {
		for _, turn := range taken {
			turn.leave()
			turn.leave()
		}
		taken = nil
	}
	for range largeBodies / (32 << 20) {
		if err := take(32 << 20); err != nil {
			t.Fatal(err)
		}
	}
	if err := take(smallBody + 1); !errors.Is(err, errFull) {
		t.Errorf("%v", err)
	}
	for range smallBodies / smallBody {
		if err := take(smallBody); err != nil {
			t.Fatal(err)
		}
	}
	if err := take(1); !errors.Is(err, errFull) {
		t.Errorf("%v", err)
	}
	// A wait ends with the room that is given back.
	got := make(chan error, 1)
	go func() {
		turn, err := b.take(t.Context(), netip.Prefix{}, 1<<40) // all there is
		if err == nil {
			turn.leave()
		}
		got <- err
	}()
	giveBack()
	if err := <-got; err != nil {
		t.Error(err)
	}
	// One client gets half of it, and is in no other's way with what it waits for.
	waits := make(chan error, 1)
	for range 2 {
		if err := takeFrom("192.0.2.7", largeBodies/4); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		turn, err := b.take(t.Context(), clientOf(netip.MustParseAddr("192.0.2.7")), largeBodies/4)
		if err == nil {
			turn.leave()
		}
		waits <- err
	}()
	if err := takeFrom("192.0.2.7", largeBodies/4); !errors.Is(err, errFull) {
		t.Errorf("%v", err)
	}
	for _, other := range []string{"192.0.2.8", "2001:db8::1"} {
		if err := takeFrom(other, largeBodies/4); err != nil {
			t.Errorf("%s: %v", other, err)
		}
	}
	taken[0].leave()
	if err := <-waits; err != nil {
		t.Error(err)
	}
	giveBack()
	// Nor does it have all of the turns, whatever they are for.
	for range maxReadsPerAddress {
		if err := takeFrom("192.0.2.7", 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := takeFrom("192.0.2.7", 1); !errors.Is(err, errFull) {
		t.Errorf("%v", err)
	}
	if err := takeFrom("192.0.2.8", 1); err != nil {
		t.Error(err)
	}
	taken[0].keep(1)
	if err := takeFrom("192.0.2.7", 1); err != nil {
		t.Error(err)
	}
	giveBack()
	for _, r := range []*room{&b.small, &b.large} {
		if r.reads != 0 || len(r.clients) != 0 {
			t.Errorf("%d reads of %v are left", r.reads, r.clients)
		}
	}
	if b.large.free != largeBodies || b.small.free != smallBodies || len(b.large.queue)+len(b.small.queue) != 0 {
		t.Errorf("%d and %d bytes are free, %d and %d wait", b.large.free, b.small.free, len(b.large.queue), len(b.small.queue))
	}
}

func TestReadBody(t *testing.T) {
	for _, c := range []struct {
		body        string
		size, limit int64
		want        string
		fits, fails bool
	}{
		{"abc", 3, 3, "abc", true, false}, {"abc", -1, 3, "abc", true, false}, {"abcd", -1, 3, "abcd", false, false},
		{"", 0, 0, "", true, false}, {"", -1, 0, "", true, false}, {"ab", 3, 3, "", false, true},
	} {
		got, fits, err := readBody(bytes.NewBufferString(c.body), c.size, c.limit)
		if fits != c.fits || (err != nil) != c.fails || c.fits && string(got) != c.want {
			t.Errorf("%+v: %q %v %v", c, got, fits, err)
		}
	}
}

package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/packaging/testkit"
)

// What a job writes is the reply, and as long as none of it has been sent, the head says how the job ended.
func TestWebhookOutput(t *testing.T) {
	f := newFixture(t)
	const success, failure = "success", "failure"
	for _, c := range []struct {
		hook, input                      string
		status                           int
		body, outcome, reason, truncated string
	}{
		{"prints", `echo one; echo two >&2`, 200, "one\ntwo\n", success, "", ""},
		{"prints", ``, 200, "", success, "", ""},
		{"prints", `printf '\377\0x'`, 200, "\xff\x00x", success, "", ""},
		{"prints", `echo no; exit 3`, 500, "no\n", failure, "exit-code", ""},
		{"prints", `echo no; kill -KILL $$`, 500, "no\n", failure, "signal", ""},
		{"brief", "", 500, "early\n", failure, "timeout", ""},
		{"split", "", 200, "out\n", success, "", ""},
	} {
		for _, version := range []string{"1.1", "1.0"} {
			res, body, err := f.speak(version, f.url(c.hook), c.input)
			if err != nil {
				t.Errorf("%+v: HTTP/%s: %v", c, version, err)
				continue
			}
			h := res.Header
			if res.StatusCode != c.status || body != c.body || h.Get(trailerStatus) != c.outcome || h.Get(trailerReason) != c.reason || h.Get(headerTruncated) != c.truncated {
				t.Errorf("%+v: HTTP/%s: %d %v %q", c, version, res.StatusCode, h, body)
			}
			if len(h.Get("Rtask-Job-Id")) != 16 || h.Get("Content-Security-Policy") == "" || h.Get("Cache-Control") != "no-store" {
				t.Errorf("%+v: HTTP/%s: %v", c, version, h)
			}
			if want := map[bool]string{true: "text/html", false: "text/plain; charset=utf-8"}[c.hook == "prints"]; h.Get("Content-Type") != want {
				t.Errorf("%+v: HTTP/%s: %s", c, version, h.Get("Content-Type"))
			}
		}
	}
	// Without output there is only how the job ended to tell.
	for hook, reason := range map[string]string{"prints": "exit-code", "absent": "setup"} {
		got := f.do("POST", f.url(hook), strings.NewReader("exit 3"))
		if got.status != 500 || got.json["status"] != "failure" || got.json["reason"] != reason || got.json["task_id"] != got.header.Get("Rtask-Job-Id") {
			t.Errorf("%s: %d %v %s", hook, got.status, got.header, got.body)
		}
	}
	if m, want := f.scrape(), `rtask_requests_total{key="brief",result="accepted",task="brief"} 2`; !strings.Contains(m, want) {
		t.Errorf("no %s in\n%s", want, m)
	}
}

// speak posts to a path in a version of HTTP on a connection of its own.
func (f *fixture) speak(version, path, body string) (*http.Response, string, error) {
	f.t.Helper()
	c, err := net.Dial("tcp", f.api)
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := fmt.Fprintf(c, "POST %s HTTP/%s\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, version, len(body), body); err != nil {
		f.t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, "", err
	}
	b, err := io.ReadAll(res.Body)
	return res, string(b), err
}

// public is a folder that jobs can read and write, whoever they run as.
func public(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gate")
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// gate is a file that a job waits for, and the text of a shell for that.
func gate(t *testing.T) (open func(), wait string) {
	path := filepath.Join(public(t), "gate")
	return func() {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Error(err)
		}
	}, "while ! [ -e " + path + " ]; do sleep 0.05; done"
}

// follow posts to a path, and returns the reply when its head is there.
func (f *fixture) follow(path, body string, header ...string) *http.Response {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), "POST", "http://"+f.api+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// next reads exactly what is to come next.
func next(t *testing.T, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(r, b); err != nil || string(b) != want {
		t.Fatalf("%q, %v; want %q", b[:n], err, want)
	}
}

// Output is there before the job goes on. That the job failed after all, or wrote more than is kept, is seen by the connection that
// breaks off.
func TestWebhookOutputStreams(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		then, rest string
		whole      bool
	}{
		{"echo two", "two\n", true},
		{"echo two; exit 3", "two\n", false},
		{"exit 3", "", false},
		{"kill -KILL $$", "", false},
		{"head -c 1100000 /dev/zero | tr '\\0' x", strings.Repeat("x", 900<<10), false},
	} {
		open, wait := gate(t)
		res := f.follow(f.url("prints"), "echo one; "+wait+"; "+c.then)
		next(t, res.Body, "one\n")
		if res.StatusCode != 200 || res.Header.Get(trailerStatus) != "" || res.ContentLength != -1 {
			t.Errorf("%s: %d %v", c.then, res.StatusCode, res.Header)
		}
		open()
		next(t, res.Body, c.rest)
		_, err := io.Copy(io.Discard, res.Body)
		if c.whole && (err != nil || res.Trailer.Get(trailerStatus) != "success" || res.Trailer.Get(trailerExitCode) != "0") || !c.whole && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v, %v", c.then, err, res.Trailer)
		}
	}
	// Over HTTP/1.0 nothing can be said behind the output, so it comes when all is known.
	open, wait := gate(t)
	time.AfterFunc(2*holdTime, open)
	res, body, err := f.speak("1.0", f.url("prints"), "echo one; "+wait+"; echo two; exit 3")
	if err != nil || res.StatusCode != 500 || body != "one\ntwo\n" || res.ContentLength != 8 || res.Header.Get(trailerExitCode) != "3" {
		t.Errorf("%+v %q, %v", res, body, err)
	}
	res, body, err = f.speak("1.0", f.url("prints"), "head -c 1100000 /dev/zero | tr '\\0' x")
	if err != nil || res.StatusCode != 200 || len(body) < 900<<10 || res.ContentLength != int64(len(body)) || res.Header.Get(headerTruncated) != "true" {
		t.Errorf("%+v, %d bytes, %v", res, len(body), err)
	}
}

// A reply goes on where it was when the engine comes back.
func TestWebhookOutputOfAnotherEngine(t *testing.T) {
	f := newFixture(t)
	open, wait := gate(t)
	res := f.follow(f.url("prints"), "echo one; "+wait+"; echo two; exit 0")
	next(t, res.Body, "one\n")
	f.stopEngine()
	f.stopEngine = engine(t, f.dir)
	open()
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "two\n" || res.Trailer.Get(trailerStatus) != "success" {
		t.Errorf("%q, %v, %v", b, err, res.Trailer)
	}
	// Of a webhook that is gone, or is another one's job, nothing is told.
	engine := client.Dial(filepath.Join(f.dir, "run", "gateway.sock"))
	defer engine.Close()
	hash := func(name string) string { return strings.TrimPrefix(f.url(name), "/wh/") }
	id := res.Header.Get("Rtask-Job-Id")
	for _, r := range []*rtaskv1.WebhookRequest{{Hash: "none", Job: id}, {Hash: hash("split"), Job: id}, {Hash: hash("stripe"), Job: id}, {Hash: hash("prints"), Job: id[:8]}, {Hash: hash("said"), Job: id}} {
		stream, err := engine.Gateway.WebhookStream(t.Context(), r)
		if err == nil {
			_, err = stream.Receive()
			_ = stream.Close()
		}
		if d, _ := client.Detail(err); d.GetKind() != "not-found" {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// Who does not read, or goes away, holds no job, and none of its output in memory.
func TestWebhookOutputUnread(t *testing.T) {
	f := newFixture(t)
	ended := filepath.Join(public(t), "ended")
	for _, leaves := range []bool{true, false} {
		before := inUse()
		c, err := net.Dial("tcp", f.api)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", f.url("floods"), len(ended), ended); err != nil {
			t.Fatal(err)
		}
		next(t, c, "HTTP/1.1 200 OK\r\n")
		if leaves {
			c.Close()
		}
		testkit.Eventually(t, "the job ends", func() bool { return os.Remove(ended) == nil })
		if more := inUse() - before; more > 20<<20 {
			t.Errorf("50 MB of output take up %d bytes", more)
		}
		if leaves {
			continue
		}
		// Who reads after all has all of it.
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		res, err := http.ReadResponse(bufio.NewReader(io.MultiReader(strings.NewReader("HTTP/1.1 200 OK\r\n"), c)), nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, res.Body); n != 50_000_000 || err != nil || res.Trailer.Get(trailerStatus) != "success" {
			t.Errorf("%d bytes, %v, %v", n, err, res.Trailer)
		}
	}
}

// inUse is how much memory is in use that is not garbage.
func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A person reads what the job wrote, also of one that failed.
func TestWebhookOutputPerson(t *testing.T) {
	f := newFixture(t)
	n := 0
	send := func(text string) reply {
		t.Helper()
		n++
		body := fmt.Sprintf("command=%%2Fdeploy&trigger_id=%d&text=%s", n, strings.NewReplacer(" ", "+", ";", "%3B").Replace(text))
		stamp := fmt.Sprint(time.Now().Unix())
		sum := strings.TrimPrefix(signed("v0:"+stamp+":"+body), "sha256=")
		return f.do("POST", f.url("slacks"), strings.NewReader(body), "X-Slack-Request-Timestamp", stamp, "X-Slack-Signature", "v0="+sum)
	}
	if got := send("echo well"); got.status != 200 || got.body != "well\n" || got.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%d %v %q", got.status, got.header, got.body)
	}
	if got := send("echo no;exit 3"); got.status != 200 || got.body != "no\n" || got.header.Get(trailerExitCode) != "3" {
		t.Errorf("%d %v %q", got.status, got.header, got.body)
	}
	if got := send("exit 3"); got.status != 200 || got.json["text"] != "Job "+got.header.Get("Rtask-Job-Id")+" of task slacks failed, and wrote nothing." {
		t.Errorf("%d %v %q", got.status, got.header, got.body)
	}
	if got := send("echo no;sleep 3;exit 3"); got.status != 200 || got.body != "no\n" || got.trailer.Get(trailerExitCode) != "3" {
		t.Errorf("%d %v %q", got.status, got.trailer, got.body)
	}
}

// A client that stops sending counts as gone. If it still reads, it must not take what it gets for the whole reply.
func TestHalfClosed(t *testing.T) {
	f := newFixture(t)
	open, wait := gate(t)
	for _, c := range []struct {
		path, accept, body string
		begun              bool // before the client stops sending
	}{
		{f.url("prints"), "*/*", "echo one; " + wait, true},
		{f.url("prints"), "*/*", wait, false},
		{"/tasks/prints", "text/plain", wait, true},
		{"/tasks/prints", "application/json", wait, false},
	} {
		conn, err := net.Dial("tcp", f.api)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nAccept: %s\r\nContent-Length: %d\r\n\r\n%s", c.path, f.key, c.accept, len(c.body), c.body); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		if c.begun {
			if _, err := r.Peek(1); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(r, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) || c.begun != (res != nil) {
			t.Errorf("%s, %s: %v, %v", c.path, c.accept, res, err)
		}
	}
	open()
	testkit.Eventually(t, "the jobs end", func() bool { return strings.Contains(f.scrape(), "\nrtask_jobs_running 0\n") })
}

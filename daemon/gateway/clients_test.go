package gateway

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// A job is told the same headers of a request, whether that came with a key or to a webhook.
func TestHeadersOfBoth(t *testing.T) {
	f := newFixture(t)
	for _, r := range []reply{
		f.do("POST", "/tasks/headed", strings.NewReader("{}"), "Authorization", "Bearer "+f.key, "X-One", "1"),
		f.do("POST", f.url("headed"), strings.NewReader("{}"), "X-Hub-Signature-256", signed("{}"), "X-GitHub-Event", "push", "X-One", "1"),
	} {
		out, _ := r.json["stdout"].(string)
		if r.status != 200 || !strings.Contains(out, "REQUEST_HEADER_HOST="+f.api+"\n") || !strings.Contains(out, "REQUEST_HEADER_X_ONE=1\n") {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
}

// A sender that looks whether a webhook's URL is there learns what a POST would tell it.
func TestHeadOfWebhook(t *testing.T) {
	f := newFixture(t)
	if r := f.do("HEAD", f.url("headed"), nil); r.status != 200 || r.body != "" {
		t.Errorf("%d %q", r.status, r.body)
	}
	head, post := f.do("HEAD", "/wh/none", nil), f.do("POST", "/wh/none", nil)
	if head.status != 404 || head.status != post.status || head.header.Get("Content-Type") != post.header.Get("Content-Type") {
		t.Errorf("%d %v, POST: %d %v", head.status, head.header, post.status, post.header)
	}
}

// A reader of events that has read the end does not get it again, and is told not to come again.
func TestBehindTheEnd(t *testing.T) {
	f := newFixture(t)
	id, _ := f.run("long", "").json["task_id"].(string)
	path := "/tasks/long/" + id
	events := func(task, last string) reply {
		t.Helper()
		return f.do("GET", task+"/logs?follow=1", nil, "Authorization", "Bearer "+f.key, "Accept", "text/event-stream", "Last-Event-ID", last)
	}
	if r := events(path, "end"); r.status != 400 || r.json["kind"] != "bad-request" {
		t.Errorf("before the end: %d %s", r.status, r.body)
	}
	f.do("DELETE", path, nil, "Authorization", "Bearer "+f.key)
	if r := events(path, ""); r.status != 200 || !strings.Contains(r.body, "event: end\nid: end\ndata: {") {
		t.Errorf("%d %q", r.status, r.body)
	}
	if r := events(path, "end"); r.status != 204 || r.body != "" || r.header.Get("Rtask-Job-Id") != id {
		t.Errorf("behind the end: %d %v %q", r.status, r.header, r.body)
	}
	if r := events("/tasks/long/aaaaaaaaaaaaaaaa", "end"); r.status != 404 {
		t.Errorf("no such job: %d", r.status)
	}
	if r := f.do("GET", path+"/logs", nil, "Accept", "text/event-stream", "Last-Event-ID", "end"); r.status != 401 {
		t.Errorf("no key: %d", r.status)
	}
	if r := f.do("GET", path+"/logs", nil, "Authorization", "Bearer "+f.key, "Last-Event-ID", "end"); r.status != 200 {
		t.Errorf("not as events: %d", r.status)
	}
}

// A client of a Unix socket has no address. The proxy behind it says one, if it is trusted.
func TestUnixSocket(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(f.dir, "api.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f.serve(Options{Logger: slog.New(slog.DiscardHandler), Version: "1.2.3"}, map[string][]net.Listener{"api": {l}})
	remote := func() string {
		t.Helper()
		c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}}
		r, err := http.NewRequest("POST", "http://rtask/tasks/headed", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+f.key)
		r.Header.Set("X-Forwarded-For", "203.0.113.9, 198.51.100.7")
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != 200 {
			t.Fatalf("%d", res.StatusCode)
		}
		return f.lastRemote()
	}
	if got := remote(); got != "unix" {
		t.Errorf("not trusted: %q", got)
	}
	if err := os.WriteFile(filepath.Join(f.dir, "rtask.hcl"), []byte("trusted_proxies = [\"unix\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	people := client.Dial(filepath.Join(f.dir, "run", "rtask.sock"))
	defer people.Close()
	if _, err := people.Jobs.Reload(t.Context(), &rtaskv1.ReloadRequest{}); err != nil {
		t.Fatal(err)
	}
	for got := remote(); got != "198.51.100.7"; got = remote() { // the gateway's word on it is a second old at most
		if got != "unix" {
			t.Fatalf("trusted: %q", got)
		}
	}
}

// lastRemote is the address in the engine's newest entry.
func (f *fixture) lastRemote() string {
	f.t.Helper()
	log, err := os.Open(filepath.Join(f.dir, "engine.log"))
	if err != nil {
		f.t.Fatal(err)
	}
	defer log.Close()
	last := ""
	for in := bufio.NewScanner(log); in.Scan(); {
		if _, after, ok := strings.Cut(in.Text(), "RTASK_REMOTE_ADDR="); ok {
			last, _, _ = strings.Cut(after, " ")
		}
	}
	return last
}

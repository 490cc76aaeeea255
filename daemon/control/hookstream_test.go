package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/packaging/testkit"
)

// streaming is a task whose webhooks are answered with its output. It runs once the file HOLD is gone.
const streaming = `
task "streaming" {
  command = ["/bin/sh", "-c", "while [ -e HOLD ]; do sleep 0.05; done; echo \"$RTASK_JOB_ID $(cat)\""]
  queue   = 20
  sandbox {
    profile = "off"
  }
  webhook "token" {
    token   = "token-of-an-output"
    respond = "output"
  }
  webhook "stripe" {
    verify  = "stripe"
    secrets = ["s3cret"]
    respond = "output"
    replay  = "refuse"
  }
  webhook "github" {
    verify  = "github"
    secrets = ["s3cret"]
    respond = "output"
    replay  = "refuse"
  }
  webhook "result" {
    verify  = "stripe"
    secrets = ["s3cret"]
    respond = "result"
  }
}
`

// held makes a fixture of streaming, and the file that its jobs wait for.
func held(t *testing.T) (f *fixture, hold string) {
	dir, err := os.MkdirTemp("", "hold")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	hold = filepath.Join(dir, "hold")
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(hold) })
	return newFixture(t, strings.ReplaceAll(streaming, "HOLD", hold)), hold
}

// read is what came on a stream of WebhookStream.
type read struct {
	first  *rtaskv1.RunStreamResponse
	output string
	end    *rtaskv1.Job
	err    error
}

// stream makes a request, and returns what comes of it once it is there. The first message is there when it returns.
func (f *fixture) stream(r *rtaskv1.WebhookRequest) (rest func() read) {
	f.t.Helper()
	var s rtaskv1connect.GatewayServiceWebhookStreamClientStream
	var got read
	if s, got.err = f.net(nil, "").WebhookStream(context.WithoutCancel(f.t.Context()), r); got.err == nil {
		got.first, got.err = s.Receive()
	}
	return func() read {
		for got.err == nil {
			var m *rtaskv1.RunStreamResponse
			if m, got.err = s.Receive(); got.err == nil {
				got.output += string(m.Data)
				if m.End {
					got.end = m.Job
				}
			}
		}
		if errors.Is(got.err, io.EOF) {
			got.err = nil
		}
		return got
	}
}

// Each request that becomes part of one run reads what that run writes, which has the newest input.
func TestStreamOfCoalesced(t *testing.T) {
	f, hold := held(t)
	body := func(branch string, n int) []byte {
		return fmt.Appendf(nil, `{"ref":"refs/heads/%s","n":%d}`, branch, n)
	}
	first := f.stream(f.sent("streaming", "token", body("first", 0), time.Now()))
	var rest []func() read
	for n := range 3 {
		rest = append(rest, f.stream(f.sent("streaming", "token", body("main", n), time.Now())))
	}
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	if got := first(); got.err != nil || got.output != fmt.Sprintf("%s %s\n", got.first.Job.Id, body("first", 0)) || !got.end.Succeeded() {
		t.Errorf("%+v", got)
	}
	ids := map[string]bool{}
	want := ""
	for _, r := range rest {
		got := r()
		if want == "" {
			want = fmt.Sprintf("%s %s\n", got.first.Job.Id, body("main", 2))
		}
		if ids[got.first.Job.Id] = true; got.err != nil || got.output != want || !got.end.Succeeded() || got.first.Head.Status != 200 {
			t.Errorf("%+v, want %q", got, want)
		}
	}
	if len(ids) != 3 {
		t.Errorf("ids: %v", ids)
	}
}

// A repeat of what was accepted reads what the first one reads, while the job runs and after it, and once more when an engine comes
// back, whatever has become of the signature. Where that is refused, it is refused.
func TestStreamOfRepeats(t *testing.T) {
	f, hold := held(t)
	event := []byte(`{"id":"evt_1","type":"x"}`)
	first := f.stream(f.sent("streaming", "stripe", event, time.Now()))
	again := f.stream(f.sent("streaming", "stripe", event, time.Now().Add(time.Second)))
	push := f.sent("streaming", "github", []byte(`{}`), time.Now())
	pushed := f.stream(push)
	if got := f.stream(push)(); detail(got.err).GetKind() != "replay" {
		t.Errorf("%+v", got)
	}
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	one := first()
	if one.err != nil || one.output != one.first.Job.Id+" "+string(event)+"\n" {
		t.Errorf("%+v", one)
	}
	if got := pushed(); got.err != nil || got.output != got.first.Job.Id+" {}\n" {
		t.Errorf("%+v", got)
	}
	for _, rest := range []func() read{again, f.stream(f.sent("streaming", "stripe", event, time.Now()))} {
		if got := rest(); got.err != nil || got.output != one.output || got.first.Job.Id != one.first.Job.Id {
			t.Errorf("%+v", got)
		}
	}
	goesOn := &rtaskv1.WebhookRequest{Hash: push.Hash, Job: one.first.Job.Id}
	if got := f.stream(goesOn)(); detail(got.err).GetKind() != "not-found" {
		t.Errorf("another webhook's: %+v", got)
	}
	goesOn.Hash = f.sent("streaming", "stripe", nil, time.Now()).Hash
	if got := f.stream(goesOn)(); got.err != nil || got.output != one.output {
		t.Errorf("%+v", got)
	}
	goesOn.Ended = true
	if got := f.stream(goesOn)(); got.err != nil || got.output != one.output {
		t.Errorf("%+v", got)
	}
}

// Repeats of a request that was accepted take no turn. How many of them wait for its job has a bound, and one that is refused for
// it runs nothing.
func TestHookWaitsAreBounded(t *testing.T) {
	f, hold := held(t)
	for _, name := range []string{"stripe", "result"} {
		event := []byte(`{"id":"evt_` + name + `","type":"x"}`)
		r := f.sent("streaming", name, event, time.Now())
		w := hookOf{"streaming", name}
		if !f.watches.take(w, maxWatchesOfHook-1, maxWatchesOfHook) {
			t.Fatal("somebody waits already")
		}
		waiting := make(chan error, 1)
		go func() {
			_, err := f.net(nil, "").Webhook(context.WithoutCancel(t.Context()), r)
			waiting <- err
		}()
		testkit.Eventually(t, "it waits", func() bool {
			f.watches.mu.Lock()
			defer f.watches.mu.Unlock()
			return f.watches.held[w] == maxWatchesOfHook
		})
		if _, err := f.net(nil, "").Webhook(t.Context(), r); detail(err).GetKind() != "concurrency" {
			t.Errorf("%s: %v", name, err)
		}
		if got := f.stream(r)(); detail(got.err).GetKind() != "concurrency" {
			t.Errorf("%s: %+v", name, got)
		}
		if err := os.Remove(hold); err != nil {
			t.Fatal(err)
		}
		if err := <-waiting; err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.watches.giveBack(w, maxWatchesOfHook-1)
		if got, err := f.net(nil, "").Webhook(t.Context(), r); err != nil || got.Run.GetAccepted() {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if err := os.WriteFile(hold, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.nothingHeld(t)
}

// A request whose engine went away is answered with the result of its job, also when its signature is too old by then, and nobody
// else's is.
func TestResultAgain(t *testing.T) {
	f, hold := held(t)
	r := f.sent("streaming", "result", []byte(`{"id":"evt_1","type":"x"}`), time.Now())
	r.Id = "aaaabbbbccccdddd"
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	first, err := f.hook(r)
	if err != nil || string(first.Run.GetStdout()) == "" {
		t.Fatalf("%v, %v", first, err)
	}
	old := f.sent("streaming", "result", []byte(`{"id":"evt_1","type":"x"}`), time.Now().Add(-time.Hour))
	other := f.sent("streaming", "stripe", []byte(`{"id":"evt_1","type":"x"}`), time.Now().Add(-time.Hour))
	for _, c := range []struct {
		r     *rtaskv1.WebhookRequest
		id    string
		again bool
		good  bool
	}{
		{old, r.Id, true, true},
		{old, r.Id, false, false},
		{old, "aaaabbbbccccddde", true, false},
		{old, r.Id[:8], true, false},
		{old, "", true, false},
		{other, r.Id, true, false},
	} {
		c.r.Id, c.r.Again = c.id, c.again
		got, err := f.hook(c.r)
		if c.good && (err != nil || string(got.Run.GetStdout()) != string(first.Run.Stdout) || got.Run.Accepted) || !c.good && detail(err).GetKind() != "signature" {
			t.Errorf("%s, again %v: %v, %v", c.id, c.again, got, err)
		}
	}
}

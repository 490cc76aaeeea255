package control

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/job"
)

// refusal is all that a client can see of a refused call.
func refusal(t *testing.T, f *fixture, key []byte, task string, r *rtaskv1.RunRequest) string {
	t.Helper()
	_, err := f.net(key, task).Run(t.Context(), r)
	if err == nil {
		t.Errorf("%v was not refused", r)
		return ""
	}
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(detail(err))
	return fmt.Sprintf("%v %v %x", connect.CodeOf(err), err, b)
}

// Whatever is wrong with a key, the reply is the same.
func TestRunUnauthorized(t *testing.T) {
	f := newFixture(t, tasks)
	good, revoked := f.key("demo"), f.key("other")
	if _, err := f.Keys.Revoke("other"); err != nil {
		t.Fatal(err)
	}
	_, expired, err := f.Keys.Add("expired", time.Now().Add(1500*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(1600 * time.Millisecond)
	wrong := []byte(string(good))
	wrong[10] ^= 1
	seen := map[string]bool{}
	for _, key := range [][]byte{nil, {}, []byte("x"), []byte("rtk_"), wrong, append(good, ' '), revoked, expired, []byte(strings.Repeat("rtk_", 1<<12))} {
		for _, task := range []string{"hello", "no-such-task", ""} {
			seen[refusal(t, f, key, task, &rtaskv1.RunRequest{InputTooLarge: task == "hello"})] = true
		}
	}
	if len(seen) != 1 {
		t.Errorf("replies differ: %v", seen)
	}
	for s := range seen {
		if !strings.HasPrefix(s, "unauthenticated") {
			t.Error(s)
		}
	}
	f.noJobs()
	for _, r := range f.rejected {
		if r != " unauthorized" {
			t.Errorf("counted as %q", r)
		}
	}
}

func TestRunRefused(t *testing.T) {
	f := newFixture(t, tasks)
	demo, other := f.key("demo"), f.key("other")
	// A task that is not the key's is a task that is not there.
	none := refusal(t, f, other, "no-such-task", &rtaskv1.RunRequest{})
	for _, task := range []string{"hello", "off", "nowhere", "true", "", "../hello", strings.Repeat("x", 1<<16)} {
		for _, large := range []bool{false, true} {
			r := &rtaskv1.RunRequest{InputTooLarge: large, Input: []byte(strings.Repeat("x", 100))}
			if got := refusal(t, f, other, task, r); got != none {
				t.Errorf("%.40q: %s, and of none: %s", task, got, none)
			}
		}
	}
	if !strings.HasPrefix(none, "permission_denied") {
		t.Error(none)
	}
	for _, c := range []struct {
		task string
		r    *rtaskv1.RunRequest
		kind string
	}{
		{"hello", &rtaskv1.RunRequest{Input: []byte(strings.Repeat("x", 17))}, "input-too-large"},
		{"hello", &rtaskv1.RunRequest{InputTooLarge: true}, "input-too-large"},
		{"off", &rtaskv1.RunRequest{}, "disabled"},
		{"nowhere", &rtaskv1.RunRequest{}, "configuration"},
		{"limited", &rtaskv1.RunRequest{}, "configuration"},
	} {
		_, err := f.net(demo, c.task).Run(t.Context(), c.r)
		if got := detail(err).GetKind(); got != c.kind {
			t.Errorf("%s: %q %v, want %q", c.task, got, err, c.kind)
		}
	}
	f.noJobs()
	if s := f.logs.String(); strings.Contains(s, string(demo)) || strings.Contains(s, string(other)) {
		t.Error("a key is in the log")
	} else if strings.Contains(s, strings.Repeat("x", 100)) {
		t.Error("what a stranger made up is in the log at full length")
	}
	for _, r := range f.rejected {
		if strings.Contains(r, "no-such") || strings.Contains(r, "xx") {
			t.Errorf("a name that a stranger made up is a label: %q", r)
		}
	}
}

func TestRun(t *testing.T) {
	f := newFixture(t, tasks)
	demo := f.key("demo")
	run := func(task, input string) *rtaskv1.RunResponse {
		t.Helper()
		return must[rtaskv1.RunResponse](t)(f.net(demo, task).Run(t.Context(), &rtaskv1.RunRequest{Input: []byte(input)}))
	}
	for range 10 {
		r := run("hello", "sixteen bytes..\n")
		if string(r.Stdout) != "hello sixteen bytes..\n" || r.Accepted || r.Job.GetExitCode() != 0 || r.Job.Reason != 0 || r.Job.Trigger != "http" || r.Job.Owner != "key:demo" {
			t.Errorf("%v", r)
		}
	}
	if r := run("fails", ""); string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" || r.Job.GetExitCode() != 9 || r.Job.Reason != rtaskv1.Reason_REASON_EXIT_CODE {
		t.Errorf("%v", r)
	}
	r := run("async", "")
	if !r.Accepted || len(r.Job.Id) != 16 || r.Stdout != nil {
		t.Errorf("%v", r)
	}
	if res, err := f.Jobs.Wait(t.Context(), r.Job.Id); err != nil || !res.Succeeded() {
		t.Errorf("%v, %v", res.Exit, err)
	}
	if m := must[rtaskv1.RunFramingResponse](t)(f.net(demo, "hello").RunFraming(t.Context(), &rtaskv1.RunFramingRequest{})); m.MaxInputBytes != 16 || m.KeyId == "" {
		t.Errorf("%v", m)
	}
}

// slowLog keeps the engine busy with its log until a job that was accepted has ended.
type slowLog struct{ slog.Handler }

func (h slowLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "request accepted" {
		time.Sleep(300 * time.Millisecond)
	}
	return h.Handler.Handle(ctx, r)
}

// What a job wrote is in the reply, however soon the job ends and however late the engine comes to wait for that.
func TestRunReplyIsNotLost(t *testing.T) {
	f := newFixture(t, tasks)
	f.Logger = slog.New(slowLog{f.Logger.Handler()})
	r := must[rtaskv1.RunResponse](t)(f.net(f.key("demo"), "hello").Run(t.Context(), &rtaskv1.RunRequest{Input: []byte("x\n")}))
	if string(r.Stdout) != "hello x\n" {
		t.Errorf("%q", r.Stdout)
	}
}

// A revoked key ends what waits for it, before RevokeKey returns, and starts nothing more.
func TestRunRevoked(t *testing.T) {
	f := newFixture(t, tasks)
	demo := f.key("demo")
	waits := make(chan error, 3)
	for range cap(waits) {
		go func() {
			_, err := f.net(demo, "sleeps").Run(t.Context(), &rtaskv1.RunRequest{})
			waits <- err
		}()
	}
	for deadline := time.Now().Add(10 * time.Second); f.Jobs.Running() < cap(waits); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the jobs do not start")
		}
	}
	must[rtaskv1.RevokeKeyResponse](t)(f.as(peers()[auth.Admin]).RevokeKey(t.Context(), &rtaskv1.RevokeKeyRequest{Key: "demo"}))
	f.waits.mu.Lock()
	if n := len(f.waits.byKey); n != 0 {
		t.Errorf("%d keys are still waited for", n)
	}
	f.waits.mu.Unlock()
	for range cap(waits) {
		if err := <-waits; detail(err).GetKind() != "unauthorized" || connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("%v", err)
		}
	}
	if jobs, err := f.Jobs.List(job.Filter{}); err != nil || len(jobs) != 3 {
		t.Errorf("%d jobs run on, %v", len(jobs), err)
	}
	if got := refusal(t, f, demo, "sleeps", &rtaskv1.RunRequest{}); !strings.HasPrefix(got, "unauthenticated") {
		t.Error(got)
	}
}

// What one key may have under way at a time is bounded, and is nothing to another key.
func TestCallsAreBounded(t *testing.T) {
	f := newFixture(t, tasks)
	demo, other := f.key("demo"), f.key("other")
	f.waits.most = 3
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var calls sync.WaitGroup
	for range 3 {
		calls.Go(func() { _, _ = f.net(demo, "sleeps").Run(ctx, &rtaskv1.RunRequest{}) })
	}
	for deadline := time.Now().Add(10 * time.Second); f.Jobs.Running() < 3; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the jobs do not start")
		}
	}
	_, err := f.net(demo, "hello").Run(t.Context(), &rtaskv1.RunRequest{})
	if d := detail(err); d.GetKind() != "concurrency" || d.GetRetryAfter() == nil || connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("%v", err)
	}
	jobs, err := f.Jobs.List(job.Filter{})
	if err != nil || len(jobs) != 3 {
		t.Fatalf("%d jobs, %v", len(jobs), err)
	}
	stream, err := f.net(demo, "sleeps").Logs(t.Context(), &rtaskv1.LogsRequest{Id: jobs[0].ID, Follow: true})
	if err == nil {
		_, err = stream.Receive()
	}
	if detail(err).GetKind() != "concurrency" {
		t.Errorf("a follower: %v", err)
	}
	if r, err := f.net(other, "hello").Run(t.Context(), &rtaskv1.RunRequest{}); detail(err).GetKind() != "forbidden" {
		t.Errorf("another key: %v, %v", r, err)
	}
	cancel()
	calls.Wait()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		f.waits.mu.Lock()
		n := len(f.waits.byKey)
		f.waits.mu.Unlock()
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("calls that ended are still counted")
		}
	}
	must[rtaskv1.RunResponse](t)(f.net(demo, "hello").Run(t.Context(), &rtaskv1.RunRequest{}))
}

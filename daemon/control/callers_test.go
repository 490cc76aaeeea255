package control

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/job"
)

// What a holder of a key asks about its jobs in vain is an entry, and what it is told is none.
func TestAuditReads(t *testing.T) {
	f := newFixture(t, tasks)
	key := f.key("demo")
	j := must[rtaskv1.RunResponse](t)(f.net(key, "async").Run(t.Context(), &rtaskv1.RunRequest{})).Job
	net := f.net(key, "async")
	must[rtaskv1.RunResponse](t)(net.Result(t.Context(), &rtaskv1.ResultRequest{Id: j.Id, Wait: "10s"}))
	before := f.decisions()
	calls := []struct {
		kind string
		err  error
	}{
		{"not-found", second(net.Result(t.Context(), &rtaskv1.ResultRequest{Id: "aaaaaaaaaaaaaaaa"}))},
		{"bad-request", second(net.Result(t.Context(), &rtaskv1.ResultRequest{Id: j.Id, Wait: "soon"}))},
		{"not-found", firstError(net.Logs(t.Context(), &rtaskv1.LogsRequest{Id: "x"}))},
		{"bad-request", firstError(net.Logs(t.Context(), &rtaskv1.LogsRequest{Id: j.Id, Offset: "-"}))},
	}
	entries := f.decisions()[len(before):]
	if len(entries) != len(calls) {
		t.Fatalf("%d entries of %d refusals: %q", len(entries), len(calls), entries)
	}
	for i, c := range calls {
		if detail(c.err).GetKind() != c.kind || !strings.HasPrefix(entries[i], "refused RTASK_ACTION=read RTASK_KIND="+c.kind+" RTASK_TASK=async RTASK_KEY=demo ") {
			t.Errorf("%v: %s", c.err, entries[i])
		}
	}
}

func second[M any](_ *M, err error) error { return err }

const onDisconnect = `
task "stays" {
  command  = ["/bin/sleep", "1000"]
  blocking = true
  api_keys = ["demo", "other"]
  on_disconnect = "continue"
}
task "goes" {
  command  = ["/bin/sleep", "1000"]
  blocking = true
  api_keys = ["demo", "other"]
  on_disconnect = "stop"
}
`

// A client that goes away ends its job where the task says so, and nothing else. One whose request was refused has none: what it
// presented is looked at no second time, and there is no entry.
func TestDisconnected(t *testing.T) {
	f := newFixture(t, onDisconnect)
	demo, other := f.key("demo"), f.key("other")
	ids := map[string]string{"stays": "aaaaaaaaaaaaaaaa", "goes": "bbbbbbbbbbbbbbbb"}
	for task, id := range ids {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = f.net(demo, task).Run(ctx, &rtaskv1.RunRequest{Id: id})
		}()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			j, err := f.Jobs.Status(id)
			if err == nil && j.State == job.Running && strings.Contains(f.logs.String(), "RTASK_JOB_ID="+id) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the job does not start")
			}
		}
		cancel()
		<-done
	}
	before := len(f.decisions())
	gone := func(key []byte, task, id string) error {
		return second(f.net(key, task).Disconnected(t.Context(), &rtaskv1.DisconnectedRequest{Id: id}))
	}
	wrong := slices.Clone(demo)
	wrong[20] ^= 1
	for range 30 {
		codes(t, gone(wrong, "goes", "cccccccccccccccc"), connect.CodeNotFound)
	}
	codes(t, gone(demo, "stays", ids["goes"]), connect.CodeNotFound)
	codes(t, gone(other, "goes", ids["goes"]), connect.CodeUnauthenticated)
	codes(t, gone(nil, "goes", ids["goes"]), connect.CodeUnauthenticated)
	if err := gone(demo, "stays", ids["stays"]); err != nil {
		t.Error(err)
	}
	if n := len(f.decisions()); n != before {
		t.Errorf("%q", f.decisions()[before:])
	}
	if err := gone(demo, "goes", ids["goes"]); err != nil {
		t.Error(err)
	}
	for task, state := range map[string]job.State{"stays": job.Running, "goes": job.Ended} {
		if j, err := f.Jobs.Status(ids[task]); err != nil || j.State != state {
			t.Errorf("%s: %v, %v", task, j.State, err)
		}
	}
	if all := f.decisions()[before:]; len(all) != 1 || !strings.HasPrefix(all[0], "accepted RTASK_ACTION=stop RTASK_TASK=goes RTASK_KEY=demo ") {
		t.Errorf("%q", all)
	}
}

// A call is decided on the configuration that was in force when it came.
func TestOneSnapshot(t *testing.T) {
	f := newFixture(t, tasks)
	caller := f.Identify.Control(self())
	before := &call{Caller: caller, snapshot: f.Snapshot()}
	f.configure("")
	after := &call{Caller: caller, snapshot: f.Snapshot()}
	show := func(c *call) error {
		return second(f.ShowTask(c.with(t.Context()), &rtaskv1.ShowTaskRequest{Task: "hello"}))
	}
	if then, now := show(before), show(after); then != nil || connect.CodeOf(now) != connect.CodeNotFound {
		t.Errorf("%v, %v", then, now)
	}
	status := func(c *call) string {
		return second(f.Status(c.with(t.Context()), &rtaskv1.StatusRequest{Job: "hello"})).Error()
	}
	if then, now := status(before), status(after); !strings.Contains(then, "is a task") || strings.Contains(now, "is a task") {
		t.Errorf("%v, %v", then, now)
	}
}

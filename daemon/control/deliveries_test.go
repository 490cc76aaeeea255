package control

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/daemon/deliveries"
	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/daemon/jobid"
)

// keeping is a task that keeps deliveries, of which ada may start one.
const keeping = `
task "kept" {
  command              = ["/bin/sh", "-c", "echo $RTASK_TRIGGER $RTASK_EVENT $RTASK_GIT_REF $RTASK_DELIVERY $REQUEST_HEADER_X_EXTRA $REQUEST_HEADER_X_PASSED_TOKEN; cat"]
  max_concurrent       = 0
  allow_users          = ["ada"]
  pass_request_headers = ["X-Extra", "X-Passed-Token"]
  webhook "github" {
    verify          = "github"
    secrets         = ["s3cret"]
    events          = ["push"]
    respond         = "result"
    keep_deliveries = 3
  }
  webhook "stripe" {
    verify          = "stripe"
    secrets         = ["s3cret"]
    keep_deliveries = 3
  }
  webhook "gitlab" {
    verify          = "gitlab"
    secrets         = ["of-gitlab"]
    keep_deliveries = 1
  }
  webhook "sum" {
    verify          = "hmac-sha256"
    header          = "X-Sum"
    secrets         = ["s3cret"]
    keep_deliveries = 1
  }
  webhook "token" {
    token           = "0123456789abcdef"
    keep_deliveries = 2
  }
  webhook "none" {
    verify  = "github"
    secrets = ["s3cret"]
  }
}
task "other" {
  command        = ["/bin/cat"]
  max_concurrent = 0
  webhook "token" {
    token           = "0123456789abcdefg"
    keep_deliveries = 2
  }
}
`

func newKeeping(t *testing.T) *fixture {
	f := newFixture(t, keeping)
	f.keep(keeping)
	return f
}

// keep puts another configuration in force.
func (f *fixture) keep(hcl string) {
	f.t.Helper()
	f.configure(hcl)
	if err := f.Deliveries.Configure(Kept(f.Snapshot().Config)); err != nil {
		f.t.Fatal(err)
	}
}

// deliver sends a request to a webhook, and returns the job's id or why there is none.
func (f *fixture) deliver(task, name, body string, at time.Time, head ...webhook.Header) string {
	f.t.Helper()
	r := f.sent(task, name, []byte(body), at, head...)
	r.Id = jobid.New()
	reply, err := f.hook(r)
	switch {
	case err != nil:
		return errorText(err)
	case reply.Run == nil:
		return reply.Reason
	}
	return reply.Run.Job.Id
}

// deliveries are what is kept of a task's webhook, the newest first, as a caller is told.
func (f *fixture) deliveries(p auth.Peer, task, name string) []*rtaskv1.Delivery {
	f.t.Helper()
	return must[rtaskv1.ListDeliveriesResponse](f.t)(f.as(p).ListDeliveries(f.t.Context(), &rtaskv1.ListDeliveriesRequest{Task: task, Webhook: name})).Deliveries
}

var event = webhook.Header{Name: "X-GitHub-Event", Value: "push"}

// A kept delivery runs again as it was, as a new job of whoever asks for it, however old its signature is.
func TestReplay(t *testing.T) {
	f := newKeeping(t)
	ada, root := peers()[auth.User], auth.Peer{CgroupKnown: true}
	first := f.deliver("kept", "github", push, time.Now(), event, webhook.Header{Name: "X-GitHub-Delivery", Value: "d-1"}, webhook.Header{Name: "X-Extra", Value: "more"})
	m := f.deliveries(ada, "kept", "github")
	if len(m) != 1 || m[0].Id != first || m[0].Delivery != "d-1" || m[0].Event != "push" || m[0].Ref != "refs/heads/main" || m[0].Decision != "accepted" || m[0].BodyBytes != int64(len(push)) {
		t.Fatalf("%v", m)
	}
	for _, ref := range []string{first, first[:6], "d-1"} {
		reply := must[rtaskv1.ReplayDeliveryResponse](t)(f.as(ada).ReplayDelivery(t.Context(), &rtaskv1.ReplayDeliveryRequest{Delivery: ref}))
		j := must[rtaskv1.WaitResponse](t)(f.as(ada).Wait(t.Context(), &rtaskv1.WaitRequest{Job: reply.Job.GetId()})).Job
		if reply.Decision != "accepted" || j.Id == first || j.Trigger != "webhook" || j.Owner != "ada" || f.output(j.Id) != f.output(first) || !strings.HasPrefix(f.output(j.Id), "webhook push refs/heads/main d-1 more\n{") {
			t.Errorf("%s: %v\n%s\n%s", ref, j, f.output(j.Id), f.output(first))
		}
		if want := "RTASK_DECISION=accepted RTASK_ACTION=start RTASK_TASK=kept RTASK_USER=ada RTASK_WEBHOOK=github RTASK_DELIVERY=d-1 RTASK_JOB_ID=" + j.Id; !strings.Contains(f.logs.String(), want) {
			t.Errorf("no %q in\n%s", want, f.logs)
		}
	}
	// A replay is no delivery, and a signature that has aged is none that matters.
	old := f.deliver("kept", "stripe", `{"id":"evt_1","type":"a"}`, time.Now().Add(-299*time.Second))
	if m := f.deliveries(root, "kept", ""); len(m) != 2 || m[0].Id != old || m[1].Id != first {
		t.Errorf("%v", m)
	}
	again := must[rtaskv1.ReplayDeliveryResponse](t)(f.as(root).ReplayDelivery(t.Context(), &rtaskv1.ReplayDeliveryRequest{Delivery: old}))
	if again.Job.GetId() == old || again.Job.GetId() == "" {
		t.Errorf("%v", again)
	}
}

// What decides about a replay is the configuration of now: its events, its switches, its bounds, and who may start the task.
func TestReplayIsDecidedAnew(t *testing.T) {
	f := newKeeping(t)
	ada := f.as(peers()[auth.User])
	if got := f.deliver("kept", "github", push, time.Now(), webhook.Header{Name: "X-GitHub-Event", Value: "release"}); got != "the event release is not among events" {
		t.Error(got)
	}
	m := f.deliveries(peers()[auth.User], "kept", "github")
	if len(m) != 1 || m[0].Decision != "ignored" || m[0].Reason != "the event release is not among events" {
		t.Fatalf("%v", m)
	}
	replay := func() (*rtaskv1.ReplayDeliveryResponse, error) {
		return ada.ReplayDelivery(t.Context(), &rtaskv1.ReplayDeliveryRequest{Delivery: m[0].Id})
	}
	if r, err := replay(); err != nil || r.Decision != "ignored" || r.Reason != "the event release is not among events" || r.Job != nil {
		t.Errorf("%v, %v", r, err)
	}
	f.noJobs()
	released := strings.ReplaceAll(keeping, `events          = ["push"]`, `events          = ["release"]`)
	change := func(old, new string) { f.keep(strings.ReplaceAll(released, old, new)) }
	f.keep(released)
	if r, err := replay(); err != nil || r.Decision != "accepted" || r.Job.GetId() == "" {
		t.Errorf("%v, %v", r, err)
	}
	for _, c := range []struct {
		old, new string
		code     connect.Code
		kind     string
	}{
		{"max_concurrent       = 0\n", "enabled = false\n", connect.CodeUnavailable, "disabled"},
		{`keep_deliveries = 3`, `keep_deliveries = 3` + "\nmax_input_bytes = 1", connect.CodeInvalidArgument, "input-too-large"},
		{`allow_users          = ["ada"]`, `allow_users = ["ben"]`, connect.CodeNotFound, "not-found"},
	} {
		change(c.old, c.new)
		if r, err := replay(); connect.CodeOf(err) != c.code || detail(err).GetKind() != c.kind {
			t.Errorf("%s: %v, %v", c.new, r, err)
		}
	}
	// Nobody learns of those of a task that they may not start, and a webhook takes its deliveries with it.
	f.keep(keeping)
	f.deliver("other", "token", "x", time.Now())
	root := auth.Peer{CgroupKnown: true}
	ids := f.deliveries(root, "", "")
	if len(ids) != 2 || ids[0].Task != "other" || len(f.deliveries(peers()[auth.User], "", "")) != 1 {
		t.Errorf("%v", ids)
	}
	if _, err := ada.ReplayDelivery(t.Context(), &rtaskv1.ReplayDeliveryRequest{Delivery: ids[0].Id}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Error(err)
	}
	if _, err := ada.ListDeliveries(t.Context(), &rtaskv1.ListDeliveriesRequest{Task: "other"}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Error(err)
	}
	if _, err := ada.ListDeliveries(t.Context(), &rtaskv1.ListDeliveriesRequest{Task: "kept", Webhook: "other"}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Error(err)
	}
	change(`webhook "github"`, `webhook "renamed"`)
	if got := f.deliveries(root, "kept", ""); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if r, err := replay(); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("%v, %v", r, err)
	}
	f.configure("task {")
	for _, err := range []error{second(ada.ListDeliveries(t.Context(), &rtaskv1.ListDeliveriesRequest{})), second(replay())} {
		if detail(err).GetKind() != "configuration" {
			t.Error(err)
		}
	}
}

// Strangers have nothing kept, and senders no more than the webhook's number: who sends captured requests again pushes nothing out.
func TestWhatIsKept(t *testing.T) {
	f := newKeeping(t)
	root := auth.Peer{CgroupKnown: true}
	forged := f.sent("kept", "github", []byte(push), time.Now(), event)
	forged.Body = []byte(`{}`)
	if _, err := f.hook(forged); detail(err).GetKind() != "signature" {
		t.Error(err)
	}
	f.deliver("kept", "github", push, time.Now(), webhook.Header{Name: "X-GitHub-Event", Value: "ping"})
	f.deliver("kept", "none", push, time.Now(), event)
	f.deliver("kept", "github", strings.Repeat("x", 26<<20), time.Now(), event)
	if m := f.deliveries(root, "", ""); len(m) != 0 {
		t.Errorf("%v", m)
	}
	wanted := f.deliver("kept", "stripe", `{"id":"evt_0","type":"a"}`, time.Now())
	for range 5 { // signed anew
		if got := f.deliver("kept", "stripe", `{"id":"evt_0","type":"a"}`, time.Now()); got != wanted {
			t.Errorf("%s, not %s", got, wanted)
		}
	}
	captured := f.sent("kept", "github", []byte(push), time.Now(), event)
	for _, name := range []string{"push", "other", "push"} {
		captured.Id = jobid.New()
		captured.Headers[len(captured.Headers)-1].Value = []byte(name)
		if _, err := f.hook(captured); err != nil {
			t.Error(err)
		}
	}
	if m := f.deliveries(root, "kept", ""); len(m) != 2 || m[0].Event != "push" || m[0].Decision != "accepted" || m[1].Id != wanted {
		t.Errorf("%v", m)
	}
	// A repeat of one that has made room for others makes none of them go.
	for n := range 3 {
		f.deliver("kept", "stripe", fmt.Sprintf(`{"id":"evt_%d","type":"a"}`, n+1), time.Now())
	}
	before := f.deliveries(root, "kept", "stripe")
	if got := f.deliver("kept", "stripe", `{"id":"evt_0","type":"a"}`, time.Now()); got != wanted {
		t.Errorf("%s, not %s", got, wanted)
	}
	if after := f.deliveries(root, "kept", "stripe"); len(before) != 3 || fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("%v\n%v", before, after)
	}
	// Who knows a token means each request.
	a, b := f.deliver("kept", "token", "", time.Now()), f.deliver("kept", "token", "", time.Now())
	if m := f.deliveries(root, "kept", "token"); len(m) != 2 || m[0].Id != b || m[1].Id != a {
		t.Errorf("%v", m)
	}
}

// What is refused once it has proven itself is kept, with the reason.
func TestRefusedIsKept(t *testing.T) {
	f := newKeeping(t)
	root := auth.Peer{CgroupKnown: true}
	f.keep(strings.Replace(keeping, "max_concurrent       = 0", "max_concurrent = 0\nrate_limit = 0.001", 1))
	f.deliver("kept", "stripe", `{"id":"evt_1","type":"a"}`, time.Now())
	f.deliver("kept", "stripe", `{"id":"evt_2","type":"a"}`, time.Now())
	m := f.deliveries(root, "kept", "stripe")
	if len(m) != 2 || m[0].Decision != "refused" || m[0].Kind != "rate-limited" || m[0].Reason == "" || m[0].Delivery != "evt_2" || m[1].Decision != "accepted" {
		t.Fatalf("%v", m)
	}
	// Accepted at another try, it is that.
	f.keep(keeping)
	id := f.deliver("kept", "stripe", `{"id":"evt_2","type":"a"}`, time.Now())
	if m := f.deliveries(root, "kept", "stripe"); len(m) != 2 || m[0].Id != id || m[0].Decision != "accepted" {
		t.Errorf("%v", m)
	}
}

// A request runs where it cannot be kept, as on a full disk, and the log says so.
func TestKeepingFails(t *testing.T) {
	f := newKeeping(t)
	dir := filepath.Join(f.dir, "deliveries")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if id := f.deliver("kept", "github", push, time.Now(), event); !jobid.Valid(id) {
		t.Error(id)
	}
	if m := f.deliveries(auth.Peer{CgroupKnown: true}, "kept", ""); len(m) != 0 || !strings.Contains(f.logs.String(), "cannot keep a delivery") {
		t.Errorf("%v\n%s", m, f.logs)
	}
}

// On disk is no secret that a replay does not need.
func TestKeptSecrets(t *testing.T) {
	f := newKeeping(t)
	secret := []webhook.Header{
		{Name: "Authorization", Value: "Bearer hidden-1"}, {Name: "Cookie", Value: "s=hidden-2"}, {Name: "X-Slack-Signature", Value: "hidden-3"}, {Name: "X-Any", Value: "of-gitlab and hidden-4"},
		{Name: "X-Passed-Token", Value: "passed"}, {Name: "X-Extra", Value: "extra"},
	}
	for _, name := range []string{"gitlab", "sum", "token"} {
		r := f.sent("kept", name, []byte(`{"object_kind":"push","a":"`+name+`"}`), time.Now(), secret...)
		r.Id, r.Query, r.Url = jobid.New(), []byte("a=1&token=hidden-5"), "https://example.org/wh/"+r.Hash+"?a=1&token=hidden-5"
		if name == "sum" || name == "token" { // whose secret it is not
			r.Headers = append(r.Headers[:len(r.Headers)-3:len(r.Headers)-3], r.Headers[len(r.Headers)-2:]...)
		}
		if _, err := f.hook(r); err != nil {
			t.Fatal(name, err)
		}
	}
	names, err := filepath.Glob(filepath.Join(f.dir, "deliveries", "*"))
	if err != nil || len(names) != 3 {
		t.Fatal(names, err)
	}
	for _, m := range f.deliveries(auth.Peer{CgroupKnown: true}, "kept", "") {
		d, err := f.Deliveries.Read(m.Id)
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(f.dir, "deliveries", m.Id))
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"hidden", "of-gitlab", "X-Sum", "0123456789abcdef"} {
			if strings.Contains(fmt.Sprint(d.Request.Headers, d.Request.Query), bad) || strings.Contains(string(content), bad) {
				t.Errorf("%s has %q: %q", m.Webhook, bad, d.Request)
			}
		}
		if d.Request.Query != "a=1" || d.Request.Headers.Values("X-Passed-Token") == nil || d.Request.Headers.Values("X-Extra") == nil {
			t.Errorf("%s: %+v", m.Webhook, d.Request)
		}
	}
}

// A delivery can be as large as an input, and those who may start a task can ask for many.
func TestReplaysOneAtATime(t *testing.T) {
	f := newKeeping(t)
	id := f.deliver("kept", "stripe", `{"id":"evt_1","type":"a"}`, time.Now())
	f.replays <- struct{}{} // one is at it
	ctx, cancel := context.WithCancel((&call{Caller: auth.Caller{Kind: auth.Admin}, snapshot: f.Snapshot()}).with(t.Context()))
	cancel()
	if r, err := f.ReplayDelivery(ctx, &rtaskv1.ReplayDeliveryRequest{Delivery: id}); connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("%v, %v", r, err)
	}
	<-f.replays
	for range 2 {
		must[rtaskv1.ReplayDeliveryResponse](t)(f.as(peers()[auth.User]).ReplayDelivery(t.Context(), &rtaskv1.ReplayDeliveryRequest{Delivery: id}))
	}
}

// Why a replay is ignored, an administrator is told part by part, and others as its sender was.
func TestReplayExplained(t *testing.T) {
	f := newKeeping(t)
	f.keep(strings.Replace(keeping, `    respond         = "result"`, `    respond = "result"
    when    = body.ref == "refs/heads/main" && header("Authorization") == "x" || body.forced`, 1))
	head := []webhook.Header{event, {Name: "Authorization", Value: "x"}}
	id := f.deliver("kept", "github", push, time.Now(), head...)
	if m := f.deliveries(peers()[auth.User], "kept", "github"); len(m) != 1 || m[0].Decision != "accepted" {
		t.Fatalf("%s: %v", id, m)
	}
	replay := &rtaskv1.ReplayDeliveryRequest{Delivery: id}
	r := must[rtaskv1.ReplayDeliveryResponse](t)(f.as(peers()[auth.Admin]).ReplayDelivery(t.Context(), replay))
	var got []string
	for _, p := range r.When {
		got = append(got, fmt.Sprint(filepath.Base(p.File), " ", p.Line, " ", p.Text, " ", p.Result, " ", p.Problem != "", " ", p.Value))
	}
	want := []string{
		`tasks.hcl 12 body.ref == "refs/heads/main" true false body.ref = "refs/heads/main"`,
		`tasks.hcl 12 header("Authorization") == "x" missing true `, // which is not kept
		`tasks.hcl 12 body.forced missing true `,
	}
	if r.Decision != "ignored" || !slices.Equal(got, want) {
		t.Errorf("%v\n%q", r, got)
	}
	if r := must[rtaskv1.ReplayDeliveryResponse](t)(f.as(peers()[auth.User]).ReplayDelivery(t.Context(), replay)); r.Decision != "ignored" || r.Reason == "" || r.When != nil {
		t.Errorf("%v", r)
	}
}

// A reply has the newest of all webhooks, as many as one can have.
func TestDeliveriesListed(t *testing.T) {
	f := newKeeping(t)
	f.keep(strings.ReplaceAll(keeping, "keep_deliveries = 2", "keep_deliveries = 1000"))
	last := ""
	for n := range maxDeliveries + 1 {
		task := "kept"
		if n == 0 {
			task = "other"
		}
		last = jobid.New()
		d := &deliveries.Delivery{Meta: deliveries.Meta{ID: last, Task: task, Webhook: "token", At: time.Unix(int64(n), 0), Decision: "ignored"}}
		if err := f.Deliveries.Put(d); err != nil {
			t.Fatal(err)
		}
		f.Deliveries.Settle(last)
	}
	root := auth.Peer{CgroupKnown: true}
	if all := f.deliveries(root, "", ""); len(all) != maxDeliveries || all[0].Id != last || all[maxDeliveries-1].Task != "kept" {
		t.Errorf("%d deliveries", len(all))
	}
	if others := f.deliveries(root, "other", "token"); len(others) != 1 {
		t.Errorf("%v", others)
	}
}

// A replay never becomes part of another run, not even of another replay: each runs with its own input.
func TestReplayWaits(t *testing.T) {
	f := newFixture(t, "")
	f.keep(`
task "slow" {
  command = ["/bin/sh", "-c", "exec sleep 1000"]
  timeout = 0
  webhook "github" {
    verify          = "github"
    secrets         = ["s3cret"]
    keep_deliveries = 10
  }
}`)
	first := f.deliver("slow", "github", push, time.Now(), event)
	newer := f.deliver("slow", "github", strings.Replace(push, "0123", "4567", 1), time.Now(), event)
	replay := func(id string) string {
		return must[rtaskv1.ReplayDeliveryResponse](t)(f.as(auth.Peer{CgroupKnown: true}).ReplayDelivery(t.Context(), &rtaskv1.ReplayDeliveryRequest{Delivery: id})).Job.GetId()
	}
	again, last := replay(first), replay(newer)
	all, err := f.Jobs.List(job.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	queued := map[string]bool{}
	for _, j := range all {
		queued[j.ID] = j.State == job.Queued
	}
	if len(queued) != 4 || !queued[newer] || !queued[again] || !queued[last] || queued[first] {
		t.Errorf("%s runs, %s, %s and %s wait: %v", first, newer, again, last, queued)
	}
}

// A client on another machine runs a delivery again if a role has the method by its name, and the task. Others do not exist for it.
func TestReplayRemotely(t *testing.T) {
	r := newRemote(t)
	r.root = strings.Replace(remoteRoles, `role "operator" {`, `role "replayer" {
  subjects = ["spiffe://example.org/user/again"]
  tasks    = ["kept"]
  methods  = ["ReplayDelivery", "ListDeliveries", "read"]
}
role "operator" {`, 1)
	r.keep(remoteTasks + keeping)
	mine := r.deliver("kept", "stripe", `{"id":"evt_1","type":"a"}`, time.Now())
	others := r.deliver("other", "token", "x", time.Now())
	client, op := r.jobs(r.enrol("again")), r.jobs(r.enrol("op"))
	if all := must[rtaskv1.ListDeliveriesResponse](t)(client.ListDeliveries(t.Context(), &rtaskv1.ListDeliveriesRequest{})).Deliveries; len(all) != 1 || all[0].Id != mine {
		t.Errorf("%v", all)
	}
	got := must[rtaskv1.ReplayDeliveryResponse](t)(client.ReplayDelivery(t.Context(), &rtaskv1.ReplayDeliveryRequest{Delivery: mine})).Job
	if got.GetOwner() != "spiffe://example.org/user/again" || got.GetTrigger() != "webhook" {
		t.Errorf("%v", got)
	}
	if want := "RTASK_WEBHOOK=stripe"; !strings.Contains(r.decisions()[len(r.decisions())-1], want) || !strings.Contains(r.decisions()[len(r.decisions())-1], "RTASK_ROLE=replayer") {
		t.Errorf("written down is %q", r.decisions()[len(r.decisions())-1])
	}
	_, err := client.ReplayDelivery(t.Context(), &rtaskv1.ReplayDeliveryRequest{Delivery: others})
	codes(t, err, connect.CodeNotFound)
	// To start and see a task is not enough.
	_, err = op.ReplayDelivery(t.Context(), &rtaskv1.ReplayDeliveryRequest{Delivery: mine})
	codes(t, err, connect.CodePermissionDenied)
	_, err = op.ListDeliveries(t.Context(), &rtaskv1.ListDeliveriesRequest{})
	codes(t, err, connect.CodePermissionDenied)
}

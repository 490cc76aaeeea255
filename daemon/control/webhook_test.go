package control

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
)

const standardSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// hooked is a task with each kind of webhook. It writes down what it was told.
const hooked = `
task "hooked" {
  command              = ["/bin/sh", "-c", "env | grep -E '^(RTASK_|REQUEST_)' | grep -v JOB_ID | sort; cat"]
  max_concurrent       = 0
  pass_request_headers = ["X-Extra"]
  webhook "github" {
    verify  = "github"
    secrets = ["old", "s3cret"]
    events  = ["push"]
    refs    = ["refs/heads/main"]
    respond = "result"
  }
  webhook "gitlab" {
    verify  = "gitlab"
    secrets = ["s3cret"]
    respond = "result"
  }
  webhook "gitea" {
    verify  = "gitea"
    secrets = ["s3cret"]
    respond = "result"
  }
  webhook "forgejo" {
    verify  = "forgejo"
    secrets = ["s3cret"]
    respond = "result"
  }
  webhook "standard" {
    verify  = "standard"
    secrets = ["` + standardSecret + `"]
    respond = "result"
  }
  webhook "slack" {
    verify  = "slack"
    secrets = ["s3cret"]
    respond = "result"
  }
  webhook "stripe" {
    verify  = "stripe"
    secrets = ["s3cret"]
    respond = "result"
  }
  webhook "sum" {
    verify          = "hmac-sha256"
    secrets         = ["s3cret"]
    header          = "X-Sum"
    encoding        = "base64"
    respond         = "result"
    replay          = "refuse"
    max_input_bytes = 1000
  }
  webhook "token" {
    token   = "0123456789abcdef"
    respond = "result"
  }
  webhook "later" {
    token = "0123456789abcdefg"
  }
}
task "fails" {
  command        = ["/bin/sh", "-c", "exit 3"]
  max_concurrent = 0
  webhook "stripe" {
    verify  = "stripe"
    secrets = ["s3cret"]
    respond = "result"
  }
}
task "off" {
  command = ["/bin/true"]
  enabled = false
  webhook "github" {
    verify  = "github"
    secrets = ["s3cret"]
  }
}
`

// sent is a request to a webhook of hooked, correctly signed at a time.
func (f *fixture) sent(task, name string, body []byte, at time.Time, head ...webhook.Header) *rtaskv1.WebhookRequest {
	f.t.Helper()
	c := f.Snapshot().Config
	i := slices.IndexFunc(c.Tasks[task].Webhooks, func(w *config.Webhook) bool { return w.Name == name })
	w := c.Tasks[task].Webhooks[i]
	secrets, err := w.Secrets(f.ReadSecret)
	if err != nil {
		f.t.Fatal(err)
	}
	r := &rtaskv1.WebhookRequest{Hash: w.Hash(f.ReadSecret), Body: body}
	secret := ""
	if len(secrets) > 0 {
		secret = secrets[len(secrets)-1]
	}
	signed := &webhook.Request{Body: body}
	webhook.Sign(w.Scheme, secret, signed, "msg-"+fmt.Sprint(at.UnixNano()), at)
	for _, h := range append(signed.Headers, head...) {
		r.Headers = append(r.Headers, &rtaskv1.Header{Name: h.Name, Value: []byte(h.Value)})
	}
	return r
}

func (f *fixture) hook(r *rtaskv1.WebhookRequest) (*rtaskv1.WebhookResponse, error) {
	reply, err := f.net(nil, "").Webhook(f.t.Context(), r)
	if err != nil {
		return nil, err
	}
	return reply, nil
}

const push = `{"ref":"refs/heads/main","after":"0123456789abcdef0123456789abcdef01234567"}`

// Each kind runs its task when it is signed well, and the job learns what happened.
func TestWebhookKinds(t *testing.T) {
	f := newFixture(t, hooked)
	for name, c := range map[string]struct {
		head []webhook.Header
		body string
		want string
	}{
		"github": {[]webhook.Header{{Name: "X-GitHub-Event", Value: "push"}, {Name: "X-GitHub-Delivery", Value: "d-1"}, {Name: "x-extra", Value: "a"}, {Name: "X-Extra", Value: "b"}}, push,
			"REQUEST_HEADER_X_EXTRA=a, b\nRTASK_DELIVERY=d-1\nRTASK_EVENT=push\nRTASK_GIT_REF=refs/heads/main\nRTASK_GIT_SHA=0123456789abcdef0123456789abcdef01234567\n"},
		"gitlab":   {[]webhook.Header{{Name: "X-Gitlab-Event", Value: "Push Hook"}}, `{"object_kind":"push"}`, "RTASK_EVENT=push\n"},
		"gitea":    {[]webhook.Header{{Name: "X-Gitea-Event", Value: "push"}}, push, "RTASK_EVENT=push\nRTASK_GIT_REF=refs/heads/main\nRTASK_GIT_SHA=0123456789abcdef0123456789abcdef01234567\n"},
		"forgejo":  {[]webhook.Header{{Name: "X-Forgejo-Event", Value: "push"}}, `{}`, "RTASK_EVENT=push\n"},
		"standard": {nil, `{"type":"a.b"}`, "RTASK_EVENT=a.b\n"},
		"slack":    {nil, `{"type":"event_callback","event":{"type":"message"}}`, "RTASK_EVENT=message\n"},
		"stripe":   {nil, `{"type":"charge.failed","id":"evt_1"}`, "RTASK_DELIVERY=evt_1\nRTASK_EVENT=charge.failed\n"},
		"sum":      {nil, "any\x00bytes\xff", ""},
		"token":    {nil, "", ""},
	} {
		reply, err := f.hook(f.sent("hooked", name, []byte(c.body), time.Now(), c.head...))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := string(reply.Run.GetStdout())
		if strings.HasPrefix(name, "standard") {
			got = strings.Join(slices.DeleteFunc(strings.SplitAfter(got, "\n"), func(s string) bool { return strings.HasPrefix(s, "RTASK_DELIVERY=msg-") }), "")
		}
		if want := c.want + "RTASK_TASK=hooked\nRTASK_TRIGGER=webhook\n" + c.body; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if j := reply.Run.GetJob(); j.GetOwner() != "webhook:"+name || j.GetTrigger() != "webhook" {
			t.Errorf("%s: %v", name, j)
		}
	}
	reply, err := f.hook(f.sent("hooked", "later", nil, time.Now()))
	if err != nil || !reply.Run.GetAccepted() {
		t.Errorf("%v, %v", reply, err)
	}
	if s := f.logs.String(); strings.Contains(s, "s3cret") || strings.Contains(s, "0123456789abcdefg") || strings.Contains(s, standardSecret) {
		t.Error("a secret is in the log")
	} else if n := strings.Count(s, "RTASK_DECISION=accepted"); n != 10 {
		t.Errorf("%d requests were accepted, says the log:\n%s", n, s)
	} else if !strings.Contains(s, `RTASK_DECISION=accepted RTASK_ACTION=start RTASK_TASK=hooked RTASK_WEBHOOK=github RTASK_REMOTE_ADDR=192.0.2.7 RTASK_DELIVERY=d-1 RTASK_JOB_ID=`) {
		t.Error(s)
	}
}

// Nothing runs that is not signed, and who sends it learns nothing of why.
func TestWebhookRefused(t *testing.T) {
	f := newFixture(t, hooked)
	now := time.Now()
	seen := map[string]bool{}
	refuse := func(what string, r *rtaskv1.WebhookRequest, kind string) {
		t.Helper()
		_, err := f.hook(r)
		if got := detail(err).GetKind(); got != kind {
			t.Errorf("%s: %q %v, want %q", what, got, err, kind)
		}
		if kind == "signature" {
			seen[err.Error()] = true
		}
	}
	for _, name := range []string{"github", "gitlab", "gitea", "forgejo", "standard", "slack", "stripe", "sum"} {
		r := f.sent("hooked", name, []byte(push), now)
		r.Headers = []*rtaskv1.Header{{Name: "X-GitHub-Delivery", Value: []byte("d-" + strings.Repeat("2", 100))}}
		refuse(name+" unsigned", r, "signature")
		r = f.sent("hooked", name, []byte(push), now)
		r.Headers = append(r.Headers, r.Headers...)
		refuse(name+" twice", r, "signature")
		r = f.sent("hooked", name, []byte(push), now)
		if r.Body = append(r.Body, ' '); name != "gitlab" {
			refuse(name+" changed", r, "signature")
		}
	}
	for _, name := range []string{"standard", "slack", "stripe"} {
		for _, off := range []time.Duration{-301 * time.Second, 310 * time.Second} {
			refuse(name+" at another time", f.sent("hooked", name, []byte(push), now.Add(off)), "signature")
		}
	}
	if len(seen) != 1 {
		t.Errorf("replies differ: %v", seen)
	}
	refuse("no such URL", &rtaskv1.WebhookRequest{Hash: "fedcba9876543210"}, "not-found")
	refuse("no URL", &rtaskv1.WebhookRequest{}, "not-found")
	refuse("disabled", f.sent("off", "github", []byte(push), now), "disabled")
	refuse("gzip", f.sent("hooked", "github", []byte(push), now, webhook.Header{Name: "Content-Encoding", Value: "gzip"}), "unsupported-media-type")
	refuse("gzip", f.sent("hooked", "github", []byte(push), now, webhook.Header{Name: "content-encoding", Value: "identity, GZIP"}), "unsupported-media-type")
	refuse("large", f.sent("hooked", "sum", []byte(strings.Repeat("x", 1001)), now), "input-too-large")
	r := f.sent("hooked", "sum", nil, now)
	r.BodyTooLarge = true
	refuse("too large to be read", r, "input-too-large")
	f.noJobs()
	log := f.logs.String()
	for _, want := range []string{
		`RTASK_KIND=signature RTASK_TASK=hooked RTASK_WEBHOOK=github RTASK_REMOTE_ADDR=192.0.2.7 RTASK_DELIVERY=d-` + strings.Repeat("2", 62) + ` RTASK_REASON="the signature is not good: there is no header X-Hub-Signature-256"`,
		"RTASK_KIND=not-found", "RTASK_KIND=disabled", "may be 300 s",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("no %s in\n%s", want, log)
		}
	}
	if strings.Contains(log, "fedcba9876543210") || strings.Contains(log, "s3cret") {
		t.Error("a token or a secret is in the log")
	}
	f.configure("task \"x\" {")
	refuse("no configuration", r, "configuration")
}

func TestWebhookIgnored(t *testing.T) {
	f := newFixture(t, hooked)
	event := func(name string) webhook.Header { return webhook.Header{Name: "X-GitHub-Event", Value: name} }
	for _, r := range []*rtaskv1.WebhookRequest{
		f.sent("hooked", "github", []byte(push), time.Now(), event("ping")), f.sent("hooked", "github", []byte(push), time.Now(), event("release")),
		f.sent("hooked", "github", []byte(`{"ref":"refs/heads/dev"}`), time.Now(), event("push")), f.sent("hooked", "github", []byte(push), time.Now()),
		f.sent("hooked", "slack", []byte(`{"type":"url_verification","challenge":"c"}`), time.Now()),
	} {
		reply, err := f.hook(r)
		if err != nil || reply.Run != nil || reply.Reason == "" || (reply.Challenge == "c") != strings.Contains(string(r.Body), "challenge") {
			t.Errorf("%s: %v, %v", r.Body, reply, err)
		}
	}
	// Whether an event is one of the webhook's nobody learns who cannot sign.
	r := f.sent("hooked", "github", []byte(push), time.Now(), event("ping"))
	r.Body = nil
	if _, err := f.hook(r); detail(err).GetKind() != "signature" {
		t.Error(err)
	}
	f.noJobs()
	if n := strings.Count(f.logs.String(), "RTASK_DECISION=ignored"); n != 5 {
		t.Errorf("%d ignored\n%s", n, f.logs.String())
	}
}

// A repeat of what has a signed id or time is answered as the first one was; another one runs, or is refused where that is wanted.
// What failed was not there.
func TestWebhookRepeats(t *testing.T) {
	f := newFixture(t, hooked)
	for _, name := range []string{"standard", "slack", "stripe", "sum", "github", "gitlab", "gitea", "forgejo", "token"} {
		r := f.sent("hooked", name, []byte(push), time.Now(), webhook.Header{Name: "X-GitHub-Event", Value: "push"})
		first, err := f.hook(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		id := first.Run.GetJob().GetId()
		r.Id = "bbbbbbbbbbbbbb" + name[len(name)-2:]
		again, err := f.hook(r)
		switch {
		case name == "sum":
			if detail(err).GetKind() != "replay" || connect.CodeOf(err) != connect.CodeAlreadyExists || detail(err).GetJobId() != id {
				t.Errorf("%s: %v", name, err)
			}
		case slices.Contains([]string{"standard", "slack", "stripe"}, name):
			if err != nil || again.Run.GetJob().GetId() != id || again.Run.Accepted || string(again.Run.Stdout) != string(first.Run.Stdout) || len(again.Run.Stdout) == 0 {
				t.Errorf("%s: %v, %v", name, again, err)
			}
			if !strings.Contains(f.logs.String(), "RTASK_JOB_ID="+id+" RTASK_REASON=\"it was accepted before") {
				t.Errorf("%s: nothing in\n%s", name, f.logs.String())
			}
		default:
			if err != nil || again.Run.GetJob().GetId() == id {
				t.Errorf("%s: %v, %v", name, again, err)
			}
		}
		// One of the same id, or of the same body where that counts, and of another time is a repeat, too.
		if name == "slack" || name == "stripe" {
			if _, err := f.hook(f.sent("hooked", name, []byte(push), time.Now().Add(2*time.Second))); err != nil {
				t.Errorf("%s, two seconds later: %v", name, err)
			}
		}
		// A gateway that was not heard asks again under the same id.
		r = f.sent("hooked", name, []byte(push+" "), time.Now(), webhook.Header{Name: "X-GitHub-Event", Value: "push"})
		r.Id = "aaaaaaaaaaaaaa" + name[len(name)-2:]
		for range 2 {
			reply, err := f.hook(r)
			if err != nil || reply.Run.GetJob().GetId() != r.Id {
				t.Errorf("%s: %v, %v", name, reply, err)
			}
		}
	}
	r := f.sent("fails", "stripe", []byte(push), time.Now())
	for range 3 {
		if reply, err := f.hook(r); err != nil || reply.Run.GetJob().GetExitCode() != 3 {
			t.Errorf("%v, %v", reply, err)
		}
	}
	// Refused for another reason, it was not there either.
	changed := f.sent("hooked", "stripe", []byte("{}"), time.Now())
	changed.Headers[0].Value = append([]byte("x"), changed.Headers[0].Value...)
	if _, err := f.hook(changed); detail(err).GetKind() != "signature" {
		t.Error(err)
	}
	changed.Headers[0].Value = changed.Headers[0].Value[1:]
	if _, err := f.hook(changed); err != nil {
		t.Error(err)
	}
}

// Of a signed request that comes many times at once, one runs.
func TestWebhookRepeatsAtOnce(t *testing.T) {
	f := newFixture(t, hooked)
	r := f.sent("hooked", "stripe", []byte(push), time.Now())
	var wg sync.WaitGroup
	ran := make(chan string, 30)
	for range cap(ran) {
		wg.Go(func() {
			reply, err := f.net(nil, "").Webhook(context.WithoutCancel(t.Context()), r)
			if err != nil {
				t.Error(err)
				return
			}
			ran <- reply.Run.GetJob().GetId()
		})
	}
	wg.Wait()
	close(ran)
	all, err := f.Jobs.List(job.Filter{Ended: true})
	if len(all) != 1 || err != nil {
		t.Fatalf("%d jobs are there, %v", len(all), err)
	}
	for id := range ran {
		if id != all[0].ID {
			t.Errorf("one was told of job %s, which is not %s", id, all[0].ID)
		}
	}
}

// A repeat is known for longer than its signature is good, whatever a clock does that was set wrong.
func TestOnceOutlives(t *testing.T) {
	now := time.Now()
	w := &config.Webhook{Task: "t", Name: "w"}
	for _, p := range []webhook.Proof{{Fresh: true, Key: "k", Until: now.Add(webhook.Tolerance)}, {Fresh: true, Key: "k"}} {
		if o := once(w, p, now); o.Until.Before(now.Add(2*webhook.Tolerance+time.Hour)) || !o.At.Equal(now) || !o.Answer {
			t.Errorf("%+v: %+v", p, o)
		}
	}
	if o := once(w, webhook.Proof{Key: "k"}, now); o != (job.Once{}) {
		t.Errorf("%+v", o)
	}
	w.RefuseRepeats = true
	if o := once(w, webhook.Proof{Key: "k"}, now); o.Answer || !o.Until.After(now) {
		t.Errorf("%+v", o)
	}
	// An id that is signed without a time is good for ever.
	if o := once(w, webhook.Proof{Fresh: true, Key: "k"}, now); !o.Answer || !o.Until.Equal(now.Add(bodySeen)) {
		t.Errorf("%+v", o)
	}
}

// A request that was captured, and is sent again and again around the end of its tolerance, never runs again: it is a repeat for
// longer than it is accepted.
func TestWebhookEndOfTolerance(t *testing.T) {
	f := newFixture(t, hooked)
	var r *rtaskv1.WebhookRequest
	for accepted := false; !accepted; { // once more, if this machine takes seconds for it
		r = f.sent("hooked", "slack", []byte(push), time.Now().Add(-webhook.Tolerance+2*time.Second))
		_, err := f.hook(r)
		accepted = err == nil
		if !accepted && detail(err).GetKind() != "signature" {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	ended := make(chan struct{}) // closed when its time is over
	var once sync.Once
	for range 64 {
		wg.Go(func() {
			for over := false; !over; {
				select {
				case <-ended:
					over = true
				default:
				}
				if _, err := f.net(nil, "").Webhook(context.WithoutCancel(t.Context()), r); detail(err).GetKind() == "signature" {
					once.Do(func() { close(ended) })
				} else if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if all, err := f.Jobs.List(job.Filter{Ended: true}); len(all) != 1 || err != nil {
		t.Errorf("%d jobs are there, %v", len(all), err)
	}
}

// A secret that is not there yet is named, and taken when it comes.
func TestWebhookMissingSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "github.secret")
	f := newFixture(t, fmt.Sprintf("task \"t\" {\n command = [\"/bin/true\"]\n webhook \"gh\" {\n  verify = \"github\"\n  secret_files = [%q]\n }\n}\n", path))
	admin := f.as(peers()[auth.Admin])
	list := func() *rtaskv1.Webhook {
		return must[rtaskv1.ListWebhooksResponse](t)(admin.ListWebhooks(t.Context(), &rtaskv1.ListWebhooksRequest{})).Webhooks[0]
	}
	w := list()
	if !strings.Contains(w.Problem, path) || !strings.HasPrefix(w.Url, "http://127.0.0.1:8800/wh/") {
		t.Errorf("%v", w)
	}
	r := &rtaskv1.WebhookRequest{Hash: strings.TrimPrefix(w.Url, "http://127.0.0.1:8800/wh/")}
	if _, err := f.hook(r); detail(err).GetKind() != "configuration" || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.hook(r); detail(err).GetKind() != "signature" {
		t.Error(err)
	}
	if _, err := f.hook(f.sent("t", "gh", nil, time.Now())); err != nil {
		t.Error(err)
	}
	if w := list(); w.Problem != "" {
		t.Errorf("%v", w)
	}
}

// A test says what would happen and lets nothing happen, unless that is wanted.
func TestTestWebhook(t *testing.T) {
	f := newFixture(t, hooked)
	admin := f.as(peers()[auth.Admin])
	try := func(task, name string, run bool) *rtaskv1.TestWebhookResponse {
		t.Helper()
		return must[rtaskv1.TestWebhookResponse](t)(admin.TestWebhook(t.Context(), &rtaskv1.TestWebhookRequest{Task: task, Name: name, Run: run}))
	}
	for _, w := range f.Snapshot().Config.Tasks["hooked"].Webhooks {
		for range 2 { // a test is no request, and no repeat
			r := try("hooked", w.Name, false)
			event, ref := "push", "refs/heads/main"
			switch w.Name {
			case "slack", "stripe": // which send none
				ref = ""
			case "sum", "token", "later": // of whom nobody knows what they send
				event, ref = "", ""
			}
			if r.Decision != "accepted" || r.Ref != ref || r.Event != event || r.Job != nil || slices.Contains(r.Environment, "RTASK_EVENT=push") != (event != "") {
				t.Errorf("%s: %v", w.Name, r)
			}
		}
	}
	if r := try("off", "github", false); r.Decision != "refused" || r.Kind != "disabled" {
		t.Errorf("%v", r)
	}
	f.noJobs()
	for range 2 {
		if r := try("hooked", "sum", true); r.Decision != "accepted" || r.Job.GetState() != rtaskv1.State_STATE_ENDED || r.Job.GetExitCode() != 0 {
			t.Errorf("%v", r)
		}
	}
	for _, bad := range []*rtaskv1.TestWebhookRequest{{Task: "none", Name: "x"}, {Task: "hooked", Name: "none"}} {
		if _, err := admin.TestWebhook(t.Context(), bad); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// A sender that signs an id signs each of its attempts anew. That is one delivery all the same.
func TestWebhookSignedID(t *testing.T) {
	f := newFixture(t, hooked)
	for name, body := range map[string]string{
		"stripe": `{"id":"evt_%d","type":"charge.succeeded"}`,
		"slack":  `{"event_id":"Ev%d","type":"event_callback","event":{"type":"message"}}`,
	} {
		send := func(n int, at time.Time) string {
			t.Helper()
			reply, err := f.hook(f.sent("hooked", name, fmt.Appendf(nil, body, n), at))
			if err != nil {
				t.Fatal(err)
			}
			return reply.Run.GetJob().GetId()
		}
		first := send(1, time.Now())
		if again := send(1, time.Now().Add(20*time.Second)); again != first {
			t.Errorf("%s, sent again: job %s, not %s", name, again, first)
		}
		if other := send(2, time.Now()); other == first {
			t.Errorf("%s: another event is the same job", name)
		}
	}
	// What failed was not there.
	failed := f.sent("fails", "stripe", []byte(`{"id":"evt_1"}`), time.Now())
	first, err := f.hook(failed)
	again, errAgain := f.hook(failed)
	if err != nil || errAgain != nil || again.Run.GetJob().GetId() == first.Run.GetJob().GetId() {
		t.Errorf("%v, %v; %v, %v", first, err, again, errAgain)
	}
}

// A body that can be read in two ways is refused, and what no header can change is not.
func TestWebhookBodies(t *testing.T) {
	f := newFixture(t, hooked)
	event := webhook.Header{Name: "X-GitHub-Event", Value: "push"}
	form := webhook.Header{Name: "Content-Type", Value: "application/x-www-form-urlencoded"}
	twice := `{"ref":"refs/heads/evil","ref":"refs/heads/main"}`
	if _, err := f.hook(f.sent("hooked", "github", []byte(twice), time.Now(), event)); detail(err).GetKind() != "bad-request" || !strings.Contains(err.Error(), `"ref" is there twice`) {
		t.Error(err)
	}
	captured := `{"ref":"refs/heads/dev","head_commit":{"message":"&payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%7D"}}`
	for _, head := range [][]webhook.Header{{event}, {event, form}} {
		reply, err := f.hook(f.sent("hooked", "github", []byte(captured), time.Now(), head...))
		if err != nil || reply.Run != nil || !strings.Contains(reply.GetReason(), "refs/heads/dev") {
			t.Errorf("%v: %v, %v", head, reply, err)
		}
	}
	f.noJobs()
	identity := webhook.Header{Name: "Content-Encoding", Value: "Identity"}
	if _, err := f.hook(f.sent("hooked", "github", []byte(push), time.Now(), event, identity)); err != nil {
		t.Error(err)
	}
}

// A person who gives a command reads what became of it, in an answer that is no error.
func TestWebhookPerson(t *testing.T) {
	f := newFixture(t, hooked+`
task "ops" {
  command = ["/bin/true"]
  webhook "slack" {
    verify  = "slack"
    secrets = ["s3cret"]
    events  = ["/deploy", "block_actions"]
  }
}
task "closed" {
  command = ["/bin/true"]
  enabled = false
  webhook "slack" {
    verify  = "slack"
    secrets = ["s3cret"]
  }
}
`)
	for _, c := range []struct {
		task, body string
		runs       bool
		text       string
	}{
		{"ops", "command=%2Fdeploy&text=now&trigger_id=1", true, "Accepted: job "}, {"hooked", "command=%2Fdeploy&trigger_id=2", true, "Accepted: job "},
		{"ops", "command=%2Fother", false, "Nothing to do: the event /other is not among events."},
		{"closed", "command=%2Fdeploy", false, `Not accepted: task "closed" is disabled.`},
		{"ops", "payload=%7B%22type%22%3A%22block_actions%22%7D", true, ""}, {"ops", "payload=%7B%22type%22%3A%22view_closed%22%7D", false, ""},
	} {
		reply, err := f.hook(f.sent(c.task, "slack", []byte(c.body), time.Now()))
		if err != nil || !reply.Person || (reply.Run != nil) != c.runs || !strings.HasPrefix(reply.Text, c.text) || (c.text == "") != (reply.Text == "") {
			t.Errorf("%s %s: %v, %v", c.task, c.body, reply, err)
		}
	}
	// Whoever cannot sign reads nothing.
	r := f.sent("ops", "slack", []byte("command=%2Fdeploy"), time.Now())
	r.Body = append(r.Body, 'x')
	if _, err := f.hook(r); detail(err).GetKind() != "signature" {
		t.Error(err)
	}
	before := strings.Count(f.logs.String(), "\n")
	check := &rtaskv1.WebhookRequest{Hash: r.Hash, Body: []byte("ssl_check=1&token=x")}
	if reply, err := f.hook(check); err != nil || reply.Run != nil || reply.Person || reply.Reason == "" {
		t.Errorf("%v, %v", reply, err)
	}
	if after := strings.Count(f.logs.String(), "\n"); after != before {
		t.Error("a stranger's check of the certificate is in the journal")
	}
	check.Hash = f.sent("hooked", "github", nil, time.Now()).Hash
	if _, err := f.hook(check); detail(err).GetKind() != "signature" {
		t.Error(err)
	}
}

// Requests to a webhook are counted under its name.
func TestWebhookCounted(t *testing.T) {
	f := newFixture(t, hooked)
	counted := map[string]int{}
	var mu sync.Mutex
	f.Requested = func(task, key, result string) {
		mu.Lock()
		defer mu.Unlock()
		counted[task+" "+key+" "+result]++
	}
	event := webhook.Header{Name: "X-GitHub-Event", Value: "push"}
	good := f.sent("hooked", "github", []byte(push), time.Now(), event)
	bad := f.sent("hooked", "github", []byte(push), time.Now(), event)
	bad.Body = nil
	for _, r := range []*rtaskv1.WebhookRequest{good, good, bad, f.sent("hooked", "github", []byte(push), time.Now()), f.sent("off", "github", nil, time.Now()), {Hash: "x"}} {
		_, _ = f.hook(r) // what it answers is others' test
	}
	want := map[string]int{"hooked github accepted": 2, "hooked github signature": 1, "hooked github ignored": 1, "off github disabled": 1}
	if !maps.Equal(counted, want) {
		t.Errorf("%v, want %v", counted, want)
	}
}

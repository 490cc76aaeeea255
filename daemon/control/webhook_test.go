package control

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

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
	r := &rtaskv1.WebhookRequest{Hash: w.Hash(f.ReadSecret), Body: body, RemoteAddr: "192.0.2.7"}
	secret := ""
	if len(secrets) > 0 {
		secret = secrets[len(secrets)-1]
	}
	for _, h := range append(webhook.Sign(w.Scheme, secret, body, "msg-"+fmt.Sprint(at.UnixNano()), at), head...) {
		r.Headers = append(r.Headers, &rtaskv1.Header{Name: h.Name, Value: []byte(h.Value)})
	}
	return r
}

func (f *fixture) hook(r *rtaskv1.WebhookRequest) (*rtaskv1.WebhookResponse, error) {
	reply, err := f.net().Webhook(f.t.Context(), req(r))
	if err != nil {
		return nil, err
	}
	return reply.Msg, nil
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
		if err != nil || reply.Run != nil || (reply.Challenge == "c") != strings.Contains(string(r.Body), "challenge") {
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

// A repeat is refused where it is one beyond doubt, and where that is wanted; what failed was not there.
func TestWebhookRepeats(t *testing.T) {
	f := newFixture(t, hooked)
	for _, name := range []string{"standard", "slack", "stripe", "sum", "github", "gitlab", "gitea", "forgejo", "token"} {
		r := f.sent("hooked", name, []byte(push), time.Now(), webhook.Header{Name: "X-GitHub-Event", Value: "push"})
		first, err := f.hook(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err = f.hook(r)
		refused := slices.Contains([]string{"standard", "slack", "stripe", "sum"}, name)
		if refused && (detail(err).GetKind() != "replay" || connect.CodeOf(err) != connect.CodeAlreadyExists || detail(err).GetJobId() != first.Run.GetJob().GetId()) || !refused && err != nil {
			t.Errorf("%s: %v", name, err)
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
			reply, err := f.net().Webhook(context.WithoutCancel(t.Context()), req(r))
			if err == nil {
				ran <- reply.Msg.Run.GetJob().GetId()
			} else if detail(err).GetKind() != "replay" {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if all, err := f.Jobs.List(job.Filter{Ended: true}); len(ran) != 1 || len(all) != 1 || err != nil {
		t.Errorf("%d ran, %d jobs are there, %v", len(ran), len(all), err)
	}
}

// A secret that is not there yet is named, and taken when it comes.
func TestWebhookMissingSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "github.secret")
	f := newFixture(t, fmt.Sprintf("task \"t\" {\n command = [\"/bin/true\"]\n webhook \"gh\" {\n  verify = \"github\"\n  secret_files = [%q]\n }\n}\n", path))
	admin := f.as(peers()[auth.Admin])
	list := func() *rtaskv1.Webhook {
		return must[rtaskv1.ListWebhooksResponse](t)(admin.ListWebhooks(t.Context(), req(&rtaskv1.ListWebhooksRequest{}))).Webhooks[0]
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
		return must[rtaskv1.TestWebhookResponse](t)(admin.TestWebhook(t.Context(), req(&rtaskv1.TestWebhookRequest{Task: task, Name: name, Run: run})))
	}
	for _, w := range f.Snapshot().Config.Tasks["hooked"].Webhooks {
		for range 2 { // a test is no request, and no repeat
			r := try("hooked", w.Name, false)
			if r.Decision != "accepted" || r.Ref != "refs/heads/main" || r.Event != "push" || r.Job != nil || !slices.Contains(r.Environment, "RTASK_EVENT=push") {
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
		if _, err := admin.TestWebhook(t.Context(), req(bad)); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

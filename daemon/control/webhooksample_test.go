package control

import (
	"path"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/daemon/job"
)

// A test is about what its caller wants, as the sender says it, and about nothing that the sender does not say.
func TestSampleWishes(t *testing.T) {
	f := newFixture(t, hooked)
	admin := f.as(peers()[auth.Admin])
	other := `{"ref":"refs/heads/other","after":"0123456789abcdef0123456789abcdef01234567"}`
	for name, c := range map[string]struct {
		r                *rtaskv1.TestWebhookRequest
		decision, reason string // of an error, "" and what is in its text
		env              string
	}{
		"event":          {&rtaskv1.TestWebhookRequest{Name: "github", Event: "release"}, "ignored", "the event release is not among events", ""},
		"ping":           {&rtaskv1.TestWebhookRequest{Name: "github", Event: "ping"}, "ignored", "it is a ping", ""},
		"ref":            {&rtaskv1.TestWebhookRequest{Name: "github", Ref: "refs/heads/x"}, "ignored", "the ref refs/heads/x is not among refs", ""},
		"both":           {&rtaskv1.TestWebhookRequest{Name: "gitlab", Event: "Tag Push Hook", Ref: "refs/tags/v1"}, "accepted", "", "RTASK_GIT_REF=refs/tags/v1"},
		"no such ref":    {&rtaskv1.TestWebhookRequest{Name: "stripe", Ref: "refs/heads/main"}, "", "names no ref, and not refs/heads/main", ""},
		"event sans ref": {&rtaskv1.TestWebhookRequest{Name: "gitea", Event: "release", Ref: "refs/heads/main"}, "", "names no ref", ""},
		"body":           {&rtaskv1.TestWebhookRequest{Name: "github", Body: []byte(other)}, "ignored", "the ref refs/heads/other is not among refs", ""},
		"body, and ref":  {&rtaskv1.TestWebhookRequest{Name: "github", Body: []byte(other), Ref: "refs/heads/main"}, "", "names the ref refs/heads/other, and not", ""},
		"its own event":  {&rtaskv1.TestWebhookRequest{Name: "stripe", Body: []byte(`{"type":"b"}`), Event: "a"}, "", "names the event b, and not a", ""},
		"event in head":  {&rtaskv1.TestWebhookRequest{Name: "gitea", Body: []byte(`{}`), Event: "a"}, "accepted", "", "RTASK_EVENT=a"},
		"of anybody":     {&rtaskv1.TestWebhookRequest{Name: "sum", Event: "push"}, "", "names no event, and not push", ""},
		"ref of anybody": {&rtaskv1.TestWebhookRequest{Name: "token", Ref: "refs/heads/main"}, "", "names no ref, and not refs/heads/main", ""},
		"told":           {&rtaskv1.TestWebhookRequest{Name: "token", Event: "push", Headers: []*rtaskv1.Header{{Name: "X-Event-Key", Value: []byte("push")}}}, "accepted", "", "RTASK_EVENT=push"},
		"empty body":     {&rtaskv1.TestWebhookRequest{Name: "token", Body: []byte{}}, "accepted", "", ""},
		"large body":     {&rtaskv1.TestWebhookRequest{Name: "sum", Body: make([]byte, 1001)}, "refused", "at most 1000 bytes", ""},
		"header": {&rtaskv1.TestWebhookRequest{Name: "token", Headers: []*rtaskv1.Header{{Name: "x-extra", Value: []byte("a")}, {Name: "X-EXTRA", Value: []byte("b")}}},
			"accepted", "", "REQUEST_HEADER_X_EXTRA=a, b"},
		"header of the sender": {&rtaskv1.TestWebhookRequest{Name: "gitea", Headers: []*rtaskv1.Header{{Name: "x-gitea-event", Value: []byte("push-b")}}}, "accepted", "", "RTASK_EVENT=push-b"},
		"signature":            {&rtaskv1.TestWebhookRequest{Name: "github", Headers: []*rtaskv1.Header{{Name: "x-hub-signature-256", Value: []byte("sha256=00")}}}, "refused", "the signature is missing or wrong", ""},
		"name of a header":     {&rtaskv1.TestWebhookRequest{Name: "github", Headers: []*rtaskv1.Header{{Name: "x y"}}}, "", "not the name and the value of a header", ""},
		"line end":             {&rtaskv1.TestWebhookRequest{Name: "github", Headers: []*rtaskv1.Header{{Name: "x", Value: []byte("a\r\nb: c")}}}, "", "not the name and the value of a header", ""},
	} {
		c.r.Task = "hooked"
		r, err := admin.TestWebhook(t.Context(), c.r)
		if c.decision == "" {
			if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || r.Decision != c.decision || !strings.Contains(r.Reason, c.reason) || c.env != "" && !slices.Contains(r.Environment, c.env) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
		if r.GetRequest() != nil {
			t.Errorf("%s: a request that nobody wanted to see", name)
		}
	}
	f.noJobs()
	// It is what the job gets.
	r := must[rtaskv1.TestWebhookResponse](t)(admin.TestWebhook(t.Context(), &rtaskv1.TestWebhookRequest{Task: "hooked", Name: "sum", Body: []byte("the body"), Run: true}))
	if out := f.output(r.Job.GetId()); !strings.HasSuffix(out, "the body") {
		t.Errorf("%v: %q", r, out)
	}
}

// What show returns is what a sender sends: it is accepted. A secret that is sent as it is, only root gets to see.
func TestSampleShown(t *testing.T) {
	f := newFixture(t, hooked)
	root, admin := f.as(auth.Peer{CgroupKnown: true}), f.as(peers()[auth.Admin])
	for _, w := range f.Snapshot().Config.Tasks["hooked"].Webhooks {
		m := &rtaskv1.TestWebhookRequest{Task: "hooked", Name: w.Name, Show: true}
		r := must[rtaskv1.TestWebhookResponse](t)(root.TestWebhook(t.Context(), m)).Request
		if r.GetMethod() != "POST" || !strings.HasPrefix(r.GetUrl(), "http://127.0.0.1:8800/wh/") {
			t.Errorf("%s: %v", w.Name, r)
		}
		if _, err := f.hook(&rtaskv1.WebhookRequest{Hash: path.Base(r.Url), Headers: r.Headers, Body: r.Body}); err != nil {
			t.Errorf("%s: the request that it showed: %v", w.Name, err)
		}
		reply, err := admin.TestWebhook(t.Context(), m)
		if plain := w.Name == "gitlab"; plain != (connect.CodeOf(err) == connect.CodePermissionDenied) || plain == (err == nil) {
			t.Errorf("%s, shown to another administrator: %v, %v", w.Name, reply, err)
		}
	}
	// Nor does it run what it does not show.
	before := f.jobs()
	if _, err := admin.TestWebhook(t.Context(), &rtaskv1.TestWebhookRequest{Task: "hooked", Name: "gitlab", Show: true, Run: true}); connect.CodeOf(err) != connect.CodePermissionDenied || f.jobs() != before {
		t.Errorf("%v, %d jobs", err, f.jobs()-before)
	}
	if s := "Basic " + "dXNlcjpzM2NyZXQ="; !tells(s, "s3cret") || tells("Basic x", "s3cret") || !tells("s3cret", "s3cret") {
		t.Errorf("%s does not tell of its secret", s)
	}
}

// A request that no gateway would take is not shown: rtask cannot sign where it has a public key only.
func TestSampleOfPublicKey(t *testing.T) {
	f := newFixture(t, everySender())
	root := f.as(auth.Peer{CgroupKnown: true})
	m := &rtaskv1.TestWebhookRequest{Task: "all", Name: string(webhook.Discord), Show: true}
	if r, err := root.TestWebhook(t.Context(), m); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("%v, %v", r, err)
	}
	// What it shows of all others is accepted.
	for _, k := range webhook.Kinds() {
		if m.Name = string(k); k == webhook.Discord {
			continue
		}
		r := must[rtaskv1.TestWebhookResponse](t)(root.TestWebhook(t.Context(), m))
		sent := &rtaskv1.WebhookRequest{Hash: path.Base(r.Webhook.Url), Method: r.Request.GetMethod(), Url: r.Request.GetUrl(), Headers: r.Request.GetHeaders(), Body: r.Request.GetBody()}
		if reply, err := f.hook(sent); err != nil || reply.Run == nil {
			t.Errorf("%s: %v, %v", k, reply, err)
		}
	}
}

// jobs is how many jobs there are.
func (f *fixture) jobs() int {
	all, err := f.Jobs.List(job.Filter{Ended: true})
	if err != nil {
		f.t.Fatal(err)
	}
	return len(all)
}

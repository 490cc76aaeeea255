package control

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth/webhook"
)

// reading is a task whose webhooks read requests, in lines that the tests name.
const reading = `
task "reading" {
  command        = ["/bin/sh", "-c", "env | grep -E '^(TAG|WHO|FIXED|RTASK_PARAM|RTASK_EVENT|RTASK_GIT_REF|RTASK_DELIVERY)' | sort"]
  max_concurrent = 0
  environment    = { TAG = "the task's" }
  param "version" {
    pattern = "v[0-9.]+"
    default = "v0"
  }
  webhook "release" {
    verify  = "github"
    secrets = ["s3cret"]
    respond = "result"
    when    = body.repository.full_name == "acme/site" && body.action == "published"
    environment = {
      TAG   = body.release.tag_name
      WHO   = try(body.sender.login, "nobody")
      FIXED = "is ${method}"
    }
    params = { version = body.release.tag_name }
  }
  webhook "other" {
    verify  = "hmac"
    secrets = ["s3cret"]
    header  = "X-Sum"
    respond = "result"
    event   = header("X-Kind")
    ref     = "refs/heads/${body.branch}"
    id      = body.uuid
    events  = ["changed"]
    refs    = ["refs/heads/main"]
    when    = event == "changed" && ref == "refs/heads/main" && cidrcontains("192.0.2.0/24", remote_addr) && query.env == "prod"
  }
  webhook "token" {
    token   = "0123456789abcdef"
    respond = "result"
    when    = header("X-Key") == "s3cret" || body.key == "s3cret"
  }
  webhook "open" {
    token   = "0123456789abcdefg"
    respond = "result"
    id      = body.uuid
  }
}
`

func release(tag string) []byte {
	return fmt.Appendf(nil, `{"action":"published","repository":{"full_name":"acme/site"},"release":{"tag_name":%s},"sender":{"login":"alice"}}`, tag)
}

func TestWebhookValues(t *testing.T) {
	f := newFixture(t, reading)
	event := webhook.Header{Name: "X-GitHub-Event", Value: "release"}
	reply, err := f.hook(f.sent("reading", "release", release(`"v1.2"`), time.Now(), event))
	want := "FIXED=is POST\nRTASK_EVENT=release\nRTASK_PARAM_VERSION=v1.2\nTAG=v1.2\nWHO=alice\n"
	if err != nil || string(reply.Run.GetStdout()) != want {
		t.Errorf("%v, %v", reply, err)
	}
	other := f.sent("reading", "other", []byte(`{"branch":"main","uuid":"u-1"}`), time.Now(), webhook.Header{Name: "x-kind", Value: "changed"})
	other.Query = []byte("env=prod")
	first, err := f.hook(other)
	want = "RTASK_DELIVERY=u-1\nRTASK_EVENT=changed\nRTASK_GIT_REF=refs/heads/main\nRTASK_PARAM_VERSION=v0\nTAG=the task's\n"
	if err != nil || string(first.Run.GetStdout()) != want {
		t.Errorf("%v, %v", first, err)
	}
	// An id in the signed body makes a second one a repeat.
	again, err := f.hook(other)
	if err != nil || again.Run.GetJob().GetId() != first.Run.GetJob().GetId() {
		t.Errorf("%v, %v", again, err)
	}
}

func TestWebhookConditions(t *testing.T) {
	f := newFixture(t, reading)
	with := func(body, query string, head ...webhook.Header) *rtaskv1.WebhookRequest {
		r := f.sent("reading", "other", []byte(body), time.Now(), head...)
		r.Query = []byte(query)
		return r
	}
	changed := webhook.Header{Name: "X-Kind", Value: "changed"}
	gone := strings.Replace(string(release(`"v1"`)), "published", "deleted", 1)
	for _, test := range []struct {
		r    *rtaskv1.WebhookRequest
		want string
	}{
		{f.sent("reading", "release", []byte(gone), time.Now()), `when: body.action == "published" is false (`},
		{f.sent("reading", "release", []byte(`{"action":"published"}`), time.Now()), `when: body.repository.full_name is missing (`},
		{f.sent("reading", "release", nil, time.Now()), `when: the body is neither JSON nor a form (`},
		{f.sent("reading", "release", []byte(strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)), time.Now()), "exceeded max depth ("},
		{with(`{"branch":"main"}`, "env=prod"), `event: header("X-Kind") is missing (`},
		{with(`{"Branch":"main"}`, "env=prod", changed), `ref: body.branch is missing (`},
		{with(`{"branch":"dev"}`, "env=prod", changed), `the ref refs/heads/dev is not among refs`},
		{with(`{"branch":"main"}`, "env=dev", changed), `when: query.env == "prod" is false (`},
		{with(`{"branch":"main"}`, "", changed), `when: query.env is missing (`},
	} {
		reply, err := f.hook(test.r)
		if err != nil || reply.Run != nil || !strings.Contains(reply.Reason, test.want) {
			t.Errorf("%.80s: %v, %v; want %q", test.r.Body, reply, err, test.want)
		}
		if !strings.Contains(f.logs.String(), "RTASK_DECISION=ignored") || !strings.Contains(strings.ReplaceAll(f.logs.String(), `\"`, `"`), test.want) {
			t.Errorf("nothing about %q in\n%s", test.want, f.logs.String())
		}
	}
	// Who knows a URL alone does not learn what else has to be known.
	reply, err := f.hook(&rtaskv1.WebhookRequest{Hash: "0123456789abcdef", Body: []byte(`{"key":"x"}`), Headers: []*rtaskv1.Header{{Name: "X-Key", Value: []byte("x")}}})
	if err != nil || !strings.HasPrefix(reply.Reason, `when: header("…") == "…" || body.key == "…" is false (`) || strings.Contains(f.logs.String(), "s3cret") {
		t.Errorf("%v, %v\n%s", reply, err, f.logs.String())
	}
	f.noJobs()
}

// TestWebhookValuesAttacked: values that no variable or parameter can have, and bodies that can be read in two ways, start nothing.
func TestWebhookValuesAttacked(t *testing.T) {
	f := newFixture(t, reading)
	twice := `{"action":"deleted","action":"published","repository":{"full_name":"acme/site"},"release":{"tag_name":"v1"}}`
	for body, want := range map[string]string{
		string(release(`"v1\u0000"`)):                               "environment TAG: body.release.tag_name has a NUL byte in it",
		string(release(`"` + strings.Repeat("x", 1<<20-200) + `"`)): "environment TAG: body.release.tag_name has more than 65536 bytes",
		string(release(`"` + strings.Repeat("x", 2<<20) + `"`)):     "environment TAG: body.release.tag_name is more than can be read here",
		string(release(`null`)):                                     "environment TAG: body.release.tag_name is null",
		string(release(`["v1"]`)):                                   "environment TAG: body.release.tag_name is not text, but a list",
		string(release(`"v1\nv2"`)):                                 "parameter version does not match",
		string(release(`"$(reboot)"`)):                              "parameter version does not match",
		twice:                                                       "body.action is there twice",
		`{"action":"published","repository":{"full_name":"acme/site"},"Release":{"tag_name":"v1"}}`: "environment TAG: body.release.tag_name is missing",
	} {
		_, err := f.hook(f.sent("reading", "release", []byte(body), time.Now()))
		if detail(err).GetKind() != "bad-request" || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100s: %v; want %q", body, err, want)
		}
	}
	f.noJobs()
	if strings.Contains(f.logs.String(), "reboot") {
		t.Error("a stranger's value is in the log")
	}
}

// TestUnsignedIDRepeats: an id of a request that is not signed makes no second one a repeat.
func TestUnsignedIDRepeats(t *testing.T) {
	f := newFixture(t, reading)
	seen := map[string]bool{}
	for range 2 {
		reply, err := f.hook(f.sent("reading", "open", []byte(`{"uuid":"u-1"}`), time.Now()))
		if err != nil || !strings.Contains(string(reply.Run.GetStdout()), "RTASK_DELIVERY=u-1\n") {
			t.Fatalf("%v, %v", reply, err)
		}
		seen[reply.Run.GetJob().GetId()] = true
	}
	if len(seen) != 2 {
		t.Error("the second request was taken for a repeat")
	}
}

// TestReplacedEnvironment: of two variables of a name, programs do not agree which one counts.
func TestReplacedEnvironment(t *testing.T) {
	got := replaced([]string{"A=1", "AB=2", "B=3", "A=4"}, []string{"A=5", "C=6"})
	if want := []string{"AB=2", "B=3", "A=5", "C=6"}; !slices.Equal(got, want) {
		t.Error(got)
	}
}

// TestUnsignedID: where the body is not signed, an id in it is no proof of a repeat, and a client that changes it gets no second run.
func TestUnsignedID(t *testing.T) {
	for _, test := range []struct {
		scheme webhook.Scheme
		want   bool
	}{
		{webhook.Scheme{Kind: webhook.GitHub}, true}, {webhook.Scheme{Kind: webhook.HMAC, Signed: "{timestamp}.{body}"}, true}, {webhook.Scheme{Kind: webhook.Token}, false},
		{webhook.Scheme{Kind: "mailgun"}, false}, {webhook.Scheme{Kind: "twilio"}, false}, {webhook.Scheme{Kind: "linear"}, true},
	} {
		if got := test.scheme.SignsBody(); got != test.want {
			t.Errorf("%v: %v", test.scheme, got)
		}
	}
}

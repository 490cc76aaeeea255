package webhook

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

const sha = "0123456789abcdef0123456789abcdef01234567"

func TestRead(t *testing.T) {
	push := `{"ref":"refs/heads/main","after":"` + sha + `","id":17,"type":{},"event":"x"}`
	form := "payload=" + url.QueryEscape(push)
	for _, c := range []struct {
		name string
		kind Kind
		head Headers
		body string
		want string // the environment
	}{
		{"github", GitHub, Headers{{"X-GitHub-Event", "push"}, {"X-GitHub-Delivery", "d-1"}}, push,
			"RTASK_EVENT=push RTASK_GIT_REF=refs/heads/main RTASK_GIT_SHA=" + sha + " RTASK_DELIVERY=d-1"},
		{"github, a form", GitHub, Headers{{"x-github-event", "push"}, {"Content-Type", "application/x-www-form-urlencoded; charset=utf-8"}}, form,
			"RTASK_EVENT=push RTASK_GIT_REF=refs/heads/main RTASK_GIT_SHA=" + sha},
		{"github, pull request", GitHub, Headers{{"X-GitHub-Event", "pull_request"}}, `{"pull_request":{"head":{"ref":"main","sha":"` + sha + `"}}}`,
			"RTASK_EVENT=pull_request RTASK_GIT_SHA=" + sha},
		{"gitlab", GitLab, Headers{{"X-Gitlab-Event", "Push Hook"}, {"X-Gitlab-Event-UUID", "u"}}, `{"object_kind":"push","ref":"refs/tags/v1","checkout_sha":"` + sha + `"}`,
			"RTASK_EVENT=push RTASK_GIT_REF=refs/tags/v1 RTASK_GIT_SHA=" + sha + " RTASK_DELIVERY=u"},
		{"gitlab, merge request", GitLab, Headers{{"X-Gitlab-Event", "Merge Request Hook"}, {"Idempotency-Key", "i"}}, `{"object_kind":"merge_request","object_attributes":{"last_commit":{"id":"` + sha + `"}}}`,
			"RTASK_EVENT=merge_request RTASK_GIT_SHA=" + sha + " RTASK_DELIVERY=i"},
		{"gitea", Gitea, Headers{{"X-Gitea-Event", "push"}, {"X-GitHub-Event", "other"}, {"X-Gitea-Delivery", "g"}}, push,
			"RTASK_EVENT=push RTASK_GIT_REF=refs/heads/main RTASK_GIT_SHA=" + sha + " RTASK_DELIVERY=g"},
		{"forgejo", Forgejo, Headers{{"X-Forgejo-Event", "push"}, {"X-Gitea-Event", "other"}}, push, "RTASK_EVENT=push RTASK_GIT_REF=refs/heads/main RTASK_GIT_SHA=" + sha},
		{"standard", Standard, Headers{{"webhook-id", "m"}}, `{"type":"invoice.paid"}`, "RTASK_EVENT=invoice.paid RTASK_DELIVERY=m"},
		{"slack event", Slack, nil, `{"type":"event_callback","event_id":"Ev1","event":{"type":"app_mention"}}`, "RTASK_EVENT=app_mention RTASK_DELIVERY=Ev1"},
		{"slack command", Slack, Headers{{"Content-Type", "application/x-www-form-urlencoded"}}, "command=%2Fdeploy&text=x", "RTASK_EVENT=/deploy"},
		{"slack interaction", Slack, Headers{{"Content-Type", "application/x-www-form-urlencoded"}}, "payload=%7B%22type%22%3A%22block_actions%22%7D", "RTASK_EVENT=block_actions"},
		{"stripe", Stripe, nil, `{"id":"evt_1","type":"charge.succeeded"}`, "RTASK_EVENT=charge.succeeded RTASK_DELIVERY=evt_1"},
		{"bitbucket", HMACSHA256, Headers{{"X-Event-Key", "repo:push"}, {"X-Request-UUID", "r"}}, "{}", "RTASK_EVENT=repo:push RTASK_DELIVERY=r"},
		{"token", Token, nil, "no JSON", ""},
		{"lines", GitHub, Headers{{"X-GitHub-Event", "a\nb"}, {"X-GitHub-Delivery", strings.Repeat("x", 2000)}}, `{"ref":"refs/heads/a\u0000b","after":"` + strings.ToUpper(sha) + `"}`, ""},
		{"two events", GitHub, Headers{{"X-GitHub-Event", "push"}, {"x-github-event", "release"}}, "{}", ""},
	} {
		d := Read(c.kind, c.head, []byte(c.body))
		if got := strings.Join(d.Environment(nil), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		want := c.body
		if c.name == "github, a form" {
			want = push
		}
		if string(d.Payload) != want {
			t.Errorf("%s: the input is %q", c.name, d.Payload)
		}
	}
	// An event is called as the configuration calls it.
	d := Read(GitLab, Headers{{"X-Gitlab-Event", "Push Hook"}}, []byte(`{"object_kind":"push"}`))
	if got := d.Environment([]string{"Push Hook"}); !slices.Equal(got, []string{"RTASK_EVENT=Push Hook"}) {
		t.Errorf("%q", got)
	}
	// A form that is none, or has two, is the input as it is.
	for _, body := range []string{"payload=%zz", "payload=a&payload=b", "x=y", ""} {
		if d := Read(GitHub, Headers{{"Content-Type", "application/x-www-form-urlencoded"}}, []byte(body)); string(d.Payload) != body {
			t.Errorf("%q: %q", body, d.Payload)
		}
	}
}

func TestSkip(t *testing.T) {
	head := func(event string) Headers { return Headers{{"X-GitHub-Event", event}} }
	main := `{"ref":"refs/heads/main"}`
	for _, c := range []struct {
		kind         Kind
		head         Headers
		body         string
		events, refs []string
		want         string
	}{
		{GitHub, head("push"), main, nil, nil, ""},
		{GitHub, head("ping"), main, nil, nil, "it is a ping"},
		{GitHub, head("ping"), main, []string{"ping"}, nil, "it is a ping"},
		{GitHub, head("push"), main, []string{"release", "push"}, []string{"refs/heads/x", "refs/heads/main"}, ""},
		{GitHub, head("release"), main, []string{"push"}, nil, "the event release is not among events"},
		{GitHub, nil, main, []string{"push"}, nil, "it names no event"},
		{GitHub, head("push"), main, nil, []string{"refs/heads/mai"}, "the ref refs/heads/main is not among refs"},
		{GitHub, head("push"), `{"ref":"refs/heads/mainframe"}`, nil, []string{"refs/heads/main"}, "the ref refs/heads/mainframe is not among refs"},
		{GitHub, head("release"), "{}", nil, []string{"refs/heads/main"}, "it names no ref"},
		{GitHub, head("push"), `{"ref":"refs/tags/v1.2"}`, nil, []string{"refs/tags/v*"}, ""},
		{GitHub, head("push"), `{"ref":"refs/tags/v1/2"}`, nil, []string{"refs/tags/v*"}, "the ref refs/tags/v1/2 is not among refs"},
		{GitLab, Headers{{"X-Gitlab-Event", "Push Hook"}}, `{"object_kind":"push"}`, []string{"Push Hook"}, nil, ""},
		{GitLab, Headers{{"X-Gitlab-Event", "Push Hook"}}, `{"object_kind":"push"}`, []string{"push"}, nil, ""},
		{GitLab, Headers{{"X-Gitlab-Event", "Push Hook"}}, `{"object_kind":"push"}`, []string{"tag_push"}, nil, "the event push is not among events"},
		{Slack, nil, `{"type":"url_verification","challenge":"c"}`, []string{"app_mention"}, nil, "it is a ping"},
	} {
		if got := Read(c.kind, c.head, []byte(c.body)).Skip(c.events, c.refs); got != c.want {
			t.Errorf("%s %v %s with %q %q: %q, want %q", c.kind, c.head, c.body, c.events, c.refs, got, c.want)
		}
	}
	if d := Read(Slack, nil, []byte(`{"type":"url_verification","challenge":"c"}`)); d.Challenge != "c" {
		t.Errorf("%+v", d)
	}
}

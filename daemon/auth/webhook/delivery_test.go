package webhook

import (
	"encoding/json"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
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
		d, err := Read(Scheme{Kind: c.kind}, &Request{Headers: c.head, Body: []byte(c.body)})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
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
	d := read(t, GitLab, Headers{{"X-Gitlab-Event", "Push Hook"}}, `{"object_kind":"push"}`)
	if got := d.Environment([]string{"Push Hook"}); !slices.Equal(got, []string{"RTASK_EVENT=Push Hook"}) {
		t.Errorf("%q", got)
	}
	// A form that is none, or has two, is the input as it is.
	for _, body := range []string{"payload=%zz", "payload=a&payload=b", "x=y", ""} {
		if d := read(t, GitHub, Headers{{"Content-Type", "application/x-www-form-urlencoded"}}, body); string(d.Payload) != body {
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
		{GitHub, head("push"), `{"ref":"refs/heads/a/b"}`, nil, []string{"refs/heads/**"}, ""},
		{GitHub, head("push"), `{"ref":"refs/heads/a"}`, nil, []string{"refs/heads/**"}, ""},
		{GitHub, head("push"), `{"ref":"refs/tags/a"}`, nil, []string{"refs/heads/**"}, "the ref refs/tags/a is not among refs"},
		{GitHub, head("push"), `{"Ref":"refs/heads/main"}`, nil, []string{"refs/heads/main"}, "it names no ref"},
		{GitHub, head("push"), `{"ref":"refs/heads/main","deleted":true}`, nil, nil, "refs/heads/main was deleted (deletions = true takes it)"},
		{GitLab, nil, `{"object_kind":"push","ref":"refs/heads/main","after":"0000000000000000000000000000000000000000"}`, nil, nil, "refs/heads/main was deleted (deletions = true takes it)"},
		{Gitea, nil, `{"after":"` + strings.Repeat("0", 64) + `"}`, nil, nil, "it says that something was deleted (deletions = true takes it)"},
		{GitHub, head("push"), `{"ref":"refs/heads/main","deleted":false,"before":"0000000000000000000000000000000000000000"}`, nil, nil, ""},
		{GitHub, head("push"), `{"pull_request":{"head":{"sha":"x"}}}`, []string{"push"}, nil, "its header says push, but the body is of pull_request"},
		{GitHub, head("push"), `{"ref":"main","ref_type":"branch"}`, nil, nil, "its header says push, but the body is of create"},
		{GitHub, head("release"), `{"ref":"refs/heads/main","commits":[]}`, nil, nil, "its header says release, but the body is of push"},
		{GitHub, head("pull_request_review"), `{"pull_request":{}}`, nil, nil, ""},
		{GitHub, head("deployment"), `{"deployment":{},"workflow_run":{}}`, nil, nil, ""},
		{GitHub, head("issue_comment"), `{"issue":{},"comment":{}}`, nil, nil, ""},
		{GitLab, Headers{{"X-Gitlab-Event", "Push Hook"}}, `{"object_kind":"merge_request"}`, []string{"Push Hook"}, nil, "the event merge_request is not among events"},
		{GitLab, Headers{{"X-Gitlab-Event", "Job Hook"}}, `{"object_kind":"build"}`, []string{"Job Hook"}, nil, ""},
		{GitLab, Headers{{"X-Gitlab-Event", "Confidential Issue Hook"}}, `{"object_kind":"issue"}`, []string{"Confidential Issue Hook"}, nil, ""},
		{GitHub, head("push"), `{"ref":"refs/tags/v1/2"}`, nil, []string{"refs/tags/v*"}, "the ref refs/tags/v1/2 is not among refs"},
		{GitLab, Headers{{"X-Gitlab-Event", "Push Hook"}}, `{"object_kind":"push"}`, []string{"Push Hook"}, nil, ""},
		{GitLab, Headers{{"X-Gitlab-Event", "Push Hook"}}, `{"object_kind":"push"}`, []string{"push"}, nil, ""},
		{GitLab, Headers{{"X-Gitlab-Event", "Push Hook"}}, `{"object_kind":"push"}`, []string{"tag_push"}, nil, "the event push is not among events"},
		{Slack, nil, `{"type":"url_verification","challenge":"c"}`, []string{"app_mention"}, nil, "it is a ping"},
	} {
		if got := read(t, c.kind, c.head, c.body).Skip(Wanted{Events: c.events, Refs: c.refs}); got != c.want {
			t.Errorf("%s %v %s with %q %q: %q, want %q", c.kind, c.head, c.body, c.events, c.refs, got, c.want)
		}
	}
	if d := read(t, Slack, nil, `{"type":"url_verification","challenge":"c"}`); d.Challenge != "c" {
		t.Errorf("%+v", d)
	}
}

// A sample says what its sender says, and no more: a pull request, or an event of Slack, names no branch that could be wanted.
func TestSample(t *testing.T) {
	main := []string{"refs/heads/main"}
	for _, k := range Kinds() {
		if row, _ := SenderOf(k); len(row.Event) == 0 || row.Example != "push" {
			continue // TestSenders has the others
		}
		for event, named := range map[string]bool{"push": k != Slack && k != Stripe, "pull_request": k == Standard, "": k != Slack && k != Stripe} {
			r := Sample(Scheme{Kind: k}, event, main[0], time.Now())
			d := read(t, k, r.Headers, string(r.Body))
			wanted := Wanted{Events: []string{first(event, "push")}}
			if got := d.Skip(wanted); got != "" {
				t.Errorf("%s %q: %s", k, event, got)
			}
			wanted.Refs = main
			if got := d.Skip(wanted); (got == "") != named {
				t.Errorf("%s %q: %q", k, event, got)
			}
		}
	}
	for _, k := range []Kind{Token, HMACSHA256, HMAC} { // who may be anybody
		r := Sample(Scheme{Kind: k}, "push", main[0], time.Now())
		if d := read(t, k, r.Headers, string(r.Body)); d.Event != "" || d.Ref != "" || d.ID != "" || len(r.Headers) != 1 {
			t.Errorf("%s: %v %s", k, r.Headers, r.Body)
		}
	}
	r := Sample(Scheme{Kind: Slack}, "/deploy", "", time.Now())
	if d := read(t, Slack, r.Headers, string(r.Body)); d.Event != "/deploy" || d.Person != Reads {
		t.Errorf("%+v", d)
	}
	r = Sample(Scheme{Kind: GitLab}, "Merge Request Hook", "", time.Now())
	if d := read(t, GitLab, r.Headers, string(r.Body)); d.Event != "merge_request" || d.Other != "Merge Request Hook" || d.Ref != "" {
		t.Errorf("%+v", d)
	}
}

func read(t *testing.T, k Kind, h Headers, body string) Delivery {
	t.Helper()
	d, err := Read(Scheme{Kind: k}, &Request{Headers: h, Body: []byte(body)})
	if err != nil {
		t.Error(err)
	}
	return d
}

// A body of empty changes would take a hundred times its size.
func TestManyChanges(t *testing.T) {
	for n, ok := range map[int]bool{maxChanges: true, maxChanges + 1: false} {
		d, err := Read(Scheme{Kind: AzureDevOps}, &Request{Body: []byte(`{"resource":{"refUpdates":[` + strings.Repeat("{},", n-1) + `{}]}}`)})
		if (err == nil) != ok || ok && len(d.Changes) != n || !ok && len(d.Changes) != 0 {
			t.Errorf("%d: %v, %d changes", n, err, len(d.Changes))
		}
	}
}

// A deletion that is wanted has no commit.
func TestDeletions(t *testing.T) {
	zeros := strings.Repeat("0", 40)
	d := read(t, GitHub, nil, `{"ref":"refs/heads/main","after":"`+zeros+`","deleted":true,"head_commit":null}`)
	if got := d.Skip(Wanted{Deletions: true}); got != "" {
		t.Error(got)
	}
	if got := strings.Join(d.Environment(nil), " "); got != "RTASK_GIT_REF=refs/heads/main" {
		t.Error(got)
	}
	// "deleted" alone, or with a commit beside it, has none either.
	for _, body := range []string{`{"deleted":true,"after":"` + sha + `"}`, `{"after":"` + zeros + `","checkout_sha":"` + sha + `"}`, `{"pull_request":{"head":{"sha":"` + zeros + `"}}}`} {
		if d := read(t, GitHub, nil, body); d.SHA != "" {
			t.Errorf("%s: %q", body, d.SHA)
		}
	}
}

// What is pushed with an annotated tag is the commit, not the tag's own object.
func TestTags(t *testing.T) {
	tag := strings.Repeat("a", 40)
	for _, c := range []struct {
		kind Kind
		body string
	}{
		{GitHub, `{"ref":"refs/tags/v1","after":"` + tag + `","head_commit":{"id":"` + sha + `"}}`},
		{Gitea, `{"ref":"refs/tags/v1","after":"` + tag + `","head_commit":{"id":"` + sha + `"}}`},
		{Forgejo, `{"ref":"refs/tags/v1","after":"` + tag + `","head_commit":{"id":"` + sha + `"}}`},
		{GitLab, `{"object_kind":"tag_push","ref":"refs/tags/v1","after":"` + tag + `","checkout_sha":"` + sha + `"}`},
	} {
		if d := read(t, c.kind, nil, c.body); d.SHA != sha {
			t.Errorf("%s: %q", c.kind, d.SHA)
		}
	}
}

// The signed bytes alone say how they are read: no header makes another request of them.
func TestHeadersChangeNothing(t *testing.T) {
	evil := "&payload=" + url.QueryEscape(`{"ref":"refs/heads/main"}`) + "&command=/deploy&ssl_check=1"
	for _, c := range []struct {
		kind Kind
		body string
		ref  string
	}{
		{GitHub, `{"ref":"refs/heads/feature","commits":[{"message":"` + evil + `"}]}`, "refs/heads/feature"},
		{GitHub, " \n" + `{"ref":"refs/heads/feature","x":"` + evil + `"}`, "refs/heads/feature"},
		{GitHub, "payload=" + url.QueryEscape(`{"ref":"refs/heads/feature"}`), "refs/heads/feature"},
		{GitHub, "x=y" + evil, ""},
		{Gitea, `{"ref":"refs/heads/feature","x":"` + evil + `"}`, "refs/heads/feature"},
		{Slack, `{"type":"event_callback","event":{"type":"message","text":"` + evil + `"}}`, ""},
		{Slack, "command=%2Fdeploy&text=" + url.QueryEscape(`{"type":"event_callback"}`), ""},
	} {
		plain := read(t, c.kind, nil, c.body)
		for _, kind := range []string{"application/json", "application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=utf-16", "text/plain", "multipart/form-data; boundary=payload"} {
			h := Headers{{"Content-Type", kind}, {"Content-Encoding", "gzip"}, {"Content-Transfer-Encoding", "base64"}}
			if d := read(t, c.kind, h, c.body); d.Ref != c.ref || d.Event != plain.Event || string(d.Payload) != string(plain.Payload) {
				t.Errorf("%s %s as %s: %+v", c.kind, c.body, kind, d)
			}
		}
	}
	if SlackCheck([]byte(`{"text":"&ssl_check=1"}`)) || !SlackCheck([]byte("token=x&ssl_check=1")) || SlackCheck([]byte("ssl_check=0")) || SlackCheck(nil) {
		t.Error("ssl_check")
	}
}

// A name that rtask reads is there once, to the letter; of a body that has it twice, parsers read different things.
func TestNamesOnce(t *testing.T) {
	for _, c := range []struct {
		kind Kind
		body string
	}{
		{GitHub, `{"ref":"refs/heads/main","ref":"refs/heads/evil"}`}, {GitHub, `{"ref":"a","r\u0065f":"b"}`},
		{GitHub, `{"after":"a","x":{},"after":"b"}`}, {GitHub, `{"head_commit":{"id":"a","id":"b"}}`},
		{GitHub, `{"pull_request":{"head":{"sha":"a","sha":"b"}}}`}, {GitHub, `{"pull_request":{"head":{}, "head":{}}}`},
		{GitHub, `{"commits":[],"commits":[]}`}, {GitHub, "payload=" + url.QueryEscape(`{"ref":"a","ref":"b"}`)},
		{GitLab, `{"object_kind":"push","object_kind":"x"}`}, {GitLab, `{"object_attributes":{"last_commit":{"id":"a","id":"b"}}}`},
		{Stripe, `{"id":"a","id":"b"}`}, {Stripe, `{"type":"a","type":"b"}`}, {Standard, `{"type":"a","type":"b"}`},
		{Slack, `{"event_id":"a","event_id":"b"}`}, {Slack, `{"event":{"type":"a","type":"b"}}`}, {Slack, `command=/a&command=/b`},
		{Slack, "payload=" + url.QueryEscape(`{"trigger_id":"a","trigger_id":"b"}`)}, {Token, `{"ref":"a","ref":"b"}`},
	} {
		if _, err := Read(Scheme{Kind: c.kind}, &Request{Body: []byte(c.body)}); !errors.Is(err, ErrBody) {
			t.Errorf("%s %s: %v", c.kind, c.body, err)
		}
	}
	d := read(t, Stripe, nil, `{"Type":"x","TYPE":"y","type":"z","iD":"a","data":{"object":{"id":"b","id":"c"}},"id":"d"}`)
	if d.Event != "z" || d.SignedID != "d" {
		t.Errorf("%+v", d)
	}
	// What is no text is none, and ends nothing.
	d = read(t, GitHub, nil, `{"ref":{"a":["}","\"",{"ref":1}]},"after":12 , "deleted": "true","x\\":null}`)
	if d.Ref != "" || d.SHA != "" || d.Deleted {
		t.Errorf("%+v", d)
	}
	if d := read(t, GitHub, nil, "{\"ref\":\"refs/heads/\xff\"}"); d.Ref != "" {
		t.Errorf("%q", d.Ref)
	}
}

// What a sender signs stays the same when it sends again.
func TestSignedIDs(t *testing.T) {
	for _, c := range []struct {
		kind       Kind
		body, want string
	}{
		{Stripe, `{"id":"evt_1","type":"x"}`, "evt_1"}, {Slack, `{"event_id":"Ev1","type":"event_callback"}`, "Ev1"},
		{Slack, "command=%2Fdeploy&trigger_id=1.2.x", "1.2.x"}, {Slack, "payload=" + url.QueryEscape(`{"type":"block_actions","trigger_id":"3.4.y"}`), "3.4.y"},
		{Stripe, `{"object":{"id":"evt_1"}}`, ""}, {GitHub, `{"id":"x"}`, ""}, {Token, `{"id":"x"}`, ""},
	} {
		if d := read(t, c.kind, nil, c.body); d.SignedID != c.want {
			t.Errorf("%s %s: %q", c.kind, c.body, d.SignedID)
		}
	}
	timed := Proof{Fresh: true, Key: "k", Until: time.Now()}
	if p := timed.WithID(Delivery{SignedID: "a"}); !p.Fresh || p.Key == "k" || !p.Until.IsZero() {
		t.Errorf("%+v", p)
	}
	if p := (Proof{Key: "k"}).WithID(Delivery{SignedID: "a"}); p.Key != "k" {
		t.Errorf("%+v", p)
	}
	if p := timed.WithID(Delivery{}); p != timed {
		t.Errorf("%+v", p)
	}
}

func TestPersons(t *testing.T) {
	for body, want := range map[string]Person{
		"command=%2Fdeploy&text=x": Reads, "payload=" + url.QueryEscape(`{"type":"block_actions"}`): Acts, `{"type":"event_callback","command":"/x"}`: Nobody, "": Nobody,
	} {
		if d := read(t, Slack, nil, body); d.Person != want {
			t.Errorf("%s: %d", body, d.Person)
		}
	}
}

// FuzzRead: whatever is in a body, what is read of it is what encoding/json reads of a body whose names are not ambiguous.
func FuzzRead(f *testing.F) {
	for _, body := range []string{`{"ref":"refs/heads/main","after":"` + sha + `"}`, `{"a":[1,{"ref":"x"}],"ref" : "y"}`, `{"r\u0065f":"z","ref":""}`, `{"Ref":"x"}`, "[]", `"x"`, " {} "} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		for _, k := range Kinds() {
			if d, err := Read(Scheme{Kind: k}, &Request{Headers: Headers{{"X-GitHub-Event", "push"}}, Body: []byte(body)}); err != nil && !errors.Is(err, ErrBody) {
				t.Errorf("%s: %v", k, err)
			} else if d.Payload == nil && body != "" && k != GitHub && k != Gitea && k != Forgejo {
				t.Errorf("%s: no payload", k)
			}
		}
		SlackCheck([]byte(body))
		var any map[string]json.RawMessage
		if json.Unmarshal([]byte(body), &any) != nil || any == nil {
			return
		}
		members, err := bodyObject([]byte(body)).members("ref")
		if err != nil {
			return // which of them the map has is the question
		}
		if got, want := members["ref"], any["ref"]; string(got) != string(want) {
			t.Errorf("%q: %q, want %q", body, got, want)
		}
	})
}

// FuzzMatchRef compares with regular expressions.
func FuzzMatchRef(f *testing.F) {
	f.Add("refs/heads/**", "refs/heads/a/b")
	f.Add("refs/*/v*", "refs/tags/v1")
	f.Add("**x*", "xx/x")
	f.Fuzz(func(t *testing.T, pattern, ref string) {
		if len(pattern) > 50 || !utf8.ValidString(pattern) || !utf8.ValidString(ref) {
			return
		}
		text := regexp.QuoteMeta(pattern)
		text = regexp.MustCompile(`(\\\*){2,}`).ReplaceAllString(text, "(?s:.*)")
		text = strings.ReplaceAll(text, `\*`, "[^/]*")
		want := regexp.MustCompile("^(?:" + text + ")$").MatchString(ref)
		if got := matchRef(pattern, ref); got != want {
			t.Errorf("%q, %q: %v (%s)", pattern, ref, got, text)
		}
	})
}

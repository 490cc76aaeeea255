package webhook

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// SampleID is a name for a sample of a request, which no sender gives.
func SampleID(now time.Time) string { return fmt.Sprintf("rtask-test-%d", now.UnixNano()) }

// Sample returns a request as its sender makes it, but for its signature: an event, or the one that its row has as an example, of a
// branch or tag, or of refs/heads/main. What the sender does not say with that event, it does not say either; of a sender that may be
// anybody, it has a body that says nothing. Two samples are not the same.
func Sample(s Scheme, event, ref string, now time.Time) *Request {
	row := rowOf(s.Kind)
	if event == "" && row != nil {
		event = row.Example
	}
	id := SampleID(now)
	if ref == "" {
		ref = "refs/heads/main"
	}
	ref = strings.ReplaceAll(strings.ReplaceAll(ref, "**", "test"), "*", "test")
	sha := strings.Repeat("0", 39) + "1"
	if row != nil && !slices.Contains([]Kind{Token, GitHub, GitLab, Gitea, Forgejo, Standard, Slack, Stripe, HMACSHA256, HMAC}, s.Kind) {
		return row.sample(event, ref, sha, id)
	}
	push := map[string]any{"ref": ref, "after": sha}
	body := push
	h := Headers{{"Content-Type", "application/json"}}
	switch s.Kind {
	case GitHub:
		h = append(h, Header{"X-GitHub-Event", event}, Header{"X-GitHub-Delivery", id})
		body = gitSample(event, push)
	case Gitea:
		h = append(h, Header{"X-Gitea-Event", event}, Header{"X-Gitea-Delivery", id})
		body = gitSample(event, push)
	case Forgejo:
		h = append(h, Header{"X-Forgejo-Event", event}, Header{"X-Forgejo-Delivery", id})
		body = gitSample(event, push)
	case GitLab:
		// "Merge Request Hook" is "merge_request" in the body.
		word := strings.ReplaceAll(strings.ToLower(strings.TrimSuffix(event, " Hook")), " ", "_")
		if word != "push" && word != "tag_push" {
			body = map[string]any{}
		}
		body["object_kind"] = word
		h = append(h, Header{"X-Gitlab-Event", event}, Header{"X-Gitlab-Event-UUID", id})
	case Slack:
		body = map[string]any{"type": "event_callback", "event_id": id, "event": map[string]string{"type": event}}
		if strings.HasPrefix(event, "/") {
			form := url.Values{"command": {event}, "trigger_id": {id}}
			return &Request{Method: "POST", Headers: Headers{{"Content-Type", formType}}, Body: []byte(form.Encode())}
		}
	case Stripe:
		body = map[string]any{"type": event, "id": id}
	case Standard:
		body["type"] = event
	default: // of whom nobody knows what they send
		body = map[string]any{}
	}
	body["rtask_test"] = id
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // it is plain data
	}
	return &Request{Method: "POST", Headers: h, Body: b}
}

// sample is a request as the row of its sender says that it is.
func (s *Sender) sample(event, ref, sha, id string) *Request {
	r := &Request{Method: "POST", Headers: Headers{{"Content-Type", "application/json"}}}
	top := map[string]any{"rtask_test": id}
	put := func(p Place, text string) {
		switch {
		case len(p.Body) > 0:
			setPath(top, p.Body, text)
		case len(p.Header) > 0:
			r.Headers = append(r.Headers, Header{p.Header[0], text})
		}
	}
	if len(s.Event) > 0 {
		put(s.Event[0], event)
	}
	if len(s.ID) > 0 && !s.signs("{id}") { // which Sign puts there
		put(s.ID[0], id)
	}
	if s.Refs != nil && event == s.Example {
		s.Refs.sample(top, ref, sha)
	}
	switch s.Kind {
	case Discord:
		top["type"] = 2
	case Twilio:
		r.Headers[0].Value, r.Body = formType, []byte(url.Values{"MessageSid": {id}, "Body": {"test"}}.Encode())
		return r
	case DockerHub:
		top["push_data"], top["repository"] = map[string]any{"tag": "latest"}, map[string]any{"repo_name": "example/test"}
	}
	b, err := json.Marshal(top)
	if err != nil {
		panic(err) // it is plain data
	}
	r.Body = b
	return r
}

// formType is the Content-Type of a form.
const formType = "application/x-www-form-urlencoded"

// sample puts a change into a body.
func (r *Refs) sample(top map[string]any, ref, sha string) {
	change := top
	if len(r.List) > 0 {
		change = map[string]any{}
		setPath(top, r.List, []any{change})
	}
	for kind, before := range r.Types {
		if name, ok := strings.CutPrefix(ref, before); ok {
			ref = name
			setPath(change, r.Type[0], kind)
		}
	}
	setPath(change, r.Ref[0], ref)
	setPath(change, r.Commit[0], sha)
}

// setPath puts a value at a path of names.
func setPath(in map[string]any, path []string, value any) {
	for ; len(path) > 1; path = path[1:] {
		next, _ := in[path[0]].(map[string]any)
		if next == nil {
			next = map[string]any{}
			in[path[0]] = next
		}
		in = next
	}
	in[path[0]] = value
}

// gitSample is the body of an event of GitHub, Gitea or Forgejo. Only that of a push names a ref in full.
func gitSample(event string, push map[string]any) map[string]any {
	switch {
	case event == "push":
		push["commits"] = []any{}
		return push
	case strings.HasPrefix(event, "pull_request"):
		return map[string]any{"pull_request": map[string]any{"head": map[string]any{"sha": push["after"]}}}
	case event == "workflow_dispatch":
		return map[string]any{"ref": push["ref"], "inputs": nil}
	default:
		return map[string]any{}
	}
}

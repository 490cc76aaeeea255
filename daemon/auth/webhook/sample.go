package webhook

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// SampleID is a name for a sample of a request, which no sender gives.
func SampleID(now time.Time) string { return fmt.Sprintf("rtask-test-%d", now.UnixNano()) }

// Sample returns a request as its sender makes it, but for its signature: an event, or "push", of a branch or tag, or of
// refs/heads/main. What the sender does not say with that event, it does not say either. Two samples are not the same.
func Sample(s Scheme, event, ref string, now time.Time) *Request {
	id := SampleID(now)
	if event == "" {
		event = "push"
	}
	if ref == "" {
		ref = "refs/heads/main"
	}
	ref = strings.ReplaceAll(strings.ReplaceAll(ref, "**", "test"), "*", "test")
	sha := strings.Repeat("0", 39) + "1"
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
			return &Request{Method: "POST", Headers: Headers{{"Content-Type", "application/x-www-form-urlencoded"}}, Body: []byte(form.Encode())}
		}
	case Stripe:
		body = map[string]any{"type": event, "id": id}
	case Standard:
		body["type"] = event
	default:
		h = append(h, Header{"X-Event-Key", event}, Header{"X-Request-UUID", id})
	}
	body["rtask_test"] = id
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // it is plain data
	}
	return &Request{Method: "POST", Headers: h, Body: b}
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

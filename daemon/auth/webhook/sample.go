package webhook

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// SampleID is a name for a sample of a request, which no sender gives.
func SampleID(now time.Time) string { return fmt.Sprintf("rtask-test-%d", now.UnixNano()) }

// Sample returns a request as a sender of a kind makes it, but for its signature: an event, or "push", of a branch or tag, or of
// refs/heads/main. Two samples are not the same.
func Sample(k Kind, event, ref string, now time.Time) (Headers, []byte) {
	id := SampleID(now)
	if event == "" {
		event = "push"
	}
	if ref == "" {
		ref = "refs/heads/main"
	}
	body := map[string]any{
		"ref": strings.ReplaceAll(strings.ReplaceAll(ref, "**", "test"), "*", "test"), "after": strings.Repeat("0", 39) + "1", "rtask_test": id,
	}
	h := Headers{{"Content-Type", "application/json"}}
	switch k {
	case GitHub:
		h = append(h, Header{"X-GitHub-Event", event}, Header{"X-GitHub-Delivery", id})
	case Gitea:
		h = append(h, Header{"X-Gitea-Event", event}, Header{"X-Gitea-Delivery", id})
	case Forgejo:
		h = append(h, Header{"X-Forgejo-Event", event}, Header{"X-Forgejo-Delivery", id})
	case GitLab:
		// "Merge Request Hook" is "merge_request" in the body.
		word := strings.ReplaceAll(strings.ToLower(strings.TrimSuffix(event, " Hook")), " ", "_")
		body["object_kind"] = word
		h = append(h, Header{"X-Gitlab-Event", event}, Header{"X-Gitlab-Event-UUID", id})
	case Slack:
		delete(body, "ref")
		delete(body, "after")
		body["type"], body["event_id"], body["event"] = "event_callback", id, map[string]string{"type": event}
	case Stripe:
		delete(body, "ref")
		delete(body, "after")
		body["type"], body["id"] = event, id
	case Standard:
		body["type"] = event
	default:
		h = append(h, Header{"X-Event-Key", event}, Header{"X-Request-UUID", id})
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // it is plain data
	}
	return h, b
}

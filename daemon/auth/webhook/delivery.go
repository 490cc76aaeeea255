package webhook

import (
	"encoding/json"
	"mime"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// longestWord is how many bytes an event, a ref or an id may have.
const longestWord = 1024

// Delivery is what a request says happened, as far as its kind says so. What is missing, or is no line of text, is "".
type Delivery struct {
	// Event is the event's name: "push". Other is the same one's other name, where the sender has two: GitLab's "Push Hook".
	Event, Other string
	// Ref is the branch or tag, "refs/heads/main", and SHA the commit that it is at now.
	Ref, SHA string
	// ID is the sender's name for this delivery.
	ID string
	// Ping is a request that only tries whether somebody is there. Challenge is what Slack wants to read in the answer to one.
	Ping      bool
	Challenge string
	// Payload is the job's input: the body, or what GitHub, Gitea and Forgejo put into a form's field "payload".
	Payload []byte
}

// payload is all that is looked at in a body of JSON. encoding/json leaves out what is of another type and goes on.
type payload struct {
	Ref         string `json:"ref"`
	After       string `json:"after"`
	CheckoutSHA string `json:"checkout_sha"`
	ObjectKind  string `json:"object_kind"`
	EventName   string `json:"event_name"`
	Type        string `json:"type"`
	ID          string `json:"id"`
	EventID     string `json:"event_id"`
	Challenge   string `json:"challenge"`
	Event       struct {
		Type string `json:"type"`
	} `json:"event"`
	PullRequest struct {
		Head struct {
			SHA string `json:"sha"`
		} `json:"head"`
	} `json:"pull_request"`
	ObjectAttributes struct {
		LastCommit struct {
			ID string `json:"id"`
		} `json:"last_commit"`
	} `json:"object_attributes"`
}

// Read returns what a request of a kind says. It is for one that has passed Verify. Headers are not signed by any sender: who
// has a signed body can send it again under the name of another event.
func Read(k Kind, h Headers, body []byte) Delivery {
	d := Delivery{Payload: body}
	if k == GitHub || k == Gitea || k == Forgejo {
		d.Payload = formPayload(h, body)
	}
	var p payload
	// What is no JSON says nothing.
	_ = json.Unmarshal(d.Payload, &p)
	switch k {
	case GitHub:
		d.Event = h.get("X-GitHub-Event")
		d.Ping = d.Event == "ping"
	case Gitea:
		d.Event = h.get("X-Gitea-Event", "X-Forgejo-Event")
	case Forgejo:
		d.Event = h.get("X-Forgejo-Event", "X-Gitea-Event")
	case GitLab:
		d.Event, d.Other = first(p.ObjectKind, p.EventName), h.get("X-Gitlab-Event")
		if d.Event == "" {
			d.Event = d.Other
		}
	case Standard:
		d.Event = p.Type
	case Slack:
		readSlack(&d, h, p)
	case Stripe:
		d.Event, d.ID = p.Type, p.ID
	default:
		// Whoever it is may name an event as one of those does who are known for it. Bitbucket has X-Event-Key.
		d.Event = h.get("X-GitHub-Event", "X-Forgejo-Event", "X-Gitea-Event", "X-Gitlab-Event", "X-Event-Key")
		d.Ping = d.Event == "ping"
	}
	if d.ID == "" {
		d.ID = ID(k, h)
	}
	d.Event, d.Other, d.ID, d.Challenge = line(d.Event), line(d.Other), line(d.ID), line(d.Challenge)
	d.Ref = line(p.Ref)
	d.SHA = commit(first(p.After, p.CheckoutSHA, p.PullRequest.Head.SHA, p.ObjectAttributes.LastCommit.ID))
	return d
}

// ID is what the head of a request, which may not have passed Verify, calls it, or "".
func ID(k Kind, h Headers) string {
	switch k {
	case GitHub:
		return line(h.get("X-GitHub-Delivery"))
	case Gitea:
		return line(h.get("X-Gitea-Delivery", "X-Forgejo-Delivery"))
	case Forgejo:
		return line(h.get("X-Forgejo-Delivery", "X-Gitea-Delivery"))
	case GitLab:
		return line(h.get("webhook-id", "Idempotency-Key", "X-Gitlab-Event-UUID"))
	case Standard:
		return line(h.get("webhook-id", "svix-id"))
	case Slack, Stripe:
		return "" // it is in the body
	default:
		return line(h.get("X-GitHub-Delivery", "X-Forgejo-Delivery", "X-Gitea-Delivery", "X-Gitlab-Event-UUID", "X-Request-UUID"))
	}
}

// readSlack reads what Slack sends: an event as JSON, a command or an interaction as a form.
func readSlack(d *Delivery, h Headers, p payload) {
	d.Event, d.ID = first(p.Event.Type, p.Type), p.EventID
	if p.Type == "url_verification" {
		d.Ping, d.Challenge = true, p.Challenge
	}
	if !isForm(h) {
		return
	}
	form, err := url.ParseQuery(string(d.Payload))
	if err != nil {
		return
	}
	d.Event = form.Get("command")
	if text := form.Get("payload"); text != "" {
		var inner payload
		_ = json.Unmarshal([]byte(text), &inner) // as above
		d.Event = inner.Type
	}
}

// Skip returns why a request is not for a task that wants certain events and refs, or "". No events, and no refs, are all of
// them. A ref may have a * for what has no slash.
func (d Delivery) Skip(events, refs []string) string {
	switch {
	case d.Ping:
		return "it is a ping"
	case len(events) > 0 && !slices.Contains(events, d.Event) && !slices.Contains(events, d.Other):
		if d.Event == "" {
			return "it names no event"
		}
		return "the event " + d.Event + " is not among events"
	case len(refs) > 0 && d.Ref == "":
		return "it names no ref"
	case len(refs) > 0 && !slices.ContainsFunc(refs, func(r string) bool { ok, err := path.Match(r, d.Ref); return ok && err == nil }):
		return "the ref " + d.Ref + " is not among refs"
	}
	return ""
}

// Environment is what a job is told of it. The event is called as events has it.
func (d Delivery) Environment(events []string) []string {
	event := d.Event
	if d.Other != "" && slices.Contains(events, d.Other) {
		event = d.Other
	}
	var env []string
	for _, v := range []struct{ name, value string }{
		{"RTASK_EVENT", event}, {"RTASK_GIT_REF", d.Ref}, {"RTASK_GIT_SHA", d.SHA}, {"RTASK_DELIVERY", d.ID},
	} {
		if v.value != "" {
			env = append(env, v.name+"="+v.value)
		}
	}
	return env
}

// formPayload returns the field "payload" of a form, of a body that is none the body.
func formPayload(h Headers, body []byte) []byte {
	if !isForm(h) {
		return body
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || len(form["payload"]) != 1 {
		return body
	}
	return []byte(form.Get("payload"))
}

func isForm(h Headers) bool {
	kind, _, err := mime.ParseMediaType(h.get("Content-Type"))
	return err == nil && kind == "application/x-www-form-urlencoded"
}

// first returns the first of texts that is not empty.
func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// line returns a text if it is one line of printable characters.
func line(s string) string {
	if len(s) > longestWord || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return ""
	}
	return s
}

// commit returns the name of a commit, SHA-1 or SHA-256, if it is one.
func commit(s string) string {
	if len(s) != 40 && len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "" {
		return ""
	}
	return s
}

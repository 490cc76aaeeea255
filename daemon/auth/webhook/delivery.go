package webhook

import (
	"bytes"
	"fmt"
	"maps"
	"net/url"
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
	// Ref is the branch or tag, "refs/heads/main", and SHA the commit that it is at now. Deleted: it is gone.
	Ref, SHA string
	Deleted  bool
	// ID is the sender's name for this delivery, and SignedID one that is in the signed body and stays the same when the sender
	// tries again.
	ID, SignedID string
	// Ping is a request that only tries whether somebody is there. Challenge is what Slack wants to read in the answer to one.
	Ping      bool
	Challenge string
	// Person is who reads the answer, or whether somebody does.
	Person Person
	// Unlike is what the body is of, if that is another event than Event.
	Unlike string
	// Payload is the job's input: the body, or what GitHub, Gitea and Forgejo put into a form's field "payload".
	Payload []byte
}

// Person says which answer a person gets to see.
type Person int

// The values of Person.
const (
	// Nobody reads the answer.
	Nobody Person = iota
	// Reads: the answer is shown to the person who gave a command.
	Reads
	// Acts: a person pressed a button, and any text in the answer would replace what it stood in.
	Acts
)

// Read returns what a request says. It is for one that has passed Verify. The bytes of the body alone say how they are
// to be read: headers are not signed by any sender, and a client that has a signed body can send it again with others. An error
// is ErrBody.
func Read(s Scheme, r *Request) (Delivery, error) {
	k, h, body := s.Kind, r.Headers, r.Body
	d := Delivery{Payload: body}
	var form url.Values
	switch k {
	case GitHub, Gitea, Forgejo:
		d.Payload = formPayload(body)
	case Slack:
		form = slackForm(body)
	}
	o := bodyObject(d.Payload)
	var err error
	switch k {
	case GitHub, Gitea, Forgejo:
		d.Event = eventHeader(k, h)
		d.Ping = k == GitHub && d.Event == "ping"
		d.Unlike, err = unlike(d.Event, o)
	case GitLab:
		err = readGitLab(&d, h, o)
	case Standard, Stripe:
		err = readType(&d, k, o)
	case Slack:
		err = readSlack(&d, o, form)
	default:
		d.Event = eventHeader(k, h)
		d.Ping = d.Event == "ping"
	}
	if k != Slack && k != Stripe && err == nil {
		err = readRef(&d, o)
	}
	if err != nil {
		return Delivery{Payload: body}, err
	}
	if d.ID == "" {
		d.ID = ID(k, h)
	}
	d.Event, d.Other, d.ID, d.Challenge = line(d.Event), line(d.Other), line(d.ID), line(d.Challenge)
	return d, nil
}

// eventHeader returns the event that the head names.
func eventHeader(k Kind, h Headers) string {
	switch k {
	case GitHub:
		return h.get("X-GitHub-Event")
	case Gitea:
		return h.get("X-Gitea-Event", "X-Forgejo-Event")
	case Forgejo:
		return h.get("X-Forgejo-Event", "X-Gitea-Event")
	default:
		// Whoever it is may name an event as one of those does who are known for it. Bitbucket has X-Event-Key.
		return h.get("X-GitHub-Event", "X-Forgejo-Event", "X-Gitea-Event", "X-Gitlab-Event", "X-Event-Key")
	}
}

// readRef reads what a body says of a branch or a tag.
func readRef(d *Delivery, o object) error {
	top, err := o.members("ref", "after", "deleted", "head_commit", "checkout_sha", "pull_request", "object_attributes")
	if err != nil {
		return err
	}
	// Of an annotated tag "after" is the tag's own object, and the commit is in the others.
	shas := []string{"", top["checkout_sha"].text(), top["after"].text(), "", ""}
	for i, path := range map[int][]string{0: {"head_commit", "id"}, 3: {"pull_request", "head", "sha"}, 4: {"object_attributes", "last_commit", "id"}} {
		v, err := top[path[0]].at(path[1:]...)
		if err != nil {
			return err
		}
		shas[i] = v.text()
	}
	d.Ref, d.SHA = line(top["ref"].text()), commit(first(shas...))
	d.Deleted = top["deleted"].isTrue() || noCommit(top["after"].text())
	if d.Deleted {
		d.SHA = "" // a deleted branch is at none
	}
	return nil
}

// readGitLab reads what is GitLab's own. It signs no header, so one counts that fits the body.
func readGitLab(d *Delivery, h Headers, o object) error {
	top, err := o.members("object_kind", "event_name")
	if err != nil {
		return err
	}
	d.Event, d.Other = first(top["object_kind"].text(), top["event_name"].text()), h.get("X-Gitlab-Event")
	kind := strings.ReplaceAll(strings.ToLower(strings.TrimSuffix(d.Other, " Hook")), " ", "_")
	switch kind = strings.TrimPrefix(kind, "confidential_"); {
	case d.Event == "":
		d.Event = d.Other
	case kind == d.Event, kind == "job" && d.Event == "build", kind == "system":
	default:
		d.Other = ""
	}
	return nil
}

// readType reads what senders say whose bodies have a type, and an id that is signed with it.
func readType(d *Delivery, k Kind, o object) error {
	top, err := o.members("type", "id")
	if k == Standard { // its id is in the head
		top, err = o.members("type")
	}
	if err != nil {
		return err
	}
	d.Event, d.ID = top["type"].text(), top["id"].text()
	d.SignedID = d.ID
	return nil
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

// slackForm returns the form that a command or an interaction of Slack is; nil: it is an event, as JSON.
func slackForm(body []byte) url.Values {
	if start := bytes.TrimLeft(body, " \t\r\n"); len(start) == 0 || start[0] == '{' {
		return nil
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil
	}
	return form
}

// SlackCheck reports whether a body is what Slack sends to look at a URL's certificate. That is not signed, and nothing is to be
// done.
func SlackCheck(body []byte) bool {
	const longest = 4 << 10
	return len(body) <= longest && slackForm(body).Get("ssl_check") == "1"
}

// readSlack reads what Slack sends.
func readSlack(d *Delivery, o object, form url.Values) error {
	for _, name := range []string{"command", "payload", "trigger_id"} {
		if len(form[name]) > 1 {
			return fmt.Errorf("%w: the field %q is there twice", ErrBody, name)
		}
	}
	if form.Get("command") != "" {
		d.Event, d.SignedID, d.Person = form.Get("command"), form.Get("trigger_id"), Reads
		return nil
	}
	if form != nil {
		o, d.Person = bodyObject([]byte(form.Get("payload"))), Acts
	}
	top, err := o.members("type", "event", "event_id", "trigger_id", "challenge")
	if err != nil {
		return err
	}
	d.Event = top["type"].text()
	if form != nil {
		d.SignedID = top["trigger_id"].text()
		return nil
	}
	if d.Event == "url_verification" {
		d.Ping, d.Challenge = true, top["challenge"].text()
	}
	event, err := top["event"].at("type")
	d.Event = first(event.text(), d.Event)
	d.ID = top["event_id"].text()
	d.SignedID = d.ID
	return err
}

// unlike returns which event a body is of, if it says so and it is not the one that an unsigned header names.
func unlike(event string, o object) (string, error) {
	// Members that only bodies of certain events have, and what the names of these begin with
	// (docs.github.com/en/webhooks/webhook-events-and-payloads; Gitea's and Forgejo's are made after those).
	of := map[string][]string{
		"commits": {"push"}, "pusher": {"push"}, "pull_request": {"pull_request"}, "issue": {"issue", "sub_issue"}, "release": {"release"},
		"ref_type": {"create", "delete"}, "deployment": {"deployment"}, "workflow_run": {"workflow_run"}, "workflow_job": {"workflow_job"},
		"check_run": {"check_run"}, "check_suite": {"check_suite"}, "discussion": {"discussion"}, "forkee": {"fork"},
		"inputs": {"workflow_dispatch"}, "client_payload": {"repository_dispatch"}, "zen": {"ping"},
	}
	members, err := o.members(slices.Collect(maps.Keys(of))...)
	if err != nil || len(members) == 0 || event == "" {
		return "", err
	}
	found := ""
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if slices.ContainsFunc(of[name], func(begin string) bool { return strings.HasPrefix(event, begin) }) {
			return "", nil
		}
		found = of[name][0]
	}
	return found, nil
}

// Wanted is what a task is for.
type Wanted struct {
	// Events and Refs are the only ones; none: all. A ref may have a * for anything but a slash, and ** for anything.
	Events, Refs []string
	// Deletions says that it is also for what deletes a branch or a tag.
	Deletions bool
}

// Skip returns why a request is not for a task, or "".
func (d Delivery) Skip(w Wanted) string {
	switch {
	case d.Ping:
		return "it is a ping"
	case len(w.Events) > 0 && !slices.Contains(w.Events, d.Event) && !slices.Contains(w.Events, d.Other):
		if d.Event == "" {
			return "it names no event"
		}
		return "the event " + d.Event + " is not among events"
	case d.Unlike != "":
		return "its header says " + d.Event + ", but the body is of " + d.Unlike
	case len(w.Refs) > 0 && d.Ref == "":
		return "it names no ref"
	case len(w.Refs) > 0 && !slices.ContainsFunc(w.Refs, func(r string) bool { return matchRef(r, d.Ref) }):
		return "the ref " + d.Ref + " is not among refs"
	case d.Deleted && !w.Deletions && d.Ref == "":
		return "it says that something was deleted (deletions = true takes it)"
	case d.Deleted && !w.Deletions:
		return d.Ref + " was deleted (deletions = true takes it)"
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

// formPayload returns the field "payload" of a form, of a body that is none the body. The form begins with it, which JSON never
// does.
func formPayload(body []byte) []byte {
	if !bytes.HasPrefix(body, []byte("payload=")) {
		return body
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || len(form["payload"]) != 1 {
		return body
	}
	return []byte(form.Get("payload"))
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
	if len(s) != 40 && len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "" || noCommit(s) {
		return ""
	}
	return s
}

// noCommit reports whether s is what git says where there is no commit: all zeros.
func noCommit(s string) bool { return s != "" && strings.Trim(s, "0") == "" }

package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// longestWord is how many bytes an event, a ref or an id may have.
	longestWord = 1024
	// maxChanges is how many branches and tags a request may name.
	maxChanges = 100_000
)

// Delivery is what a request says happened, as far as its kind says so. What is missing, or is no line of text, is "".
type Delivery struct {
	// Event is the event's name: "push". Other is the same one's other name, where the sender has two: GitLab's "Push Hook".
	Event, Other string
	// Ref is the branch or tag, "refs/heads/main", and SHA the commit that it is at now. Deleted: it is gone. Of several Changes it
	// is the first, or the one that Choose has chosen.
	Ref, SHA string
	Deleted  bool
	Changes  []Change
	// ID is the sender's name for this delivery, and SignedID one that is in the signed body and stays the same when the sender
	// tries again.
	ID, SignedID string
	// Ping is a request that only tries whether somebody is there. Challenge is what Slack wants to read in the answer to one.
	Ping      bool
	Challenge string
	// Person is who reads the answer, or whether somebody does.
	Person Person
	// Reply is the answer that the sender wants, nil: any.
	Reply *Reply
	// Unlike is what the body is of, if that is another event than Event.
	Unlike string
	// Payload is the job's input: the body, or what GitHub, Gitea and Forgejo put into a form's field "payload".
	Payload []byte
}

// Change is what happened to a branch or a tag.
type Change struct {
	Ref, SHA string
	Deleted  bool
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

// Read returns what a request says. It is for one that has passed Verify. The bytes of the body alone say how they are to be
// read: headers are not signed by any sender, and a client that has a signed body can send it again with others. An error is
// around ErrBody, or says that the body names too many branches.
func Read(s Scheme, r *Request) (Delivery, error) {
	row := s.sender()
	if row == nil {
		row = rowOf(Token)
	}
	d := Delivery{Payload: r.Body, Reply: row.Reply}
	if row.FormPayload {
		d.Payload = formPayload(r.Body)
	}
	if err := row.fill(&d, r, bodyObject(d.Payload)); err != nil {
		return Delivery{Payload: r.Body}, err
	}
	d.Event, d.Other, d.ID, d.Challenge = line(d.Event), line(d.Other), line(d.ID), line(d.Challenge)
	return d, nil
}

// fill reads what the sender says where its row says that it does.
func (s *Sender) fill(d *Delivery, r *Request, o object) error {
	for _, p := range s.Event {
		text, err := p.in(r.Headers, o)
		if err != nil {
			return err
		}
		d.Event = first(d.Event, text)
	}
	for _, p := range s.ID {
		text, err := p.in(r.Headers, o)
		if err != nil {
			return err
		}
		if d.ID == "" && len(p.Body) > 0 && s.signsID(p) {
			d.SignedID = text
		}
		d.ID = first(d.ID, text)
	}
	d.Ping = d.Event != "" && slices.Contains(s.Pings, d.Event)
	var err error
	if d.Unlike, err = s.unlike(d.Event, o); err != nil {
		return err
	}
	if s.Refs != nil {
		if err := s.Refs.fill(d, o); err != nil {
			return err
		}
	}
	if s.read != nil {
		return s.read(d, r, o)
	}
	return nil
}

// fill reads what a body says of branches and tags. A list of changes may be empty.
func (r *Refs) fill(d *Delivery, o object) error {
	changes := slices.Values([]object{o})
	if len(r.List) > 0 {
		list, err := o.at(r.List...)
		if err != nil {
			return err
		}
		changes = list.elements()
	}
	for o := range changes {
		if len(d.Changes) == maxChanges {
			return fmt.Errorf("the body names more than %d branches and tags", maxChanges)
		}
		c, err := r.change(o)
		if err != nil {
			return err
		}
		d.Changes = append(d.Changes, c)
	}
	if len(d.Changes) > 0 {
		d.change(d.Changes[0])
	}
	return nil
}

// change reads one change.
func (r *Refs) change(o object) (Change, error) {
	ref, err := r.first(o, r.Ref)
	if err != nil {
		return Change{}, err
	}
	if r.Types != nil {
		kind, err := r.first(o, r.Type)
		if err != nil {
			return Change{}, err
		}
		if before := r.Types[kind]; before == "" || ref == "" {
			ref = "" // it is neither a branch nor a tag
		} else {
			ref = before + ref
		}
	}
	sha, err := r.first(o, r.Commit)
	if err != nil {
		return Change{}, err
	}
	zero, err := o.at(r.Zero...)
	if err != nil {
		return Change{}, err
	}
	gone, err := o.at(r.Gone...)
	if err != nil {
		return Change{}, err
	}
	c := Change{Ref: line(ref), SHA: commit(sha), Deleted: len(r.Gone) > 0 && string(gone) == r.GoneIs || noCommit(zero.text())}
	if c.Deleted {
		c.SHA = "" // a deleted branch is at none
	}
	return c, nil
}

// first returns the first text at any of paths.
func (r *Refs) first(o object, paths [][]string) (string, error) {
	found := ""
	for _, p := range paths {
		v, err := o.at(p...)
		if err != nil {
			return "", err
		}
		found = first(found, v.text())
	}
	return found, nil
}

// readGitLab reads what is GitLab's own: events have two names. It signs no header, so one counts that fits the body.
func readGitLab(d *Delivery, r *Request, _ object) error {
	d.Other = r.Headers.get("X-Gitlab-Event")
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

// ID is what the head of a request, which may not have passed Verify, calls it, or "".
func ID(k Kind, h Headers) string {
	row := rowOf(k)
	if row == nil {
		row = rowOf(Token)
	}
	for _, p := range row.ID {
		if id := line(h.get(p.Header...)); id != "" {
			return id
		}
	}
	return ""
}

// readDiscord reads what Discord sends: interactions, which have the type of a person's act, and webhook events. The answer to each is
// of its own form (docs.discord.com/developers/interactions/receiving-and-responding).
func readDiscord(d *Delivery, _ *Request, o object) error {
	top, err := o.members("type", "event")
	if err != nil {
		return err
	}
	switch kind := top["type"].scalar(); {
	case len(top["event"]) > 0 || kind == "0":
		// Discord wants a type also where there is no body.
		d.Ping, d.Reply = kind == "0", &Reply{Status: 204, ContentType: "application/json"}
	case kind == "1":
		d.Event, d.Ping, d.Reply = "PING", true, jsonReply(`{"type":1}`)
	case kind == "2":
		d.Other, d.Person = "APPLICATION_COMMAND", Reads
	case kind == "3":
		d.Other, d.Person, d.Reply = "MESSAGE_COMPONENT", Acts, jsonReply(`{"type":6}`)
	case kind == "4": // what is typed so far: nothing may start by that
		d.Event, d.Ping, d.Reply = "APPLICATION_COMMAND_AUTOCOMPLETE", true, jsonReply(`{"type":8,"data":{"choices":[]}}`)
	case kind == "5":
		d.Other, d.Person = "MODAL_SUBMIT", Reads
	}
	return nil
}

// toDiscord is the answer to a command of Discord that only the person sees who gave it, and that calls nobody.
func toDiscord(text string) *Reply {
	b, err := json.Marshal(map[string]any{"type": 4, "data": map[string]any{"content": text, "flags": 64, "allowed_mentions": map[string]any{"parse": []string{}}}})
	if err != nil {
		panic(err) // it is plain data
	}
	return jsonReply(string(b))
}

func jsonReply(body string) *Reply {
	return &Reply{Status: 200, ContentType: "application/json", Body: body}
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

// ToPerson is the answer that a person reads who gave a command, nil: as Slack shows one.
func ToPerson(k Kind, text string) *Reply {
	if row := rowOf(k); row != nil && row.toPerson != nil {
		return row.toPerson(text)
	}
	return nil
}

// SlackCheck reports whether a body is what Slack sends to look at a URL's certificate. That is not signed, and nothing is to be
// done.
func SlackCheck(body []byte) bool {
	const longest = 4 << 10
	return len(body) <= longest && slackForm(body).Get("ssl_check") == "1"
}

// readSlack reads what Slack sends as a form: commands and interactions. What else it sends says its row.
func readSlack(d *Delivery, r *Request, o object) error {
	form := slackForm(r.Body)
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
		top, err := bodyObject([]byte(form.Get("payload"))).members("type", "trigger_id")
		d.Event, d.SignedID, d.Person = top["type"].text(), top["trigger_id"].text(), Acts
		return err
	}
	top, err := o.members("type", "challenge")
	if top["type"].text() == "url_verification" {
		d.Ping, d.Challenge = true, top["challenge"].text()
	}
	return err
}

// unlike returns which event a body is of, if it says so and it is not the one that an unsigned header names.
func (s *Sender) unlike(event string, o object) (string, error) {
	members, err := o.members(slices.Collect(maps.Keys(s.Bodies))...)
	if err != nil || len(members) == 0 || event == "" {
		return "", err
	}
	found := ""
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if slices.ContainsFunc(s.Bodies[name], func(begin string) bool { return strings.HasPrefix(event, begin) }) {
			return "", nil
		}
		found = strings.TrimSuffix(s.Bodies[name][0], ":")
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

func (d *Delivery) change(c Change) { d.Ref, d.SHA, d.Deleted = c.Ref, c.SHA, c.Deleted }

// Choose is d of the first of its changes that is wanted, if there is one: some senders name several branches in one request.
func (d Delivery) Choose(w Wanted) Delivery {
	for _, c := range d.Changes {
		one := d
		if one.change(c); one.Skip(w) == "" {
			return one
		}
	}
	return d
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

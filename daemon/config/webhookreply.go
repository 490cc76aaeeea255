package config

import (
	"fmt"
	"mime"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Reply is what the sender of a request that was accepted reads.
type Reply struct {
	// Respond is when it is answered, and with what.
	Respond Respond
	// Status is the status of the reply, unless the job failed; 0: 202, or 200 where the reply waits for the job.
	Status int
	// ContentType is that of Message, or of the job's output.
	ContentType string
	// Message is the body, in place of JSON; nil: there is none.
	Message *string
}

// Respond is when the sender of a webhook gets an answer.
type Respond string

// The values of Respond.
const (
	// RespondAccepted is as soon as the job is on disk.
	RespondAccepted Respond = "accepted"
	// RespondResult is when the job has ended.
	RespondResult Respond = "result"
	// RespondOutput is as soon as there is output, which is the answer.
	RespondOutput Respond = "output"
)

// Waits reports whether the answer tells what came of the job.
func (r Respond) Waits() bool { return r != RespondAccepted }

// Bodyless reports whether a reply with this status has no body (RFC 9110, sections 15.3.5 and 15.3.6).
func Bodyless(status int) bool {
	return status == 204 || status == 205
}

// maxMessage is the longest Message.
const maxMessage = 16 << 10

const get = "GET"

// hookMethods are the methods that a webhook may take, besides HEAD.
var hookMethods = []string{get, "POST", "PUT", "PATCH", "DELETE"}

// replyAttributes are those of a webhook's Methods and Reply.
func replyAttributes() []attribute[hookDraft] {
	return []attribute[hookDraft]{
		{
			name: "methods", example: `["GET", "POST"]`, fallback: `["POST"]`,
			kind: list(func(h *hookDraft) *[]string { return &h.Methods }, (*decoder).method),
			doc: "The methods of HTTP that it takes: GET, POST, PUT, PATCH and DELETE. Others are answered with `405`. GET is for " +
				"`verify = \"token\"` only, since there is no body to sign. Whatever opens such a URL starts the task: a browser " +
				"that is given the link, and also a chat program that makes a preview of it. HEAD is always answered, and starts nothing.",
		},
		{
			name: "respond", example: `"accepted"`, fallback: `"accepted"`,
			kind: choice(func(h *hookDraft) *Respond { return &h.Respond }, RespondAccepted, RespondResult, RespondOutput),
			doc: "When the sender gets an answer:\n" +
				".Bl -tag -width accepted -compact\n" +
				".It Ql accepted\nonce the job is on disk, with its id\n" +
				".It Ql result\nwhen it has ended, as from a blocking task over HTTP\n" +
				".It Ql output\nas soon as it writes something: the reply is what it writes, as it comes\n" +
				".El\n" +
				"Most senders wait for 10 seconds. A Slack command that starts a job is answered immediately, with a text for the person who " +
				"typed it, and an interaction with an empty body; with `output`, both are answered with the output. rtask-gateway(8) " +
				"says how such a reply shows that the job failed.",
		},
		{
			name: "status", example: "200", otherwise: "202, or 200 where the reply waits for the job",
			kind: integer(func(h *hookDraft) *int { return &h.Status }, 200, 299),
			doc: "The status of the reply to a request that was accepted and, where the reply waits for the job, whose job succeeded. With " +
				"204 and 205 the reply has no body.",
		},
		{
			name: "content_type", example: `"text/html; charset=utf-8"`, otherwise: `"text/plain; charset=utf-8"`,
			kind: text((*decoder).contentType),
			doc: "The `Content-Type` of a `message` and of what `respond = \"output\"` sends. Browsers run such a page in a sandbox, where it " +
				"cannot use what the user's browser knows of this server.",
		},
		{
			name: "message", example: `"Deploying."`,
			kind: text(func(d *decoder, v value, h *hookDraft) {
				s, ok := d.string(v, true)
				if !ok {
					return
				}
				if len(s) > maxMessage {
					d.errorf(v.rng(), "", "message has %d bytes, %d at most", len(s), maxMessage)
					return
				}
				h.Message = &s
			}),
			doc: "What the sender reads instead of JSON once the job is on disk or, with `respond = \"result\"`, has succeeded. An empty text " +
				"is an empty body. A person who typed a Slack command reads it, too.",
		},
	}
}

// method checks a method that a webhook is to take.
func (d *decoder) method(v value, s string) bool {
	if slices.Contains(hookMethods, s) {
		return true
	}
	detail := "There are " + strings.Join(hookMethods, ", ") + "."
	if upper := strings.ToUpper(s); slices.Contains(hookMethods, upper) {
		detail = fmt.Sprintf("Write: %q", upper)
	} else if s == "HEAD" {
		detail = "Leave it out: HEAD is always answered."
	}
	d.errorf(v.rng(), detail, "%s: a webhook cannot take the method %q", v.name, s)
	return false
}

// contentType checks a media type (RFC 9110, section 8.3.1).
func (d *decoder) contentType(v value, h *hookDraft) {
	s, ok := d.string(v, false)
	if !ok {
		return
	}
	kind, _, err := mime.ParseMediaType(s)
	if err != nil || !strings.Contains(kind, "/") || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		d.errorf(v.rng(), v.usage(), "content_type: %q is not a media type", s)
		return
	}
	h.ContentType = s
}

// plainText is the ContentType where nothing is said.
const plainText = "text/plain; charset=utf-8"

// checkReply reports what does not fit together of a webhook's methods and reply.
func (d *decoder) checkReply(r hcl.Range, h *hookDraft) {
	given := func(name string) hcl.Range {
		if v, ok := h.given[name]; ok {
			return v.rng()
		}
		return r
	}
	if len(h.Methods) == 0 {
		d.errorf(given("methods"), `Write for example: methods = ["POST"]`, "webhook %q takes no method", h.Name)
	}
	if slices.Contains(h.Methods, get) && h.Scheme.Kind.Signed() {
		d.errorf(given("methods"), "Leave GET out.", "GET means nothing with verify = %q: it has no body to sign", h.Scheme.Kind)
	}
	typed := h.ContentType != ""
	if !typed {
		h.ContentType = plainText
	}
	switch {
	case h.Message != nil && h.Respond == RespondOutput:
		d.errorf(given("message"), "Leave one of the two out.", "message means nothing with respond = %q: the job's output is the reply", h.Respond)
	case h.Message == nil && h.Respond != RespondOutput && typed:
		d.errorf(given("content_type"), "Leave it out, or write a message.", "content_type means nothing here: without a message the reply is JSON")
	}
	if Bodyless(h.Status) && (h.Respond == RespondOutput || h.Message != nil && *h.Message != "") {
		d.errorf(given("status"), "", "a reply with the status %d has no body", h.Status)
	}
}

package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/sandbox/spec"
)

// hookDraft is a Webhook while it is made.
type hookDraft struct {
	Webhook
	// given are the attributes that stand in its file.
	given map[string]value
}

// webhookScope is what may stand in webhook "NAME" { … }.
func webhookScope() scope[hookDraft] {
	s := scope[hookDraft]{where: inWebhook, attributes: append(append(proofAttributes(), placeAttributes()...), []attribute[hookDraft]{
		{
			name: "events", example: `["push"]`, otherwise: "all",
			kind: list(func(h *hookDraft) *[]string { return &h.Wanted.Events }, anyText),
			doc: "The events that it is for, as the sender calls them: `X-GitHub-Event` and its like, GitLab's `object_kind` or " +
				"`X-Gitlab-Event`; for the others see `verify`, or what `event` says. For Slack it is the type of the event or of the " +
				"interaction, or a command with its slash: `/deploy`. Other events are answered with `{\"status\":\"ignored\"}` and the reason, " +
				"and a ping always is. A sender that names the event in a header, such as GitHub or Shopify, does not sign it. A client that " +
				"has captured a delivery can send it again under another name. rtask ignores the request if its body shows that it is " +
				"for another event, which bodies of GitHub, Gitea, Forgejo and Bitbucket do.",
		},
		{
			name: "refs", example: `["refs/heads/main"]`, otherwise: "all",
			kind: kind[hookDraft]{word: "list", decode: func(d *decoder, v value, h *hookDraft) {
				d.names(v, &h.Wanted.Refs, func(e value, s string) bool { return h.Ref != nil || d.ref(e, s) })
			}},
			doc: "The branches and tags that it is for, in full, as `ref` in the body has them. A `*` matches anything except a slash, and " +
				"`**` matches anything: `refs/heads/**` is every branch. What names no ref is ignored, too. Of a push to several, which " +
				"Bitbucket and Azure DevOps have in one request, the first that is wanted counts. Senders that know no branches, such as " +
				"Slack and Stripe, send none.",
		},
		{
			name: "deletions", example: "true", fallback: "false",
			kind: boolean(func(h *hookDraft) *bool { return &h.Wanted.Deletions }),
			doc:  "Whether pushes that delete a branch or a tag also start the task. Such a push has no commit, and the job has no `RTASK_GIT_SHA`.",
		},
		{
			name: "replay", example: `"refuse"`, fallback: `"run"`,
			kind: kind[hookDraft]{word: "string", values: []string{replayRefuse, replayRun}, decode: func(d *decoder, v value, h *hookDraft) {
				word := ""
				d.choice(v, &word, replayRefuse, replayRun)
				h.RefuseRepeats = word == replayRefuse
			}},
			doc: "What becomes of a repeat of a request that was accepted, where neither a time nor an id is signed: it may `run` again, or " +
				"`refuse` answers it with `409`. There, a repeat is a request with the same body, which is remembered for a year. Where " +
				"an id is signed (the event of `stripe`, the event or trigger of `slack`, the message of `standard`, what `verify` names in " +
				"a signed body) or only a time, a repeat never runs again: it is answered as the first request was, with the id of its job. An id is remembered for 30 " +
				"days, with `refuse` for a year; each webhook remembers a million of them at most. A request that was refused, or whose job did not succeed, never " +
				"counts.",
		},
		{
			name: "max_input_bytes", example: `"25M"`, otherwise: "25M where requests are signed, otherwise 1M",
			kind: size(func(h *hookDraft) *int64 { return &h.MaxInputBytes }, MaxInputBytes),
			doc:  "The largest body, in place of the `max_input_bytes` of the task.",
		},
		{
			name: "keep_deliveries", example: "20", fallback: "0",
			kind: integer(func(h *hookDraft) *int { return &h.KeepDeliveries }, 0, maxKeepDeliveries),
			doc: "How many of the last requests with a valid signature or token the engine keeps on disk, so that `rtaskctl webhook replay` can " +
				"run them again: accepted, ignored and refused ones, but no pings. All webhooks together keep 256 MiB and 10,000 requests " +
				"at most; beyond that, the webhook that has the most loses its oldest one. Of requests that are repeats of each other, " +
				"one is kept. Their bodies are kept as they came: only root can read the files, but whoever may start the task sees what " +
				"it writes when it runs again. The URL, signatures, and headers and fields of the query whose names say that they are " +
				"secrets, such as `Authorization`, are not kept, except for those in `pass_request_headers`. A request that cannot be kept, " +
				"as on a full disk, is decided like any other; the log says so. When the webhook is removed from the configuration, so " +
				"are its requests.",
		},
	}...)}
	s.attributes = append(append(s.attributes, valueAttributes()...), replyAttributes()...)
	for i, a := range s.attributes {
		s.attributes[i].decode = func(d *decoder, v value, h *hookDraft) {
			if !d.tabled {
				h.given[v.name] = v
			}
			a.decode(d, v, h)
		}
	}
	return s
}

// unseen reports a secret with blanks or a byte order mark around it, which no sender has: it would match never, and nobody could
// see why.
func (d *decoder) unseen(v value, s string) bool {
	if s == strings.TrimSpace(strings.Trim(s, "\ufeff")) {
		return true
	}
	d.errorf(v.rng(), "Remove them.", "%s has blanks, line breaks or a byte order mark around it", v.name)
	return false
}

// hideSecrets takes the source lines out of diagnostics that have a secret in them: they go to the journal, and to others' terminals.
func (d *decoder) hideSecrets(h *hookDraft, diags Diagnostics) {
	names := []string{"secrets", "token", "verify_token"}
	if !h.Scheme.Kind.Signed() { // whose expressions may compare what only the sender knows
		names = append(names, "event", "ref", "id", "when", "environment", "params")
	}
	for _, name := range names {
		v, ok := h.given[name]
		if !ok {
			continue
		}
		first, _ := d.source.place(v.rng().Start.Byte)
		last, _ := d.source.place(v.rng().End.Byte)
		for i := range diags {
			if diags[i].Line >= first.Line && diags[i].Line <= last.Line {
				diags[i].Source = ""
			}
		}
	}
}

// secretFile adds a file with a secret or a token.
func (d *decoder) secretFile(v value, file string, h *hookDraft) bool {
	if !path.IsAbs(file) {
		d.errorf(v.rng(), `It must begin with a slash: "/etc/rtask/github.secret"`, "%s: the path %q is not absolute", v.name, file)
		return false
	}
	d.readSecret(v, SecretFile{Name: file, Path: file}, h)
	return true
}

// credential adds a credential with a secret.
func (d *decoder) credential(v value, name string, h *hookDraft) bool {
	if strings.Contains(name, "/") || name == "." || name == ".." || len(name) > 255 {
		d.errorf(v.rng(), `It is the NAME of LoadCredential=NAME:FILE, of 255 bytes at most.`, "%s: %q cannot be the name of a credential", v.name, name)
		return false
	}
	f := SecretFile{Name: name}
	if dir := d.opts.CredentialsDir; dir != "" {
		f.Path = filepath.Join(dir, name)
	}
	d.readSecret(v, f, h)
	return true
}

// readSecret reads a secret, or notes that it is missing.
func (d *decoder) readSecret(v value, f SecretFile, h *hookDraft) {
	if d.opts.ReadSecret == nil {
		h.missing = append(h.missing, f)
		return
	}
	secret, err := "", error(fs.ErrNotExist)
	if f.Path != "" {
		secret, err = d.opts.ReadSecret(f.Path)
	}
	switch {
	case err == nil:
		h.secrets = append(h.secrets, secret)
		d.warnIfExposed(v, f.Path)
	case errors.Is(err, ErrNoAnswer):
		h.missing = append(h.missing, f)
		d.warnf(v.rng(), "The webhook answers 503 until it does, unless it has another secret.", "%s: %v", v.name, err)
	case errors.Is(err, fs.ErrPermission): // by a check without an engine
		h.missing = append(h.missing, f)
		d.warnf(v.rng(), "The webhook answers 503 while rtaskd cannot read it.", "%s: the file %s cannot be read by this user", v.name, f.Name)
	case errors.Is(err, fs.ErrNotExist):
		h.missing = append(h.missing, f)
		what := "file " + f.Name
		if f.Path != f.Name {
			what = fmt.Sprintf("credential %q", f.Name)
		}
		d.warnf(v.rng(), "The webhook answers 503 until it is, unless it has another secret.", "%s: the %s is not there", v.name, what)
	default:
		refused := fileError(f.Path, err)
		d.errorf(v.rng(), refused.Detail, "%s: %s: %s", v.name, f.Name, refused.Summary)
	}
}

// warnIfExposed warns of a file with a secret that every user of the machine can read.
func (d *decoder) warnIfExposed(v value, path string) {
	if d.opts.Exposed != nil && !d.opts.Elsewhere && d.opts.Exposed(path) {
		d.warnf(v.rng(), "Do: chmod 0600 "+path, "%s: every user of this machine can read the secret in %s", v.name, path)
	}
}

// tokenHash reads the SHA-256 of a token.
func (d *decoder) tokenHash(v value, h *hookDraft) {
	s, ok := d.string(v, false)
	if !ok {
		return
	}
	text, ok := strings.CutPrefix(s, hashPrefix)
	sum, err := hex.DecodeString(text)
	if !ok || err != nil || len(sum) != sha256.Size {
		d.errorf(v.rng(), "Do: printf %s TOKEN | sha256sum", "token_hash is not sha256: and 64 digits of hex")
		return
	}
	h.digest, h.shown = (*[sha256.Size]byte)(sum), hashPrefix+strings.ToLower(text)
}

// header checks the name of a header.
func (d *decoder) header(v value, dst *string) {
	if s, ok := d.string(v, false); ok && d.headerName(v, s) {
		*dst = s
	}
}

func (d *decoder) headerName(v value, s string) bool {
	if !ValidHeader(s) {
		d.errorf(v.rng(), v.usage(), "%s: %q cannot be the name of a header", v.name, s)
		return false
	}
	return true
}

// ValidHeader reports whether s can be the name of a header (RFC 9110, section 5.6.2).
func ValidHeader(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~") == ""
}

// ref checks what is compared with a branch or a tag.
func (d *decoder) ref(v value, s string) bool {
	switch {
	case !strings.HasPrefix(s, "refs/"):
		d.errorf(v.rng(), fmt.Sprintf("Write it in full: %q or %q", "refs/heads/"+s, "refs/tags/"+s), "%s: %q is not the full name of a branch or tag", v.name, s)
		return false
	case strings.ContainsAny(s, "?[\\^: \t\n"): // of which git allows none in a name (git-check-ref-format(1)) and path.Match knows some
		d.errorf(v.rng(), "The wildcards are *, which matches anything except a slash, and **, which matches anything.", "%s: %q cannot be the name of a branch or tag", v.name, s)
		return false
	}
	return true
}

// webhook decodes one webhook block.
func (d *decoder) webhook(found *hcl.Block, t *draft) {
	label := found.LabelRanges[0]
	h := hookDraft{given: map[string]value{}}
	h.Task, h.Name, h.Pos = t.Name, found.Labels[0], d.pos(found.TypeRange)
	h.Scheme.Encoding = webhook.Hex
	d.tables.webhook.begin(&h)
	if !ValidName(h.Name) {
		d.errorf(label, fmt.Sprintf("A name is 1 to %d of a–z, 0–9, _ and -, and begins with a letter or a digit.", maxNameLength),
			"%q cannot be the name of a webhook", h.Name)
		return
	}
	if slices.ContainsFunc(t.Webhooks, func(w *Webhook) bool { return w.Name == h.Name }) {
		d.errorf(label, "", "webhook %q of task %q is defined twice", h.Name, t.Name)
		return
	}
	before := len(d.diags)
	defer func() { d.hideSecrets(&h, d.diags[before:]) }()
	if !decodeBody(d, found.Body, d.tables.webhook, &h) {
		return
	}
	for _, name := range []string{"secrets", "token", "verify_token"} {
		if v, ok := h.given[name]; ok {
			d.warnIfExposed(v, d.source.name)
		}
	}
	if _, sized := h.given["max_input_bytes"]; !sized {
		h.MaxInputBytes = maxTokenInput
		if h.Scheme.Kind.Signed() {
			h.MaxInputBytes = maxSignedInput
		}
	}
	if !d.diags[before:].HasErrors() { // or what is missing may be so for that
		d.checkWebhook(found.TypeRange, &h)
		d.checkReply(found.TypeRange, &h)
	}
	if !h.Scheme.Kind.Signed() && h.digest == nil && len(h.secrets) > 0 {
		sum := sha256.Sum256([]byte(h.secrets[0]))
		h.digest, h.shown = &sum, h.secrets[0]
	}
	t.Webhooks = append(t.Webhooks, &h.Webhook)
}

// withWebhooks gives a task that has webhooks the defaults of one: a push is never lost, and none runs beside another.
func (b *builder) withWebhooks(t *draft, own written) {
	if len(t.Webhooks) == 0 {
		return
	}
	said := func(name string) bool {
		_, mine := own[name]
		_, common := b.defaults.written[name]
		return mine || common
	}
	if !said("max_concurrent") {
		t.MaxConcurrent = 1
	}
	if !said("overflow") {
		t.Overflow = spec.Coalesce
	}
}

// checkTokens reports a token that two webhooks have.
func (b *builder) checkTokens(decoders []*decoder) {
	first := map[[sha256.Size]byte]*Webhook{}
	for _, name := range slices.Sorted(maps.Keys(b.cfg.Tasks)) {
		for _, w := range b.cfg.Tasks[name].Webhooks {
			if w.digest == nil {
				continue
			}
			if other := first[*w.digest]; other != nil {
				i := slices.IndexFunc(decoders, func(d *decoder) bool { return d.source.name == w.Pos.File })
				d := decoders[i]
				d.diags = append(d.diags, Diagnostic{
					Summary: fmt.Sprintf("webhook %q has the token of webhook %q of task %q", w.Name, other.Name, other.Task),
					File:    w.Pos.File, Line: w.Pos.Line, Column: w.Pos.Column, Source: d.source.line(w.Pos.Line),
				})
				continue
			}
			first[*w.digest] = w
		}
	}
}

// line returns a line of the file.
func (s *source) line(n int) string {
	lines := strings.Split(string(s.data), "\n")
	if n < 1 || n > len(lines) {
		return ""
	}
	return strings.TrimRight(lines[n-1], "\r")
}

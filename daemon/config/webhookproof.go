package config

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/daemon/expression"
)

// proofAttributes are those that say how a request is verified.
func proofAttributes() []attribute[hookDraft] {
	return []attribute[hookDraft]{
		{
			name: "verify", example: `"github"`, fallback: `"token"`,
			kind: choice(func(h *hookDraft) *webhook.Kind { return &h.Scheme.Kind }, webhook.Kinds()...),
			doc:  verifyDoc(),
		},
		{
			name: "secret_files", example: `["/etc/rtask/github.secret"]`,
			kind: texts(func(d *decoder, v value, h *hookDraft) {
				d.names(v, new([]string), func(e value, s string) bool { return d.secretFile(e, s, h) })
			}),
			doc: "Files with a secret each. All secrets of a webhook are valid at the same time, so that one can be changed.",
		},
		{
			name: "secrets", example: `["…"]`,
			kind: texts(func(d *decoder, v value, h *hookDraft) {
				list, _ := d.list(v)
				for i, expr := range list {
					e := v.element(fmt.Sprintf("secrets[%d]", i), expr)
					if s, ok := d.string(e, false); ok && d.unseen(e, s) {
						h.secrets = append(h.secrets, s)
					}
				}
			}),
			doc: "Secrets as they are. Everyone who can read the file knows them.",
		},
		{
			name: "credentials", example: `["github"]`,
			kind: texts(func(d *decoder, v value, h *hookDraft) {
				d.names(v, new([]string), func(e value, s string) bool { return d.credential(e, s, h) })
			}),
			doc: "Secrets in credentials of `rtask.service`, by the names that `LoadCredential=` or `LoadCredentialEncrypted=` of a drop-in " +
				"gives them, see systemd.exec(5).",
		},
		{
			name: "token_file", example: `"/etc/rtask/chat.token"`,
			kind: text(func(d *decoder, v value, h *hookDraft) {
				if s, ok := d.string(v, false); ok {
					d.secretFile(v, s, h)
				}
			}),
			doc: "A file with the last part of the URL, as a file with a secret. A webhook that verifies a token has one of the three " +
				"attributes that begin with `token`; others have none.",
		},
		{
			name: "token", example: `"c0ffee…"`,
			kind: text(func(d *decoder, v value, h *hookDraft) {
				if s, ok := d.string(v, false); ok && d.unseen(v, s) {
					h.secrets = append(h.secrets, s)
				}
			}),
			doc: "The last part of the URL: letters, digits and `-._~:@!$&'()*+,;=`. One below 16 characters is a warning.",
		},
		{
			name: "token_hash", example: `"sha256:…"`,
			kind: text((*decoder).tokenHash),
			doc: "The SHA-256 of the last part of the URL, `sha256:` and 64 digits of hex, as from `printf %s TOKEN | sha256sum`. Those who " +
				"read the configuration do not know the URL then; what `rtaskctl webhook list` shows has the hash in place of the token.",
		},
		{
			name: "header", example: `"X-Signature"`,
			kind: text(func(d *decoder, v value, h *hookDraft) { d.header(v, &h.Scheme.Header) }),
			doc:  "The header with the signature, for `hmac-sha256` and `hmac`, which need it.",
		},
		{
			name: "encoding", example: `"hex"`, otherwise: "hex",
			kind: choice(func(h *hookDraft) *webhook.Encoding { return &h.Scheme.Encoding }, webhook.Hex, webhook.Base64),
			doc:  "How the signature is written there, `hex` or `base64`.",
		},
		{
			name: "prefix", example: `"sha256="`,
			kind: text(func(d *decoder, v value, h *hookDraft) {
				if s, ok := d.string(v, false); ok {
					h.Scheme.Prefix = s
				}
			}),
			doc: "What stands before each signature in the header, for `hmac`. There may be several, with commas or blanks between them. " +
				"Without it, the name of the hash and `=` may stand there.",
		},
		{
			name: "hash", example: `"sha256"`, otherwise: "sha256",
			kind: choice(func(h *hookDraft) *webhook.Hash { return &h.Scheme.Hash }, webhook.SHA1, webhook.SHA256, webhook.SHA512),
			doc:  "What the HMAC of `hmac` is made with: `sha1`, `sha256` or `sha512`.",
		},
		{
			name: "signed", example: `"{timestamp}.{body}"`, otherwise: "{body}",
			kind: text((*decoder).signed),
			doc: "What is signed, for `hmac`: a text with `{body}` in it, and with `{timestamp}`, `{id}` and `{url}` where these are signed too. " +
				"The id stands where `id` says, which has to be a header or a name in the body. The URL begins with `public_url`. Where it " +
				"has a query, what is signed behind it has to begin with a character that no URL has, as a JSON object does.",
		},
		{
			name: "timestamp", example: `header("X-Time")`,
			kind: kind[hookDraft]{word: "expression", overRequest: true, decode: func(d *decoder, v value, h *hookDraft) {
				e := d.whole(v, h, expression.Text)
				if e == nil {
					return
				}
				if p, ok := d.place(v, e); ok {
					h.Scheme.Time = &webhook.Time{Place: p}
				}
			}},
			doc: "Where the time stands that is signed, for `hmac`: a header, or a name in the body, `body.sent_at`. It is a number of seconds or " +
				"milliseconds since 1970, and may be 300 seconds from now. A time in a header has to be in `signed`, too. For `grafana` it is " +
				"the header that Grafana has as Timestamp Header.",
		},
		{
			name: "verify_token", example: `"c0ffee…"`, otherwise: "no challenge is answered",
			kind: text(func(d *decoder, v value, h *hookDraft) {
				if s, ok := d.string(v, false); ok && d.unseen(v, s) {
					h.VerifyToken = s
				}
			}),
			doc: "The verify token that Meta was told, for `meta`. It comes in a URL when this webhook's URL is registered, so it is none of " +
				"the secrets. Make one with `openssl rand -hex 20`, and tell Meta the same.",
		},
	}
}

// checkWebhook reports what does not fit together.
func (d *decoder) checkWebhook(r hcl.Range, h *hookDraft) {
	kind := h.Scheme.Kind
	row, _ := webhook.SenderOf(kind)
	tokens, sources := []string{"token_file", "token", "token_hash"}, []string{"secret_files", "secrets", "credentials"}
	own, said := []string{"header", "encoding"}, []string{"prefix", "hash", "signed"}
	var wrong []string
	if kind.Signed() {
		wrong = append(wrong, tokens...)
	} else {
		wrong = append(wrong, sources...)
	}
	if kind != webhook.HMACSHA256 && kind != webhook.HMAC {
		wrong = append(wrong, own...)
	}
	if kind != webhook.HMAC {
		wrong = append(wrong, said...)
	}
	if kind != webhook.HMAC && kind != webhook.Grafana {
		wrong = append(wrong, "timestamp")
	}
	if row.Challenge.Token == "" {
		wrong = append(wrong, "verify_token")
	}
	for _, name := range wrong {
		if v, ok := h.given[name]; ok {
			d.errorf(v.rng(), "", "%s means nothing with verify = %q", name, kind)
		}
	}
	count := func(names []string) int {
		n := 0
		for _, name := range names {
			if _, ok := h.given[name]; ok {
				n++
			}
		}
		return n
	}
	_, hasHeader := h.given["header"]
	switch {
	case !kind.Signed() && count(tokens) != 1:
		d.errorf(r, "Write for example: token_file = \"/etc/rtask/chat.token\"; or verify = \"github\" and secret_files.",
			"webhook %q must have one of token_file, token and token_hash", h.Name)
	case kind.Signed() && count(sources) == 0:
		d.errorf(r, "Write for example: secret_files = [\"/etc/rtask/github.secret\"]", "webhook %q has no secret", h.Name)
	case kind.Signed() && len(h.secrets)+len(h.missing) == 0:
		d.errorf(r, "Write for example: secret_files = [\"/etc/rtask/github.secret\"]", "webhook %q has no secret: its lists are empty", h.Name)
	case (kind == webhook.HMACSHA256 || kind == webhook.HMAC) && !hasHeader:
		d.errorf(r, `Write for example: header = "X-Signature"`, "webhook %q does not say which header has the signature", h.Name)
	}
	d.checkSaid(h, row)
	switch {
	case kind == webhook.HMAC:
		d.checkSigned(h)
	case h.Scheme.Time != nil && len(h.Scheme.Time.Header) == 0: // of grafana
		d.errorf(h.given["timestamp"].rng(), `Write for example: timestamp = header("X-Grafana-Alerting-Timestamp")`, "the time of verify = %q is in a header", kind)
	}
	for _, s := range h.secrets {
		d.checkSecret(r, h, s)
	}
	if row.Challenge.Token != "" && h.VerifyToken == "" {
		d.warnf(r, "Write for example: verify_token = \"c0ffee…\"", "webhook %q has no verify_token: %s cannot register its URL", h.Name, row.Title)
	}
	if v, ok := h.given["replay"]; ok && !h.RefuseRepeats && h.neverAgain() {
		d.errorf(v.rng(), "Leave it out.", "with verify = %q a time is signed, and a repeat never runs again", kind)
	}
}

// checkSecret reports a secret that cannot be one. It is not repeated.
func (d *decoder) checkSecret(r hcl.Range, h *hookDraft, s string) {
	if h.Scheme.Kind.Signed() {
		if err := webhook.CheckSecret(h.Scheme.Kind, s); err != nil {
			d.errorf(r, "", "a secret of webhook %q with verify = %q: %v", h.Name, h.Scheme.Kind, err)
		}
		return
	}
	if err := checkToken(s); err != nil {
		d.errorf(r, "", "webhook %q: %v", h.Name, err)
	} else if len(s) < shortToken {
		d.warnf(r, "Do: openssl rand -hex 20", "the token of webhook %q has %d characters, and may be guessed", h.Name, len(s))
	}
}

// neverAgain reports whether a repeat never runs again, whatever replay says: every request signs a time or an id.
func (w *Webhook) neverAgain() bool {
	row, _ := webhook.SenderOf(w.Scheme.Kind)
	return row.Secret == "" && w.Scheme.Fresh()
}

// verifyDoc is the entry of verify in the manual: the table of senders.
func verifyDoc() string {
	var b strings.Builder
	b.WriteString("How a request is verified, and so who sends it. `rtaskctl webhook senders` prints more of each.\n.Bl -tag -width azure-devops -compact\n")
	for _, s := range webhook.Senders() {
		fmt.Fprintf(&b, ".It Ql %s\n%s\n", s.Kind, s.Summary())
	}
	return b.String() + ".El"
}

// signed reads what is signed.
func (d *decoder) signed(v value, h *hookDraft) {
	s, ok := d.string(v, false)
	if !ok {
		return
	}
	if err := webhook.CheckSigned(s); err != nil {
		d.errorf(v.rng(), v.usage(), "signed: %v", err)
		return
	}
	h.Scheme.Signed = s
}

// place reads where in a request something stands: header("NAME"), or a name in the body.
func (d *decoder) place(v value, e *expression.Expression) (webhook.Place, bool) {
	const usage = `Write header("X-Time"), or body.sent_at.`
	expr, diags := hclsyntax.ParseExpression([]byte(e.Native()), d.source.name, hcl.InitialPos)
	if diags.HasErrors() {
		panic(diags.Error()) // it was compiled before
	}
	switch x := expr.(type) {
	case *hclsyntax.FunctionCallExpr:
		if x.Name != "header" || len(x.Args) != 1 {
			break
		}
		if name, diags := x.Args[0].Value(nil); !diags.HasErrors() && name.Type() == cty.String {
			return webhook.Place{Header: []string{name.AsString()}}, d.headerName(v, name.AsString())
		}
	case *hclsyntax.ScopeTraversalExpr:
		var p webhook.Place
		for _, step := range x.Traversal[1:] {
			attr, ok := step.(hcl.TraverseAttr)
			if !ok {
				d.errorf(v.rng(), usage, "%s: only names may stand in it", v.name)
				return webhook.Place{}, false
			}
			p.Body = append(p.Body, attr.Name)
		}
		if x.Traversal.RootName() == "body" && len(p.Body) > 0 {
			return p, true
		}
	}
	d.errorf(v.rng(), usage, "%s: this is neither a header nor a name in the body", v.name)
	return webhook.Place{}, false
}

// checkSigned reports parts of a signed text of which nobody says where they stand.
func (d *decoder) checkSigned(h *hookDraft) {
	s := &h.Scheme
	names := func(part string) bool { return strings.Contains(s.Signed, part) }
	signed, timestamp := h.given["signed"], h.given["timestamp"]
	switch inHead := s.Time != nil && len(s.Time.Header) > 0; {
	case s.Time == nil && names("{timestamp}"):
		d.errorf(signed.rng(), `Write for example: timestamp = header("X-Time")`, "nothing says where the {timestamp} stands")
	case inHead && !names("{timestamp}"):
		d.errorf(timestamp.rng(), `Write for example: signed = "{timestamp}.{body}"`, "the time in this header is not signed, so anybody could change it")
	case s.Time != nil && !strings.Contains(s.Signed, "}{"):
		s.Time.Unit = webhook.SecondsOrMilliseconds
	}
	if !names("{id}") {
		return
	}
	id, ok := h.given["id"]
	if !ok {
		d.errorf(signed.rng(), `Write for example: id = header("X-Delivery")`, "nothing says where the {id} stands")
	} else if h.ID != nil {
		if p, ok := d.place(id, h.ID); ok {
			s.ID = &p
		}
	}
}

// checkSaid reports filters for what the sender does not say.
func (d *decoder) checkSaid(h *hookDraft, row webhook.Sender) {
	if v, ok := h.given["refs"]; ok && row.Refs == nil && h.given["ref"].expr == nil {
		if row.Kind == webhook.HMAC {
			d.errorf(v.rng(), "Write for example: ref = body.ref", "nothing says where the ref stands that refs are compared with")
		} else {
			d.errorf(v.rng(), "Leave it out.", "refs means nothing with verify = %q: what it sends has no branch or tag", row.Kind)
		}
	}
	if v, ok := h.given["events"]; ok && len(row.Event) == 0 && h.given["event"].expr == nil {
		if row.Kind == webhook.HMAC {
			d.errorf(v.rng(), `Write for example: event = header("X-Event")`, "nothing says where the event stands that events are compared with")
		} else {
			d.errorf(v.rng(), "Leave it out.", "events means nothing with verify = %q: what it sends names no event", row.Kind)
		}
	}
}

// Package webhook knows how the senders of webhooks sign what they send, and where in it they say what happened.
//
// It is a function of bytes and a time: it reads no file, keeps nothing and writes no log. Verify looks at the raw bytes of
// a request and at nothing that is in them; Read is for a request that has passed. The engine's packages and rtaskctl may import it;
// it imports nothing of the project.
package webhook

import (
	"slices"
	"strings"
	"time"
)

// Kind is who sends, and so how a request is verified.
type Kind string

// The kinds.
const (
	// Token is a URL that only the sender knows. There is no signature.
	Token Kind = "token"
	// GitHub signs the body: X-Hub-Signature-256
	// (docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries).
	GitHub Kind = "github"
	// GitLab sends the secret itself as X-Gitlab-Token, or signs as Standard does where the secret is a signing token,
	// which begins with "whsec_" (docs.gitlab.com/user/project/integrations/webhooks).
	GitLab Kind = "gitlab"
	// Gitea and Forgejo sign the body: X-Gitea-Signature, X-Forgejo-Signature (docs.gitea.com/usage/webhooks).
	Gitea   Kind = "gitea"
	Forgejo Kind = "forgejo"
	// Standard is Standard Webhooks: id, time and body are signed (github.com/standard-webhooks/standard-webhooks).
	Standard Kind = "standard"
	// Slack signs time and body (docs.slack.dev/authentication/verifying-requests-from-slack).
	Slack Kind = "slack"
	// Stripe signs time and body (docs.stripe.com/webhooks/signature).
	Stripe Kind = "stripe"
	// The senders that follow are those of the table; it names their documentation.
	Bitbucket       Kind = "bitbucket"
	BitbucketServer Kind = "bitbucket-server"
	Shopify         Kind = "shopify"
	Sentry          Kind = "sentry"
	Linear          Kind = "linear"
	Jira            Kind = "jira"
	PagerDuty       Kind = "pagerduty"
	Zoom            Kind = "zoom"
	Discord         Kind = "discord"
	Twilio          Kind = "twilio"
	Mailgun         Kind = "mailgun"
	Dropbox         Kind = "dropbox"
	Meta            Kind = "meta"
	Trello          Kind = "trello"
	AzureDevOps     Kind = "azure-devops"
	Alertmanager    Kind = "alertmanager"
	Grafana         Kind = "grafana"
	DockerHub       Kind = "dockerhub"
	// HMACSHA256 signs the body; header and encoding are configured.
	HMACSHA256 Kind = "hmac-sha256"
	// HMAC signs what the configuration says, as it says.
	HMAC Kind = "hmac"
)

// Kinds returns every kind, Token first.
func Kinds() []Kind {
	all := make([]Kind, len(table))
	for i := range table {
		all[i] = table[i].Kind
	}
	return all
}

// Signed reports whether requests of a kind prove who sent them otherwise than by the URL.
func (k Kind) Signed() bool {
	s := rowOf(k)
	return s == nil || s.Signature != nil || s.Secret != ""
}

// Fresh reports whether every request of a scheme signs a time or an id of its own, so that a repeat is known.
func (s Scheme) Fresh() bool {
	row := s.sender()
	return row != nil && (!row.Time.IsZero() || row.signs("{id}"))
}

// Hash is what an HMAC is made with.
type Hash string

// The values of Hash.
const (
	SHA1   Hash = "sha1"
	SHA256 Hash = "sha256"
	SHA512 Hash = "sha512"
)

// Encoding is how an HMAC is written in a header.
type Encoding string

// The values of Encoding.
const (
	Hex    Encoding = "hex"
	Base64 Encoding = "base64"
)

// Scheme is how requests are verified.
type Scheme struct {
	Kind Kind
	// Header and Encoding are of HMACSHA256 and HMAC alone.
	Header   string
	Encoding Encoding
	// What follows is of HMAC alone: fields of its Signature, and where time and id stand that are signed. Hash "" is SHA256, and
	// Signed "" the body. Time is of Grafana, too.
	Hash   Hash
	Prefix string
	Signed string
	Time   *Time
	ID     *Place
}

// Request is what came to a webhook's URL, as it came.
type Request struct {
	// Method is that of HTTP: "POST".
	Method string
	// URL is where the sender sent it, in full, and Query what is behind its question mark, not decoded.
	URL, Query string
	// Remote is the address that it came from.
	Remote  string
	Headers Headers
	Body    []byte
}

// Header is one line of a request's head.
type Header struct{ Name, Value string }

// Headers is a request's head, in its order.
type Headers []Header

// Values returns all values of a name, whose case means nothing (RFC 9110, section 5.1).
func (h Headers) Values(name string) []string {
	var values []string
	for _, one := range h {
		if strings.EqualFold(one.Name, name) {
			values = append(values, one.Value)
		}
	}
	return values
}

// has reports whether there is any of names.
func (h Headers) has(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return len(h.Values(n)) > 0 })
}

// get returns the value of the first of names that is there. One that is there twice has none.
func (h Headers) get(names ...string) string {
	for _, n := range names {
		switch values := h.Values(n); len(values) {
		case 0:
		case 1:
			return values[0]
		default:
			return ""
		}
	}
	return ""
}

// Proof is what a request that passed Verify has proven.
type Proof struct {
	// Fresh says that its time or its id is signed, so that the same signed bytes are a repeat and nothing else.
	Fresh bool
	// Key is the same for two requests if they are repeats of each other: of the same id where one is signed, else of the same
	// signed bytes, else of the same body. 64 characters.
	Key string
	// signsBody says that the body is signed, and so an id in it.
	signsBody bool
	// Until is when a repeat does not pass Verify any more. Zero: it always does, or may be signed anew.
	Until time.Time
}

// WithID is p, given what was read of the request: where the body has an id, and so signs it, a repeat is known by that, since the
// sender signs each attempt anew.
func (p Proof) WithID(d Delivery) Proof {
	if !p.Fresh && !p.signsBody || d.SignedID == "" {
		return p
	}
	return Proof{Fresh: true, Key: key("id", []byte(d.SignedID))}
}

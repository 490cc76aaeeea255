package webhook

// table has a row for each kind, as the senders document it. What is in a row is printed by `rtaskctl webhook senders` and in
// rtask.hcl(5).
var table = [...]Sender{
	{
		Kind: Token, Title: "anyone", Note: "Who knows the URL may call it.",
		Event: anyEvent(), ID: anyID(), Refs: gitRefs(), Pings: []string{"ping"},
	},
	{
		Kind: GitHub, Title: "GitHub",
		Docs:      []string{"https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"},
		Signature: bodySum("sha256=", "X-Hub-Signature-256"),
		Event:     []Place{header("X-GitHub-Event")}, ID: []Place{header("X-GitHub-Delivery")}, Refs: gitRefs(),
		Bodies: gitBodies(), FormPayload: true, Pings: []string{"ping"},
	},
	{
		Kind: GitLab, Title: "GitLab",
		Docs:      []string{"https://docs.gitlab.com/user/project/integrations/webhooks/"},
		Signature: standardSignature(), Time: Time{Place: header("webhook-timestamp", "svix-timestamp")}, Secret: "X-Gitlab-Token",
		Event: []Place{body("object_kind"), body("event_name")},
		ID:    []Place{header("webhook-id", "Idempotency-Key", "X-Gitlab-Event-UUID")}, Refs: gitRefs(),
		Note: "It signs where the secret begins with `whsec_`, a signing token. Events have the names of the body, or those of `X-Gitlab-Event`.",
		read: readGitLab,
	},
	{
		Kind: Gitea, Title: "Gitea",
		Docs:      []string{"https://docs.gitea.com/usage/webhooks"},
		Signature: bodySum("", "X-Gitea-Signature", "X-Forgejo-Signature"),
		Event:     []Place{header("X-Gitea-Event", "X-Forgejo-Event")}, ID: []Place{header("X-Gitea-Delivery", "X-Forgejo-Delivery")}, Refs: gitRefs(),
		Bodies: gitBodies(), FormPayload: true,
	},
	{
		Kind: Forgejo, Title: "Forgejo",
		Docs:      []string{"https://forgejo.org/docs/latest/user/webhooks/"},
		Signature: bodySum("", "X-Forgejo-Signature", "X-Gitea-Signature"),
		Event:     []Place{header("X-Forgejo-Event", "X-Gitea-Event")}, ID: []Place{header("X-Forgejo-Delivery", "X-Gitea-Delivery")}, Refs: gitRefs(),
		Bodies: gitBodies(), FormPayload: true,
	},
	{
		Kind: Standard, Title: "Standard Webhooks, Svix",
		Docs:      []string{"https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md"},
		Signature: standardSignature(), Time: Time{Place: header("webhook-timestamp", "svix-timestamp")},
		Event: []Place{body("type")}, ID: []Place{header("webhook-id", "svix-id")}, Refs: gitRefs(),
		Note: "Secrets are `whsec_` and base64.",
	},
	{
		Kind: Slack, Title: "Slack",
		Docs: []string{"https://docs.slack.dev/authentication/verifying-requests-from-slack"},
		Signature: &Signature{
			Place: header("X-Slack-Signature"), Hash: SHA256, Encoding: Hex, Prefix: "v0=", Separators: blanksAndComma,
			Signed: "v0:{timestamp}:{body}",
		},
		Time: Time{Place: header("X-Slack-Request-Timestamp")}, Pings: []string{"url_verification"},
		Event: []Place{body("event", "type"), body("type")}, ID: []Place{body("event_id")},
		Note: "The event of a command is the command with its slash, that of an interaction its type. Their id is the trigger's.",
		read: readSlack,
	},
	{
		Kind: Stripe, Title: "Stripe",
		Docs: []string{"https://docs.stripe.com/webhooks/signature"},
		Signature: &Signature{
			Place: header("Stripe-Signature"), Hash: SHA256, Encoding: Hex, Prefix: "v1=", Separators: blanksAndComma,
			Signed: "{timestamp}.{body}",
		},
		Time:  Time{Place: Place{Header: []string{"Stripe-Signature"}, Field: "t"}},
		Event: []Place{body("type")}, ID: []Place{body("id")},
	},
	{
		Kind: HMACSHA256, Title: "anyone",
		Signature: bodySum("", "header"),
		Event:     anyEvent(), ID: anyID(), Refs: gitRefs(), Pings: []string{"ping"},
		Note: "The HMAC of the body in the `header` that is named, with or without `sha256=`, `v1=` or the like before it; there may be " +
			"several, with commas or blanks between them.",
	},
	{
		Kind: HMAC, Title: "anyone",
		Signature: &Signature{Place: header("header"), Hash: SHA256, Encoding: Hex, Signed: "{body}", Separators: blanksAndComma},
		Note: "An HMAC in the `header` that is named, of what `signed` says, as `hash`, `encoding` and `prefix` say. The time stands where " +
			"`timestamp` says, the event where `event` does, and so on.",
	},
}

// blanksAndComma stand between several signatures.
const blanksAndComma = ", \t"

// bodySum is the HMAC-SHA256 of the body in the first of the named headers that is there. There may be several while a secret is
// changed.
func bodySum(prefix string, headers ...string) *Signature {
	return &Signature{
		Place: header(headers...), Hash: SHA256, Encoding: Hex, Prefix: prefix, Loose: true, Separators: blanksAndComma, Signed: "{body}",
	}
}

// standardSignature is that of Standard Webhooks, also with the headers that it had when it was Svix's. "v1a" is a signature with a
// public key, of which no secret is known here.
func standardSignature() *Signature {
	return &Signature{
		Place: header("webhook-signature", "svix-signature"), Hash: SHA256, Encoding: Base64, Prefix: "v1,", Separators: " \t",
		Signed: "{id}.{timestamp}.{body}", KeyPrefix: standardPrefix,
	}
}

// anyEvent and anyID are where those name an event and a delivery who are known for it, since whoever it is may do as they do.
// Bitbucket has X-Event-Key and X-Request-UUID.
func anyEvent() []Place {
	return []Place{header("X-GitHub-Event", "X-Forgejo-Event", "X-Gitea-Event", "X-Gitlab-Event", "X-Event-Key")}
}

func anyID() []Place {
	return []Place{header("X-GitHub-Delivery", "X-Forgejo-Delivery", "X-Gitea-Delivery", "X-Gitlab-Event-UUID", "X-Request-UUID")}
}

// gitRefs are as GitHub, GitLab, Gitea and Forgejo write them. Of an annotated tag "after" is the tag's own object, and the commit
// is in the others.
func gitRefs() *Refs {
	return &Refs{
		Ref: [][]string{{"ref"}},
		Commit: [][]string{
			{"head_commit", "id"}, {"checkout_sha"}, {"after"}, {"pull_request", "head", "sha"}, {"object_attributes", "last_commit", "id"},
		},
		Zero: []string{"after"}, Gone: []string{"deleted"}, GoneIs: "true",
	}
}

// gitBodies are those of GitHub (docs.github.com/en/webhooks/webhook-events-and-payloads); Gitea's and Forgejo's are made after
// them.
func gitBodies() map[string][]string {
	return map[string][]string{
		"commits": {"push"}, "pusher": {"push"}, "pull_request": {"pull_request"}, "issue": {"issue", "sub_issue"}, "release": {"release"},
		"ref_type": {"create", "delete"}, "deployment": {"deployment"}, "workflow_run": {"workflow_run"}, "workflow_job": {"workflow_job"},
		"check_run": {"check_run"}, "check_suite": {"check_suite"}, "discussion": {"discussion"}, "forkee": {"fork"},
		"inputs": {"workflow_dispatch"}, "client_payload": {"repository_dispatch"}, "zen": {"ping"},
	}
}

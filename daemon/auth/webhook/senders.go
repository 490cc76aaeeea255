package webhook

// table has a row for each kind, as the senders document it. What is in a row is printed by `rtaskctl webhook senders` and in
// rtask.hcl(5).
var table = [...]Sender{
	{
		Kind: Token, Title: "anyone", Note: "Who knows the URL may call it.",
		Event: anyEvent(), ID: anyID(), Refs: gitRefs(), Pings: []string{"ping"},
	},
	{
		Kind: GitHub, Title: "GitHub", Example: "push",
		Docs:      []string{"https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"},
		Signature: bodySum("sha256=", "X-Hub-Signature-256"),
		Event:     []Place{header("X-GitHub-Event")}, ID: []Place{header("X-GitHub-Delivery")}, Refs: gitRefs(),
		Bodies: gitBodies(), FormPayload: true, Pings: []string{"ping"},
	},
	{
		Kind: GitLab, Title: "GitLab", Example: "push",
		Docs:      []string{"https://docs.gitlab.com/user/project/integrations/webhooks/"},
		Signature: standardSignature(), Time: Time{Place: header("webhook-timestamp", "svix-timestamp")}, Secret: "X-Gitlab-Token",
		Event: []Place{body("object_kind"), body("event_name")},
		ID:    []Place{header("webhook-id", "Idempotency-Key", "X-Gitlab-Event-UUID")}, Refs: gitRefs(),
		Note: "It signs where the secret begins with `whsec_`, a signing token. Events have the names of the body, or those of `X-Gitlab-Event`.",
		read: readGitLab,
	},
	{
		Kind: Gitea, Title: "Gitea", Example: "push",
		Docs:      []string{"https://docs.gitea.com/usage/webhooks"},
		Signature: bodySum("", "X-Gitea-Signature", "X-Forgejo-Signature"),
		Event:     []Place{header("X-Gitea-Event", "X-Forgejo-Event")}, ID: []Place{header("X-Gitea-Delivery", "X-Forgejo-Delivery")}, Refs: gitRefs(),
		Bodies: gitBodies(), FormPayload: true,
	},
	{
		Kind: Forgejo, Title: "Forgejo", Example: "push",
		Docs:      []string{"https://forgejo.org/docs/latest/user/webhooks/"},
		Signature: bodySum("", "X-Forgejo-Signature", "X-Gitea-Signature"),
		Event:     []Place{header("X-Forgejo-Event", "X-Gitea-Event")}, ID: []Place{header("X-Forgejo-Delivery", "X-Gitea-Delivery")}, Refs: gitRefs(),
		Bodies: gitBodies(), FormPayload: true,
	},
	{
		Kind: Standard, Title: "Standard Webhooks, Svix", Example: "push",
		Docs:      []string{"https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md"},
		Signature: standardSignature(), Time: Time{Place: header("webhook-timestamp", "svix-timestamp")},
		Event: []Place{body("type")}, ID: []Place{header("webhook-id", "svix-id")}, Refs: gitRefs(),
		Note: "Secrets are `whsec_` and base64.",
	},
	{
		Kind: Slack, Title: "Slack", Example: "push",
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
		Kind: Stripe, Title: "Stripe", Example: "push",
		Docs: []string{"https://docs.stripe.com/webhooks/signature"},
		Signature: &Signature{
			Place: header("Stripe-Signature"), Hash: SHA256, Encoding: Hex, Prefix: "v1=", Separators: blanksAndComma,
			Signed: "{timestamp}.{body}",
		},
		Time:  Time{Place: Place{Header: []string{"Stripe-Signature"}, Field: "t"}},
		Event: []Place{body("type")}, ID: []Place{body("id")},
	},
	{
		Kind: Bitbucket, Title: "Bitbucket Cloud", Example: "repo:push",
		Docs: []string{
			"https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/", "https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/",
		},
		Signature: one("X-Hub-Signature", SHA256, Hex, "sha256=", "{body}"),
		Event:     []Place{header("X-Event-Key")}, ID: []Place{header("X-Request-UUID")},
		Refs: &Refs{
			List: []string{"push", "changes"}, Ref: [][]string{{"new", "name"}, {"old", "name"}}, Type: [][]string{{"new", "type"}, {"old", "type"}},
			Types: map[string]string{"branch": "refs/heads/", "tag": "refs/tags/"}, Commit: [][]string{{"new", "target", "hash"}}, Gone: []string{"closed"}, GoneIs: "true",
		},
		Bodies: map[string][]string{"push": {"repo:push"}, "pullrequest": {"pullrequest:"}, "issue": {"issue:"}},
	},
	{
		Kind: BitbucketServer, Title: "Bitbucket Data Center", Example: "repo:refs_changed",
		Docs:      []string{"https://confluence.atlassian.com/bitbucketserver/event-payload-938025882.html"},
		Signature: one("X-Hub-Signature", SHA256, Hex, "sha256=", "{body}"), Secret: authorization,
		Event: []Place{header("X-Event-Key")}, ID: []Place{header("X-Request-Id")},
		Refs: &Refs{
			List: []string{"changes"}, Ref: [][]string{{"ref", "id"}, {"refId"}}, Commit: [][]string{{"toHash"}}, Zero: []string{"toHash"},
			Gone: []string{"type"}, GoneIs: `"DELETE"`,
		},
		Bodies: map[string][]string{"changes": {"repo:refs_changed"}, "pullRequest": {"pr:"}},
		Pings:  []string{openPing}, OpenPing: openPing,
	},
	{
		Kind: Shopify, Title: "Shopify", Example: "orders/create",
		Docs:      []string{"https://shopify.dev/docs/apps/build/webhooks/verify-deliveries"},
		Signature: one("X-Shopify-Hmac-Sha256", SHA256, Base64, "", "{body}"),
		Event:     []Place{header("X-Shopify-Topic")}, ID: []Place{header("X-Shopify-Webhook-Id")},
	},
	{
		Kind: Sentry, Title: "Sentry", Example: "issue",
		Docs:      []string{"https://docs.sentry.io/organization/integrations/integration-platform/webhooks/"},
		Signature: one("Sentry-Hook-Signature", SHA256, Hex, "", "{body}"),
		Event:     []Place{header("Sentry-Hook-Resource")}, ID: []Place{header("Request-ID")},
		Note: "What happened to it is `body.action`.",
	},
	{
		Kind: Linear, Title: "Linear", Example: "Issue",
		Docs:      []string{"https://linear.app/developers/webhooks"},
		Signature: one("Linear-Signature", SHA256, Hex, "", "{body}"), Time: Time{Place: body("webhookTimestamp"), Unit: Milliseconds},
		Event: []Place{body("type")}, ID: []Place{header("Linear-Delivery")}, Reply: &Reply{Status: 200},
		Note: "What happened to it is `body.action`.",
	},
	{
		Kind: Jira, Title: "Jira Cloud", Example: "jira:issue_updated",
		Docs:      []string{"https://developer.atlassian.com/cloud/jira/platform/webhooks/"},
		Signature: one("X-Hub-Signature", SHA256, Hex, "sha256=", "{body}"),
		Event:     []Place{body("webhookEvent")}, ID: []Place{header("X-Atlassian-Webhook-Identifier")},
	},
	{
		Kind: PagerDuty, Title: "PagerDuty", Example: "incident.triggered",
		Docs:      []string{"https://developer.pagerduty.com/docs/verifying-webhook-signatures"},
		Signature: several(one("X-PagerDuty-Signature", SHA256, Hex, "v1=", "{body}")),
		Event:     []Place{body("event", "event_type")}, ID: []Place{body("event", "id")}, Pings: []string{"pagey.ping"},
	},
	{
		Kind: Zoom, Title: "Zoom", Example: "meeting.started",
		Docs:      []string{"https://developers.zoom.us/docs/api/webhooks/"},
		Signature: one("x-zm-signature", SHA256, Hex, "v0=", "v0:{timestamp}:{body}"), Time: Time{Place: header("x-zm-request-timestamp")},
		Event: []Place{body("event")}, ID: []Place{header("x-zm-trackingid")}, Pings: []string{zoomValidation}, Reply: &Reply{Status: 200},
		Note: "The validation of the URL is answered if it is signed.",
	},
	{
		Kind: Discord, Title: "Discord", Example: "deploy",
		Docs: []string{
			"https://docs.discord.com/developers/interactions/overview", "https://docs.discord.com/developers/events/webhook-events",
		},
		Signature: &Signature{Place: header("X-Signature-Ed25519"), Ed25519: true, Encoding: Hex, Signed: "{timestamp}{body}"},
		Time:      Time{Place: header("X-Signature-Timestamp")}, Event: []Place{body("data", "name"), body("data", "custom_id"), body("event", "type")},
		ID: []Place{body("id")}, Pings: []string{"PING"},
		Note: "The secret is the application's public key. The event is the name of the command, the `custom_id` of the component or form, or of " +
			"all these `APPLICATION_COMMAND`, `MESSAGE_COMPONENT` or `MODAL_SUBMIT`; of webhook events their type.",
		read: readDiscord, toPerson: toDiscord,
	},
	{
		Kind: Twilio, Title: "Twilio",
		Docs:      []string{"https://www.twilio.com/docs/usage/security"},
		Signature: one("X-Twilio-Signature", SHA1, Base64, "", "{url}{form}"),
		Reply:     &Reply{Status: 200, ContentType: "text/xml", Body: "<Response/>"},
		Note: "The URL has to be `public_url` as Twilio knows it. Nothing is between the fields that are signed, and no time is: with " +
			"`replay = \"refuse\"` a captured request is good once only.",
	},
	{
		Kind: Mailgun, Title: "Mailgun", Example: "delivered",
		Docs: []string{"https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks"},
		Signature: &Signature{
			Place: body("signature", "signature"), Hash: SHA256, Encoding: Hex, Signed: "{timestamp}{id}",
		},
		Time: Time{Place: body("signature", "timestamp")}, ID: []Place{body("signature", "token")}, Event: []Place{body("event-data", "event")},
		Note: "Only the time and a token are signed, and no event: whoever captures a request can send another event with it once.",
	},
	{
		Kind: Dropbox, Title: "Dropbox",
		Docs:      []string{"https://www.dropbox.com/developers/reference/webhooks"},
		Signature: one("X-Dropbox-Signature", SHA256, Hex, "", "{body}"), Challenge: Challenge{Query: "challenge"},
	},
	{
		Kind: Meta, Title: "Meta: Facebook, Instagram, WhatsApp", Example: "page",
		Docs:      []string{"https://developers.facebook.com/docs/graph-api/webhooks/getting-started/"},
		Signature: one("X-Hub-Signature-256", SHA256, Hex, "sha256=", "{body}"), Event: []Place{body("object")},
		Challenge: Challenge{Query: "hub.challenge", Mode: "hub.mode", ModeIs: "subscribe", Token: "hub.verify_token"},
	},
	{
		Kind: Trello, Title: "Trello", Example: "updateCard",
		Docs:      []string{"https://developer.atlassian.com/cloud/trello/guides/rest-api/webhooks/"},
		Signature: one("X-Trello-Webhook", SHA1, Base64, "", "{body}{url}"),
		Event:     []Place{body("action", "type")}, ID: []Place{body("action", "id")},
		Note: "The URL has to be `public_url` as Trello knows it.",
	},
	{
		Kind: AzureDevOps, Title: "Azure DevOps", Example: "git.push",
		Docs: []string{
			"https://learn.microsoft.com/azure/devops/service-hooks/services/webhooks", "https://learn.microsoft.com/azure/devops/service-hooks/events",
		},
		Secret: authorization, Event: []Place{body("eventType")}, ID: []Place{body("id")},
		Refs: &Refs{List: []string{"resource", "refUpdates"}, Ref: [][]string{{"name"}}, Commit: [][]string{{"newObjectId"}}, Zero: []string{"newObjectId"}},
	},
	{
		Kind: Alertmanager, Title: "Prometheus Alertmanager", Example: "firing",
		Docs:   []string{"https://prometheus.io/docs/alerting/latest/configuration/#webhook_config"},
		Secret: authorization, Event: []Place{body("status")},
	},
	{
		Kind: Grafana, Title: "Grafana", Example: "firing",
		Docs:      []string{"https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/"},
		Signature: one("X-Grafana-Alerting-Signature", SHA256, Hex, "", "{body}"), Secret: authorization, Event: []Place{body("status")},
		Note: "Where Grafana has a header for the time, `timestamp` names it, and `{timestamp}:{body}` is signed.",
	},
	{
		Kind: DockerHub, Title: "Docker Hub",
		Docs: []string{"https://docs.docker.com/docker-hub/repos/manage/webhooks/"},
		Note: "The tag is `body.push_data.tag`.",
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

// openPing is what Bitbucket Data Center sends to try a URL, without a signature.
const openPing = "diagnostics:ping"

// zoomValidation is what Zoom sends to know that a URL's owner has the secret.
const zoomValidation = "endpoint.url_validation"

// blanksAndComma stand between several signatures.
const blanksAndComma = ", \t"

// one is a signature in a header that has one.
func one(name string, hash Hash, e Encoding, prefix, signed string) *Signature {
	return &Signature{Place: header(name), Hash: hash, Encoding: e, Prefix: prefix, Signed: signed}
}

// several is a signature of which there may be some, with commas or blanks between them.
func several(s *Signature) *Signature {
	s.Separators = blanksAndComma
	return s
}

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

package ctl

import (
	"strings"

	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

// webhookTestJSON is what webhook test found.
type webhookTestJSON struct {
	view.Webhook
	Decision    string    `json:"decision"`
	Kind        string    `json:"kind,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	Event       string    `json:"event,omitempty"`
	Ref         string    `json:"ref,omitempty"`
	Environment []string  `json:"environment,omitempty"`
	Job         *view.Job `json:"job,omitempty"`
}

func (a *app) webhookCommand() *cli.Command {
	return &cli.Command{
		Name: "webhook", Usage: "list and test webhooks", UsageText: "rtaskctl webhook list|test",
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list the webhooks and their URLs", UsageText: "rtaskctl webhook list [--json]",
				Description: "Anyone who knows the URL of a token webhook can call it.",
				Flags:       []cli.Flag{jsonFlag()}, Action: a.webhookList,
			},
			{
				Name: "test", Usage: "show what a correctly signed request would do", UsageText: "rtaskctl webhook test [--run] [--json] TASK/NAME",
				Description: "The request is a push, or the first event and ref that the webhook takes. Without --run, nothing is started.",
				Flags:       []cli.Flag{boolFlag("send the request for real: the task starts", "run"), jsonFlag()}, Action: a.webhookTest,
			},
		},
	}
}

func (a *app) webhookList(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	r, err := call(a, c, jobs.ListWebhooks, &rtaskv1.ListWebhooksRequest{})
	if err != nil {
		return err
	}
	if h := r.GetHint(); h != "" && !c.Bool("json") {
		defer a.say("%s", printable(h))
	}
	return listing[*rtaskv1.Webhook, view.Webhook]{
		view: view.WebhookOf, none: "There are no webhooks.",
		header: []string{"TASK", "NAME", "VERIFY", "URL"},
		row: func(w *rtaskv1.Webhook) []string {
			if p := w.GetProblem(); p != "" {
				a.say("%s/%s: %s", printable(w.GetTask()), printable(w.GetName()), oneLine(p))
			}
			return []string{w.GetTask(), w.GetName(), w.GetVerify(), w.GetUrl()}
		},
	}.print(a, c, r.GetWebhooks())
}

func (a *app) webhookTest(c *cli.Context) error {
	ref, err := oneArg(c, "TASK/NAME")
	if err != nil {
		return err
	}
	task, name, ok := strings.Cut(ref, "/")
	if !ok || task == "" || name == "" {
		return misuse(c, "%q is not TASK/NAME", ref)
	}
	r, err := call(a, c, jobs.TestWebhook, &rtaskv1.TestWebhookRequest{Task: task, Name: name, Run: c.Bool("run")})
	if err != nil {
		return err
	}
	err = a.result(c, webhookTestToJSON(r), webhookTestText(r))
	if err == nil && r.GetDecision() == "refused" {
		return exitStatus(exitError)
	}
	return err
}

func webhookTestToJSON(m *rtaskv1.TestWebhookResponse) webhookTestJSON {
	v := webhookTestJSON{
		Webhook: view.WebhookOf(m.GetWebhook()), Decision: m.GetDecision(), Kind: m.GetKind(), Reason: m.GetReason(), Event: m.GetEvent(),
		Ref: m.GetRef(), Environment: m.GetEnvironment(),
	}
	if m.GetJob() != nil {
		j := view.JobOf(m.GetJob())
		v.Job = &j
	}
	return v
}

// webhookTestText says what would happen, or what did.
func webhookTestText(m *rtaskv1.TestWebhookResponse) string {
	var b strings.Builder
	w := m.GetWebhook()
	b.WriteString("POST " + printable(w.GetUrl()) + "\n")
	if m.GetEvent() != "" {
		b.WriteString("signed as " + printable(w.GetVerify()) + ", event " + printable(m.GetEvent()))
		if m.GetRef() != "" {
			b.WriteString(", ref " + printable(m.GetRef()))
		}
		b.WriteString("\n")
	}
	switch j := m.GetJob(); {
	case m.GetDecision() == "refused":
		b.WriteString("refused: " + oneLine(m.GetReason()) + " (" + printable(m.GetKind()) + ")\n")
	case m.GetDecision() == "ignored":
		b.WriteString("ignored: " + oneLine(m.GetReason()) + "\n")
	case j != nil:
		b.WriteString("accepted: " + printable(w.GetTask()) + " was started, job " + printable(j.GetId()) + " " + view.Status(j) + ", with\n")
	default:
		b.WriteString("accepted: " + printable(w.GetTask()) + " would start, with\n")
	}
	for _, kv := range m.GetEnvironment() {
		b.WriteString("  " + printable(kv) + "\n")
	}
	return b.String()
}

package ctl

import (
	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

func (a *app) webhookCommand() *cli.Command {
	return &cli.Command{
		Name: "webhook", Usage: "list and test webhooks, and run kept requests again", UsageText: "rtaskctl webhook list|senders|test|deliveries|replay",
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list the webhooks and their URLs", UsageText: "rtaskctl webhook list [--json]",
				Description: "Anyone who knows the URL of a token webhook can call it.",
				Flags:       []cli.Flag{jsonFlag()}, Action: a.webhookList,
			},
			a.webhookTestCommand(),
			a.sendersCommand(),
			a.deliveriesCommand(),
			a.replayCommand(),
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
		header: []column{{name: "TASK"}, {name: "NAME"}, {name: "VERIFY"}, {name: "URL", below: true}},
		row: func(w *rtaskv1.Webhook) []string {
			if p := w.GetProblem(); p != "" {
				a.say("%s/%s: %s", printable(w.GetTask()), printable(w.GetName()), oneLine(p))
			}
			return []string{w.GetTask(), w.GetName(), w.GetVerify(), w.GetUrl()}
		},
	}.print(a, c, r.GetWebhooks())
}

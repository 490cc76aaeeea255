package ctl

import (
	"strings"

	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

// replayJSON is what became of a delivery that ran again.
type replayJSON struct {
	Delivery view.Delivery `json:"delivery"`
	Decision string        `json:"decision"`
	Reason   string        `json:"reason,omitempty"`
	When     []partJSON    `json:"when,omitempty"`
	Job      *view.Job     `json:"job,omitempty"`
}

func (a *app) deliveriesCommand() *cli.Command {
	return &cli.Command{
		Name: "deliveries", Usage: "list the requests to webhooks that are kept", UsageText: "rtaskctl webhook deliveries [--json] [TASK[/NAME]]",
		Description: "The newest first. A webhook keeps some where keep_deliveries in rtask.hcl says so.",
		Flags:       []cli.Flag{jsonFlag()}, Action: a.deliveries,
	}
}

func (a *app) replayCommand() *cli.Command {
	return &cli.Command{
		Name: "replay", Usage: "run a kept request to a webhook again", UsageText: "rtaskctl webhook replay [--json] DELIVERY",
		Description: "DELIVERY is an id that rtaskctl webhook deliveries shows, the beginning of one, or the sender's own id. The task starts as a\n" +
			"new job, unless the webhook would ignore the request by the configuration of now. Its signature is not checked again.",
		Flags: []cli.Flag{jsonFlag()}, Action: a.replay,
	}
}

func (a *app) deliveries(c *cli.Context) error {
	m := &rtaskv1.ListDeliveriesRequest{}
	if c.NArg() > 0 {
		ref, err := oneArg(c, "TASK/NAME")
		if err != nil {
			return err
		}
		if m.Task = ref; strings.Contains(ref, "/") {
			if m.Task, m.Webhook, err = hookOf(c, ref); err != nil {
				return err
			}
		}
	}
	r, err := call(a, c, jobs.ListDeliveries, m)
	if err != nil {
		return err
	}
	return listing[*rtaskv1.Delivery, view.Delivery]{
		view: view.DeliveryOf, none: "No deliveries are kept.",
		header: []column{
			{name: "ID"}, {name: "TIME"}, {name: "WEBHOOK", least: 12}, {name: "EVENT", least: 8}, {name: "REF", least: 8, drop: 2}, {name: "DELIVERY", drop: 1},
			{name: "DECISION"}, {name: "REASON", below: true},
		},
		row: func(d *rtaskv1.Delivery) []string {
			reason := d.GetReason()
			if d.GetKind() != "" {
				reason = d.GetKind() + ": " + reason
			}
			return []string{
				d.GetId(), d.GetReceivedAt().AsTime().Local().Format("2006-01-02 15:04:05"), d.GetTask() + "/" + d.GetWebhook(), d.GetEvent(), d.GetRef(),
				d.GetDelivery(), d.GetDecision(), oneLine(reason),
			}
		},
	}.print(a, c, r.GetDeliveries())
}

func (a *app) replay(c *cli.Context) error {
	ref, err := oneArg(c, "DELIVERY")
	if err != nil {
		return err
	}
	r, err := call(a, c, jobs.ReplayDelivery, &rtaskv1.ReplayDeliveryRequest{Delivery: ref})
	if err != nil {
		return err
	}
	v := replayJSON{Delivery: view.DeliveryOf(r.GetDelivery()), Decision: r.GetDecision(), Reason: r.GetReason(), When: view.Each(r.GetWhen(), partToJSON)}
	if r.GetJob() == nil {
		if err := a.result(c, v, "ignored: "+oneLine(r.GetReason())+"\n"+partsText(r.GetWhen())); err != nil {
			return err
		}
		return exitStatus(exitError)
	}
	j := view.JobOf(r.GetJob())
	v.Job = &j
	return a.result(c, v, "Job: "+printable(r.GetJob().GetId())+"\n")
}

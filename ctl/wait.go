package ctl

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

// errWaited is the cause of a context that ends when wait's --timeout is over.
var errWaited = errors.New("the time to wait is over")

func (a *app) waitCommand() *cli.Command {
	return &cli.Command{
		Name: "wait", Usage: "wait until jobs have ended, and exit with their exit status", UsageText: "rtaskctl wait [--timeout TIME] [--json] JOB…",
		Description: "The exit status is the same as that of rtaskctl run; of several jobs, that of the first that failed, in the order of the " +
			"arguments. With --timeout it is 124 if a job has not ended in time; the job runs on.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "timeout", Usage: "wait for at most `TIME`, such as 5min; 0: do not wait"},
			jsonFlag(),
		},
		Action: failing(exitRtask, a.wait),
	}
}

func (a *app) wait(c *cli.Context) error {
	if !c.Args().Present() || c.Args().First() == "" {
		return misuse(c, "JOB is missing")
	}
	ctx := c.Context
	if c.IsSet("timeout") {
		d, err := parseSpan(c.String("timeout"))
		if err != nil {
			return misuse(c, "--timeout: %v", err)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, time.Now().Add(d), errWaited)
		defer cancel()
	}
	engine, err := a.connect(c)
	if err != nil {
		return err
	}
	var all []*rtaskv1.Job
	for _, ref := range c.Args().Slice() { // so that a job that does not exist is told of now
		job, err := show(c.Context, engine, ref)
		if err != nil {
			return err
		}
		all = append(all, job)
	}
	status := 0
	for i, job := range all {
		if !job.Ended() {
			ended, err := await(ctx, engine, job.GetId())
			switch {
			case err == nil:
				job = ended
			case c.Context.Err() != nil, !errors.Is(context.Cause(ctx), errWaited) && connect.CodeOf(err) != connect.CodeDeadlineExceeded:
				return err // the engine knows of the deadline, too
			}
			all[i] = job
		}
		exit := exitOf(job)
		if !job.Ended() {
			a.say("rtaskctl: job %s is still %s", printable(job.GetId()), job.GetState().Word())
			exit = exitTimeout
		}
		if status == 0 {
			status = exit
		}
	}
	if c.Bool("json") {
		var value any = view.Each(all, view.JobOf)
		if len(all) == 1 {
			value = view.JobOf(all[0])
		}
		if err := a.printJSON(value); err != nil {
			return err
		}
	}
	return exitStatus(status)
}

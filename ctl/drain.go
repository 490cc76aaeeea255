package ctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

func (a *app) drainCommand() *cli.Command {
	return &cli.Command{
		Name: "drain", Usage: "stop accepting jobs and wait until the last one has ended", UsageText: "rtaskctl drain [--timeout TIME | --cancel] [--json]",
		Description: "Accepted jobs run to their end. Draining lasts until `rtaskctl drain --cancel`, or until rtaskd ends.\n" +
			"The exit status is 1 if jobs are left when this command returns.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "timeout", Usage: "wait for at most `TIME`, such as 5min; 0: do not wait"},
			boolFlag("accept jobs again", "cancel"),
			jsonFlag(),
		},
		Action: a.drain,
	}
}

// errNotDrained is the cause of a wait that was long enough.
var errNotDrained = errors.New("it takes longer")

func (a *app) drain(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	if c.Bool("cancel") && c.IsSet("timeout") {
		return misuse(c, "--cancel waits for nothing, so it takes no --timeout")
	}
	ctx := c.Context
	if c.IsSet("timeout") {
		d, err := parseSpan(c.String("timeout"))
		if err != nil {
			return misuse(c, "--timeout: %s", err)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, max(d, time.Nanosecond), errNotDrained)
		defer cancel()
	}
	r, err := call(a, c, jobs.Drain, &rtaskv1.DrainRequest{Cancel: c.Bool("cancel")})
	if err != nil {
		return err
	}
	if c.Bool("cancel") {
		return a.drainResult(c, r, "Jobs are accepted again")
	}
	if n := r.GetJobs(); n > 0 && !c.Bool("json") {
		a.say("No new jobs are accepted; waiting for %s.", plural(n, "job"))
	}
	r, err = a.engine.Jobs.Drain(ctx, &rtaskv1.DrainRequest{Wait: true})
	switch {
	case err == nil && !r.GetDraining():
		return errors.New("another operator cancelled draining: jobs are accepted again")
	case err == nil:
		return a.drainResult(c, r, "Drained: no job is left and no new ones are accepted")
	case errors.Is(context.Cause(ctx), errNotDrained), connect.CodeOf(err) == connect.CodeDeadlineExceeded: // the engine knows it, too
		return a.notDrained(c)
	case c.Context.Err() != nil:
		a.say("rtask still accepts no new jobs, until `rtaskctl drain --cancel`.")
		return err
	default:
		return &hintError{fmt.Errorf("cannot wait for the last job: %w", err), "draining ends when rtaskd ends"}
	}
}

// notDrained says what is left when the time is up.
func (a *app) notDrained(c *cli.Context) error {
	r, err := call(a, c, jobs.Info, &rtaskv1.InfoRequest{})
	if err != nil {
		return err
	}
	left := &rtaskv1.DrainResponse{Draining: r.GetDraining(), Jobs: r.GetRunning() + r.GetQueued()}
	if left.Jobs == 0 {
		return a.drainResult(c, left, "Drained: no job is left and no new ones are accepted")
	}
	if c.Bool("json") {
		if err := a.drainResult(c, left, ""); err != nil {
			return err
		}
		return exitStatus(exitError)
	}
	verb := "are"
	if left.Jobs == 1 {
		verb = "is"
	}
	return &hintError{fmt.Errorf("%s %s left; no new ones are accepted", plural(left.Jobs, "job"), verb), "rtaskctl ps shows them, rtaskctl drain --cancel accepts jobs again"}
}

func (a *app) drainResult(c *cli.Context, r *rtaskv1.DrainResponse, text string) error {
	if c.Bool("json") {
		return a.printJSON(struct {
			Draining bool  `json:"draining"`
			Jobs     int32 `json:"jobs"`
		}{r.GetDraining(), r.GetJobs()})
	}
	return a.print(text + "\n")
}

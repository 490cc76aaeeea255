package ctl

import (
	"context"

	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

func (a *app) stopCommand() *cli.Command {
	return &cli.Command{
		Name: "stop", Usage: "stop jobs and all of their processes", UsageText: "rtaskctl stop [--kill] [--json] JOB…",
		Description: "rtask sends a job its kill signal, and SIGKILL if it still runs after its timeout_stop_sec. When this command " +
			"returns, no process of the job is left. Stopping a job that has ended is no error.",
		Flags:  []cli.Flag{boolFlag("send SIGKILL immediately", "kill"), jsonFlag()},
		Action: a.stop,
	}
}

func (a *app) stop(c *cli.Context) error {
	if !c.Args().Present() {
		return misuse(c, "JOB is missing")
	}
	if _, err := a.connect(c); err != nil {
		return err
	}
	failed := false
	stopped := []view.Job{}
	for _, ref := range c.Args().Slice() {
		r, err := call(a, c, jobs.Stop, &rtaskv1.StopRequest{Job: ref, Kill: c.Bool("kill")})
		job := r.GetJob()
		switch {
		case c.Context.Err() != nil:
			return context.Cause(c.Context)
		case err != nil:
			a.report(err)
			failed = true
		case c.Bool("json"):
			stopped = append(stopped, view.JobOf(job))
		default:
			what := "stopped"
			if r.GetHadEnded() {
				what = "had already ended: " + resultText(job)
			}
			if err := a.print("Job " + printable(job.GetId()) + " " + what + "\n"); err != nil {
				return err
			}
		}
	}
	if c.Bool("json") {
		if err := a.printJSON(stopped); err != nil {
			return err
		}
	}
	if failed {
		return exitStatus(exitError)
	}
	return nil
}

package ctl

import (
	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/daemon/api/view"
)

func (a *app) waitCommand() *cli.Command {
	return &cli.Command{
		Name: "wait", Usage: "wait until a job has ended, and exit with its exit status", UsageText: "rtaskctl wait [--json] JOB",
		Description: "The exit status is the same as that of rtaskctl run.",
		Flags:       []cli.Flag{jsonFlag()},
		Action:      failing(exitRtask, a.wait),
	}
}

func (a *app) wait(c *cli.Context) error {
	ref, err := oneArg(c, "JOB")
	if err != nil {
		return err
	}
	engine, err := a.connect(c)
	if err != nil {
		return err
	}
	job, err := show(c.Context, engine, ref)
	if err == nil && !job.Ended() {
		job, err = await(c.Context, engine, job.GetId())
	}
	if err != nil {
		return err
	}
	if c.Bool("json") {
		if err := a.printJSON(view.JobOf(job)); err != nil {
			return err
		}
	}
	return exitStatus(exitOf(job))
}

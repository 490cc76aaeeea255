package ctl

import (
	"github.com/urfave/cli/v2"
)

func (a *app) logsCommand() *cli.Command {
	return &cli.Command{
		Name: "logs", Usage: "show a job's output", UsageText: "rtaskctl logs [-f] JOB",
		Description: "The output comes byte for byte as the job wrote it, from its start, standard error on standard error.",
		Flags: []cli.Flag{
			boolFlag("go on until the job has ended", "follow", "f"),
		},
		Action: a.logs,
	}
}

func (a *app) logs(c *cli.Context) error {
	ref, err := oneArg(c, "JOB")
	if err != nil {
		return err
	}
	engine, err := a.connect(c)
	if err != nil {
		return err
	}
	defer engine.Close()
	job, err := show(c.Context, engine, ref)
	if err != nil {
		return err
	}
	follow := c.Bool("follow")
	f := &follower{engine: engine, job: job.GetId(), follow: follow, stdout: a.stdout, stderr: a.stderr}
	if err := f.copy(c.Context); err != nil {
		return err
	}
	if follow && !ended(job) {
		if job, err = show(c.Context, engine, job.GetId()); err != nil {
			return err
		}
	}
	a.dropped(job)
	return nil
}

package ctl

import (
	"context"
	"math"

	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

func (a *app) stopCommand() *cli.Command {
	return &cli.Command{
		Name: "stop", Usage: "stop jobs and all of their processes", UsageText: "rtaskctl stop [--kill] [--json] JOB|TASK…",
		Description: "rtask sends a job its kill signal, and SIGKILL if it still runs after its timeout_stop_sec. When this command " +
			"returns, no process of the job is left. Stopping a job that has ended is no error.\n" +
			"Of a task, all jobs are stopped that have not ended, those in the queue first.\n" + refHelp,
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
	refs, err := a.stopped(c)
	if err != nil {
		return err
	}
	for _, ref := range refs {
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
			switch {
			case r.GetHadEnded():
				what = "had already ended: " + resultText(job)
			case job.GetReason() != rtaskv1.Reason_REASON_STOPPED:
				what = "is not tried again: " + resultText(job)
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

// stopped are the jobs that the arguments of stop mean: of a task, all that the caller may see and that have not ended. Those in the
// queue come first, so that none of them begins when another one ends.
func (a *app) stopped(c *cli.Context) ([]string, error) {
	var refs []string
	for _, ref := range c.Args().Slice() {
		t := a.meant(c, ref)
		if t == nil {
			refs = append(refs, ref)
			continue
		}
		r, err := call(a, c, jobs.List, &rtaskv1.ListRequest{Task: t.GetName(), Limit: math.MaxInt32})
		if err != nil {
			return nil, err
		}
		if len(r.GetJobs()) == 0 {
			a.say("No job of the task %s is running that you may see.", printable(t.GetName()))
		}
		for _, queued := range []bool{true, false} {
			for _, j := range r.GetJobs() {
				if (j.GetState() == rtaskv1.State_STATE_QUEUED) == queued {
					refs = append(refs, j.GetId())
				}
			}
		}
	}
	return refs, nil
}

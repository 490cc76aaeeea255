package ctl

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// As soon as trigger --wait ends, systemd looks whether the path is still there, and starts it again. So it takes breath at least, and
// longBreath more after a task that was refused or has failed: a job that leaves what it was started for is no busy loop.
const (
	breath     = 2 * time.Second
	longBreath = 10 * time.Second
)

// triggerCommand is what the services rtask-schedule@, rtask-path@ and rtask-exists@ run.
func (a *app) triggerCommand() *cli.Command {
	return &cli.Command{
		Name: "trigger", Hidden: true, Usage: "start a task for a unit of systemd's", UsageText: "rtaskctl trigger [--wait] schedule|path TASK",
		Flags: []cli.Flag{boolFlag("wait until the job has ended", "wait")},
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return misuse(c, "schedule or path, and the name of a task, are needed")
			}
			return a.trigger(c)
		},
	}
}

func (a *app) trigger(c *cli.Context) error {
	engine, err := a.connect(c)
	if err != nil {
		return err
	}
	began := time.Now()
	trigger, task := c.Args().Get(0), c.Args().Get(1)
	r, err := engine.Jobs.Start(c.Context, &rtaskv1.StartRequest{Name: task, Trigger: trigger})
	if err != nil {
		kind := "unavailable"
		if d, ok := client.Detail(err); ok && d.GetKind() != "" {
			kind = d.GetKind()
		} else if connect.CodeOf(err) == connect.CodePermissionDenied {
			kind = "forbidden"
		}
		if c.Bool("wait") {
			rest(c.Context, longBreath)
		}
		// One line, for the journal.
		return fmt.Errorf("task %s is not started by its %s: %s: %s", printable(task), printable(trigger), kind, oneLine(client.Message(err)))
	}
	job := r.GetJob()
	if err := a.print("Job: " + printable(job.GetId()) + "\n"); err != nil {
		return err
	}
	if !c.Bool("wait") {
		return nil
	}
	if !job.Ended() {
		if job, err = await(c.Context, engine, job.GetId()); err != nil {
			return err
		}
	}
	pause := breath - time.Since(began)
	if !job.Succeeded() {
		pause = longBreath
	}
	rest(c.Context, pause)
	return nil
}

// rest waits for a time, or the end of ctx.
func rest(ctx context.Context, pause time.Duration) {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

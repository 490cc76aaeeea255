package ctl

import (
	"context"
	"errors"
	"io/fs"

	"connectrpc.com/connect/v2"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

func (a *app) runCommand() *cli.Command {
	return &cli.Command{
		Name: "run", Usage: "start a task or a command, show its output, exit with its status",
		UsageText: "rtaskctl run [OPTION…] NAME [ARG…]",
		Description: startDescription + "\n\nThe exit status is that of the job: 128+N if signal N ended it, 124 after a timeout, 125 if rtask itself failed, " +
			"126 and 127 if it could not be executed or found. An interrupt stops the job, and so does a closed " +
			"output (run TASK | head); after a second interrupt rtaskctl ends without waiting for the job.",
		Flags:  startFlags(),
		Action: failing(exitRtask, a.run),
	}
}

func (a *app) run(c *cli.Context) error {
	// An interrupt must not leave a job behind that nobody knows of, so the calls outlast it.
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.Context))
	defer cancel()
	job, err := a.launch(ctx, c)
	switch {
	case errors.Is(err, fs.ErrPermission) && !errors.Is(err, client.ErrPermission):
		return &statusError{err, exitNotExecutable}
	case errors.Is(err, fs.ErrNotExist) || connect.CodeOf(err) == connect.CodeNotFound:
		return &statusError{err, exitNotFound}
	case err != nil:
		return err
	}
	type result struct {
		job *rtaskv1.Job
		err error
	}
	done := make(chan result, 1)
	go func() {
		f := &follower{engine: a.engine, job: job.GetId(), follow: true, stdout: a.stdout, stderr: a.stderr}
		if err := f.copy(ctx); err != nil {
			done <- result{err: &hintError{err, "the job keeps running: rtaskctl status " + printable(job.GetId())}}
			return
		}
		job, err := await(ctx, a.engine, job.GetId())
		done <- result{job, err}
	}()
	var r result
	select {
	case r = <-done:
	case <-c.Context.Done():
		if isTerminal(a.stderr) {
			a.say("rtaskctl: stopping job %s", printable(job.GetId()))
		}
		a.stopRun(ctx, job)
		r = <-done
	}
	if brokenPipe(r.err) {
		// Nobody reads the output any more, so this is the end of the command as of any other one in a pipe.
		a.stopRun(ctx, job)
		return exitStatus(exitSignal + int(unix.SIGPIPE))
	}
	if r.err != nil {
		// What became of the job is more than that somebody was interrupted while waiting for it.
		return a.failed(r.err)
	}
	a.explain(r.job)
	return exitStatus(exitOf(r.job))
}

// stopRun stops the job of run, which reports an error itself.
func (a *app) stopRun(ctx context.Context, job *rtaskv1.Job) {
	if _, err := a.engine.Jobs.Stop(ctx, &rtaskv1.StopRequest{Job: job.GetId()}); err != nil {
		a.report(err)
	}
}

// failed reports an error of rtask's own, also after an interrupt.
func (a *app) failed(err error) error {
	a.report(err)
	return exitStatus(exitRtask)
}

// explain says on standard error what a job's exit status and output alone do not tell.
func (a *app) explain(j *rtaskv1.Job) {
	switch j.GetReason() {
	case rtaskv1.Reason_REASON_TIMEOUT, rtaskv1.Reason_REASON_OOM, rtaskv1.Reason_REASON_LOST, rtaskv1.Reason_REASON_SETUP:
		text := "job " + j.GetId() + " has failed: " + resultText(j)
		if d := j.GetDetail(); d != "" {
			text += ": " + d
		}
		a.say("rtaskctl: %s", oneLine(text))
	}
	a.dropped(j)
}

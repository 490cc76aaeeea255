package ctl

import (
	"strconv"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

func (a *app) logsCommand() *cli.Command {
	return &cli.Command{
		Name: "logs", Usage: "show the output of a job, or of a task's last run", UsageText: "rtaskctl logs [OPTION…] JOB|TASK",
		Description: "The output is shown byte for byte, from its start. Standard error goes to standard error. The last run of a task is the " +
			"newest of its jobs that has begun.\n" + refHelp + "\n" + momentHelp,
		Flags: []cli.Flag{
			boolFlag("keep showing new output until the job has ended", "follow", "f"),
			&cli.StringFlag{Name: "tail", Aliases: []string{"n"}, Usage: "show only the last `N` lines, and with --follow new output"},
			sinceFlag("only what was written at `TIME` or after it"),
			untilFlag("only what was written until `TIME`"),
			boolFlag("only standard output", "stdout"),
			boolFlag("only standard error", "stderr"),
			boolFlag("begin each line with the time when it was written", "timestamps", "t"),
		},
		Action: a.logs,
	}
}

// momentHelp explains the TIME of --since and --until.
const momentHelp = "TIME is local: \"2026-01-02 15:04:05\", 2026-01-02, 15:04, -5min, \"2h ago\", today, yesterday, now, @1767366245."

func sinceFlag(usage string) cli.Flag { return &cli.StringFlag{Name: "since", Usage: usage} }
func untilFlag(usage string) cli.Flag { return &cli.StringFlag{Name: "until", Usage: usage} }

// bounds are the values of --since and --until, nil without them.
func bounds(c *cli.Context) (since, until *timestamppb.Timestamp, err error) {
	now := time.Now()
	for name, dst := range map[string]**timestamppb.Timestamp{"since": &since, "until": &until} {
		if !c.IsSet(name) {
			continue
		}
		t, err := parseMoment(c.String(name), now)
		if err != nil {
			return nil, nil, misuse(c, "--%s: %v", name, err)
		}
		*dst = timestamppb.New(t)
	}
	if since != nil && until != nil && since.AsTime().After(until.AsTime()) {
		return nil, nil, misuse(c, "--since is after --until")
	}
	return since, until, nil
}

// logsRequest is what the flags ask for.
func logsRequest(c *cli.Context) (*rtaskv1.StreamLogsRequest, error) {
	r := &rtaskv1.StreamLogsRequest{Follow: c.Bool("follow"), Times: c.Bool("timestamps")}
	var err error
	if r.Since, r.Until, err = bounds(c); err != nil {
		return nil, err
	}
	if c.IsSet("tail") {
		n, err := strconv.ParseInt(c.String("tail"), 10, 64)
		if err != nil || n < 0 {
			return nil, misuse(c, "--tail: %q is not a number of lines", c.String("tail"))
		}
		r.Tail = &n
	}
	switch stdout, stderr := c.Bool("stdout"), c.Bool("stderr"); {
	case stdout && !stderr:
		r.Stream = rtaskv1.Stream_STREAM_STDOUT
	case stderr && !stdout:
		r.Stream = rtaskv1.Stream_STREAM_STDERR
	}
	return r, nil
}

func (a *app) logs(c *cli.Context) error {
	ref, err := oneArg(c, "JOB")
	if err != nil {
		return err
	}
	request, err := logsRequest(c)
	if err != nil {
		return err
	}
	engine, err := a.connect(c)
	if err != nil {
		return err
	}
	if t := a.meant(c, ref); t != nil {
		last, err := lastRun(t)
		if err != nil {
			return err
		}
		ref = last.GetId()
	}
	job, err := show(c.Context, engine, ref)
	if err != nil {
		return a.neither(c, ref, err)
	}
	f := &follower{engine: engine, job: job.GetId(), request: request, stdout: a.stdout, stderr: a.stderr}
	if err := f.copy(c.Context); err != nil {
		return err
	}
	if request.GetFollow() && !job.Ended() {
		if job, err = show(c.Context, engine, job.GetId()); err != nil {
			return err
		}
	}
	a.dropped(job)
	return nil
}

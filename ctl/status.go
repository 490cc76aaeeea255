package ctl

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

func (a *app) statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "show a job and its output so far", UsageText: "rtaskctl status [--json] JOB",
		Description: "JOB is a job's id, an unambiguous prefix of it or, digits only, the PID of its main process.",
		Flags:       []cli.Flag{jsonFlag()},
		Action:      a.showStatus,
	}
}

func (a *app) showStatus(c *cli.Context) error {
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
	if c.Bool("json") {
		return a.printJSON(jobToJSON(job))
	}
	word := "running"
	if ended(job) {
		word = "complete"
	}
	if err := a.print("Job " + printable(job.GetId()) + " " + word + "\n"); err != nil {
		return err
	}
	if err := a.fields(a.jobFields(job)); err != nil {
		return err
	}
	if err := a.print("\n"); err != nil {
		return err
	}
	f := &follower{engine: engine, job: job.GetId(), stdout: a.stdout, stderr: a.stdout}
	return f.copy(c.Context)
}

// jobFields is what there is to know of a job.
func (a *app) jobFields(j *rtaskv1.Job) [][2]string {
	by := j.GetOwner()
	if t := j.GetTrigger(); t != "" {
		by += " (" + t + ")"
	}
	pid, cpu, memory, tasks, output := "", "", "", "", ""
	if n := j.GetPid(); n > 0 {
		pid = fmt.Sprint(n)
	}
	if j.CpuUsec != nil {
		cpu = (time.Duration(j.GetCpuUsec()) * time.Microsecond).String()
	}
	if j.MemoryPeakBytes != nil {
		memory = size(j.GetMemoryPeakBytes()) + " (peak)"
	}
	if j.TasksPeak != nil {
		tasks = fmt.Sprintf("%d (peak)", j.GetTasksPeak())
	}
	if ended(j) {
		output = size(j.GetLogBytes())
		if n := j.GetLogDroppedBytes(); n > 0 {
			output += " (" + size(n) + " of it not kept)"
		}
	}
	return [][2]string{
		{"Task", printable(j.GetTask())},
		{"Command", printable(commandLine(j.GetCommand()))},
		{"User", printable(j.GetUser())},
		{"Started by", printable(by)},
		{"State", a.stateField(j)},
		{"Result", a.resultField(j)},
		{"Main PID", pid},
		{"Unit", printable(j.GetUnit())},
		{"CGroup", printable(j.GetControlGroup())},
		{"CPU", cpu},
		{"Memory", memory},
		{"Tasks", tasks},
		{"Output", output},
	}
}

// stateField is the state and since when.
func (a *app) stateField(j *rtaskv1.Job) string {
	since := j.GetStartedAt()
	switch {
	case ended(j):
		since = j.GetEndedAt()
	case since == nil:
		since = j.GetQueuedAt()
	}
	text := stateWord(j.GetState())
	if !ended(j) {
		text = a.paint(green, text)
	}
	if j.GetState() == rtaskv1.State_STATE_STOPPING {
		text += ", started" // since when it is stopping is not known
	} else if since != nil {
		text += " since"
	}
	if since != nil {
		text += " " + moment(since) + "; " + ago(since)
	}
	if ended(j) && j.GetStartedAt() != nil && j.GetEndedAt() != nil {
		text += ", after " + span(j.GetEndedAt().AsTime().Sub(j.GetStartedAt().AsTime()))
	}
	return text
}

// resultField is how the job ended, and why.
func (a *app) resultField(j *rtaskv1.Job) string {
	text := resultText(j)
	switch j.GetReason() {
	case rtaskv1.Reason_REASON_UNSPECIFIED:
	case rtaskv1.Reason_REASON_STOPPED:
		text = a.paint(yellow, printable(text))
	default:
		text = a.paint(red, printable(text))
	}
	if d := j.GetDetail(); d != "" {
		if text != "" {
			text += ": "
		}
		text += oneLine(d)
	}
	return text
}

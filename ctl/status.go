package ctl

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

func (a *app) statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "show a job and its output, a task, or what there is to look at", UsageText: "rtaskctl status [--json] [JOB|TASK]",
		Description: "Of a task, it shows the last jobs. Without an argument it shows the jobs that run, what has failed since yesterday, " +
			"and what is wrong with the configuration and the engine.\n" + refHelp + "\n" +
			"Control characters in the output are escaped, as \\x1b; rtaskctl logs shows the output unchanged. On a terminal it is " +
			"the last 10 lines.",
		Flags:  []cli.Flag{jsonFlag()},
		Action: a.showStatus,
	}
}

func (a *app) showStatus(c *cli.Context) error {
	if !c.Args().Present() {
		return a.showOverview(c)
	}
	ref, err := oneArg(c, "JOB")
	if err != nil {
		return err
	}
	if t := a.meant(c, ref); t != nil {
		return a.showTaskStatus(c, t)
	}
	r, err := call(a, c, jobs.Status, &rtaskv1.StatusRequest{Job: ref})
	if err != nil {
		return a.neither(c, ref, err)
	}
	job, usage := r.GetJob(), r.GetUsage()
	if c.Bool("json") {
		value := statusToJSON(job, usage)
		value.LimitsMissing = r.GetLimitsMissing()
		return a.printJSON(value)
	}
	word := "running"
	if job.Ended() {
		word = "complete"
	}
	if err := a.print("Job " + printable(job.GetId()) + " " + word + "\n"); err != nil {
		return err
	}
	fields := a.jobFields(job, usage)
	if m := r.GetLimitsMissing(); m != "" {
		fields = append(fields, [2]string{"Limits", a.paint(yellow, "not all in force: "+oneLine(m))})
	}
	if err := a.fields(fields); err != nil {
		return err
	}
	if err := a.print("\n"); err != nil {
		return err
	}
	if isTerminal(a.stdout) {
		return a.printTail(c.Context, job)
	}
	stdout, stderr := &escaper{to: a.stdout}, &escaper{to: a.stdout}
	f := &follower{engine: a.engine, job: job.GetId(), stdout: stdout, stderr: stderr}
	if err := f.copy(c.Context); err != nil {
		return err
	}
	if err := errors.Join(stdout.Flush(), stderr.Flush()); err != nil {
		return &writeError{"the output", err}
	}
	return nil
}

// statusJSON is a job with what it uses at the moment.
type statusJSON struct {
	view.Job
	MemoryBytes *uint64       `json:"memory_bytes,omitempty"`
	Tasks       *uint64       `json:"tasks,omitempty"`
	Processes   []processJSON `json:"processes,omitempty"`
	// LimitsMissing is why limits are not in force that the job may run without.
	LimitsMissing string `json:"limits_missing,omitempty"`
}

type processJSON struct {
	PID      int32  `json:"pid"`
	Name     string `json:"name"`
	Encoding string `json:"encoding,omitempty"` // of Name; see view.Base64
}

func statusToJSON(j *rtaskv1.Job, u *rtaskv1.Usage) statusJSON {
	v := statusJSON{Job: view.JobOf(j)}
	if u == nil {
		return v
	}
	v.MemoryBytes, v.Tasks = u.MemoryBytes, u.Tasks
	if v.CPUUsec == nil {
		v.CPUUsec = u.CpuUsec
	}
	for _, p := range u.GetProcesses() {
		one := processJSON{PID: p.GetPid(), Name: p.GetName()}
		_, one.Encoding = view.Base64(nil, &one.Name)
		v.Processes = append(v.Processes, one)
	}
	return v
}

// jobFields is what there is to know of a job, in the manner of `systemctl status`.
func (a *app) jobFields(j *rtaskv1.Job, u *rtaskv1.Usage) [][2]string {
	if u == nil {
		u = &rtaskv1.Usage{}
	}
	output := ""
	if j.Ended() {
		output = size(j.GetLogBytes())
		if n := j.GetLogDroppedBytes(); n > 0 {
			output += " (" + size(n) + " of it not kept)"
		}
	}
	return [][2]string{
		{"Task", printable(j.GetTask())},
		{"Command", printable(commandLine(j.GetCommand()))},
		{"User", printable(j.GetUser())},
		{"Started by", printable(startedBy(j))},
		{"State", a.stateField(j)},
		{"Result", a.resultField(j)},
		{"Triggered", triggeredField(j)},
		{"Queued", queuedField(j)},
		{"Main PID", pidField(j, u)},
		{"Unit", printable(j.GetUnit())},
		{"Tasks", nowAndPeak(count, u.Tasks, j.TasksPeak)},
		{"Memory", nowAndPeak(size, u.MemoryBytes, j.MemoryPeakBytes)},
		{"CPU", cpuField(j, u)},
		{"IO", ioField(j)},
		{"CGroup", groupField(j, u)},
		{"Output", output},
	}
}

// startedBy is who started a job, and how.
func startedBy(j *rtaskv1.Job) string {
	by := j.GetTrigger()
	if id := j.GetTriggerJob(); id != "" {
		by += " of job " + id
	}
	if by != "" {
		by = " (" + by + ")"
	}
	return j.GetOwner() + by
}

// triggeredField is what the end of a job started.
func triggeredField(j *rtaskv1.Job) string {
	var all []string
	for _, t := range j.GetTriggered() {
		all = append(all, printable(t.GetTask()+" (job "+t.GetJob()+")"))
	}
	return strings.Join(all, ", ")
}

// queuedField is how long a job waited, where that was long enough to be noticed.
func queuedField(j *rtaskv1.Job) string {
	if j.GetQueuedAt() == nil || j.GetStartedAt() == nil {
		return ""
	}
	d := j.GetStartedAt().AsTime().Sub(j.GetQueuedAt().AsTime())
	if d < time.Second {
		return ""
	}
	return "for " + span(d)
}

func pidField(j *rtaskv1.Job, u *rtaskv1.Usage) string {
	n := j.GetPid()
	if n <= 0 {
		return ""
	}
	for _, p := range u.GetProcesses() {
		if p.GetPid() == n && p.GetName() != "" {
			return fmt.Sprintf("%d (%s)", n, printable(p.GetName()))
		}
	}
	return fmt.Sprint(n)
}

func count(n uint64) string { return fmt.Sprint(n) }

// nowAndPeak shows a number of now, and the largest that it has been, as far as they are known.
func nowAndPeak(text func(uint64) string, now, peak *uint64) string {
	switch {
	case now != nil && peak != nil:
		return text(*now) + " (peak: " + text(*peak) + ")"
	case now != nil:
		return text(*now)
	case peak != nil:
		return text(*peak) + " (peak)"
	}
	return ""
}

func cpuField(j *rtaskv1.Job, u *rtaskv1.Usage) string {
	usec := j.CpuUsec
	if usec == nil {
		usec = u.CpuUsec
	}
	if usec == nil {
		return ""
	}
	return (time.Duration(*usec) * time.Microsecond).String()
}

func ioField(j *rtaskv1.Job) string {
	if j.IoReadBytes == nil && j.IoWriteBytes == nil {
		return ""
	}
	return size(j.GetIoReadBytes()) + " read, " + size(j.GetIoWriteBytes()) + " written"
}

// groupField is a job's control group and the processes in it.
func groupField(j *rtaskv1.Job, u *rtaskv1.Usage) string {
	if j.GetControlGroup() == "" {
		return ""
	}
	lines := []string{printable(j.GetControlGroup())}
	all := u.GetProcesses()
	for i, p := range all {
		branch := "├─"
		if i == len(all)-1 {
			branch = "└─"
		}
		lines = append(lines, fmt.Sprintf("%s%d %s", branch, p.GetPid(), printable(p.GetName())))
	}
	return strings.Join(lines, "\n")
}

// stateField is the state and since when.
func (a *app) stateField(j *rtaskv1.Job) string {
	since := j.GetStartedAt()
	switch {
	case j.Ended():
		since = j.GetEndedAt()
	case since == nil:
		since = j.GetQueuedAt()
	}
	text := j.GetState().Word()
	if !j.Ended() {
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
	if j.Ended() && j.GetStartedAt() != nil && j.GetEndedAt() != nil {
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

package ctl

import (
	"fmt"

	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

// lastRuns is how many jobs status TASK shows.
const lastRuns = 10

// taskStatusJSON is a task with its last jobs.
type taskStatusJSON struct {
	view.Task
	Jobs []view.Job `json:"jobs"`
}

// showTaskStatus shows a task, its last jobs, and the end of what the last one wrote.
func (a *app) showTaskStatus(c *cli.Context, t *rtaskv1.Task) error {
	r, err := call(a, c, jobs.List, &rtaskv1.ListRequest{Task: t.GetName(), All: true, Limit: lastRuns})
	if err != nil {
		return err
	}
	// A role may allow the one and not the other.
	shown, err := call(a, c, jobs.ShowTask, &rtaskv1.ShowTaskRequest{Task: t.GetName()})
	if err != nil {
		shown = &rtaskv1.ShowTaskResponse{}
	}
	if c.Bool("json") {
		value := taskStatusJSON{Task: view.TaskOf(t), Jobs: view.Each(r.GetJobs(), view.JobOf)}
		value.File, value.Line, value.LimitsMissing = shown.GetFile(), shown.GetLine(), shown.GetLimitsMissing()
		return a.printJSON(value)
	}
	if err := a.print("Task " + printable(t.GetName()) + "\n"); err != nil {
		return err
	}
	if err := a.fields(a.taskFields(t, shown)); err != nil {
		return err
	}
	if len(r.GetJobs()) == 0 {
		a.say("There are no jobs of this task that you may see.")
		return nil
	}
	if err := a.print("\n"); err != nil {
		return err
	}
	if err := a.table(runColumns(), view.Each(r.GetJobs(), runRow)); err != nil || t.GetLast() == nil {
		return err
	}
	if err := a.print("\n"); err != nil {
		return err
	}
	return a.printTail(c.Context, t.GetLast())
}

// taskFields is what there is to know of a task.
func (a *app) taskFields(t *rtaskv1.Task, shown *rtaskv1.ShowTaskResponse) [][2]string {
	place := ""
	if shown.GetFile() != "" {
		place = fmt.Sprintf("%s:%d", printable(shown.GetFile()), shown.GetLine())
	}
	state := ""
	if s := t.GetSwitch(); s != nil {
		state = printable(switchText(s))
	} else if !t.GetEnabled() {
		state = "disabled by its configuration"
	}
	timeout := ""
	if d := t.GetTimeout().AsDuration(); d > 0 {
		timeout = span(d)
	}
	problem := ""
	if p := t.GetProblem(); p != "" {
		problem = a.paint(red, "cannot be started now: "+oneLine(p))
	}
	limits := ""
	if m := shown.GetLimitsMissing(); m != "" {
		limits = a.paint(yellow, "not all in force: "+oneLine(m))
	}
	next := ""
	if t.GetNextRun() != nil {
		next = moment(t.GetNextRun()) + "; " + ago(t.GetNextRun())
	}
	return [][2]string{
		{"Command", printable(commandLine(t.GetCommand()))},
		{"User", printable(t.GetUser())},
		{"Timeout", timeout},
		{"File", place},
		{"Enabled", state},
		{"Next", next},
		{"Limits", limits},
		{"Problem", problem},
	}
}

// runColumns are those of a task's jobs.
func runColumns() []column {
	return []column{
		{name: "JOB"}, {name: "STATE"}, {name: "STARTED"}, {name: "DURATION"}, {name: "RESULT", least: 10}, {name: "STARTED BY", least: 12, drop: 1},
	}
}

func runRow(j *rtaskv1.Job) []string {
	return []string{j.GetId(), j.GetState().Word(), agoIn(begun(j), 1), duration(j), resultText(j), startedBy(j)}
}

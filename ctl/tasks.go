package ctl

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

func (a *app) tasksCommand() *cli.Command {
	return &cli.Command{
		Name: "tasks", Usage: "list, show, enable and disable the tasks you may start",
		UsageText: "rtaskctl tasks [--json]\nrtaskctl tasks show|enable|disable TASK",
		Flags:     []cli.Flag{jsonFlag()},
		Action:    a.tasks,
		Subcommands: []*cli.Command{
			{
				Name: "show", Usage: "show the configuration of a task, defaults included", UsageText: "rtaskctl tasks show [--json] TASK",
				Flags: []cli.Flag{jsonFlag()}, Action: a.showTask,
			},
			{
				Name: "enable", Usage: "enable a task, whatever its configuration says", UsageText: "rtaskctl tasks enable [--json] TASK",
				Flags: []cli.Flag{jsonFlag()}, Action: func(c *cli.Context) error { return a.switchTask(c, true) },
			},
			{
				Name: "disable", Usage: "disable a task until `tasks enable`", UsageText: "rtaskctl tasks disable [--json] TASK",
				Description: "Jobs that already run are not affected.",
				Flags:       []cli.Flag{jsonFlag()}, Action: func(c *cli.Context) error { return a.switchTask(c, false) },
			},
		},
	}
}

func (a *app) showTask(c *cli.Context) error {
	name, err := oneArg(c, "TASK")
	if err != nil {
		return err
	}
	r, err := call(a, c, jobs.ShowTask, &rtaskv1.ShowTaskRequest{Task: name})
	if err != nil {
		return a.neither(c, name, err)
	}
	if c.Bool("json") {
		return a.printJSON(view.ShownTaskOf(r))
	}
	text := fmt.Sprintf("# %s:%d\n", printable(r.GetFile()), r.GetLine())
	if s := r.GetTask().GetSwitch(); s != nil {
		text += "# " + printable(switchText(s)) + "; this goes before enabled\n"
	}
	if p := r.GetTask().GetProblem(); p != "" {
		text += "# It cannot be started now: " + oneLine(p) + "\n"
	}
	if m := r.GetLimitsMissing(); m != "" {
		text += "# Its limits are not all in force: " + oneLine(m) + "\n"
	}
	if err := a.print(text + lines(r.GetHcl()) + "\n"); err != nil {
		return err
	}
	return a.exposure(r)
}

// exposure prints what a task's sandbox leaves open, as comments behind its configuration.
func (a *app) exposure(r *rtaskv1.ShowTaskResponse) error {
	if len(r.GetExposures()) == 0 {
		return nil // an older engine
	}
	var rows [][]string
	for _, e := range r.GetExposures() {
		mark, part := "✓", ""
		if view.Tenth(e.GetExposure()) > 0 {
			mark, part = "✗", strconv.FormatFloat(e.GetExposure(), 'f', 1, 64)
		} else if e.GetExposure() > 0 {
			mark = "✗"
		}
		rows = append(rows, []string{"# " + mark, printable(e.GetName()), printable(e.GetAbout()), part})
	}
	if err := a.print("\n"); err != nil {
		return err
	}
	if err := a.table([]column{{name: "#"}, {name: "NAME", least: 16}, {name: "DESCRIPTION", least: 16}, {name: "EXPOSURE"}}, rows); err != nil {
		return err
	}
	text := fmt.Sprintf("#\n# → Overall exposure level for %s: %.1f %s\n", printable(r.GetTask().GetName()), view.Tenth(r.GetExposure()), printable(r.GetExposureWord()))
	if m := r.GetMissing(); len(m) > 0 {
		text += "# This machine cannot give, and does without: " + printable(strings.Join(m, ", ")) + "\n"
	}
	return a.print(text)
}

// switchText says what tasks enable or tasks disable left.
func switchText(s *rtaskv1.TaskSwitch) string {
	return fmt.Sprintf("%s by %s, %s", switchWord(s.GetEnabled()), s.GetBy(), moment(s.GetAt()))
}

func switchWord(enabled bool) string {
	if enabled {
		return "enabled"
	}
	return "disabled"
}

func (a *app) switchTask(c *cli.Context, enabled bool) error {
	name, err := oneArg(c, "TASK")
	if err != nil {
		return err
	}
	r, err := call(a, c, jobs.SwitchTask, &rtaskv1.SwitchTaskRequest{Task: name, Enabled: enabled})
	if err != nil && enabled {
		err = a.neither(c, name, err)
	}
	if err != nil {
		return err
	}
	return a.result(c, view.TaskOf(r.GetTask()), "Task "+printable(r.GetTask().GetName())+" "+switchWord(enabled)+"\n")
}

func (a *app) tasks(c *cli.Context) error {
	if c.Args().Present() {
		return unknownCommand(c, c.Command.Subcommands)
	}
	r, err := call(a, c, jobs.Tasks, &rtaskv1.TasksRequest{})
	if err != nil {
		return err
	}
	return listing[*rtaskv1.Task, view.Task]{
		view: view.TaskOf, none: "There are no tasks that you may start.",
		header: []column{
			{name: "TASK"}, {name: "LAST"}, {name: "RESULT", least: 10}, {name: "DURATION"}, {name: "NEXT"}, {name: "COMMAND", least: 16, drop: 4}, {name: "USER", least: 8, drop: 3},
			{name: "TIMEOUT", drop: 2}, {name: "API KEYS", least: 8, drop: 1}, {name: "PROBLEM", below: true},
		},
		row: func(t *rtaskv1.Task) []string {
			timeout := ""
			if d := t.GetTimeout().AsDuration(); d > 0 {
				timeout = span(d)
			}
			j := t.GetLast()
			return []string{
				t.GetName(), agoIn(begun(j), 1), outcome(j), duration(j), agoIn(t.GetNextRun(), 1), commandLine(t.GetCommand()), t.GetUser(), timeout, strings.Join(t.GetApiKeys(), ","), t.GetProblem(),
			}
		},
	}.print(a, c, r.GetTasks())
}

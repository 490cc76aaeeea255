package ctl

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// taskJSON is a task as --json prints it.
type taskJSON struct {
	Name    string   `json:"name"`
	Command []string `json:"command"`
	Workdir string   `json:"workdir"`
	// Encoding is of Command and Workdir; see inBase64.
	Encoding string `json:"encoding,omitempty"`
	// User is left out where each job gets a user of its own.
	User     string   `json:"user,omitempty"`
	Blocking bool     `json:"blocking"`
	APIKeys  []string `json:"api_keys"`
	// TimeoutSec is left out where there is no timeout.
	TimeoutSec float64 `json:"timeout_sec,omitempty"`
	// Problem is why it cannot be started now.
	Problem string `json:"problem,omitempty"`
	Enabled bool   `json:"enabled"`
	// Switch is what tasks enable or tasks disable left.
	Switch *switchJSON `json:"switch,omitempty"`
	// Settings are the attributes of its configuration, defaults included; `tasks show` has them.
	Settings json.RawMessage `json:"settings,omitempty"`
	File     string          `json:"file,omitempty"`
	Line     int32           `json:"line,omitempty"`
	// Sandbox is what its sandbox leaves open; `tasks show` has it.
	Sandbox *sandboxJSON `json:"sandbox,omitempty"`
	// LimitsMissing is why limits are not in force that the task may run without; of tasks show.
	LimitsMissing string `json:"limits_missing,omitempty"`
}

// sandboxJSON is a sandbox in the manner of systemd-analyze(1) security.
type sandboxJSON struct {
	Exposure float64        `json:"exposure"`
	Word     string         `json:"word"`
	Switches []exposureJSON `json:"switches"`
	// Missing are the switches that this machine cannot give.
	Missing []string `json:"missing"`
}

type exposureJSON struct {
	Name     string  `json:"name"`
	About    string  `json:"about"`
	Exposure float64 `json:"exposure"`
}

func sandboxToJSON(r *rtaskv1.ShowTaskResponse) *sandboxJSON {
	if len(r.GetExposures()) == 0 {
		return nil // an older engine
	}
	v := &sandboxJSON{Exposure: tenth(r.GetExposure()), Word: r.GetExposureWord(), Missing: list(r.GetMissing())}
	for _, e := range r.GetExposures() {
		v.Switches = append(v.Switches, exposureJSON{e.GetName(), e.GetAbout(), tenth(e.GetExposure())})
	}
	return v
}

// tenth rounds as systemd-analyze does.
func tenth(v float64) float64 { return math.Round(v*10) / 10 }

// switchJSON says that a task was enabled or disabled by hand.
type switchJSON struct {
	Task    string  `json:"task"`
	Enabled bool    `json:"enabled"`
	By      string  `json:"by"`
	At      *string `json:"at"`
}

func switchToJSON(s *rtaskv1.TaskSwitch) *switchJSON {
	if s == nil {
		return nil
	}
	return &switchJSON{Task: s.GetTask(), Enabled: s.GetEnabled(), By: s.GetBy(), At: stamp(s.GetAt())}
}

func taskToJSON(t *rtaskv1.Task) taskJSON {
	v := taskJSON{
		Name: t.GetName(), Command: list(t.GetCommand()), Workdir: t.GetWorkingDirectory(), User: t.GetUser(), Blocking: t.GetBlocking(),
		APIKeys: list(t.GetApiKeys()), TimeoutSec: t.GetTimeout().AsDuration().Seconds(), Problem: t.GetProblem(),
		Enabled: t.GetEnabled(), Switch: switchToJSON(t.GetSwitch()),
	}
	v.Command, v.Encoding = inBase64(v.Command, &v.Workdir)
	return v
}

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
		return err
	}
	if c.Bool("json") {
		v := taskToJSON(r.GetTask())
		v.Settings, v.File, v.Line = json.RawMessage(r.GetJson()), r.GetFile(), r.GetLine()
		v.Sandbox, v.LimitsMissing = sandboxToJSON(r), r.GetLimitsMissing()
		return a.printJSON(v)
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
		if tenth(e.GetExposure()) > 0 {
			mark, part = "✗", strconv.FormatFloat(e.GetExposure(), 'f', 1, 64)
		} else if e.GetExposure() > 0 {
			mark = "✗"
		}
		rows = append(rows, []string{"# " + mark, printable(e.GetName()), printable(e.GetAbout()), part})
	}
	if err := a.print("\n"); err != nil {
		return err
	}
	if err := a.table([]string{"#", "NAME", "DESCRIPTION", "EXPOSURE"}, rows); err != nil {
		return err
	}
	text := fmt.Sprintf("#\n# → Overall exposure level for %s: %.1f %s\n", printable(r.GetTask().GetName()), tenth(r.GetExposure()), printable(r.GetExposureWord()))
	if m := r.GetMissing(); len(m) > 0 {
		text += "# This machine cannot give, and does without: " + printable(strings.Join(m, ", ")) + "\n"
	}
	return a.print(text)
}

// switchText says what tasks enable or tasks disable left.
func switchText(s *rtaskv1.TaskSwitch) string {
	word := "disabled"
	if s.GetEnabled() {
		word = "enabled"
	}
	return fmt.Sprintf("%s by %s, %s", word, s.GetBy(), moment(s.GetAt()))
}

func (a *app) switchTask(c *cli.Context, enabled bool) error {
	name, err := oneArg(c, "TASK")
	if err != nil {
		return err
	}
	r, err := call(a, c, jobs.SwitchTask, &rtaskv1.SwitchTaskRequest{Task: name, Enabled: enabled})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(taskToJSON(r.GetTask()))
	}
	word := "disabled"
	if enabled {
		word = "enabled"
	}
	return a.print("Task " + printable(r.GetTask().GetName()) + " " + word + "\n")
}

func (a *app) tasks(c *cli.Context) error {
	if c.Args().Present() {
		return unknownCommand(c, c.Command.Subcommands)
	}
	r, err := call(a, c, jobs.Tasks, &rtaskv1.TasksRequest{})
	if err != nil {
		return err
	}
	tasks := r.GetTasks()
	if c.Bool("json") {
		values := []taskJSON{}
		for _, t := range tasks {
			values = append(values, taskToJSON(t))
		}
		return a.printJSON(values)
	}
	if len(tasks) == 0 {
		a.say("There are no tasks that you may start.")
		return nil
	}
	var rows [][]string
	for _, t := range tasks {
		command := commandLine(t.GetCommand())
		if isTerminal(a.stdout) {
			command = shorten(command, psCommandWidth)
		}
		timeout := ""
		if d := t.GetTimeout().AsDuration(); d > 0 {
			timeout = span(d)
		}
		rows = append(rows, []string{t.GetName(), command, t.GetUser(), timeout, strings.Join(t.GetApiKeys(), ","), t.GetProblem()})
	}
	return a.table([]string{"TASK", "COMMAND", "USER", "TIMEOUT", "API KEYS", "PROBLEM"}, rows)
}

package ctl

import (
	"strings"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// taskJSON is a task as --json prints it.
type taskJSON struct {
	Name    string   `json:"name"`
	Command []string `json:"command"`
	Workdir string   `json:"workdir"`
	// User is left out where each job gets a user of its own.
	User     string   `json:"user,omitempty"`
	Blocking bool     `json:"blocking"`
	APIKeys  []string `json:"api_keys"`
	// TimeoutSec is left out where there is no timeout.
	TimeoutSec float64 `json:"timeout_sec,omitempty"`
	// Problem is why it cannot be started now.
	Problem string `json:"problem,omitempty"`
}

func (a *app) tasksCommand() *cli.Command {
	return &cli.Command{
		Name: "tasks", Usage: "list the tasks that you may start", UsageText: "rtaskctl tasks [--json]",
		Flags:  []cli.Flag{jsonFlag()},
		Action: a.tasks,
	}
}

func (a *app) tasks(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	engine, err := a.connect(c)
	if err != nil {
		return err
	}
	defer engine.Close()
	r, err := engine.Jobs.Tasks(c.Context, connect.NewRequest(&rtaskv1.TasksRequest{}))
	if err != nil {
		return err
	}
	tasks := r.Msg.GetTasks()
	if c.Bool("json") {
		values := []taskJSON{}
		for _, t := range tasks {
			values = append(values, taskJSON{
				Name: t.GetName(), Command: list(t.GetCommand()), Workdir: t.GetWorkingDirectory(), User: t.GetUser(), Blocking: t.GetBlocking(),
				APIKeys: list(t.GetApiKeys()), TimeoutSec: t.GetTimeout().AsDuration().Seconds(), Problem: t.GetProblem(),
			})
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

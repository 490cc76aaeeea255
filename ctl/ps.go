package ctl

import (
	"fmt"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// psCommandWidth is the most characters of a command line that ps shows on a terminal.
const psCommandWidth = 40

func (a *app) psCommand() *cli.Command {
	return &cli.Command{
		Name: "ps", Usage: "list jobs, the newest first", UsageText: "rtaskctl ps [-a] [--task TASK] [--json]",
		Flags: []cli.Flag{
			boolFlag("also those that have ended", "all", "a"),
			&cli.StringFlag{Name: "task", Usage: "only jobs of this `TASK`"},
			jsonFlag(),
		},
		Action: a.ps,
	}
}

func (a *app) ps(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	engine, err := a.connect(c)
	if err != nil {
		return err
	}
	defer engine.Close()
	all := c.Bool("all")
	r, err := engine.Jobs.List(c.Context, connect.NewRequest(&rtaskv1.ListRequest{All: all, Task: c.String("task")}))
	if err != nil {
		return err
	}
	jobs := r.Msg.GetJobs()
	if c.Bool("json") {
		values := []jobJSON{}
		for _, j := range jobs {
			values = append(values, jobToJSON(j))
		}
		return a.printJSON(values)
	}
	if len(jobs) == 0 {
		if all {
			a.say("There are no jobs.")
		} else {
			a.say("No jobs are running; rtaskctl ps -a shows those that have ended.")
		}
		return nil
	}
	var rows [][]string
	for _, j := range jobs {
		name := j.GetTask()
		if name == "" {
			name = commandLine(j.GetCommand())
		}
		if isTerminal(a.stdout) {
			name = shorten(name, psCommandWidth)
		}
		pid := ""
		if n := j.GetPid(); n > 0 && !ended(j) {
			pid = fmt.Sprint(n)
		}
		since := j.GetStartedAt()
		if since == nil {
			since = j.GetQueuedAt()
		}
		rows = append(rows, []string{j.GetId(), name, j.GetUser(), stateWord(j.GetState()), pid, ago(since), resultText(j)})
	}
	return a.table([]string{"JOB", "TASK/COMMAND", "USER", "STATE", "PID", "STARTED", "RESULT"}, rows)
}

package ctl

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/proto"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

func (a *app) psCommand() *cli.Command {
	return &cli.Command{
		Name: "ps", Usage: "list jobs, the newest first", UsageText: "rtaskctl ps [OPTION…]",
		Description: "By default, only jobs that have not ended are listed.\n" + momentHelp,
		Flags: []cli.Flag{
			boolFlag("list ended jobs, too", "all", "a"),
			&cli.StringFlag{Name: "task", Usage: "only jobs of this `TASK`"},
			&cli.StringFlag{Name: "state", Usage: "only jobs in one of these `STATES`, separated by commas: queued, running, stopping, ended"},
			&cli.StringFlag{Name: "status", Usage: "only jobs that ended with this `STATUS`: success or failure"},
			&cli.StringFlag{Name: "reason", Usage: "only jobs that failed for one of these `REASONS`: " + strings.Join(reasonWords(), ", ")},
			&cli.StringFlag{Name: "run-as", Aliases: []string{"u"}, Usage: "only jobs that run as user `NAME`"},
			&cli.StringFlag{Name: "owner", Usage: "only jobs started by `NAME`, a user or key:NAME"},
			sinceFlag("only jobs that were accepted at `TIME` or after it"),
			untilFlag("only jobs that were accepted until `TIME`"),
			&cli.StringFlag{Name: "limit", Aliases: []string{"n"}, Usage: "list at most `N` jobs (default: 1000)"},
			jsonFlag(),
		},
		Action: a.ps,
	}
}

// psRequest is what the flags ask for.
func psRequest(c *cli.Context) (*rtaskv1.ListRequest, error) {
	r := &rtaskv1.ListRequest{All: c.Bool("all"), Task: c.String("task"), User: c.String("run-as"), Owner: c.String("owner")}
	var err error
	if r.Since, r.Until, err = bounds(c); err != nil {
		return nil, err
	}
	if c.IsSet("limit") {
		n, err := strconv.ParseInt(c.String("limit"), 10, 32)
		if err != nil || n < 1 {
			return nil, misuse(c, "--limit: %q is not a number of jobs", c.String("limit"))
		}
		r.Limit = int32(n)
	}
	states, err := choices(c, "state", stateWords())
	if err != nil {
		return nil, err
	}
	for _, word := range states {
		r.States = append(r.States, rtaskv1.StateOf(word))
	}
	reasons, err := choices(c, "reason", reasonWords())
	if err != nil {
		return nil, err
	}
	for _, word := range reasons {
		r.Reasons = append(r.Reasons, rtaskv1.ReasonOf(word))
	}
	if c.IsSet("status") {
		switch word := c.String("status"); word {
		case "success", "failure":
			r.Status = rtaskv1.StatusOf(word)
		default:
			return nil, misuse(c, "--status: %q is neither success nor failure", word)
		}
	}
	return r, nil
}

// stateWords are the states in the order of a job's life, reasonWords all there are.
func stateWords() (all []string) {
	for n := range int32(len(rtaskv1.State_name)) {
		if s := rtaskv1.State(n); s != rtaskv1.State_STATE_UNSPECIFIED {
			all = append(all, s.Word())
		}
	}
	return all
}

func reasonWords() (all []string) {
	for n := range int32(len(rtaskv1.Reason_name)) {
		if r := rtaskv1.Reason(n); r != rtaskv1.Reason_REASON_UNSPECIFIED {
			all = append(all, r.Word())
		}
	}
	return all
}

// choices are the values of a flag that has several with commas between them, each one of known.
func choices(c *cli.Context, name string, known []string) ([]string, error) {
	if !c.IsSet(name) {
		return nil, nil
	}
	all := strings.Split(c.String(name), ",")
	for _, word := range all {
		if !slices.Contains(known, word) {
			return nil, misuse(c, "--%s: %q is none of %s", name, word, strings.Join(known, ", "))
		}
	}
	return all, nil
}

func (a *app) ps(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	request, err := psRequest(c)
	if err != nil {
		return err
	}
	r, err := call(a, c, jobs.List, request)
	if err != nil {
		return err
	}
	none := "There are no such jobs."
	switch {
	case proto.Equal(request, &rtaskv1.ListRequest{}):
		none = "No jobs are running; rtaskctl ps -a shows those that have ended."
	case proto.Equal(request, &rtaskv1.ListRequest{All: true}):
		none = "There are no jobs."
	}
	return listing[*rtaskv1.Job, view.Job]{
		view: view.JobOf, none: none, row: psRow,
		header: []column{
			{name: "JOB"}, {name: "TASK/COMMAND", least: 16}, {name: "USER", least: 8, drop: 2}, {name: "STATE"}, {name: "PID", drop: 1},
			{name: "STARTED"}, {name: "RESULT", least: 10},
		},
	}.print(a, c, r.GetJobs())
}

func psRow(j *rtaskv1.Job) []string {
	name, pid := j.GetTask(), ""
	if name == "" {
		name = commandLine(j.GetCommand())
	}
	if n := j.GetPid(); n > 0 && !j.Ended() {
		pid = fmt.Sprint(n)
	}
	return []string{j.GetId(), name, j.GetUser(), j.GetState().Word(), pid, agoIn(begun(j), 1), resultText(j)}
}

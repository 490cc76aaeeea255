package ctl

import (
	"fmt"
	"regexp"
	"slices"

	"connectrpc.com/connect/v2"
	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/sandbox/wording"
)

// refHelp explains JOB and TASK where a command takes either.
const refHelp = "JOB is a job's id, its first four or more characters if they are unambiguous, or the PID of its main process. " +
	"A name that could be both is the task's, unless it is a job's whole id."

// wholeID is the form of a job's id.
var wholeID = regexp.MustCompile(`^[a-z][a-z2-7]{15}$`)

// meant returns the task that ref means, as Tasks tells of it, or nil where it means a job. A task goes before a job whose id begins so
// or whose process has that number; a job's whole id goes before a task. What keeps a caller from knowing is told by what is done with
// the job next.
func (a *app) meant(c *cli.Context, ref string) *rtaskv1.Task {
	if wholeID.MatchString(ref) {
		if _, err := call(a, c, jobs.Status, &rtaskv1.StatusRequest{Job: ref}); connect.CodeOf(client.Classify(err)) != connect.CodeNotFound {
			return nil
		}
	}
	r, err := call(a, c, jobs.Tasks, &rtaskv1.TasksRequest{Name: ref})
	if err != nil {
		return nil
	}
	for _, t := range r.GetTasks() { // an engine of before returns all
		if t.GetName() == ref {
			return t
		}
	}
	return nil
}

// lastRun returns the last run of a task, or an error if there is none.
func lastRun(t *rtaskv1.Task) (*rtaskv1.Job, error) {
	if t.GetLast() == nil {
		return nil, fmt.Errorf("there is no job of task %q that you may see", t.GetName())
	}
	return t.GetLast(), nil
}

// neither adds to the error of a name that is not there what may explain that.
func (a *app) neither(c *cli.Context, ref string, err error) error {
	if connect.CodeOf(err) != connect.CodeNotFound {
		return err
	}
	return a.noTask(c, ref, err)
}

// noTask adds to the error of a name that is no task's why that may be.
func (a *app) noTask(c *cli.Context, ref string, err error) error {
	if file := a.unread(c); file != "" {
		return &hintError{err, fmt.Sprintf("%s was changed after the configuration was read: rtaskctl reload", printable(file))}
	}
	if near := a.nearTask(c, ref); near != "" {
		return &hintError{err, fmt.Sprintf("did you mean the task %s?", printable(near))}
	}
	return err
}

// nearTask returns the task that a mistyped name most likely means, of those that the caller may start; "" if none is near, or more
// than one.
func (a *app) nearTask(c *cli.Context, name string) string {
	r, err := call(a, c, jobs.Tasks, &rtaskv1.TasksRequest{})
	if err != nil {
		return ""
	}
	var names []string
	for _, t := range r.GetTasks() {
		names = append(names, t.GetName())
	}
	if near := wording.Nearest(name, slices.Values(names)); len(near) == 1 {
		return near[0]
	}
	return ""
}

package ctl

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

// overviewRows is how many rows each table of the overview has at most.
const overviewRows = 20

// overview is what status shows without an argument. What a role does not allow is left out.
type overview struct {
	info   *rtaskv1.InfoResponse // nil: not allowed
	listed bool                  // jobs may be listed
	live   []*rtaskv1.Job
	failed []failure
	// next are the tasks that a timer starts, the soonest first.
	next []*rtaskv1.Task
	// problems are sentences, the worst first.
	problems []string
}

// failure is what failed lately: the newest job of a task or a command, and how many there were.
type failure struct {
	job   *rtaskv1.Job
	times int
	// last is the last run of the task.
	last *rtaskv1.Job
}

// yesterday is since when the overview shows failures.
func yesterday(now time.Time) time.Time {
	return time.Date(now.Year(), now.Month(), now.Day()-1, 0, 0, 0, 0, now.Location())
}

func (a *app) showOverview(c *cli.Context) error {
	o, err := a.overview(c)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(o.json())
	}
	return a.printOverview(o)
}

// overview asks the engine for what there is.
func (a *app) overview(c *cli.Context) (*overview, error) {
	o := &overview{}
	info, err := allowed(call(a, c, jobs.Info, &rtaskv1.InfoRequest{}))
	if err != nil {
		return nil, err
	}
	live, err := allowed(call(a, c, jobs.List, &rtaskv1.ListRequest{}))
	if err != nil {
		return nil, err
	}
	failed, err := allowed(call(a, c, jobs.List, &rtaskv1.ListRequest{Reasons: failures(), EndedSince: timestamppb.New(yesterday(time.Now()))}))
	if err != nil {
		return nil, err
	}
	// Without a configuration there are no tasks, and that is among what is wrong.
	tasks, err := allowed(call(a, c, jobs.Tasks, &rtaskv1.TasksRequest{}))
	if err != nil && (info == nil || info.GetConfigurationReadAt() != nil) {
		return nil, err
	}
	if info == nil && live == nil && tasks == nil {
		_, err = call(a, c, jobs.List, &rtaskv1.ListRequest{})
		return nil, err
	}
	o.info, o.listed, o.live, o.failed = info, live != nil, live.GetJobs(), grouped(failed.GetJobs(), tasks.GetTasks())
	o.next = soonest(tasks.GetTasks())
	o.problems = problemsOf(info, tasks.GetTasks())
	if file := a.unreadSince(info); file != "" {
		o.problems = append(o.problems, oneLine(file+" was changed after the configuration was read: rtaskctl reload"))
	}
	return o, nil
}

// allowed is the reply of a call, nil where the roles of a client on another machine do not allow that.
func allowed[R any](r *R, err error) (*R, error) {
	if d, ok := client.Detail(err); ok && rtaskv1.Kind(d.GetKind()) == rtaskv1.KindRole {
		return nil, nil
	}
	return r, err
}

// failures are the reasons that somebody has to look at: a job that was stopped did not fail by itself.
func failures() []rtaskv1.Reason {
	var all []rtaskv1.Reason
	for _, word := range reasonWords() {
		if r := rtaskv1.ReasonOf(word); r != rtaskv1.Reason_REASON_STOPPED {
			all = append(all, r)
		}
	}
	return all
}

// grouped are failed jobs, the newest first, a row for each task or command.
func grouped(all []*rtaskv1.Job, tasks []*rtaskv1.Task) []failure {
	var groups []failure
	for _, j := range all {
		i := slices.IndexFunc(groups, func(f failure) bool { return whatOf(f.job) == whatOf(j) && f.job.GetTask() == j.GetTask() })
		if i >= 0 {
			groups[i].times++
			continue
		}
		f := failure{job: j, times: 1}
		if i := slices.IndexFunc(tasks, func(t *rtaskv1.Task) bool { return j.GetTask() != "" && t.GetName() == j.GetTask() }); i >= 0 {
			f.last = tasks[i].GetLast()
		}
		groups = append(groups, f)
	}
	return groups
}

// whatOf is the task of a job, or its command.
func whatOf(j *rtaskv1.Job) string {
	if t := j.GetTask(); t != "" {
		return t
	}
	return commandLine(j.GetCommand())
}

// now is how the last run of what failed is, if that is another one.
func (f failure) now() string {
	if f.last == nil || f.last.GetId() == f.job.GetId() {
		return ""
	}
	return outcome(f.last)
}

// soonest are the tasks that a timer starts, the soonest first.
func soonest(tasks []*rtaskv1.Task) []*rtaskv1.Task {
	next := slices.DeleteFunc(slices.Clone(tasks), func(t *rtaskv1.Task) bool { return t.GetNextRun() == nil })
	slices.SortStableFunc(next, func(a, b *rtaskv1.Task) int { return a.GetNextRun().AsTime().Compare(b.GetNextRun().AsTime()) })
	return next
}

// problemsOf is what is wrong with the engine, its configuration and the tasks.
func problemsOf(i *rtaskv1.InfoResponse, tasks []*rtaskv1.Task) []string {
	var all []string
	add := func(format string, args ...any) { all = append(all, oneLine(fmt.Sprintf(format, args...))) }
	if hasErrors(i.GetDiagnostics()) {
		if i.GetConfigurationReadAt() != nil {
			add("The configuration has errors; the last good one, read %s, is in force.", moment(i.GetConfigurationReadAt()))
		} else {
			add("The configuration has errors, and no task can be started.")
		}
	}
	for _, errors := range []bool{true, false} {
		for _, d := range i.GetDiagnostics() {
			if d.GetError() == errors {
				add("%s", placed(d))
			}
		}
	}
	if i.GetDraining() {
		add("No new jobs are accepted: rtaskctl drain --cancel ends that.")
	}
	for _, u := range i.GetSockets() {
		if failed(u) {
			add("%s failed: %s; rtaskctl doctor says what to do.", u.GetUnit(), u.GetProblem())
		}
	}
	for _, p := range i.GetRemoteAccess().GetProblems() {
		add("Remote access: %s", p)
	}
	for _, t := range tasks {
		if t.GetProblem() != "" && t.GetEnabled() {
			add("%s", t.GetProblem())
		}
	}
	return all
}

// placed is a diagnostic in one line.
func placed(d *rtaskv1.Diagnostic) string {
	word := "warning"
	if d.GetError() {
		word = "error"
	}
	place := d.GetFile()
	if d.GetLine() > 0 {
		place = fmt.Sprintf("%s:%d", place, d.GetLine())
	}
	return strings.TrimPrefix(place+": "+word+": "+d.GetSummary(), ": ")
}

func (a *app) printOverview(o *overview) error {
	var b strings.Builder
	if i := o.info; i != nil {
		fmt.Fprintf(&b, "rtaskd %s: %d running, %d queued\n\n", printable(i.GetVersion()), i.GetRunning(), i.GetQueued())
	}
	if len(o.live) == 0 && o.listed {
		b.WriteString("No jobs are running.\n")
	}
	if err := a.print(b.String()); err != nil {
		return err
	}
	if len(o.live) > 0 {
		var rows [][]string
		for _, j := range o.live {
			rows = append(rows, []string{j.GetId(), whatOf(j), j.GetState().Word(), agoIn(begun(j), 1), j.GetOwner()})
		}
		header := []column{{name: "JOB"}, {name: "TASK/COMMAND", least: 16}, {name: "STATE"}, {name: "STARTED"}, {name: "STARTED BY", least: 8, drop: 1}}
		if err := a.someRows("Running:", header, rows, "rtaskctl ps"); err != nil {
			return err
		}
	}
	switch {
	case !o.listed:
	case len(o.failed) == 0:
		if err := a.print("\nNothing has failed since yesterday.\n"); err != nil {
			return err
		}
	default:
		var rows [][]string
		for _, f := range o.failed {
			rows = append(rows, []string{f.job.GetId(), whatOf(f.job), agoIn(f.job.GetEndedAt(), 1), resultText(f.job), fmt.Sprint(f.times), f.now()})
		}
		header := []column{
			{name: "JOB"}, {name: "TASK/COMMAND", least: 16}, {name: "ENDED"}, {name: "RESULT", least: 10}, {name: "TIMES", drop: 2}, {name: "NOW", least: 8, drop: 1},
		}
		if err := a.someRows("\n"+a.paint(red, "Failed since yesterday:"), header, rows, "rtaskctl ps --status failure --since yesterday"); err != nil {
			return err
		}
	}
	if len(o.next) > 0 {
		var rows [][]string
		for _, t := range o.next {
			rows = append(rows, []string{t.GetName(), moment(t.GetNextRun()), agoIn(t.GetNextRun(), 2), agoIn(begun(t.GetLast()), 1), outcome(t.GetLast())})
		}
		header := []column{{name: "TASK", least: 16}, {name: "NEXT"}, {name: "LEFT"}, {name: "LAST", drop: 2}, {name: "RESULT", least: 8, drop: 1}}
		if err := a.someRows("\nNext:", header, rows, "rtaskctl tasks"); err != nil {
			return err
		}
	}
	return a.printProblems(o.problems)
}

// someRows prints the first rows of a table under a title, and where the rest is.
func (a *app) someRows(title string, header []column, rows [][]string, all string) error {
	if err := a.print(title + "\n"); err != nil {
		return err
	}
	if err := a.table(header, rows[:min(len(rows), overviewRows)]); err != nil {
		return err
	}
	if more := len(rows) - overviewRows; more > 0 {
		return a.print(fmt.Sprintf("and %d more: %s\n", more, all))
	}
	return nil
}

func (a *app) printProblems(all []string) error {
	if len(all) == 0 {
		return nil
	}
	var b strings.Builder
	b.WriteString("\n" + a.paint(yellow, "Needs attention:") + "\n")
	width := a.width()
	for n, p := range all {
		if n == overviewRows {
			fmt.Fprintf(&b, "and %d more: rtaskctl doctor, rtaskctl tasks\n", len(all)-n)
			break
		}
		line := "  - " + p
		if width > 0 {
			line = wrap(line, width)
		}
		b.WriteString(line + "\n")
	}
	return a.print(b.String())
}

// overviewJSON is the overview as --json prints it.
type overviewJSON struct {
	Version  string        `json:"version,omitempty"`
	Manager  string        `json:"manager,omitempty"`
	Draining bool          `json:"draining"`
	Jobs     []view.Job    `json:"jobs"`
	Failed   []failureJSON `json:"failed"`
	// Next are the tasks that a timer starts, the soonest first.
	Next     []view.NextRun `json:"next"`
	Problems []string       `json:"problems"`
}

// failureJSON is the newest failed job of a task or a command.
type failureJSON struct {
	view.Job
	// Times is how often that failed since yesterday.
	Times int `json:"times"`
	// Now is how the last run of the task ended, or its state; absent: it is this one.
	Now string `json:"now,omitempty"`
}

func (o *overview) json() overviewJSON {
	return overviewJSON{
		Version: o.info.GetVersion(), Manager: o.info.GetManager(), Draining: o.info.GetDraining(), Jobs: view.Each(o.live, view.JobOf),
		Failed: view.Each(o.failed, func(f failure) failureJSON { return failureJSON{view.JobOf(f.job), f.times, f.now()} }),
		Next: view.Each(o.next, func(t *rtaskv1.Task) view.NextRun {
			return view.NextRun{Task: t.GetName(), At: view.Time(t.GetNextRun())}
		}),
		Problems: view.List(o.problems),
	}
}

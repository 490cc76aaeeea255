package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/rtask/rtask/daemon/store"
	"github.com/rtask/rtask/sandbox/spec"
)

// ErrNotNow is returned by the function given to StartTriggered if it cannot look up a task now. The Manager calls it again.
var ErrNotNow = errors.New("it cannot be told now what the task is")

// triggers starts the jobs that the ends of others start.
type triggers struct {
	jobs    *roster
	records *ledger
	logger  *slog.Logger
	owner   Owner // of the jobs that it starts
	// start is Manager.Start.
	start func(context.Context, Spec) (Job, error)

	ready chan struct{}                   // closed by use
	spec  func(task string) (Spec, error) // readable once ready is closed
}

// use is Manager.StartTriggered.
func (t *triggers) use(spec func(task string) (Spec, error)) {
	t.spec = spec
	close(t.ready)
}

// reached returns the trigger that a job's end is, or "". A job that was stopped has not failed, as with OnFailure= of
// systemd.unit(5).
func reached(j Job) string {
	switch {
	case j.Succeeded():
		return OnSuccess
	case j.Exit.Reason == spec.Stopped:
		return ""
	default:
		return OnFailure
	}
}

// owe notes in a job that has ended which tasks it has to start, or that it has to be tried again, for which it keeps its input. roster.mu
// is held.
func (t *triggers) owe(j *Job) (again bool) {
	failed := reached(*j) == OnFailure
	if again = failed && j.Retry.again() && !j.Retry.Lost; again {
		j.Triggered = []Triggered{{Task: j.Task, Job: newID(), Retry: true}}
		j.Owing = true
		t.jobs.owe(j)
		return true
	}
	if failed && j.Retry.Lost {
		t.logger.Warn("job is not tried again: its input is too long to be kept", "job", j.ID, "task", j.Task, "most", maxInline)
	}
	t.oweTasks(j)
	if len(j.Triggered) > 0 {
		j.Owing = true
		t.jobs.owe(j)
	}
	return false
}

// oweTasks adds the tasks that a job has to start.
func (t *triggers) oweTasks(j *Job) {
	var tasks []string
	switch reached(*j) {
	case OnFailure:
		tasks = j.OnFailure
	case OnSuccess:
		tasks = j.OnSuccess
	}
	for _, name := range tasks {
		j.Triggered = append(j.Triggered, Triggered{Task: name, Job: newID()})
	}
}

// run starts what the end of a job triggers, once that end is on disk. It returns when each task was started or cannot be, or the
// Manager is closed; then the next Manager goes on.
func (t *triggers) run(j Job) {
	if !j.Owing {
		return
	}
	select {
	case <-t.ready:
	case <-t.jobs.quit:
		return
	}
	var started []Triggered
	stopped := false
	j.Triggered = slices.Clone(j.Triggered) // others have it, too
	for i := 0; i < len(j.Triggered); i++ { // it may grow
		next := j.Triggered[i]
		if next.Retry && !next.Started {
			switch again, err := t.jobs.rest(&j); {
			case err != nil:
				return
			case !again:
				t.logger.Info("job is not tried again: somebody has stopped it", "job", j.ID, "task", j.Task)
				stopped = true
				continue
			}
		}
		if next.Started {
			started = append(started, next)
			continue
		}
		switch err := t.startOne(j, next); {
		case err == nil:
			next.Started = true
			started = append(started, next)
			if j.Triggered[i] = next; i+1 < len(j.Triggered) {
				// While the others wait for room, this one may end and be pruned.
				t.records.PutSoon(j)
			}
		case errors.Is(err, ErrClosed):
			return
		default:
			t.logger.Warn("task cannot be triggered", "task", next.Task, "by", j.ID, "trigger", next.trigger(&j), "error", err)
			if next.Retry { // so that was the last attempt, and the next Manager makes no other
				j.Triggered, i = nil, -1
				t.oweTasks(&j)
				t.records.PutSoon(j)
			}
		}
	}
	j.Triggered, j.Owing, j.Input = started, false, nil
	if stopped {
		// Who has stopped it waits for that. A record that cannot be written is reported by the store.
		_ = t.records.Put(context.Background(), j)
	} else {
		// If that is lost, the next Manager finds that they have been started.
		t.records.PutSoon(j)
	}
	t.jobs.paid(&j)
}

// triggerAgain is the time between two attempts to start a triggered job when there is no room for it.
const triggerAgain = time.Second

// startOne starts one job, unless it is known already. It tries again while there is no room for the job. It returns ErrClosed, or why
// the job can never be started.
func (t *triggers) startOne(by Job, next Triggered) error {
	again := time.NewTicker(triggerAgain)
	defer again.Stop()
	for told := false; ; told = true {
		err := t.try(by, next)
		if err == nil || !errors.Is(err, errAgain) {
			return err
		}
		if !told {
			t.logger.Warn("task cannot be triggered yet", "task", next.Task, "by", by.ID, "error", err)
		}
		select {
		case <-again.C:
		case <-t.jobs.quit:
			return ErrClosed
		}
	}
}

// errAgain is the error of a start that may go well later.
var errAgain = errors.New("not now")

// try is one attempt of startOne.
func (t *triggers) try(by Job, next Triggered) error {
	var damaged *store.DecodeError
	switch _, err := t.records.find(next.Job, nil); {
	case err == nil, errors.As(err, &damaged): // a record that cannot be read is one all the same
		return nil
	case !errors.Is(err, ErrNotFound):
		return err
	}
	s, err := t.spec(next.Task)
	if errors.Is(err, ErrNotNow) {
		return fmt.Errorf("%w: %w", errAgain, err)
	}
	if err != nil {
		return err
	}
	s.ID, s.By, s.Trigger, s.Volatile, s.Unique = next.Job, by.ID, next.trigger(&by), false, false
	if next.Retry {
		tryAgain(&by, &s)
	} else {
		s.Owner = t.owner
		s.Retry.Given = outcome(by)
		s.Env = append(slices.Clone(s.Env), s.Retry.Given...)
	}
	j, err := t.start(context.Background(), s)
	switch {
	case err == nil:
		t.logger.Info("job triggered", "job", j.ID, "task", j.Task, "by", by.ID, "trigger", s.Trigger)
		return nil
	case errors.Is(err, ErrClosed), errors.Is(err, store.ErrClosed):
		return ErrClosed
	case errors.Is(err, ErrInvalid):
		return err
	default: // max_jobs run, or the disk is full
		return fmt.Errorf("%w: %w", errAgain, err)
	}
}

// trigger is job.Spec.Trigger of the job, given the one whose end starts it.
func (t *Triggered) trigger(by *Job) string {
	if t.Retry {
		return RetryTrigger
	}
	return reached(*by)
}

// tryAgain makes s, a task as it is now, the attempt after a job.
func tryAgain(by *Job, s *Spec) {
	s.Owner = by.Owner
	s.Retry = by.Retry
	s.Retry.After++
	if s.Retry.Of == "" {
		s.Retry.Of, s.Retry.Trigger = by.ID, by.Trigger
	}
	s.Env = slices.Concat(s.Env, by.Retry.Given)
	s.Input = by.Input
}

// outcome returns the variables by which a triggered job learns how the other job ended, like the MONITOR_* variables of
// systemd.exec(5).
func outcome(j Job) []string {
	env := []string{
		"RTASK_ON_JOB_ID=" + j.ID, "RTASK_ON_TASK=" + j.Task, "RTASK_ON_STATUS=" + j.Exit.Status(), "RTASK_ON_REASON=" + string(j.Exit.Reason),
	}
	if j.Exit.Code >= 0 {
		env = append(env, "RTASK_ON_EXIT_CODE="+strconv.Itoa(j.Exit.Code))
	}
	if name := j.Signal(); name != "" {
		env = append(env, "RTASK_ON_SIGNAL="+name)
	}
	return env
}

package job

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/rtask/rtask/daemon/store"
	"github.com/rtask/rtask/sandbox/spec"
)

// The triggers of jobs that the end of another job starts.
const (
	// OnFailure: the other job failed, and nobody had stopped it.
	OnFailure = "on_failure"
	// OnSuccess: the other job succeeded.
	OnSuccess = "on_success"
)

// ErrNotNow is returned by the function given to StartTriggered for a task that cannot be looked up at the moment. It is
// asked again.
var ErrNotNow = errors.New("it cannot be told now what the task is")

// Triggered is a job that the end of another one starts. Its id is chosen when that other job ends, and recorded with the
// end: whoever comes to start it, however often, starts a job of this id, and there can be only one.
type Triggered struct {
	// Task is what is started.
	Task string `cbor:"task"`
	// Job is its id.
	Job string `cbor:"job"`
	// Started says that it was started, whether it is still known or not.
	Started bool `cbor:"started,omitempty"`
}

// StartTriggered says how tasks that are triggered are started: spec returns what a task is, ErrNotNow, or why it cannot
// run, which ends the matter with a line in the log. Until this is called, nothing is triggered, and nothing is forgotten.
// It is called once.
func (m *Manager) StartTriggered(spec func(task string) (Spec, error)) {
	m.taskSpec = spec
	close(m.triggers)
}

// reached returns the trigger that a job's end is, or "". As with the OnFailure= of systemd.unit(5), a job that was
// stopped has not failed.
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

// owe notes in a job that has ended what that is to start. Manager.mu is held.
func (m *Manager) owe(j *Job) {
	var tasks []string
	switch reached(*j) {
	case OnFailure:
		tasks = j.OnFailure
	case OnSuccess:
		tasks = j.OnSuccess
	}
	for _, t := range tasks {
		j.Triggered = append(j.Triggered, Triggered{Task: t, Job: newID()})
	}
	if len(tasks) > 0 {
		j.Owing = true
		m.owed(j)
	}
}

// owed notes that a job has ended and is to start others. Manager.mu is held, or nobody else looks yet.
func (m *Manager) owed(j *Job) {
	m.owing[j.ID] = make(chan struct{})
	m.admission.Owe(j.share())
}

// stillOwing takes those that have ended out of the unfinished jobs that an earlier Manager left: all that is left to do
// for them is to start what they trigger.
func (m *Manager) stillOwing(left []Job) []Job {
	return slices.DeleteFunc(left, func(j Job) bool {
		if j.State != Ended {
			return false
		}
		m.owed(&j)
		m.workers.Go(func() { m.trigger(j) })
		return true
	})
}

// trigger starts what the end of a job triggers. That end is on disk. It goes on until each of them is started or cannot
// be, or the Manager is closed; then the next one goes on.
func (m *Manager) trigger(j Job) {
	if !j.Owing {
		return
	}
	select {
	case <-m.triggers:
	case <-m.quit:
		return
	}
	var started []Triggered
	j.Triggered = slices.Clone(j.Triggered) // others have it, too
	for i, t := range j.Triggered {
		if t.Started {
			started = append(started, t)
			continue
		}
		switch err := m.startTriggered(j, t); {
		case err == nil:
			t.Started = true
			started = append(started, t)
			if j.Triggered[i] = t; i+1 < len(j.Triggered) {
				// While the others wait for room, this one may end and be pruned.
				m.records.PutSoon(j)
			}
		case errors.Is(err, ErrClosed):
			return
		default:
			m.opts.Logger.Warn("task cannot be triggered", "task", t.Task, "by", j.ID, "trigger", reached(j), "error", err)
		}
	}
	j.Triggered, j.Owing = started, false
	// If that is lost, the next Manager finds that they have been started.
	m.records.PutSoon(j)
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.owing[j.ID])
	delete(m.owing, j.ID)
	m.admission.Paid(j.share())
}

// triggerAgain is the time between two attempts to start a triggered job when there is no room for it.
const triggerAgain = time.Second

// startTriggered starts one job, unless it is known already. While there is no room for it, it tries again and again. It
// returns ErrClosed, and why it can never be started.
func (m *Manager) startTriggered(by Job, t Triggered) error {
	again := time.NewTicker(triggerAgain)
	defer again.Stop()
	for told := false; ; told = true {
		err := m.tryTriggered(by, t)
		if err == nil || !errors.Is(err, errAgain) {
			return err
		}
		if !told {
			m.opts.Logger.Warn("task cannot be triggered yet", "task", t.Task, "by", by.ID, "error", err)
		}
		select {
		case <-again.C:
		case <-m.quit:
			return ErrClosed
		}
	}
}

// errAgain is the error of a start that may go well later.
var errAgain = errors.New("not now")

func (m *Manager) tryTriggered(by Job, t Triggered) error {
	var damaged *store.DecodeError
	switch _, err := m.Find(t.Job, nil); {
	case err == nil, errors.As(err, &damaged): // a record that cannot be read is one all the same
		return nil
	case !errors.Is(err, ErrNotFound):
		return err
	}
	s, err := m.taskSpec(t.Task)
	if errors.Is(err, ErrNotNow) {
		return fmt.Errorf("%w: %w", errAgain, err)
	}
	if err != nil {
		return err
	}
	s.ID, s.By, s.Trigger, s.Volatile, s.Unique = t.Job, by.ID, reached(by), false, false
	s.Owner = Owner{UID: uint32(m.euid), Name: "rtask"}
	s.Env = append(slices.Clone(s.Env), outcome(by)...)
	j, err := m.Start(context.Background(), s)
	switch {
	case err == nil:
		m.opts.Logger.Info("job triggered", "job", j.ID, "task", j.Task, "by", by.ID, "trigger", s.Trigger)
		return nil
	case errors.Is(err, ErrClosed), errors.Is(err, store.ErrClosed):
		return ErrClosed
	case errors.Is(err, ErrInvalid):
		return err
	default: // max_jobs run, or the disk is full
		return fmt.Errorf("%w: %w", errAgain, err)
	}
}

// outcome is what a triggered job is told of the one that triggered it, in the manner of the MONITOR_* variables of
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

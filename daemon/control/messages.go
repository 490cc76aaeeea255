package control

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
)

// jobMessage is a job as the API shows it.
func jobMessage(j job.Job) *rtaskv1.Job {
	m := &rtaskv1.Job{
		Id: j.ID, Task: j.Task, Command: j.Args, User: j.User, State: rtaskv1.StateOf(string(j.State)),
		Signal: j.Signal(), Pid: int32(j.PID), Unit: j.Unit, ControlGroup: j.ControlGroup, Trigger: j.Trigger,
		Owner: j.Owner.String(), QueuedAt: timestamp(j.QueuedAt), StartedAt: timestamp(j.StartedAt), EndedAt: timestamp(j.EndedAt),
	}
	m.TriggerJob, m.RetryOf = j.By, j.Retry.Of
	for _, t := range j.Triggered {
		m.Triggered = append(m.Triggered, &rtaskv1.Triggered{Task: t.Task, Job: t.Job})
	}
	if e := j.Exit; e != nil {
		m.Reason, m.Detail = rtaskv1.ReasonOf(string(e.Reason)), e.Detail
		if e.Code >= 0 {
			code := int32(e.Code)
			m.ExitCode = &code
		}
		m.CpuUsec, m.MemoryPeakBytes, m.TasksPeak = e.Usage.CPUUsec, e.Usage.MemoryPeak, e.Usage.TasksPeak
		m.IoReadBytes, m.IoWriteBytes = e.Usage.IOReadBytes, e.Usage.IOWriteBytes
		m.IoReadOps, m.IoWriteOps = e.Usage.IOReadOps, e.Usage.IOWriteOps
		m.LogBytes, m.LogDroppedBytes, m.LeftProcesses = e.LogBytes, e.LogDropped, int32(e.LeftProcesses)
	}
	return m
}

// jobMessage is a job as a caller may see it: what its roles do not show, no job of theirs tells a remote client.
func (c *call) jobMessage(j job.Job) *rtaskv1.Job {
	m := jobMessage(j)
	if c.Kind == auth.Remote {
		if m.RetryOf == "" {
			m.TriggerJob = ""
		}
		m.Triggered = slices.DeleteFunc(m.Triggered, func(t *rtaskv1.Triggered) bool {
			return !slices.ContainsFunc(c.roles, func(r *config.Role) bool { return r.Has(t.Task) })
		})
	}
	return m
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func keyMessage(k auth.KeyInfo) *rtaskv1.Key {
	return &rtaskv1.Key{
		Name: k.Name, Id: k.ID, CreatedAt: timestamp(k.Created), ExpiresAt: timestamp(k.Expires), LastUsedAt: timestamp(k.LastUsed),
	}
}

func diagnosticMessages(all config.Diagnostics) []*rtaskv1.Diagnostic {
	var messages []*rtaskv1.Diagnostic
	for _, d := range all {
		messages = append(messages, &rtaskv1.Diagnostic{
			Error: d.Severity == config.SeverityError, Summary: d.Summary, Detail: d.Detail, File: d.File, Line: int32(d.Line),
			Column: int32(d.Column), Source: d.Source, Text: d.String(),
		})
	}
	return messages
}

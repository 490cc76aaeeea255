package view

import (
	"time"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// End is a job's status and, once it has ended, how it ended.
type End struct {
	// Status is queued, running, success or failure.
	Status   string `json:"status"`
	Reason   string `json:"reason,omitempty"`
	ExitCode *int32 `json:"exit_code,omitempty"`
	Signal   string `json:"signal,omitempty"`
	Detail   string `json:"detail,omitempty"`
}

// EndOf is the end of a job.
func EndOf(j *rtaskv1.Job) End {
	e := End{Status: Status(j), Reason: j.GetReason().Word(), Signal: j.GetSignal(), Detail: j.GetDetail()}
	if j != nil {
		e.ExitCode = j.ExitCode
	}
	return e
}

// Times are the moments of a job. Unknown and future ones are left out.
type Times struct {
	QueuedAt  string `json:"queued_at,omitempty"`
	StartedAt string `json:"started_at,omitempty"`
	EndedAt   string `json:"ended_at,omitempty"`
}

// TimesOf are the moments of a job.
func TimesOf(j *rtaskv1.Job) Times {
	return Times{QueuedAt: Time(j.GetQueuedAt()), StartedAt: Time(j.GetStartedAt()), EndedAt: Time(j.GetEndedAt())}
}

// Span is a job's moments, and how long it ran.
type Span struct {
	Times
	// Duration is in seconds.
	Duration *float64 `json:"duration,omitempty"`
}

// SpanOf is the span of a job.
func SpanOf(j *rtaskv1.Job) Span {
	s := Span{Times: TimesOf(j)}
	if s.StartedAt != "" && s.EndedAt != "" {
		d := j.EndedAt.AsTime().Sub(j.StartedAt.AsTime()).Round(time.Microsecond).Seconds()
		s.Duration = &d
	}
	return s
}

// Run is a job as the HTTP API shows it to the client that started it.
type Run struct {
	End
	TaskID string `json:"task_id"`
	Span
}

// RunOf is a job for the client that started it.
func RunOf(j *rtaskv1.Job) Run {
	return Run{End: EndOf(j), TaskID: j.GetId(), Span: SpanOf(j)}
}

// Result is a job that has ended, with its output.
type Result struct {
	End
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
	// Encoding is of both streams, so that a client decodes them alike; see Base64.
	Encoding  string `json:"encoding,omitempty"`
	Truncated bool   `json:"truncated,omitempty"`
	TaskID    string `json:"task_id"`
	Span
}

// Job is a job as operators and its owner see it. What is unknown is left out.
type Job struct {
	ID       string   `json:"id"`
	Task     string   `json:"task"`
	Command  []string `json:"command"`
	Encoding string   `json:"encoding,omitempty"` // of Command; see Base64
	User     string   `json:"user"`
	State    string   `json:"state"`
	End
	Truncated    *bool  `json:"truncated,omitempty"`
	PID          int32  `json:"pid,omitempty"`
	Unit         string `json:"unit"`
	ControlGroup string `json:"control_group,omitempty"`
	Owner        string `json:"owner"`
	Trigger      string `json:"trigger"`
	TriggerJob   string `json:"trigger_job,omitempty"`
	RetryOf      string `json:"retry_of,omitempty"`
	Times
	CPUUsec         *uint64 `json:"cpu_usec,omitempty"`
	MemoryPeakBytes *uint64 `json:"memory_peak_bytes,omitempty"`
	TasksPeak       *uint64 `json:"tasks_peak,omitempty"`
	IOReadBytes     *uint64 `json:"io_read_bytes,omitempty"`
	IOWriteBytes    *uint64 `json:"io_write_bytes,omitempty"`
	IOReadOps       *uint64 `json:"io_read_ops,omitempty"`
	IOWriteOps      *uint64 `json:"io_write_ops,omitempty"`
	// LeftProcesses counts the processes that the main process left and the shim ended.
	LeftProcesses int32 `json:"left_processes,omitempty"`
	// Triggered are the jobs that its end started.
	Triggered []Triggered `json:"triggered,omitempty"`
}

// Triggered is a job that another job's end started.
type Triggered struct {
	Task string `json:"task"`
	ID   string `json:"id"`
}

// JobOf is a job for operators and its owner.
func JobOf(j *rtaskv1.Job) Job {
	v := Job{
		ID: j.GetId(), Task: j.GetTask(), User: j.GetUser(), State: j.GetState().Word(), End: EndOf(j), Times: TimesOf(j),
		PID: j.GetPid(), Unit: j.GetUnit(), ControlGroup: j.GetControlGroup(), Owner: j.GetOwner(), Trigger: j.GetTrigger(),
		TriggerJob: j.GetTriggerJob(), RetryOf: j.GetRetryOf(), LeftProcesses: j.GetLeftProcesses(),
	}
	v.Command, v.Encoding = Base64(List(j.GetCommand()))
	if j != nil {
		v.CPUUsec, v.MemoryPeakBytes, v.TasksPeak = j.CpuUsec, j.MemoryPeakBytes, j.TasksPeak
		v.IOReadBytes, v.IOWriteBytes, v.IOReadOps, v.IOWriteOps = j.IoReadBytes, j.IoWriteBytes, j.IoReadOps, j.IoWriteOps
	}
	for _, t := range j.GetTriggered() {
		v.Triggered = append(v.Triggered, Triggered{Task: t.GetTask(), ID: t.GetJob()})
	}
	if truncated := j.GetLogDroppedBytes() > 0; truncated || j.Ended() {
		v.Truncated = &truncated
	}
	return v
}

// Status is a job's state and result in one word: queued, running, success or failure.
func Status(j *rtaskv1.Job) string {
	switch {
	case j.GetState() == rtaskv1.State_STATE_QUEUED:
		return "queued"
	case !j.Ended():
		return "running"
	case j.Succeeded():
		return "success"
	default:
		return "failure"
	}
}

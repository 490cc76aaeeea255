// Package spec is the plain data that both halves of the sandbox share: what the engine tells a shim to run, and what
// the shim tells the engine of how it ended. It holds no behaviour beyond small helpers on the data itself, imports
// nothing of the project, and may be imported by every package that deals with jobs.
package spec

import (
	"cmp"
	"path"
	"syscall"
	"time"
)

// Credentials are what a process runs as.
type Credentials struct {
	UID    uint32   `cbor:"uid"`
	GID    uint32   `cbor:"gid"`
	Groups []uint32 `cbor:"groups,omitempty"`
}

// Run is what is to run: everything a shim needs for one job. It is complete: a shim reads no configuration and no file to run it.
type Run struct {
	// ID is the job's id.
	ID string `cbor:"id,omitempty"`
	// Task is the task's name, empty for a command.
	Task string `cbor:"task,omitempty"`
	// Path is the executable. A name without a slash is looked up in the PATH of Env.
	Path string `cbor:"path,omitempty"`
	// Args is the argument vector, with the zeroth.
	Args []string `cbor:"args,omitempty"`
	// Env is the whole environment.
	Env []string `cbor:"env,omitempty"`
	// Dir is the working directory, entered as the job's user.
	Dir string `cbor:"dir,omitempty"`
	// Credentials are nil where the job runs as the shim does.
	Credentials *Credentials `cbor:"credentials,omitempty"`
	// Sandbox is the same for all jobs of a slot.
	Sandbox Sandbox `cbor:"sandbox,omitzero"`
	// Limits are the job's exact limits, set on its own control group.
	Limits Limits `cbor:"limits,omitzero"`
	// LimitsOptional makes a limit that cannot be enforced a thing to go on without.
	LimitsOptional bool `cbor:"limits_optional,omitempty"`
	// Timeout is how long it may run; 0: for ever.
	Timeout time.Duration `cbor:"timeout,omitempty"`
	// TimeoutStop is the time between KillSignal and SIGKILL; 0: SIGKILL immediately.
	TimeoutStop time.Duration `cbor:"timeout_stop,omitempty"`
	// KillSignal asks the job to end.
	KillSignal syscall.Signal `cbor:"kill_signal,omitempty"`
	// RedirectStderr gives standard error the pipe of standard output.
	RedirectStderr bool `cbor:"redirect_stderr,omitempty"`
	// MaxReply is how many bytes of each stream are kept for the reply in Exit.
	MaxReply int64 `cbor:"max_reply,omitempty"`
	// LogMax is the cap of the log file in bytes of output; what is beyond it is counted and dropped.
	LogMax int64 `cbor:"log_max,omitempty"`
	// Journal copies each line to the journal.
	Journal bool `cbor:"journal,omitempty"`
	// Record is the file that the shim writes its Exit to; see RecordAlways.
	Record string `cbor:"record,omitempty"`
	// RecordAlways writes Record before the engine is told. Otherwise it is written only if the engine cannot be told.
	RecordAlways bool `cbor:"record_always,omitempty"`
}

// Command is the zeroth argument: the program as it was asked for.
func (r *Run) Command() string {
	if len(r.Args) == 0 {
		return ""
	}
	return r.Args[0]
}

// Identifier is the SYSLOG_IDENTIFIER= of the job's lines in the journal.
func (r *Run) Identifier() string { return cmp.Or(r.Task, path.Base(r.Command())) }

// Place is where a job runs: what the engine knows of it while it does.
type Place struct {
	// Slot is the id of its slot; an engine that knew no slots left none: there the job's id is the slot's. Unit is the slot's
	// scope, "" without systemd, and Boot the boot id (random(4)) of the machine.
	Slot string `cbor:"slot,omitempty"`
	Unit string `cbor:"unit,omitempty"`
	Boot string `cbor:"boot,omitempty"`
	// PID is that of the main process, 0 before it runs, and ControlGroup the job's own below the cgroup v2 mount.
	PID          int    `cbor:"pid,omitempty"`
	ControlGroup string `cbor:"control_group,omitempty"`
	// StartedAt is when the main process was started.
	StartedAt time.Time `cbor:"started_at,omitzero"`
}

// Reason is why a job did not succeed. The values are those of the HTTP API.
type Reason string

// The reasons.
const (
	// Succeeded is no reason: the main process ended with 0.
	Succeeded Reason = ""
	// ExitCode is another status than 0.
	ExitCode Reason = "exit-code"
	// Signal is an end by a signal that rtask did not send.
	Signal Reason = "signal"
	// Timeout is a run longer than Run.Timeout.
	Timeout Reason = "timeout"
	// OOM is an end by the kernel at the job's MemoryMax.
	OOM Reason = "oom"
	// Stopped is the end of a job that was stopped.
	Stopped Reason = "stopped"
	// Lost is an unknown end: the machine or the shim ended before the job.
	Lost Reason = "lost"
	// Setup is a job that never ran.
	Setup Reason = "setup"
)

// Exit is how a job ended.
type Exit struct {
	// Job is the job's id.
	Job string `cbor:"job"`
	// Reason is Succeeded or why not.
	Reason Reason `cbor:"reason,omitempty"`
	// Code is the exit status of the main process, -1 if a signal ended it or it never ran.
	Code int `cbor:"code"`
	// Signal is the number of the signal that ended the main process, or 0.
	Signal int `cbor:"signal,omitempty"`
	// Detail is one clause for people: the step of the set-up that failed, or who stopped the job.
	Detail string `cbor:"detail,omitempty"`
	// LeftProcesses is how many processes were still there after the main one had ended by itself, and were killed.
	LeftProcesses int `cbor:"left_processes,omitempty"`
	// Ended is when nothing of the job was left.
	Ended time.Time `cbor:"ended"`
	// Usage is what it used.
	Usage Usage `cbor:"usage"`
	// LogBytes is what it wrote; LogDropped is how much of that is not in the log.
	LogBytes   uint64 `cbor:"log_bytes"`
	LogDropped uint64 `cbor:"log_dropped,omitempty"`
	// Stdout and Stderr are the first Run.MaxReply bytes of each stream.
	Stdout []byte `cbor:"stdout,omitempty"`
	Stderr []byte `cbor:"stderr,omitempty"`
	// Truncated says that a stream had more than Run.MaxReply bytes.
	Truncated bool `cbor:"truncated,omitempty"`
}

// Succeeded reports whether a job that ended so did what it was to do: this is where that is decided.
func (e *Exit) Succeeded() bool { return e.Reason == Succeeded }

// Status is "success" or "failure".
func (e *Exit) Status() string {
	if e.Succeeded() {
		return "success"
	}
	return "failure"
}

// Usage is what a job used, read after its last process was gone. A nil field is not known here.
type Usage struct {
	// CPUUsec is processor time in microseconds.
	CPUUsec *uint64 `cbor:"cpu_usec,omitempty"`
	// MemoryPeak is memory.peak in bytes.
	MemoryPeak *uint64 `cbor:"memory_peak,omitempty"`
	// TasksPeak is pids.peak.
	TasksPeak *uint64 `cbor:"tasks_peak,omitempty"`
	// IOReadBytes and IOWriteBytes are the bytes, IOReadOps and IOWriteOps the operations that went to block devices: the
	// sums of io.stat over all devices. What the page cache had is in none of them.
	IOReadBytes  *uint64 `cbor:"io_read_bytes,omitempty"`
	IOWriteBytes *uint64 `cbor:"io_write_bytes,omitempty"`
	IOReadOps    *uint64 `cbor:"io_read_ops,omitempty"`
	IOWriteOps   *uint64 `cbor:"io_write_ops,omitempty"`
}

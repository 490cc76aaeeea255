package ctl

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// jobJSON is a job as --json prints it. What is not known is left out.
type jobJSON struct {
	ID              string   `json:"id"`
	Task            string   `json:"task"`
	Command         []string `json:"command"`
	Encoding        string   `json:"encoding,omitempty"` // of Command; see inBase64
	User            string   `json:"user"`
	State           string   `json:"state"`
	Status          string   `json:"status"`
	Reason          string   `json:"reason,omitempty"`
	ExitCode        *int32   `json:"exit_code,omitempty"`
	Signal          string   `json:"signal,omitempty"`
	Detail          string   `json:"detail,omitempty"`
	Truncated       *bool    `json:"truncated,omitempty"`
	PID             int32    `json:"pid,omitempty"`
	Unit            string   `json:"unit"`
	ControlGroup    string   `json:"control_group,omitempty"`
	Owner           string   `json:"owner"`
	Trigger         string   `json:"trigger"`
	TriggerJob      string   `json:"trigger_job,omitempty"`
	QueuedAt        *string  `json:"queued_at"`
	StartedAt       *string  `json:"started_at,omitempty"`
	EndedAt         *string  `json:"ended_at,omitempty"`
	CPUUsec         *uint64  `json:"cpu_usec,omitempty"`
	MemoryPeakBytes *uint64  `json:"memory_peak_bytes,omitempty"`
	TasksPeak       *uint64  `json:"tasks_peak,omitempty"`
	IOReadBytes     *uint64  `json:"io_read_bytes,omitempty"`
	IOWriteBytes    *uint64  `json:"io_write_bytes,omitempty"`
	IOReadOps       *uint64  `json:"io_read_ops,omitempty"`
	IOWriteOps      *uint64  `json:"io_write_ops,omitempty"`
	// LeftProcesses is how many its main process left, which were ended.
	LeftProcesses int32 `json:"left_processes,omitempty"`
	// Triggered are the jobs that its end started.
	Triggered []triggeredJSON `json:"triggered,omitempty"`
}

type triggeredJSON struct {
	Task string `json:"task"`
	ID   string `json:"id"`
}

func jobToJSON(j *rtaskv1.Job) jobJSON {
	v := jobJSON{
		ID: j.GetId(), Task: j.GetTask(), Command: list(j.GetCommand()), User: j.GetUser(), State: stateWord(j.GetState()),
		Status: statusWord(j), Reason: j.GetReason().Word(), Signal: j.GetSignal(), PID: j.GetPid(), Unit: j.GetUnit(),
		Detail: j.GetDetail(), LeftProcesses: j.GetLeftProcesses(), ControlGroup: j.GetControlGroup(), Owner: j.GetOwner(), TriggerJob: j.GetTriggerJob(),
		Trigger: j.GetTrigger(), QueuedAt: stamp(j.GetQueuedAt()), StartedAt: stamp(j.GetStartedAt()), EndedAt: stamp(j.GetEndedAt()),
	}
	v.Command, v.Encoding = inBase64(v.Command)
	if j != nil {
		v.ExitCode, v.CPUUsec, v.MemoryPeakBytes, v.TasksPeak = j.ExitCode, j.CpuUsec, j.MemoryPeakBytes, j.TasksPeak
		v.IOReadBytes, v.IOWriteBytes, v.IOReadOps, v.IOWriteOps = j.IoReadBytes, j.IoWriteBytes, j.IoReadOps, j.IoWriteOps
	}
	for _, t := range j.GetTriggered() {
		v.Triggered = append(v.Triggered, triggeredJSON{Task: t.GetTask(), ID: t.GetJob()})
	}
	if truncated := j.GetLogDroppedBytes() > 0; truncated || ended(j) {
		v.Truncated = &truncated
	}
	return v
}

// keyJSON is a key as --json prints it. Key is the key itself, which only `key add` knows.
type keyJSON struct {
	Name       string  `json:"name"`
	ID         string  `json:"id"`
	CreatedAt  *string `json:"created_at"`
	ExpiresAt  *string `json:"expires_at,omitempty"`
	LastUsedAt *string `json:"last_used_at,omitempty"`
	Key        string  `json:"key,omitempty"`
}

func keyToJSON(k *rtaskv1.Key) keyJSON {
	return keyJSON{
		Name: k.GetName(), ID: k.GetId(), CreatedAt: stamp(k.GetCreatedAt()), ExpiresAt: stamp(k.GetExpiresAt()),
		LastUsedAt: stamp(k.GetLastUsedAt()),
	}
}

// diagnosticJSON is a finding in the configuration.
type diagnosticJSON struct {
	Severity string `json:"severity"`
	Summary  string `json:"summary"`
	Detail   string `json:"detail,omitempty"`
	File     string `json:"file"`
	Line     int32  `json:"line,omitempty"`
	Column   int32  `json:"column,omitempty"`
	Source   string `json:"source,omitempty"`
}

func diagnosticsToJSON(all []*rtaskv1.Diagnostic) []diagnosticJSON {
	values := []diagnosticJSON{}
	for _, d := range all {
		severity := "warning"
		if d.Error {
			severity = "error"
		}
		values = append(values, diagnosticJSON{
			Severity: severity, Summary: d.Summary, Detail: d.Detail, File: d.File, Line: d.Line, Column: d.Column, Source: d.Source,
		})
	}
	return values
}

// inBase64 encodes text for JSON, which cannot have all the bytes that arguments and names of files can: where any of it is not
// UTF-8, all of it becomes base64, and encoding says so.
func inBase64(words []string, others ...*string) (_ []string, encoding string) {
	valid := func(s *string) bool { return utf8.ValidString(*s) }
	if !slices.ContainsFunc(words, func(s string) bool { return !valid(&s) }) && !slices.ContainsFunc(others, func(s *string) bool { return !valid(s) }) {
		return words, ""
	}
	encoded := make([]string, len(words))
	for i, s := range words {
		encoded[i] = base64.StdEncoding.EncodeToString([]byte(s))
	}
	for _, s := range others {
		*s = base64.StdEncoding.EncodeToString([]byte(*s))
	}
	return encoded, "base64"
}

// list is a list that is never null.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// stamp is a time in RFC 3339, UTC; nil if it is not known.
func stamp(t *timestamppb.Timestamp) *string {
	if t == nil {
		return nil
	}
	s := t.AsTime().UTC().Format(time.RFC3339Nano)
	return &s
}

// printJSON prints a value on one line. Like \x1b, which encoding/json escapes, characters beyond ASCII that a terminal
// could act on are escaped.
func (a *app) printJSON(value any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return fmt.Errorf("cannot encode the result: %w", err)
	}
	var safe strings.Builder
	for _, r := range b.String() {
		switch {
		case r < 0x7f || unicode.IsPrint(r):
			safe.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&safe, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&safe, `\u%04x`, r)
		}
	}
	return a.print(safe.String())
}

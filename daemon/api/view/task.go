package view

import (
	"encoding/json"
	"math"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// KeyTask is a task as an API key sees it.
type KeyTask struct {
	Name          string  `json:"name"`
	Blocking      bool    `json:"blocking"`
	Enabled       bool    `json:"enabled"`
	MaxInputBytes int64   `json:"max_input_bytes"`
	Params        []Param `json:"params"`
}

// Param is a parameter of a task, and what values it takes.
type Param struct {
	Name      string   `json:"name"`
	Required  bool     `json:"required"`
	Default   *string  `json:"default,omitempty"`
	Values    []string `json:"values,omitempty"`
	Pattern   string   `json:"pattern,omitempty"`
	MaxLength int32    `json:"max_length,omitempty"`
}

// KeyTaskOf is a task for an API key.
func KeyTaskOf(m *rtaskv1.KeyTask) KeyTask {
	return KeyTask{
		Name: m.Name, Blocking: m.Blocking, Enabled: m.Enabled, MaxInputBytes: m.MaxInputBytes,
		Params: Each(m.Params, func(p *rtaskv1.KeyParam) Param {
			return Param{Name: p.Name, Required: p.Default == nil, Default: p.Default, Values: p.Values, Pattern: p.Pattern, MaxLength: p.MaxLength}
		}),
	}
}

// Task is a task as operators see it.
type Task struct {
	Name    string   `json:"name"`
	Command []string `json:"command"`
	Workdir string   `json:"workdir"`
	// Encoding is of Command and Workdir; see Base64.
	Encoding string `json:"encoding,omitempty"`
	// User is left out where each job gets a user of its own.
	User     string   `json:"user,omitempty"`
	Blocking bool     `json:"blocking"`
	APIKeys  []string `json:"api_keys"`
	// TimeoutSec is left out where there is no timeout.
	TimeoutSec float64 `json:"timeout_sec,omitempty"`
	// Problem is why it cannot be started now.
	Problem string `json:"problem,omitempty"`
	Enabled bool   `json:"enabled"`
	// Last is its last run, absent: there is none that the caller may see. Lists have it.
	Last *Last `json:"last,omitempty"`
	// Switch is set if an operator enabled or disabled the task.
	Switch *Switch `json:"switch,omitempty"`
	// NextRun is when its timer starts it next.
	NextRun string `json:"next_run,omitempty"`
	// Settings are the attributes of its configuration, defaults included. This and what follows are set for one task only.
	Settings json.RawMessage `json:"settings,omitempty"`
	File     string          `json:"file,omitempty"`
	Line     int32           `json:"line,omitempty"`
	// Sandbox is what its sandbox leaves open.
	Sandbox *Sandbox `json:"sandbox,omitempty"`
	// LimitsMissing is why limits are not enforced that the task may run without.
	LimitsMissing string `json:"limits_missing,omitempty"`
}

// Last is the last run of a task.
type Last struct {
	ID    string `json:"id"`
	State string `json:"state"`
	End
	Owner   string `json:"owner"`
	Trigger string `json:"trigger"`
	Span
}

// TaskOf is a task as it stands in a list.
func TaskOf(t *rtaskv1.Task) Task {
	v := Task{
		Name: t.GetName(), Workdir: t.GetWorkingDirectory(), User: t.GetUser(), Blocking: t.GetBlocking(), APIKeys: List(t.GetApiKeys()),
		TimeoutSec: t.GetTimeout().AsDuration().Seconds(), Problem: t.GetProblem(), Enabled: t.GetEnabled(), NextRun: Time(t.GetNextRun()),
	}
	if j := t.GetLast(); j != nil {
		v.Last = &Last{ID: j.GetId(), State: j.GetState().Word(), End: EndOf(j), Trigger: j.GetTrigger(), Owner: j.GetOwner(), Span: SpanOf(j)}
	}
	if t.GetSwitch() != nil {
		s := SwitchOf(t.GetSwitch())
		v.Switch = &s
	}
	v.Command, v.Encoding = Base64(List(t.GetCommand()), &v.Workdir)
	return v
}

// ShownTaskOf is one task with everything that is known of it.
func ShownTaskOf(r *rtaskv1.ShowTaskResponse) Task {
	v := TaskOf(r.GetTask())
	v.Settings, v.File, v.Line, v.LimitsMissing = json.RawMessage(r.GetJson()), r.GetFile(), r.GetLine(), r.GetLimitsMissing()
	if len(r.GetExposures()) > 0 { // an older engine sends none
		v.Sandbox = &Sandbox{
			Exposure: Tenth(r.GetExposure()), Word: r.GetExposureWord(), Missing: List(r.GetMissing()),
			Switches: Each(r.GetExposures(), func(e *rtaskv1.Exposure) Exposure {
				return Exposure{e.GetName(), e.GetAbout(), Tenth(e.GetExposure())}
			}),
		}
	}
	return v
}

// NextRun is when a schedule starts its task next.
type NextRun struct {
	Task string `json:"task"`
	At   string `json:"at"`
}

// NextRunOf is when a schedule starts its task next.
func NextRunOf(n *rtaskv1.NextRun) NextRun { return NextRun{n.GetTask(), Time(n.GetAt())} }

// Switch says that an operator enabled or disabled a task.
type Switch struct {
	Task    string `json:"task"`
	Enabled bool   `json:"enabled"`
	By      string `json:"by"`
	At      string `json:"at"`
}

// SwitchOf is a switch.
func SwitchOf(s *rtaskv1.TaskSwitch) Switch {
	return Switch{Task: s.GetTask(), Enabled: s.GetEnabled(), By: s.GetBy(), At: Time(s.GetAt())}
}

// Sandbox is a sandbox as systemd-analyze(1) security shows one.
type Sandbox struct {
	Exposure float64    `json:"exposure"`
	Word     string     `json:"word"`
	Switches []Exposure `json:"switches"`
	// Missing are the switches that this machine does not support.
	Missing []string `json:"missing"`
}

// Exposure is what one switch leaves open.
type Exposure struct {
	Name     string  `json:"name"`
	About    string  `json:"about"`
	Exposure float64 `json:"exposure"`
}

// Tenth rounds as systemd-analyze does.
func Tenth(v float64) float64 { return math.Round(v*10) / 10 }

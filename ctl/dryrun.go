package ctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

// dryRunJSON is what a request would do, as --json prints it.
type dryRunJSON struct {
	Task    string `json:"task"`
	Key     string `json:"key,omitempty"`
	Webhook string `json:"webhook,omitempty"`
	// Decision is empty where the configuration has errors.
	Decision string `json:"decision"`
	// Status is of the HTTP reply, for a request over HTTP that would be refused.
	Status      int             `json:"status,omitempty"`
	Kind        string          `json:"kind,omitempty"`
	Reason      string          `json:"reason,omitempty"`
	Environment []string        `json:"environment,omitempty"`
	Settings    json.RawMessage `json:"settings,omitempty"`
	// LimitsMissing is why limits are not in force that the task may run without.
	LimitsMissing string `json:"limits_missing,omitempty"`
}

// dryRunFlags are those of config check about a request.
func dryRunFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "task", Usage: "say what a request for `TASK` would do; by default, your own with rtaskctl start"},
		&cli.StringFlag{Name: "key", Usage: "… with the API key of this `NAME` or id"},
		&cli.StringFlag{Name: "webhook", Usage: "… to the task's webhook `NAME`, correctly signed"},
		&cli.GenericFlag{Name: "param", Value: &settings{}, Usage: "… with the parameter `NAME=VALUE`"},
	}
}

// dryRunRequest is what the flags ask for, nil: for none.
func dryRunRequest(c *cli.Context) (*rtaskv1.DryRunRequest, error) {
	m := &rtaskv1.DryRunRequest{Task: c.String("task"), Key: c.String("key"), Webhook: c.String("webhook")}
	var err error
	if m.Parameters, err = parametersOf(c); err != nil {
		return nil, err
	}
	switch {
	case m.Task == "" && (m.Key != "" || m.Webhook != "" || len(m.Parameters) > 0):
		return nil, misuse(c, "--key, --webhook and --param are about a request for a task: name it with --task")
	case m.Task == "":
		return nil, nil
	case m.Key != "" && m.Webhook != "":
		return nil, misuse(c, "--key and --webhook exclude each other")
	case m.Webhook != "" && len(m.Parameters) > 0:
		return nil, misuse(c, "a request to a webhook has no parameters")
	}
	return m, nil
}

func (a *app) dryRun(c *cli.Context, m *rtaskv1.DryRunRequest) error {
	reply, err := call(a, c, jobs.DryRun, m)
	if err != nil {
		return err
	}
	status := 0
	if reply.GetDecision() == "refused" && (m.Key != "" || m.Webhook != "") {
		status = rtaskv1.Kind(reply.GetKind()).HTTPStatus()
	}
	if c.Bool("json") {
		v := dryRunJSON{
			Task: m.Task, Key: m.Key, Webhook: m.Webhook, Decision: reply.GetDecision(), Status: status, Kind: reply.GetKind(), Reason: reply.GetReason(),
			Environment: reply.GetEnvironment(), Settings: json.RawMessage(reply.GetJson()), LimitsMissing: reply.GetLimitsMissing(),
		}
		err = a.printJSON(struct {
			Tasks       int32             `json:"tasks"`
			Diagnostics []view.Diagnostic `json:"diagnostics"`
			Request     dryRunJSON        `json:"request"`
		}{reply.GetTasks(), view.Each(reply.GetDiagnostics(), view.DiagnosticOf), v})
	} else {
		a.diagnostics(reply.GetDiagnostics())
		if hasErrors(reply.GetDiagnostics()) {
			return errors.New("the configuration has errors")
		}
		err = a.printDryRun(m, reply, status)
	}
	if err == nil && (reply.GetDecision() == "refused" || hasErrors(reply.GetDiagnostics())) {
		return exitStatus(exitError)
	}
	return err
}

// printDryRun says what would happen, and what of the task's settings would hold.
func (a *app) printDryRun(m *rtaskv1.DryRunRequest, r *rtaskv1.DryRunResponse, status int) error {
	text := "configuration is good: " + plural(r.GetTasks(), "task") + "\n"
	switch {
	case m.Key != "":
		text += "POST /tasks/" + printable(m.Task) + " with the API key " + printable(m.Key) + "\n"
	case m.Webhook != "":
		text += "a correctly signed request to the webhook " + printable(m.Task+"/"+m.Webhook) + "\n"
	default:
		text += "rtaskctl start " + printable(m.Task) + "\n"
	}
	var set dryRunSettings
	if r.GetJson() != "" {
		if err := set.read(r.GetJson()); err != nil {
			return err
		}
	}
	switch {
	case r.GetDecision() == "refused" && status != 0:
		return a.print(text + fmt.Sprintf("would be refused: %d %s: %s\n", status, printable(r.GetKind()), oneLine(r.GetReason())))
	case r.GetDecision() == "refused":
		return a.print(text + "would be refused: " + oneLine(r.GetReason()) + "\n")
	case r.GetDecision() == "ignored":
		return a.print(text + "would be ignored: 200: " + oneLine(r.GetReason()) + "\n")
	}
	if err := a.print(text + "would be accepted: " + set.reply(m) + "\n"); err != nil {
		return err
	}
	var told []string
	for _, kv := range r.GetEnvironment() {
		told = append(told, printable(kv))
	}
	return a.fields([][2]string{
		{"Command", printable(commandLine(set.Command))},
		{"User", printable(set.User)},
		{"Workdir", printable(set.Workdir)},
		{"Timeout", printable(set.text("timeout"))},
		{"Input", printable("at most " + set.text("max_input_bytes"))},
		{"Admission", printable(set.admission())},
		{"Limits", printable(set.block("limits"))},
		{"Not in force", printable(r.GetLimitsMissing())},
		{"Sandbox", printable(fmt.Sprintf("profile %s, exposure %.1f %s", set.profile(), r.GetExposure(), r.GetExposureWord()))},
		{"Environment", strings.Join(told, "\n")},
	})
}

// dryRunSettings are a task's settings as tasks show --json prints them.
type dryRunSettings struct {
	Command  []string `json:"command"`
	User     string   `json:"user"`
	Workdir  string   `json:"workdir"`
	Blocking bool     `json:"blocking"`
	Overflow string   `json:"overflow"`
	Webhook  map[string]struct {
		Respond string `json:"respond"`
	} `json:"webhook"`
	// all has each of them as it stands there.
	all map[string]json.RawMessage
}

func (s *dryRunSettings) read(text string) error {
	for _, into := range []any{s, &s.all} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			return fmt.Errorf("cannot read the task's settings: %w", err)
		}
	}
	return nil
}

// text is a setting as one would write it, without quotes; "" if it is not there.
func (s *dryRunSettings) text(name string) string { return plainText(s.all[name]) }

func plainText(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(bytes.TrimSpace(raw))
}

// block are the settings of a block as name=value.
func (s *dryRunSettings) block(name string) string {
	var values map[string]json.RawMessage
	if json.Unmarshal(s.all[name], &values) != nil || len(values) == 0 {
		return "none"
	}
	var all []string
	for key, value := range values {
		all = append(all, key+"="+plainText(value))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (s *dryRunSettings) profile() string {
	var sandbox struct {
		Profile string `json:"profile"`
	}
	if json.Unmarshal(s.all["sandbox"], &sandbox) != nil {
		return "default"
	}
	return sandbox.Profile
}

// reply is what the requester would get.
func (s *dryRunSettings) reply(m *rtaskv1.DryRunRequest) string {
	result := s.Blocking
	switch {
	case m.Webhook != "":
		result = s.Webhook[m.Webhook].Respond == "result"
	case m.Key == "":
		return "the job's id"
	}
	if result {
		return "200 with the job's result, 500 if it fails"
	}
	return "202 with the job's id"
}

// admission is what may still refuse a request, or let it wait.
func (s *dryRunSettings) admission() string {
	var all []string
	if n := s.text("rate_limit"); n != "0" && n != "" {
		all = append(all, n+" a second, more are refused: 429 rate-limited")
	}
	switch n := s.text("max_concurrent"); {
	case n == "0" || n == "":
		all = append(all, "any number at once")
	case s.Overflow == "reject":
		all = append(all, n+" at once, more are refused: 429 concurrency")
	case s.Overflow == "coalesce":
		all = append(all, n+" at once, "+s.text("queue")+" may wait and take over requests for the same thing, more are refused: 429 queue-full")
	default:
		all = append(all, n+" at once, "+s.text("queue")+" may wait, more are refused: 429 queue-full")
	}
	return strings.Join(all, "; ")
}

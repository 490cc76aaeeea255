// Package oldtoml turns config.toml, the configuration of the HTTP task runner that rtask grew from, into files of tasks.d that
// mean the same. It knows the form of both and checks what is TOML's own; what the values may be is for daemon/config to say,
// which reads the outcome.
//
// It reads no file and imports nothing of the project. daemon/config and ctl may import it.
package oldtoml

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/rtask/rtask/sandbox/wording"
)

// maxDepth is how deep brackets may stand in each other; there is no use for more than a list in a table.
const maxDepth = 20

// Error is something in the file that is wrong. Line and Column count from 1; 0: the file as a whole.
type Error struct {
	Line, Column int
	Text         string
}

// Error implements error.
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Text
	}
	return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Text)
}

// file is config.toml. A nil pointer is a name that is not there.
type file struct {
	Tasks map[string]*task `toml:"tasks"`
}

type task struct {
	Command                  []string          `toml:"command"`
	Workdir                  *string           `toml:"workdir"`
	APIKeyNames              []string          `toml:"apiKeyNames"`
	WebhookSecrets           map[string]string `toml:"webhookSecrets"`
	WebhookSecretFiles       map[string]string `toml:"webhookSecretFiles"`
	Environment              map[string]string `toml:"environment"`
	PassRequestHeaders       []string          `toml:"passRequestHeaders"`
	Blocking                 *bool             `toml:"blocking"`
	RateLimit                *float64          `toml:"rateLimit"`
	MaxConcurrentTasks       *int64            `toml:"maxConcurrentTasks"`
	MaxInputBytes            *int64            `toml:"maxInputBytes"`
	MaxOutputBytes           *int64            `toml:"maxOutputBytes"`
	ExecutionTimeoutSeconds  *float64          `toml:"executionTimeoutSeconds"`
	RedirectStderr           *bool             `toml:"redirectStderr"`
	DurationHistogramBuckets []float64         `toml:"durationHistogramBuckets"`
}

// HCL is a file of tasks.d.
type HCL struct {
	// Text is the file.
	Text []byte
	// Lines are, for each of its lines, that of config.toml which it comes from.
	Lines []int
}

// Convert returns the same in HCL. dir is the folder of the file, where commands are looked for that are relative and have no
// workdir. The error is an *Error.
func Convert(data []byte, dir string) (*HCL, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))       // a byte order mark
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")) // in a string of several lines, too
	if err := shallow(data); err != nil {
		return nil, err
	}
	var f file
	d := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, describe(err)
	}
	lines, err := places(data)
	if err != nil {
		return nil, err
	}
	w := &writer{lines: lines}
	for _, name := range slices.Sorted(maps.Keys(f.Tasks)) {
		w.task(name, f.Tasks[name], dir)
	}
	return &HCL{Text: w.text.Bytes(), Lines: w.from}, nil
}

// shallow returns an error for what would make a parser recurse too deep.
func shallow(data []byte) error {
	depth := 0
	for i, c := range data {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(0, depth-1)
		case '\n':
			if bytes.HasPrefix(data[i+1:], []byte("[")) {
				depth = 0
			}
		}
		if depth > maxDepth {
			return &Error{Line: bytes.Count(data[:i], []byte("\n")) + 1, Column: 1, Text: "too deeply nested"}
		}
	}
	return nil
}

// describe turns an error of the library into one of ours.
func describe(err error) error {
	var unknown *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &unknown) && len(unknown.Errors) > 0:
		first := unknown.Errors[0]
		line, column := first.Position()
		return &Error{line, column, fmt.Sprintf("unknown name %q; a task has %s", strings.Join(first.Key(), "."), strings.Join(names(), ", "))}
	case errors.As(err, &wrong):
		line, column := wrong.Position()
		return &Error{line, column, strings.TrimPrefix(wrong.Error(), "toml: ")}
	default:
		return &Error{Text: strings.TrimPrefix(err.Error(), "toml: ")}
	}
}

// names are what a task may have.
func names() []string {
	return []string{
		"command", "workdir", "apiKeyNames", "webhookSecrets", "webhookSecretFiles", "environment", "passRequestHeaders", "blocking",
		"rateLimit", "maxConcurrentTasks", "maxInputBytes", "maxOutputBytes", "executionTimeoutSeconds", "redirectStderr",
		"durationHistogramBuckets",
	}
}

// places returns the line of each name, by its path.
func places(data []byte) (map[string]int, error) {
	lines := map[string]int{}
	var p unstable.Parser
	p.Reset(data)
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		var path []string
		line := 0
		for it := e.Key(); it.Next(); {
			path = append(path, string(it.Node().Data))
			if line == 0 {
				line = p.Shape(it.Node().Raw).Start.Line
			}
		}
		if e.Kind == unstable.KeyValue {
			path = slices.Concat(table, path)
		} else {
			table = path
		}
		for n := range path {
			if key := strings.Join(path[:n+1], "\x00"); lines[key] == 0 {
				lines[key] = line
			}
		}
	}
	if err := p.Error(); err != nil {
		return nil, describe(err)
	}
	return lines, nil
}

// writer writes HCL line by line.
type writer struct {
	text  bytes.Buffer
	from  []int
	lines map[string]int
}

// line writes one line that comes from the name with this path, or from the nearest one above it.
func (w *writer) line(path []string, format string, args ...any) {
	from := 1
	for n := len(path); n > 0; n-- {
		if at := w.lines[strings.Join(path[:n], "\x00")]; at > 0 {
			from = at
			break
		}
	}
	fmt.Fprintf(&w.text, format+"\n", args...)
	w.from = append(w.from, from)
}

func (w *writer) task(name string, t *task, dir string) {
	at := func(key ...string) []string { return append([]string{"tasks", name}, key...) }
	if len(w.from) > 0 {
		w.line(at(), "")
	}
	w.line(at(), "task %s {", wording.HCL(name))
	if t.Workdir != nil && *t.Workdir != "" && !filepath.IsAbs(*t.Workdir) {
		*t.Workdir = filepath.Join(dir, *t.Workdir)
	}
	if c := t.Command; len(c) > 0 && strings.Contains(c[0], "/") && !filepath.IsAbs(c[0]) && t.Workdir == nil {
		c[0] = filepath.Join(dir, c[0])
	}
	if t.Command != nil {
		w.line(at("command"), "  command = %s", list(t.Command))
	}
	if t.Workdir != nil {
		w.line(at("workdir"), "  workdir = %s", wording.HCL(*t.Workdir))
	}
	if t.APIKeyNames != nil {
		w.line(at("apiKeyNames"), "  api_keys = %s", list(t.APIKeyNames))
	}
	if t.Blocking != nil {
		w.line(at("blocking"), "  blocking = %t", *t.Blocking)
	}
	if t.RateLimit != nil {
		w.line(at("rateLimit"), "  rate_limit = %s", number(*t.RateLimit))
	}
	hooks := len(t.WebhookSecrets)+len(t.WebhookSecretFiles) > 0
	switch {
	case t.MaxConcurrentTasks != nil:
		w.line(at("maxConcurrentTasks"), "  max_concurrent = %d", *t.MaxConcurrentTasks)
	case hooks:
		w.line(at(), "  max_concurrent = 0") // with webhooks the default is another one
	}
	if hooks {
		w.line(at(), "  overflow = %s", wording.HCL("reject"))
	}
	for _, n := range []struct {
		key, name string
		value     *int64
	}{{"maxInputBytes", "max_input_bytes", t.MaxInputBytes}, {"maxOutputBytes", "max_output_bytes", t.MaxOutputBytes}} {
		if n.value != nil {
			w.line(at(n.key), "  %s = %d", n.name, *n.value)
		}
	}
	if s := t.ExecutionTimeoutSeconds; s != nil {
		w.line(at("executionTimeoutSeconds"), "  timeout = %s", wording.HCL(number(*s)+"s"))
	}
	if t.RedirectStderr != nil {
		w.line(at("redirectStderr"), "  redirect_stderr = %t", *t.RedirectStderr)
	}
	if t.PassRequestHeaders != nil {
		w.line(at("passRequestHeaders"), "  pass_request_headers = %s", list(t.PassRequestHeaders))
	}
	if b := t.DurationHistogramBuckets; b != nil {
		bounds := make([]string, len(b))
		for i, f := range b {
			bounds[i] = number(f)
		}
		w.line(at("durationHistogramBuckets"), "  duration_buckets = [%s]", strings.Join(bounds, ", "))
	}
	if len(t.Environment) > 0 {
		w.line(at("environment"), "  environment = {")
		for _, k := range slices.Sorted(maps.Keys(t.Environment)) {
			w.line(at("environment", k), "    %s = %s", wording.HCL(k), wording.HCL(t.Environment[k]))
		}
		w.line(at("environment"), "  }")
	}
	for _, kind := range []struct {
		key, name string
		secrets   map[string]string
	}{{"webhookSecrets", "token", t.WebhookSecrets}, {"webhookSecretFiles", "token_file", t.WebhookSecretFiles}} {
		for _, k := range slices.Sorted(maps.Keys(kind.secrets)) {
			w.webhook(at(kind.key, k), k, kind.name, kind.secrets[k], t)
		}
	}
	w.line(at(), "}")
}

// webhook writes a webhook whose secret is the last part of its URL.
func (w *writer) webhook(at []string, name, attribute, value string, t *task) {
	w.line(at, "  webhook %s {", wording.HCL(name))
	w.line(at, "    %s = %s", attribute, wording.HCL(value))
	limit := "16K"
	if t.MaxInputBytes != nil {
		limit = strconv.FormatInt(*t.MaxInputBytes, 10)
	}
	w.line(at, "    max_input_bytes = %s", wording.HCL(limit))
	if t.Blocking != nil && *t.Blocking {
		w.line(at, "    respond = %s", wording.HCL("result"))
	}
	w.line(at, "  }")
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func list(all []string) string {
	quoted := make([]string, len(all))
	for i, s := range all {
		quoted[i] = wording.HCL(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

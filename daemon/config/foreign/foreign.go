// Package foreign turns configurations of other programs that run commands into files of tasks.d: the hooks of adnanh/webhook (and
// soulteary's fork of it) and the actions of OliveTin. No rule becomes weaker on the way. What rtask has
// nothing for is left out, with a comment at its place.
//
// It is for people who move to rtask; the engine reads none of these files. It reads no file itself and knows nothing of what rtask
// makes of a task: its caller checks each one. Only ctl may import it.
package foreign

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/rtask/rtask/sandbox/wording"
)

// Error is something in the file that is wrong. Line counts from 1; 0: the file as a whole.
type Error struct {
	Line int
	Text string
}

// Error implements error.
func (e *Error) Error() string {
	if e.Line == 0 {
		return " " + e.Text
	}
	return fmt.Sprintf("%d: %s", e.Line, e.Text)
}

// Options are what a conversion asks its caller for.
type Options struct {
	// Name is how comments call the file.
	Name string
	// Check returns why rtask would refuse a file of tasks, or nil.
	Check func(text []byte) error
	// Token returns a new secret for a URL.
	Token func() string
	// Variable returns why a value of a request cannot be the variable of this name, of letters, digits and _, or nil.
	Variable func(name string) error
}

// Result is what became of a file.
type Result struct {
	// Text is a file of tasks.d.
	Text []byte
	// Lost is what Text does not have.
	Lost []Remark
	// Hooks are the webhooks in Text.
	Hooks []Hook
}

// Remark is about a line of the file that was converted.
type Remark struct {
	Line int
	Text string
}

// Hook is a webhook and what its URL was.
type Hook struct {
	// URL is the path at the other program.
	URL string
	// Task and Webhook are its names in rtask.
	Task, Webhook string
}

// Convert turns a file in JSON or YAML into tasks. The error is an *Error.
func Convert(data []byte, o Options) (*Result, error) {
	r, err := convert(data, o)
	last := bytes.Count(data, []byte("\n")) + 1 // YAML has more ends of lines than editors
	var wrong *Error
	if errors.As(err, &wrong) {
		wrong.Line = min(wrong.Line, last)
		return nil, wrong
	}
	for i := range r.Lost {
		r.Lost[i].Line = min(r.Lost[i].Line, last)
	}
	return r, nil
}

func convert(data []byte, o Options) (*Result, error) {
	o.Name = wording.Escape(o.Name, "")                   // one line, whatever is in it
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // a byte order mark
	root, err := parse(data)
	// Actions of OliveTin have {{ … }}, too.
	if i := bytes.Index(data, []byte("{{")); i >= 0 && (err != nil && !bytes.Contains(data, []byte("actions:")) || err == nil && root.Kind == yaml.SequenceNode) {
		line := bytes.Count(data[:i], []byte("\n")) + 1
		return nil, &Error{line, "this is a template: {{ … }} gets its value when webhook -template reads it. Write the values in its place"}
	}
	if err != nil {
		return nil, err
	}
	switch root.Kind {
	case yaml.SequenceNode:
		return convertHooks(root, o)
	case yaml.MappingNode:
		return convertActions(root, o)
	default:
		return nil, &Error{root.Line, "this is neither a list of hooks of adnanh/webhook nor a config.yaml of OliveTin"}
	}
}

// output collects what becomes of a file.
type output struct {
	options Options
	result  Result
	tasks   []made
	// names has those of the tasks, each with how many wanted it.
	names map[string]int
}

// taskName returns a name for a task that no other one of the file has, as near to text as names of tasks are.
func (o *output) taskName(text, otherwise string) string {
	const longest = 56 // of 63, as there may be a number behind it
	name := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		default:
			return '-'
		}
	}, text), "-_")
	for strings.Contains(name, "--") {
		name = strings.ReplaceAll(name, "--", "-")
	}
	name = strings.TrimRight(name[:min(len(name), longest)], "-_")
	if name == "" || name == "cmd" { // which commands without a task have
		name = otherwise
	}
	unique := name
	for o.names[unique] > 0 {
		o.names[name]++
		unique = name + "-" + strconv.Itoa(o.names[name])
	}
	o.names[unique] = 1
	return unique
}

// lost notes what the text does not have. It returns the comment for its place.
func (o *output) lost(line int, where, format string, args ...any) string {
	text := wording.Escape(fmt.Sprintf(format, args...), "") // one line, whatever is in it
	o.result.Lost = append(o.result.Lost, Remark{line, where + ": " + text})
	return "# Not carried over: " + text + "."
}

// add takes a task of the file.
func (o *output) add(line int, where string, t *task, hooks ...Hook) {
	o.tasks = append(o.tasks, made{line, where, t, hooks})
}

// made is a task of the file.
type made struct {
	line  int
	where string
	*task
	hooks []Hook
}

// finish writes the tasks behind head. One that rtask would refuse becomes a comment.
func (o *output) finish(head string) *Result {
	var good bytes.Buffer
	for _, t := range o.tasks {
		if t.err == nil {
			good.Write(t.text.Bytes())
		}
	}
	whole := o.options.Check(good.Bytes()) == nil // and so is each of them
	text := bytes.NewBufferString(head)
	for i, t := range o.tasks {
		if i > 0 {
			text.WriteString("\n")
		}
		if t.err == nil && !whole {
			t.err = o.options.Check(t.text.Bytes())
		}
		if t.err == nil {
			text.Write(t.text.Bytes())
			o.result.Hooks = append(o.result.Hooks, t.hooks...)
			continue
		}
		fmt.Fprintln(text, o.lost(t.line, t.where, "the task is a comment: %v", t.err))
		for l := range bytes.Lines(t.text.Bytes()) {
			fmt.Fprintf(text, "# %s", l)
		}
	}
	o.result.Text = text.Bytes()
	return &o.result
}

// task is the text of a task while it is written.
type task struct {
	text bytes.Buffer
	// err is why it must not be used as it is.
	err error
}

func (t *task) line(format string, args ...any) { fmt.Fprintf(&t.text, format+"\n", args...) }

// quote is s as HCL writes it.
func (t *task) quote(s string) string {
	if !representable(s) && t.err == nil {
		t.err = errors.New("it has text that is not in Unicode's normal form NFC, and HCL would change it")
	}
	return wording.HCL(s)
}

func (t *task) list(all []string) string {
	quoted := make([]string, len(all))
	for i, s := range all {
		quoted[i] = t.quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

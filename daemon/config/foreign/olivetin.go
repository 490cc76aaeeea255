package foreign

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// action is one of OliveTin, see docs.olivetin.app. Its arguments are parameters of a task.
type action struct {
	*mapping
	id, title, shell string
	exec             []string
	timeout, most    int // seconds, and jobs at the same time
	arguments        []input
	// disabled says that an expression decides whether it may be started.
	disabled bool
	// seconds says that its times begin with one, as all of the file do.
	seconds bool
}

// input is an argument of an action.
type input struct {
	line                 int
	name, kind, fallback string
	choices              []string
	needed               bool // it must not be empty
}

// convertActions turns the actions of OliveTin into tasks. What its web page shows, and how, is nothing that a task has.
func convertActions(root *yaml.Node, options Options) (*Result, error) {
	var err error
	m := object(root, "the file", false, &err)
	if m.take("actions") == nil {
		return nil, &Error{root.Line, "this is neither a list of hooks of adnanh/webhook nor a config.yaml of OliveTin: it has no actions"}
	}
	o := &output{options: options, names: map[string]int{}}
	var comments []string
	for _, name := range []string{"include", "entities", "actionGroups", "defaultPermissions", "accessControlLists", "authRequireGuestsToLogin", "authLocalUsers"} {
		if m.take(name) != nil {
			comments = append(comments, o.lost(m.lines[name], "config", "%s: %s", name, rootReasons()[name]))
		}
	}
	seconds := m.boolean("cronSupportForSeconds")
	for _, n := range m.list("actions") {
		a := readAction(object(n, "an action", false, &err))
		a.seconds = seconds
		if err != nil {
			return nil, err
		}
		name := a.id
		if name == "" {
			name = a.title
		}
		w := &actionTask{action: a, output: o, task: &task{}, name: o.taskName(name, "action"), where: fmt.Sprintf("action %q", name)}
		w.write()
		o.add(n.Line, w.where, w.task)
	}
	if err != nil {
		return nil, err
	}
	head := ""
	if len(comments) > 0 {
		head = strings.Join(comments, "\n") + "\n\n"
	}
	return o.finish(head), nil
}

// rootReasons say why rtask has nothing for a name at the top of the file.
func rootReasons() map[string]string {
	const users = "who may start a task over HTTP is in its api_keys, and which local users may in allow_users and allow_groups"
	return map[string]string{
		"include":            "convert the files in that folder one by one",
		"entities":           "rtask makes no tasks of a list of things",
		"actionGroups":       "max_concurrent is of one task",
		"defaultPermissions": users, "accessControlLists": users, "authRequireGuestsToLogin": users, "authLocalUsers": users,
	}
}

func readAction(m *mapping) *action {
	a := &action{
		mapping: m, id: m.text("id"), title: m.text("title"), shell: m.text("shell"), exec: m.texts("exec"),
		timeout: max(m.integer("timeout"), 3), most: max(m.integer("maxConcurrent"), 1),
		disabled: m.take("enabledExpression") != nil,
	}
	for _, n := range m.list("arguments") {
		o := object(n, "an argument", false, m.err)
		in := input{line: n.Line, name: o.text("name"), kind: o.text("type"), fallback: o.text("default"), needed: o.boolean("rejectNull")}
		for _, c := range o.list("choices") {
			in.choices = append(in.choices, object(c, "a choice", false, m.err).text("value"))
		}
		if o.take("entity") != nil {
			in.kind = "entity"
		}
		a.arguments = append(a.arguments, in)
	}
	return a
}

// actionTask writes the task of one action.
type actionTask struct {
	*action
	*output
	*task
	name, where string
}

func (c *actionTask) note(indent string, line int, format string, args ...any) {
	c.task.line("%s%s", indent, c.output.lost(line, c.where, format, args...))
}

func (c *actionTask) write() {
	c.task.line("# The action %q of %s.", c.title, c.options.Name)
	c.task.line("task %s {", c.quote(c.name))
	if c.take("entity") != nil {
		c.task.err = fmt.Errorf("OliveTin makes an action of it for each entity")
	}
	c.task.line("  command = %s", c.list(c.command()))
	c.task.line("  max_concurrent = %d", c.most)
	c.task.line("  overflow = %q", "reject")
	c.task.line("  timeout = %q", fmt.Sprint(c.timeout, "s"))
	c.task.line("  max_input_bytes = 0")
	c.task.line("  environment = { OLIVETIN = %q }", "1")
	if c.disabled {
		c.task.line("  enabled = false")
	}
	c.rate()
	c.schedule()
	c.others()
	for _, in := range c.arguments {
		c.param(in)
	}
	c.task.line("}")
}

// rate writes how often it may be started.
func (c *actionTask) rate() {
	for i, n := range c.mapping.list("maxRate") {
		o := object(n, "maxRate", false, c.mapping.err)
		limit, text := o.integer("limit"), o.text("duration")
		span, err := time.ParseDuration(text)
		switch {
		case err != nil || span <= 0 || limit <= 0:
			c.note("  ", n.Line, "maxRate: it has no limit and duration that rtask can read")
		case i > 0:
			c.note("  ", n.Line, "maxRate: %d in %s, beside another one: rate_limit is one number", limit, span)
		default:
			c.task.line("  rate_limit = %s", strconv.FormatFloat(float64(limit)/span.Seconds(), 'f', -1, 64)) // never 0, which is no limit
			c.note("  ", n.Line, "maxRate: %d in %s may come at the same time in OliveTin. rate_limit spreads them", limit, span)
		}
	}
}

// schedule writes when it is started by itself. A job that is gets the defaults of all parameters.
func (c *actionTask) schedule() {
	n := c.take("execOnCron")
	if n == nil {
		return
	}
	const otherwise = "write a schedule, see SCHEDULES AND PATHS in rtask.hcl(5)"
	if n.Kind != yaml.SequenceNode {
		c.note("  ", c.lines["execOnCron"], "execOnCron: it is not a list: %s", otherwise)
		return
	}
	for _, in := range c.arguments {
		if in.kind != "html" && in.kind != "confirmation" && in.fallback == "" {
			c.note("  ", c.lines["execOnCron"], "execOnCron: argument %q has no default, which a schedule needs", in.name)
			return
		}
	}
	var times []string
	for _, e := range n.Content {
		when, err := onCalendar(e.Value)
		if c.seconds && !strings.HasPrefix(e.Value, "@") {
			err = fmt.Errorf("with cronSupportForSeconds it begins with a second")
		}
		if err != nil {
			c.note("  ", e.Line, "execOnCron: %q: %v: %s", e.Value, err, otherwise)
			continue
		}
		times = append(times, when)
	}
	if len(times) > 0 {
		c.task.line("  schedule {")
		c.task.line("    on_calendar = %s", c.list(times))
		c.task.line("  }")
	}
}

// others notes what else an action has.
func (c *actionTask) others() {
	for _, other := range []struct{ name, reason string }{
		{"shellAfterCompleted", "see on_success and on_failure, whose tasks get nothing of the output"},
		{"acls", "who may start a task over HTTP is in its api_keys, and which local users may in allow_users and allow_groups"},
		{"enabledExpression", "the task is disabled until somebody enables it"},
		{"execOnStartup", "let a service of systemd run: rtaskctl start " + c.name},
		{"execOnCalendarFile", "write a schedule, see SCHEDULES AND PATHS in rtask.hcl(5)"},
		{"execOnFileCreatedInDir", "write a path, see SCHEDULES AND PATHS in rtask.hcl(5), whose job finds out by itself which file it is"},
		{"execOnFileChangedInDir", "write a path, see SCHEDULES AND PATHS in rtask.hcl(5), whose job finds out by itself which file it is"},
		{"execOnWebhook", "write a webhook, see WEBHOOKS in rtask.hcl(5). All actions of OliveTin share one URL, and each webhook of rtask has its own"},
		{"triggers", "see on_success and on_failure"},
		{"groups", "max_concurrent is of one task"},
		{"justification", "rtask asks for no reason"},
	} {
		if n := c.take(other.name); n != nil && n.Value != "false" {
			c.note("  ", c.lines[other.name], "%s: %s", other.name, other.reason)
		}
	}
	known := []string{
		"id", "title", "icon", "shell", "exec", "timeout", "entity", "hidden", "maxConcurrent", "maxRate", "arguments", "onclick",
		"popupOnStart", "saveLogs", "shellAfterCompleted", "acls", "enabledExpression", "execOnStartup", "execOnCron", "execOnCalendarFile",
		"execOnFileCreatedInDir", "execOnFileChangedInDir", "execOnWebhook", "triggers", "groups", "justification",
	}
	for _, name := range c.unknown(known...) {
		c.note("  ", c.lines[name], "%q: rtask does not know it", name)
	}
}

// param writes an argument.
func (c *actionTask) param(in input) {
	switch in.kind {
	case "html":
		return // a text of the web page
	case "confirmation":
		c.note("  ", in.line, "an argument of type confirmation: rtask does not ask again")
		return
	}
	pattern, err := in.pattern()
	if err != nil {
		c.task.err = fmt.Errorf("argument %q: %w", in.name, err)
		return
	}
	c.task.line("  param %s {", c.quote(in.name))
	switch {
	case len(in.values()) > 0:
		c.task.line("    values = %s", c.list(in.values()))
	case pattern != "" && in.needed:
		c.task.line("    pattern = %s", c.quote(pattern))
	case pattern != "":
		c.task.line("    pattern = %s", c.quote("(?:"+pattern+")?"))
	default:
		if in.needed {
			c.task.line("    pattern = %s", c.quote(`(?s:.+)`))
		}
		c.task.line("    max_length = 16384")
	}
	if in.fallback != "" {
		c.task.line("    default = %s", c.quote(in.fallback))
	}
	c.task.line("  }")
	switch in.kind {
	case "password":
		c.note("  ", in.line, "argument %q: rtask knows no type for passwords, and does not hide its value", in.name)
	case "email", "url", "datetime":
		c.note("  ", in.line, "argument %q: the pattern takes less than OliveTin's type %s", in.name, in.kind)
	}
}

// values are the only values of an argument.
func (in input) values() []string {
	switch {
	case in.kind == "checklist":
		return nil // it has several of them
	case len(in.choices) > 0:
		return in.choices
	case in.kind == "checkbox":
		return []string{"0", "1"}
	}
	return nil
}

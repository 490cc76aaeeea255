package foreign

import (
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// convertHooks turns hooks of adnanh/webhook into tasks.
func convertHooks(root *yaml.Node, options Options) (*Result, error) {
	hooks, err := readHooks(root)
	if err != nil {
		return nil, err
	}
	o := &output{options: options, names: map[string]int{}}
	for _, h := range hooks {
		c := &hookTask{hook: h, output: o, name: o.taskName(h.id, "hook"), where: fmt.Sprintf("hook %q", h.id), task: &task{}}
		c.write()
		o.add(h.line, c.where, c.task, Hook{"/hooks/" + h.id, c.name, webhookName})
	}
	return o.finish(""), nil
}

// webhookName is that of the webhook in the task of a hook.
const webhookName = "hook"

// hookTask writes the task of one hook.
type hookTask struct {
	*hook
	*output
	*task
	name, where string
	// values are what the webhook has for environment, by the names of variables.
	values []variable
}

type variable struct{ name, expr string }

// note writes a comment in place of something that is not carried over. Without a line it is about the hook as a whole.
func (c *hookTask) note(indent string, line int, format string, args ...any) {
	if line == 0 {
		line = c.hook.line
	}
	c.task.line("%s%s", indent, c.output.lost(line, c.where, format, args...))
}

// at is the line of a name.
func (c *hookTask) at(name string) int { return c.hook.lines[name] }

func (c *hookTask) write() {
	c.task.line("# The hook %q of %s.", c.id, c.options.Name)
	c.task.line("task %s {", c.quote(c.name))
	for _, name := range c.unknown {
		c.note("  ", c.at(name), "%q: neither webhook nor rtask knows it", name)
	}
	program := c.program()
	command := c.shell(program)
	c.task.line("  command = %s", c.list(command))
	if c.workdir != "" {
		c.task.line("  workdir = %s", c.quote(c.workdir))
	}
	// webhook runs every request immediately, however many there are, and for as long as it takes.
	c.task.line("  max_concurrent = 0")
	c.task.line("  overflow = %q", "reject")
	c.task.line("  timeout = %q", "infinity")
	c.task.line("")
	c.task.line("  webhook %q {", webhookName)
	c.webhook()
	c.task.line("  }")
	c.task.line("}")
}

// program is the program that a hook runs.
func (c *hookTask) program() string {
	at := c.at("execute-command")
	switch {
	case c.command == "":
		c.task.err = fmt.Errorf("the hook has no execute-command, so webhook runs nothing")
	case c.workdir != "" && !path.IsAbs(c.workdir):
		c.task.err = fmt.Errorf("command-working-directory is relative to the folder where webhook is started. Write it in full")
	case strings.HasPrefix(c.command, "-"):
		c.task.err = fmt.Errorf("execute-command begins with a -, which a shell takes for an option")
	case path.IsAbs(c.command):
	case c.workdir != "":
		return path.Join(c.workdir, c.command)
	case strings.Contains(c.command, "/"):
		c.task.err = fmt.Errorf("execute-command is relative to the folder where webhook is started. Write it in full")
	}
	if c.command != "" && strings.Contains(c.command, " ") {
		c.note("  ", at, "execute-command has a blank in it, and is one name for webhook, too: arguments are in pass-arguments-to-command")
	}
	return c.command
}

// webhook writes what is in the webhook's block.
func (c *hookTask) webhook() {
	condition := c.verify()
	c.task.line("    deletions = true")
	if condition.kind != isTrue {
		c.task.line("    when = %s", wrapped(condition))
	}
	if len(c.values) > 0 {
		c.task.line("    environment = {")
		for _, v := range c.values {
			c.task.line("      %s = %s", v.name, v.expr)
		}
		c.task.line("    }")
	}
	c.contentTypes()
	c.reply()
}

// verify writes how requests are verified, and returns on which condition they trigger the task.
func (c *hookTask) verify() *cond {
	var comments []string
	r := &rules{hook: c.hook, lost: func(line int, format string, args ...any) {
		comments = append(comments, c.output.lost(line, c.where, "trigger-rule: "+format, args...))
	}}
	var v *verifier
	condition := &cond{kind: isTrue}
	if c.rule != nil {
		v, condition = r.split(c.rule)
		if at, err := c.rule.broken(); at != nil {
			r.lost(at.line, "webhook answers 500 where it comes to a match of type %q with an error in it: %v. The whole rule triggers nothing", at.match.kind, err)
			condition = &cond{kind: isFalse}
		}
	}
	switch {
	case v == nil:
		c.task.line("    token = %q # made for this file: whoever knows the URL may call it", c.options.Token())
	case v.hash == "":
		c.task.line("    verify = %q", "gitlab")
		c.task.line("    secrets = %s", c.list(v.secrets))
	default:
		c.task.line("    verify = %q", "hmac")
		c.task.line("    header = %s", c.quote(v.header))
		c.task.line("    hash = %q", v.hash)
		c.task.line("    secrets = %s", c.list(v.secrets))
	}
	c.verbs(v != nil)
	for _, comment := range comments {
		c.task.line("    %s", comment)
	}
	return condition.simple()
}

// verbs writes with which methods the webhook may be called. webhook takes any where nothing is said.
func (c *hookTask) verbs(signed bool) {
	takes := []string{http.MethodPost, http.MethodGet, http.MethodPut, http.MethodPatch, http.MethodDelete}
	why := "rtask takes " + strings.Join(takes, ", ")
	if signed { // and what has no body has nothing to sign
		takes = slices.DeleteFunc(takes, func(m string) bool { return m == http.MethodGet })
		why = "rtask takes " + strings.Join(takes, ", ") + " where requests are signed"
	}
	methods := takes
	if len(c.methods) > 0 {
		methods = nil
		for _, m := range c.methods {
			switch {
			case !slices.Contains(takes, m):
				c.note("    ", c.at("http-methods"), "http-methods: the method %q: %s", m, why)
			case !slices.Contains(methods, m):
				methods = append(methods, m)
			}
		}
	}
	if len(methods) == 0 && c.task.err == nil {
		c.task.err = fmt.Errorf("http-methods has no method that a webhook of rtask may have")
	}
	c.task.line("    methods = %s", c.list(methods))
}

// wrapped is a condition on lines of its own if it is long.
func wrapped(c *cond) string {
	const longest = 110
	text := c.expression()
	if len(text) <= longest || c.kind != allOf && c.kind != anyOf {
		return text
	}
	var parts []string
	operator := " && "
	for _, k := range c.kids {
		part := (&cond{kind: c.kind, kids: []*cond{k}}).strict()
		parts = append(parts, part)
	}
	if c.kind == anyOf {
		operator = " || "
	}
	return "(\n      " + strings.Join(parts, strings.TrimRight(operator, " ")+"\n      ") + "\n    )"
}

// contentTypes notes where webhook takes a body for what it says itself.
func (c *hookTask) contentTypes() {
	if c.contentType != "" {
		c.note("    ", c.at("incoming-payload-content-type"), "incoming-payload-content-type = %q: rtask looks at the body itself, which is JSON or a form", c.contentType)
	}
}

// reply writes what the sender gets.
func (c *hookTask) reply() {
	status := c.status()
	empty := status == http.StatusNoContent || status == http.StatusResetContent // see RFC 9110, sections 15.3.5 and 15.3.6
	contentType := ""
	for _, h := range c.headers {
		if strings.EqualFold(h.name, "Content-Type") {
			contentType = h.value
			continue
		}
		c.note("    ", h.line, "response-headers: %q", h.name)
	}
	switch {
	case !c.hook.output && !c.stream:
		message := c.message
		if empty {
			message = ""
		}
		c.task.line("    respond = %q", "accepted")
		c.task.line("    message = %s", c.quote(message))
		if guess := http.DetectContentType([]byte(message)); contentType == "" && guess != plainText && message != "" {
			contentType = guess // as webhook does
		}
	case empty:
		c.task.line("    respond = %q", "result")
		c.task.line("    message = %q", "")
	default:
		c.task.line("    respond = %q", "output")
		if !c.outputOnError {
			c.note("    ", c.at("include-command-output-in-response"), "include-command-output-in-response: rtask also sends the output of a command that fails")
		}
	}
	if contentType != "" {
		c.task.line("    content_type = %s", c.quote(contentType))
	}
	c.task.line("    status = %d", status)
	if c.mismatch != http.StatusOK && http.StatusText(c.mismatch) != "" { // others are 200
		c.note("    ", c.at("trigger-rule-mismatch-http-response-code"),
			"trigger-rule-mismatch-http-response-code = %d: rtask answers 200 and why it ignored the request, or 401 if the signature is wrong", c.mismatch)
	}
}

// plainText is the type of a message for which rtask is told none.
const plainText = "text/plain; charset=utf-8"

// status is the status of the reply. One that webhook does not know is 200.
func (c *hookTask) status() int {
	switch {
	case http.StatusText(c.success) == "":
		return http.StatusOK
	case c.success < 200 || c.success > 299:
		c.note("    ", c.at("success-http-response-code"), "success-http-response-code = %d: rtask says 2xx of what it accepted", c.success)
		return http.StatusOK
	}
	return c.success
}

package foreign

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// hook is one of adnanh/webhook, see docs/Hook-Definition.md there. Names in its file are the same in both letter cases.
type hook struct {
	line  int
	lines map[string]int // of the names that it has

	id, command, workdir string
	message              string
	headers              []header
	output               bool // the command's output is the reply
	outputOnError        bool // also when it fails
	stream               bool // as it is written (soulteary's fork)
	environment          []argument
	arguments            []argument
	files                []argument
	parsed               []argument // strings that have JSON in them
	rule                 *rule
	mismatch, success    int // statuses; 0: none is said
	soft                 bool
	contentType          string
	methods              []string
	unknown              []string
}

type header struct {
	line        int
	name, value string
}

// argument is a value of a request, see docs/Referencing-Request-Values.md there.
type argument struct {
	line               int
	source, name, envn string
	base64             bool
}

// rule is a trigger rule, see docs/Hook-Rules.md there.
type rule struct {
	line int
	// kind is "and", "or", "not" or "match", and "" of one that says nothing.
	kind  string
	kids  []*rule
	match match
	// more are the names of the rules beside the one that holds.
	more []string
}

type match struct {
	kind, regex, secret, value, ranges string
	parameter                          argument
}

// readHooks reads a list of hooks.
func readHooks(root *yaml.Node) ([]*hook, error) {
	var err error
	var all []*hook
	seen := map[string]bool{}
	for _, n := range root.Content {
		h := readHook(object(n, "a hook", true, &err))
		if err != nil {
			return nil, err
		}
		if seen[h.id] {
			return nil, &Error{h.line, fmt.Sprintf("the hook %q is there twice, and webhook reads no such file", h.id)}
		}
		seen[h.id] = true
		all = append(all, h)
	}
	return all, nil
}

func readHook(m *mapping) *hook {
	known := []string{
		"id", "execute-command", "command-working-directory", "response-message", "response-headers", "include-command-output-in-response",
		"include-command-output-in-response-on-error", "stream-command-output", "pass-environment-to-command", "pass-arguments-to-command",
		"pass-file-to-command", "parse-parameters-as-json", "trigger-rule", "trigger-rule-mismatch-http-response-code",
		"trigger-signature-soft-failures", "incoming-payload-content-type", "success-http-response-code", "http-methods",
	}
	h := &hook{
		line: m.line, lines: m.lines, unknown: m.unknown(known...),
		id: m.text("id"), command: m.text("execute-command"), workdir: m.text("command-working-directory"),
		message: m.text("response-message"),
		output:  m.boolean("include-command-output-in-response"), outputOnError: m.boolean("include-command-output-in-response-on-error"),
		stream:      m.boolean("stream-command-output"),
		environment: readArguments(m, "pass-environment-to-command"), arguments: readArguments(m, "pass-arguments-to-command"),
		files: readArguments(m, "pass-file-to-command"), parsed: readArguments(m, "parse-parameters-as-json"),
		mismatch: m.integer("trigger-rule-mismatch-http-response-code"), success: m.integer("success-http-response-code"),
		soft: m.boolean("trigger-signature-soft-failures"), contentType: m.text("incoming-payload-content-type"),
	}
	for _, n := range m.list("response-headers") {
		o := object(n, "response-headers", true, m.err)
		h.headers = append(h.headers, header{n.Line, o.text("name"), o.text("value")})
	}
	for _, s := range m.texts("http-methods") {
		h.methods = append(h.methods, strings.ToUpper(strings.TrimSpace(s)))
	}
	if n := m.take("trigger-rule"); n != nil {
		h.rule = readRule(n, m.err)
	}
	return h
}

func readArguments(m *mapping, name string) []argument {
	var all []argument
	for _, n := range m.list(name) {
		all = append(all, readArgument(n, name, m.err))
	}
	return all
}

func readArgument(n *yaml.Node, what string, err *error) argument {
	o := object(n, what, true, err)
	return argument{line: n.Line, source: o.text("source"), name: o.text("name"), envn: o.text("envname"), base64: o.boolean("base64decode")}
}

func readRule(n *yaml.Node, err *error) *rule {
	m := object(n, "a rule", true, err)
	r := &rule{line: n.Line}
	for _, kind := range []string{"and", "or", "not", "match"} { // which is the order in which webhook looks for one
		v := m.take(kind)
		switch {
		case v == nil:
			continue
		case r.kind != "":
			r.more = append(r.more, kind)
			continue
		}
		r.kind = kind
		switch kind {
		case "and", "or":
			for _, kid := range m.list(kind) {
				r.kids = append(r.kids, readRule(kid, err))
			}
		case "not":
			r.kids = []*rule{readRule(v, err)}
		case "match":
			r.match = readMatch(v, err)
		}
	}
	r.more = append(r.more, m.unknown("and", "or", "not", "match")...)
	slices.Sort(r.more)
	return r
}

func readMatch(n *yaml.Node, err *error) match {
	m := object(n, "match", true, err)
	r := match{kind: m.text("type"), regex: m.text("regex"), secret: m.text("secret"), value: m.text("value"), ranges: m.text("ip-range")}
	if p := m.take("parameter"); p != nil {
		r.parameter = readArgument(p, "parameter", err)
	}
	return r
}

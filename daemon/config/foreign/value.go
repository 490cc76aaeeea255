package foreign

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/rtask/rtask/sandbox/wording"
)

// value is what an argument is in rtask.
type value struct {
	// expr is an expression of HCL for it. Data that is missing makes it an error. It is "" of a literal and of the raw body.
	expr string
	// text says that it is a string if it is there; other values may be anything that JSON has.
	text bool
	// literal is a string of the configuration, and raw the body as it came, which is the job's standard input.
	literal *string
	raw     bool
}

// value returns what an argument is in rtask, or why it has nothing for it.
func (h *hook) value(a argument) (value, error) {
	switch a.source {
	case "header", "query", "url", "payload":
		return h.member(a)
	case "request":
		switch strings.ToLower(a.name) {
		case "method":
			return value{expr: "method", text: true}, nil
		case "remote-addr":
			return value{}, fmt.Errorf("remote-addr is an address and a port in webhook, and remote_addr in rtask is the address alone")
		}
		return value{}, fmt.Errorf("webhook knows no %q of a request", a.name)
	case "string":
		return value{literal: &a.name}, nil
	case "raw-request-body":
		return value{raw: true}, nil
	case "entire-payload":
		if h.isXML() {
			return value{}, errXML
		}
		return value{expr: "jsonencode(body)", text: true}, nil
	case "entire-query":
		return value{expr: "jsonencode(query)", text: true}, nil
	case "entire-headers":
		return value{}, fmt.Errorf("rtask hands on single headers only, and not all of them as JSON")
	}
	return value{}, fmt.Errorf("webhook knows no source %q", a.source)
}

var errXML = fmt.Errorf("rtask reads JSON and forms, and no XML")

// isXML says that bodies are read as XML, whatever they say they are.
func (h *hook) isXML() bool {
	return strings.Contains(h.contentType, "xml") && !strings.Contains(h.contentType, "json") && !strings.Contains(h.contentType, "x-www-form-urlencoded")
}

// member is a value of the headers, of the query or of the body.
func (h *hook) member(a argument) (value, error) {
	if a.source == "payload" && h.isXML() {
		return value{}, errXML
	}
	for _, p := range h.parsed {
		if !sameSource(p.source, a.source) || strings.Contains(p.name, ".") {
			continue
		}
		rest, inside := strings.CutPrefix(a.name, p.name+".")
		if a.name == p.name || inside {
			outer, _ := one(p.source, p.name)
			expr := "jsondecode(" + outer + ")"
			if inside {
				expr = dotted(expr, rest)
			}
			return value{expr: expr}, nil
		}
	}
	if a.source == "payload" && (a.name == "root" || strings.HasPrefix(a.name, "root.")) {
		rest := strings.TrimPrefix(strings.TrimPrefix(a.name, "root"), ".")
		if first, _, _ := strings.Cut(rest, "."); !isIndex(first) {
			return value{}, fmt.Errorf("root is the whole list in webhook where a body is one, and %q is nothing in rtask", a.name)
		}
		return value{expr: "try(" + dotted("body.root", rest) + ", " + dotted("body", rest) + ")"}, nil
	}
	expr, text := one(a.source, a.name)
	return value{expr: expr, text: text}, nil
}

func one(source, name string) (expr string, text bool) {
	switch source {
	case "header":
		return "header(" + wording.HCL(name) + ")", true
	case "payload":
		return dotted("body", name), false
	default: // it is one value, also where its name has dots
		return step("query", name), true
	}
}

func sameSource(a, b string) bool {
	name := func(s string) string {
		if s == "url" {
			return "query"
		}
		return s
	}
	return name(a) == name(b)
}

// dotted is what a name with dots finds in expr.
func dotted(expr, name string) string {
	for _, part := range strings.Split(name, ".") {
		expr = step(expr, part)
	}
	return expr
}

func step(expr, name string) string {
	switch {
	case isIndex(name):
		return expr + "[" + name + "]"
	case identifier(name):
		return expr + "." + name
	default:
		return expr + "[" + wording.HCL(name) + "]"
	}
}

// isIndex reports whether s may be the place of an element in a list.
func isIndex(s string) bool {
	i, err := strconv.ParseUint(s, 10, 31)
	return err == nil && strconv.FormatUint(i, 10) == s
}

// identifier reports whether s is a name for HCL, a shell and the environment.
func identifier(s string) bool { return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`).MatchString(s) }

// written is v as webhook writes it: objects, lists and null as JSON, what is missing as nothing.
func (v value) written() string {
	if v.text {
		return "try(" + v.expr + `, "")`
	}
	return `try(join("", [` + v.expr + "]), jsonencode(" + v.expr + `), "")`
}

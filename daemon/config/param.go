package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"

	"github.com/rtask/rtask/sandbox/wording"
)

const (
	// maxParamLength is the largest max_length, in characters.
	maxParamLength = 16 << 10
	// maxParams is how many parameters a task may have.
	maxParams = 100
)

// Param is one parameter of a task: what a request may say in words of its own. It reaches the job as a variable of its
// environment and never as an argument.
type Param struct {
	// Name is how a request calls it; see validParam.
	Name string
	// Values are the only ones it may have; none: any that Pattern, which matches it from end to end, and MaxLength, in
	// characters, let in.
	Values    []string
	Pattern   string
	MaxLength int
	// Default is its value where a request does not say; nil: a request has to.
	Default *string

	pattern *regexp.Regexp // of Pattern, anchored; nil: there is none
}

// Variable is the name of the job's variable.
func (p *Param) Variable() string {
	return "RTASK_PARAM_" + strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_"))
}

// check returns why a value cannot be p's. The text does not repeat it: it may be a secret, or a stranger's.
func (p *Param) check(value string) error {
	switch {
	case !utf8.ValidString(value):
		return errors.New("is not UTF-8")
	case strings.ContainsRune(value, 0):
		return errors.New("has a NUL byte in it")
	case len(p.Values) > 0:
		if slices.Contains(p.Values, value) {
			return nil
		}
		quoted := make([]string, len(p.Values))
		for i, v := range p.Values {
			quoted[i] = strconv.Quote(v)
		}
		return fmt.Errorf("must be %s", strings.Join(quoted, " or "))
	case utf8.RuneCountInString(value) > p.MaxLength:
		return fmt.Errorf("is longer than %d characters", p.MaxLength)
	case p.pattern != nil && !p.pattern.MatchString(value):
		return fmt.Errorf("does not match %s", p.Pattern)
	}
	return nil
}

// Parameter is one NAME=VALUE of a request.
type Parameter struct{ Name, Value string }

// Parameters checks what a request says and returns the variables that the job gets, as NAME=value in the order of the
// configuration. The error is about the first that is wrong, and says what would be right.
func (t *Task) Parameters(given []Parameter) ([]string, error) {
	values := map[string]string{}
	for _, g := range given {
		if !slices.ContainsFunc(t.Params, func(p *Param) bool { return p.Name == g.Name }) {
			return nil, t.unknownParam(g.Name)
		}
		if _, twice := values[g.Name]; twice {
			return nil, fmt.Errorf("the parameter %s is given twice", g.Name)
		}
		values[g.Name] = g.Value
	}
	var env []string
	for _, p := range t.Params {
		value, ok := values[p.Name]
		switch {
		case !ok && p.Default == nil:
			return nil, fmt.Errorf("the parameter %s is missing", p.Name)
		case !ok:
			value = *p.Default
		default:
			if err := p.check(value); err != nil {
				return nil, fmt.Errorf("the parameter %s %w", p.Name, err)
			}
		}
		env = append(env, p.Variable()+"="+value)
	}
	return env, nil
}

func (t *Task) unknownParam(name string) error {
	const longest = 64
	shown := wording.Printable(name, "\t")
	if runes := []rune(shown); len(runes) > longest {
		shown = string(runes[:longest]) + "…"
	}
	if len(t.Params) == 0 {
		return fmt.Errorf("there is no parameter %q: the task takes none", shown)
	}
	var names []string
	for _, p := range t.Params {
		names = append(names, p.Name)
	}
	return fmt.Errorf("there is no parameter %q; the task takes %s", shown, strings.Join(names, ", "))
}

// validParam reports whether s can be the name of a parameter: [A-Za-z][A-Za-z0-9_-]{0,62}.
func validParam(s string) bool {
	if s == "" || len(s) > maxNameLength {
		return false
	}
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '_' && c != '-') {
			return false
		}
	}
	return true
}

// paramScope is what may stand in param "NAME" { … }.
func paramScope() scope[Param] {
	return scope[Param]{
		where: inParam,
		attributes: []attribute[Param]{
			{
				name: "values", example: `["staging", "prod"]`,
				kind: texts(func(d *decoder, v value, p *Param) {
					d.names(v, &p.Values, func(value, string) bool { return true })
					if len(p.Values) == 0 {
						d.errorf(v.rng(), v.usage(), "values is empty, so it could have none")
					}
				}),
				doc: "The only values it may have.",
			},
			{
				name: "pattern", example: `"[0-9a-f]{40}"`,
				kind: text(func(d *decoder, v value, p *Param) { d.pattern(v, p) }),
				doc:  "A regular expression, RE2 (https://github.com/google/re2/wiki/Syntax), that a value matches from its beginning to its end.",
			},
			{
				name: "max_length", example: "64", fallback: "1024",
				kind: integer(func(p *Param) *int { return &p.MaxLength }, 1, maxParamLength),
				doc:  "The most characters a value may have. With `values` it means nothing.",
			},
			{
				name: "default", example: `"staging"`,
				kind: text(func(d *decoder, v value, p *Param) {
					s, ok := d.string(v, true)
					if !ok {
						return
					}
					if err := p.check(s); err != nil {
						d.errorf(v.rng(), "A default is held to the same rules as what a request says.", "the default of %s %v", p.Name, err)
						return
					}
					p.Default = &s
				}),
				doc: "Its value where a request does not say. Without it, a request has to.",
			},
		},
	}
}

// pattern sets the expression of p.
func (d *decoder) pattern(v value, p *Param) {
	text, ok := d.string(v, false)
	if !ok {
		return
	}
	// By itself first: what closes the group below and opens another one would not be held at both ends.
	if _, err := regexp.Compile(text); err != nil {
		d.errorf(v.rng(), "It is a regular expression of RE2: https://github.com/google/re2/wiki/Syntax", "pattern cannot be used: %v", err)
		return
	}
	anchored, err := regexp.Compile(`\A(?:` + text + `)\z`)
	if err != nil {
		d.errorf(v.rng(), "", "pattern cannot be used: %v", err)
		return
	}
	p.Pattern, p.pattern = text, anchored
}

// param decodes one param block.
func (d *decoder) param(found *hcl.Block, t *draft) {
	label := found.LabelRanges[0]
	p := &Param{Name: found.Labels[0]}
	d.tables.param.begin(p)
	decodeBody(d, found.Body, d.tables.param, p)
	same := func(o *Param) bool { return o.Variable() == p.Variable() }
	switch i := slices.IndexFunc(t.Params, same); {
	case !validParam(p.Name):
		d.errorf(label, fmt.Sprintf("A name is 1 to %d of A–Z, a–z, 0–9, _ and -, and begins with a letter.", maxNameLength),
			"%q cannot be the name of a parameter", p.Name)
	case i >= 0 && t.Params[i].Name == p.Name:
		d.errorf(label, "", "param %q is given twice", p.Name)
	case i >= 0:
		d.errorf(label, "", "param %q and param %q would both be %s", t.Params[i].Name, p.Name, p.Variable())
	case len(p.Values) > 0 && p.Pattern != "":
		d.errorf(label, "", "param %q has both values and a pattern: one of them is enough", p.Name)
	case len(t.Params) == maxParams:
		d.errorf(label, "", "a task has %d parameters at most", maxParams)
	default:
		t.Params = append(t.Params, p)
	}
}

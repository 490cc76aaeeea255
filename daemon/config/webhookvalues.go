package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/rtask/rtask/daemon/expression"
	"github.com/rtask/rtask/sandbox/wording"
)

// Values are what a webhook reads of a request besides what its kind says. A field that is nil is not given.
type Values struct {
	// Event, Ref and ID are where these stand, instead of what the kind says.
	Event, Ref, ID *expression.Expression
	// When is what has to be true of a request.
	When *expression.Expression
	// Environment are variables of the job, and Params the task's parameters, each in the order of the file.
	Environment, Params []Computed
}

// Computed is a name with the value that an expression comes to.
type Computed struct {
	Name string
	*expression.Expression
	// Pos is where it stands.
	Pos Pos
}

// Expressions are all of them.
func (v *Values) Expressions() []*expression.Expression {
	all := []*expression.Expression{v.Event, v.Ref, v.ID, v.When}
	for _, one := range slices.Concat(v.Environment, v.Params) {
		all = append(all, one.Expression)
	}
	return slices.DeleteFunc(all, func(e *expression.Expression) bool { return e == nil })
}

// hideStrings puts "…" in place of the strings in expressions that may have secrets in them.
func (v *Values) hideStrings(settings map[string]cty.Value, block string) {
	hidden := func(e *expression.Expression) cty.Value { return cty.StringVal(e.WithoutStrings()).Mark(asWritten{}) }
	for name, e := range map[string]*expression.Expression{"event": v.Event, "ref": v.Ref, "id": v.ID, "when": v.When} {
		if e != nil {
			settings[block+"."+name] = hidden(e)
		}
	}
	for name, all := range map[string][]Computed{"environment": v.Environment, "params": v.Params} {
		if len(all) == 0 {
			continue
		}
		members := map[string]cty.Value{}
		for _, one := range all {
			members[one.Name] = hidden(one.Expression)
		}
		settings[block+"."+name] = cty.ObjectVal(members)
	}
}

// maxComputed is how many variables or parameters a webhook may have.
const maxComputed = 64

// placeAttributes say where a request says what happened, for senders that rtask does not know.
func placeAttributes() []attribute[hookDraft] {
	at := func(field func(*hookDraft) **expression.Expression) kind[hookDraft] {
		return kind[hookDraft]{word: "expression", overRequest: true, decode: func(d *decoder, v value, h *hookDraft) {
			*field(h) = d.whole(v, h, expression.Text)
		}}
	}
	return []attribute[hookDraft]{
		{
			name: "event", example: `header("X-Event")`, otherwise: "as the sender is known to say it",
			kind: at(func(h *hookDraft) **expression.Expression { return &h.Event }),
			doc: "Where the name of the event stands, instead of where rtask looks for it: see [EXPRESSIONS]. In `event`, `ref` and `id` " +
				"the names `event` and `ref` are what rtask found itself. What is missing, or is no line of text, is no event.",
		},
		{
			name: "ref", example: `"refs/heads/${body.branch}"`, otherwise: "as the sender is known to say it",
			kind: at(func(h *hookDraft) **expression.Expression { return &h.Ref }),
			doc: "Where the branch or the tag stands, as `event`. With it, `refs` may have any text: a name is compared as the sender " +
				"writes it, and `main` is not `refs/heads/main`.",
		},
		{
			name: "id", example: `header("X-Delivery")`, otherwise: "as the sender is known to say it",
			kind: at(func(h *hookDraft) **expression.Expression { return &h.ID }),
			doc: "Where the sender's name for the delivery stands, as `event`. Where requests are signed and it reads the body and nothing " +
				"else, the id is signed, too: a second delivery with the same id is a repeat of the first, see `replay`. Of `twilio` and " +
				"`mailgun` it is not: they do not sign the body as it is.",
		},
	}
}

// valueAttributes are a condition, and the values that a job or its parameters get.
func valueAttributes() []attribute[hookDraft] {
	return []attribute[hookDraft]{
		{
			name: "when", example: `body.ref == "refs/heads/main"`,
			kind: kind[hookDraft]{word: "expression", overRequest: true, decode: func(d *decoder, v value, h *hookDraft) {
				h.When = d.whole(v, h, expression.Condition)
			}},
			doc: "What has to be true of a request, see [EXPRESSIONS]. It is evaluated after the signature, `events` and `refs`. A " +
				"request of which it is false, or that does not have what it reads, is answered with `{\"status\":\"ignored\"}` and the reason.",
		},
		{
			name: "environment", example: `{ TAG = body.release.tag_name }`,
			kind: kind[hookDraft]{word: "object of expressions", overRequest: true, decode: func(d *decoder, v value, h *hookDraft) {
				h.Environment = d.computed(v, h, func(key hcl.Expression) (string, bool) { return d.tellable(key) })
			}},
			doc: "Variables of the job's environment with values of the request, see [EXPRESSIONS]. They replace those of the task. A " +
				"request without what a value reads is refused with 400, unless `try` says what holds then. A value has 64 KiB at most, " +
				"and no NUL; it may have line breaks. Names that change what programs are or do (`PATH`, `LD_PRELOAD`, `BASH_ENV`, " +
				"`PYTHONPATH`, `GIT_SSH_COMMAND` and many more) cannot be among them.",
		},
		{
			name: "params", example: `{ version = body.release.tag_name }`,
			kind: kind[hookDraft]{word: "object of expressions", overRequest: true, decode: func(d *decoder, v value, h *hookDraft) {
				h.Params = d.computed(v, h, func(key hcl.Expression) (string, bool) { return d.key(key, "the name of a parameter") })
			}},
			doc: "Parameters of the task with values of the request, as `environment`. Each is checked as the `param` of the task says, and " +
				"a request whose value does not pass is refused with 400.",
		},
	}
}

// whole compiles an attribute that is an expression.
func (d *decoder) whole(v value, h *hookDraft, want expression.Type) *expression.Expression {
	e := d.expression(v, h, want, true)
	if e != nil {
		d.note(v.name, cty.StringVal(e.Native()).Mark(asWritten{}))
	}
	return e
}

// expression compiles the value of an attribute. In HCL's JSON syntax a string with ${…} in it is a template, as everywhere; with bare,
// one without is an expression itself.
func (d *decoder) expression(v value, h *hookDraft, want expression.Type, bare bool) *expression.Expression {
	src := expression.Source{
		Name: v.name, File: d.source.name, Start: v.rng().Start, Text: []byte(d.text(v.rng())), Secretive: !h.Scheme.Kind.Signed(),
	}
	if _, native := v.expr.(hclsyntax.Expression); !native {
		raw, diags := v.expr.Value(nil)
		switch {
		case diags.HasErrors():
			d.syntax(diags)
			return nil
		case raw.IsNull():
			d.errorf(v.rng(), "Leave it out, or write an expression.", "%s is null", v.name)
			return nil
		case raw.Type() == cty.String:
			src.Text = []byte(raw.AsString())
			src.Start.Byte, src.Start.Column = src.Start.Byte+1, src.Start.Column+1
			src.Template = !bare || strings.Contains(raw.AsString(), "${")
		}
	} else if strings.HasPrefix(string(src.Text), "<<") {
		src.Text = append(src.Text, '\n') // which ends it
	}
	e, diags := expression.Compile(src, want)
	d.syntax(diags)
	if diags.HasErrors() {
		return nil
	}
	return e
}

// computed reads an object whose values are expressions.
func (d *decoder) computed(v value, h *hookDraft, name func(hcl.Expression) (string, bool)) []Computed {
	pairs, diags := hcl.ExprMap(v.expr)
	if diags.HasErrors() {
		d.errorf(v.rng(), v.usage(), "%s must be an object", v.name)
		return nil
	}
	if len(pairs) > maxComputed {
		d.errorf(v.rng(), "", "%s has more than %d names", v.name, maxComputed)
		return nil
	}
	var all []Computed
	shown := map[string]cty.Value{}
	for _, p := range pairs {
		n, ok := name(p.Key)
		if !ok {
			continue
		}
		if _, twice := shown[n]; twice {
			d.errorf(p.Key.Range(), "", "%s has %s twice", v.name, n)
			continue
		}
		e := d.expression(value{name: v.name + " " + n, expr: p.Value}, h, expression.Text, false)
		shown[n] = cty.NullVal(cty.String)
		if e != nil {
			shown[n] = cty.StringVal(e.Native()).Mark(asWritten{})
			all = append(all, Computed{Name: n, Expression: e, Pos: d.pos(p.Value.Range())})
		}
	}
	d.note(v.name, cty.ObjectVal(shown))
	return all
}

// tellable is variable, for one whose value a stranger writes.
func (d *decoder) tellable(key hcl.Expression) (string, bool) {
	name, ok := d.variable(key)
	if ok && steers(name) {
		d.errorf(key.Range(), fmt.Sprintf("Give it a name of its own, for example HOOK_%s, and read that in the command.", strings.ToUpper(name)),
			"environment: %s changes what programs do, so a request must not set it", name)
		return "", false
	}
	return name, ok
}

// checkParams reports what a webhook says of parameters that its task does not have, and those that it does not say and that have no
// default.
func (d *decoder) checkParams(t *draft) {
	report := func(w *Webhook, at Pos, detail, format string, args ...any) {
		line := d.source.line(at.Line)
		if at != w.Pos && !w.Scheme.Kind.Signed() { // as hideSecrets
			line = ""
		}
		d.diags = append(d.diags, Diagnostic{
			Summary: fmt.Sprintf(format, args...), Detail: detail, File: at.File, Line: at.Line, Column: at.Column, Source: line,
		})
	}
	var names []string
	for _, p := range t.Params {
		names = append(names, p.Name)
	}
	for _, w := range t.Webhooks {
		said := map[string]bool{}
		for _, one := range w.Params {
			said[one.Name] = true
			switch near := wording.Nearest(one.Name, slices.Values(names)); {
			case slices.Contains(names, one.Name):
			case len(near) > 0:
				report(w, one.Pos, fmt.Sprintf("Did you mean %q?", near[0]), "params: task %q has no param %q", t.Name, one.Name)
			default:
				report(w, one.Pos, fmt.Sprintf("Write in the task: param %q { … }", one.Name), "params: task %q has no param %q", t.Name, one.Name)
			}
		}
		i := slices.IndexFunc(t.Params, func(p *Param) bool { return p.Default == nil && !said[p.Name] })
		if i >= 0 {
			name := t.Params[i].Name
			report(w, w.Pos, fmt.Sprintf("Give it a default, or say in the webhook: params = { %s = body.… }", name),
				"webhook %q could start nothing: param %q has no default, and params does not say it", w.Name, name)
		}
	}
}

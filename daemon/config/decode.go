package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/rtask/rtask/sandbox/wording"
)

// attribute is one NAME = VALUE that may stand in a T.
type attribute[T any] struct {
	name string
	kind[T]
	// example is a value as it is written in a file.
	example string
	// fallback is the value where nothing is said, as it is written in a file; "": there is none that could be written, and
	// otherwise may say in words what holds.
	fallback, otherwise string
	// doc is what it means, for the manual, in sentences of which the first says it in short. What may stand in it says
	// packaging/manual.
	doc string
	// directive is the systemd directive of the same meaning, of what a command can be given, too; see Properties.
	directive string
	// inherit says that it may stand in defaults too. Attributes of tasks only.
	inherit bool
}

// set sets an attribute to a value out of a table, as it is written in a file.
func set[T any](a attribute[T], text string, t *T) {
	d := &decoder{source: &source{name: a.name, data: []byte(text)}, tabled: true}
	if a.decode(d, value{name: a.name, expr: tabled(text)}, t); len(d.diags) > 0 {
		panic(d.diags.Error()) // every load tries all of them
	}
}

// begin makes t what it is where nothing is said.
func (s scope[T]) begin(t *T) {
	for _, a := range s.attributes {
		if a.fallback != "" {
			set(a, a.fallback, t)
		}
	}
}

// tabled is a value out of a table.
func tabled(text string) hclsyntax.Expression {
	expr, diags := hclsyntax.ParseExpression([]byte(text), "", hcl.InitialPos)
	if diags.HasErrors() {
		panic(diags.Error())
	}
	return expr
}

// block is one NAME { … } that may stand in a T.
type block[T any] struct {
	name string
	// label is what the text between name and brace stands for, "" where there is none.
	label string
	// decode is as that of an attribute.
	decode func(d *decoder, b *hcl.Block, t *T)
}

// scope is all that may stand in one place.
type scope[T any] struct {
	// where completes "belongs in".
	where      string
	attributes []attribute[T]
	blocks     []block[T]
}

// names are the names of all that may stand in s.
func (s scope[T]) names() []string {
	var names []string
	for _, a := range s.attributes {
		names = append(names, a.name)
	}
	for _, b := range s.blocks {
		names = append(names, b.name)
	}
	return names
}

// header is how a block begins.
func (b block[T]) header() string {
	if b.label == "" {
		return b.name + " { … }"
	}
	return fmt.Sprintf("%s %q { … }", b.name, b.label)
}

// decoder reads one file and gathers what is wrong with it.
type decoder struct {
	source *source
	opts   Options
	diags  Diagnostics
	// tabled says that it reads what a table of rtask's own has.
	tabled bool
	tables *tables
	// written are the values of what is being decoded, and path is the blocks in it that are; see wrote.
	written written
	path    []string
	// places are where the attributes of what is being decoded stand, by their names.
	places map[string]hcl.Range
	// groups and roleTasks are what roles name; see checkRoles.
	groups, roleTasks []mention
	// events are the calendar events of its tasks; see checkCalendars.
	events []event
}

// errorAt reports an error at the byte at offset.
func (d *decoder) errorAt(offset int, summary, detail string) {
	d.report(SeverityError, offset, summary, detail)
}

// errorf reports an error at the beginning of r.
func (d *decoder) errorf(r hcl.Range, detail, format string, args ...any) {
	d.report(SeverityError, r.Start.Byte, fmt.Sprintf(format, args...), detail)
}

// warnf reports a warning at the beginning of r.
func (d *decoder) warnf(r hcl.Range, detail, format string, args ...any) {
	d.report(SeverityWarning, r.Start.Byte, fmt.Sprintf(format, args...), detail)
}

func (d *decoder) report(severity Severity, offset int, summary, detail string) {
	pos, line := d.source.place(offset)
	d.diags = append(d.diags, Diagnostic{
		Severity: severity, Summary: summary, Detail: detail,
		File: pos.File, Line: pos.Line, Column: pos.Column, Source: line,
	})
}

// pos is where r begins.
func (d *decoder) pos(r hcl.Range) Pos {
	pos, _ := d.source.place(r.Start.Byte)
	return pos
}

// decodeBody decodes all of body into t, in the order of the tables of s, and reports what s does not name.
// It returns false if body cannot be read at all, which is reported too.
func decodeBody[T any](d *decoder, body hcl.Body, s scope[T], t *T) bool {
	var schema hcl.BodySchema
	for _, a := range s.attributes {
		schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: a.name})
	}
	for _, b := range s.blocks {
		header := hcl.BlockHeaderSchema{Type: b.name}
		if b.label != "" {
			header.LabelNames = []string{b.label}
		}
		schema.Blocks = append(schema.Blocks, header)
	}
	content, _, diags := body.PartialContent(&schema)
	if native, ok := body.(*hclsyntax.Body); ok {
		// All that PartialContent finds wrong here is the number of labels, which checkNative does.
		checkNative(d, native, s)
	} else if d.syntax(diags); !checkJSON(d, body, s) {
		return false
	}
	for _, a := range s.attributes {
		if found, ok := content.Attributes[a.name]; ok {
			a.decode(d, value{name: a.name, example: a.example, expr: found.Expr}, t)
			d.wrote(a.name, found.Expr)
		}
	}
	for _, b := range s.blocks {
		first := ""
		for _, found := range content.Blocks.OfType(b.name) {
			switch {
			case b.label == "" && first != "":
				d.errorf(found.TypeRange, "The first is at "+first+".", "%s is given twice", b.name)
			default:
				first = d.pos(found.TypeRange).String()
				outer := d.path
				name := b.name
				if b.label != "" {
					name += " " + wording.HCL(found.Labels[0])
				}
				d.path = append(slices.Clone(outer), name)
				b.decode(d, found, t)
				d.path = outer
			}
		}
	}
	return true
}

// checkNative reports each name in body that s does not have, or has in another form.
func checkNative[T any](d *decoder, body *hclsyntax.Body, s scope[T]) {
	blocks := map[string]block[T]{}
	for _, b := range s.blocks {
		blocks[b.name] = b
	}
	examples := map[string]string{}
	for _, a := range s.attributes {
		examples[a.name] = a.example
	}
	for name, found := range body.Attributes {
		if b, ok := blocks[name]; ok {
			d.errorf(found.NameRange, "Write: "+b.header(), "%s is a block, not a value", name)
		} else if _, ok := examples[name]; !ok {
			unknown(d, found.NameRange, name, s)
		}
	}
	for _, found := range body.Blocks {
		b, ok := blocks[found.Type]
		if example, isAttribute := examples[found.Type]; isAttribute {
			d.errorf(found.TypeRange, fmt.Sprintf("Write: %s = %s", found.Type, example), "%s is a value, not a block", found.Type)
			continue
		}
		if !ok {
			unknown(d, found.TypeRange, found.Type, s)
			continue
		}
		switch want := min(len(b.label), 1); {
		case len(found.Labels) < want:
			d.errorf(found.TypeRange, "Write: "+b.header(), "%s has no name", found.Type)
		case len(found.Labels) > want:
			d.errorf(found.LabelRanges[want], "Write: "+b.header(), "%q is too much here", found.Labels[want])
		}
	}
}

// checkJSON is checkNative for JSON, where blocks and values look the same. It returns false for what is no object.
func checkJSON[T any](d *decoder, body hcl.Body, s scope[T]) bool {
	found, diags := body.JustAttributes()
	if diags.HasErrors() && len(found) == 0 {
		d.syntax(diags)
		return false
	}
	labels := map[string]int{}
	for _, name := range s.names() {
		labels[name] = -1
	}
	for _, b := range s.blocks {
		labels[b.name] = min(len(b.label), 1)
	}
	for name, a := range found {
		n, ok := labels[name]
		if !ok {
			unknown(d, a.NameRange, name, s)
		} else if n >= 0 {
			d.refuseNull(name, a.Expr, n)
		}
	}
	return true
}

// refuseNull reports nulls that stand for a block below n labels. HCL would leave such a block out without a word; where a
// label is missing, or in a list, it says so itself.
func (d *decoder) refuseNull(name string, expr hcl.Expression, n int) {
	if n == 0 {
		if v, diags := expr.Value(nil); !diags.HasErrors() && v.IsNull() {
			d.errorf(expr.Range(), "Leave it out, or write an object.", "%s is null", name)
		}
		return
	}
	objects, diags := hcl.ExprList(expr)
	if diags.HasErrors() {
		objects = []hcl.Expression{expr}
	}
	for _, o := range objects {
		// What is no object here has no pairs, and HCL reports it.
		pairs, _ := hcl.ExprMap(o)
		for _, p := range pairs {
			d.refuseNull(name, p.Value, n-1)
		}
	}
}

// unknown reports a name that s does not have, with the nearest that it has or the place that has it.
func unknown[T any](d *decoder, r hcl.Range, name string, s scope[T]) {
	detail := ""
	if near := nearest(name, s.names()); near != "" {
		detail = fmt.Sprintf("Did you mean %q?", near)
	} else if where, proper := d.tables.home(name); where != "" && where != s.where {
		detail = fmt.Sprintf("%s belongs in %s.", proper, where)
		if s.where == inDefaults && where == inTask {
			detail = "It cannot be a default: each task has its own."
		}
	}
	d.errorf(r, detail, "unknown name %q in %s", name, s.where)
}

// home returns the place that has name, and the name as it is written there, or "".
func (t *tables) home(name string) (where, proper string) {
	for _, p := range t.places() {
		for _, n := range p.names {
			if plainName(n) == plainName(name) {
				return p.where, n
			}
		}
	}
	return "", ""
}

// nearest returns the one of names that somebody who wrote name most likely meant, or "".
func nearest(name string, names []string) string {
	near := wording.Nearest(name, slices.Values(names))
	if len(near) == 0 {
		return ""
	}
	return near[0]
}

// plainName makes MemoryMax, memory-max and memory_max the same.
func plainName(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s))
}

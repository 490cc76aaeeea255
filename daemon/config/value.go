package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// maxArgument is the longest argument or NAME=value that execve(2) takes, without its NUL: 32 pages of 4 KiB.
const maxArgument = 32*4096 - 1

// value is what stands after a name.
type value struct {
	// name is what the value is called in messages.
	name string
	// example is a right value as it is written in a file.
	example string
	// property says that it stands on a command line.
	property bool
	expr     hcl.Expression
}

func (v value) rng() hcl.Range { return v.expr.Range() }

// usage shows what would be right.
func (v value) usage() string {
	if v.example == "" {
		return ""
	}
	if v.property {
		return fmt.Sprintf("Write for example: %s=%s", v.name, v.example)
	}
	return fmt.Sprintf("Write for example: %s = %s", v.name, v.example)
}

// element is one part of v, called name.
func (v value) element(name string, expr hcl.Expression) value {
	return value{name: name, property: v.property, expr: expr}
}

// wrong reports that v is not a want.
func (d *decoder) wrong(v value, want, got string) {
	detail := v.usage()
	if got == "a number" && want == "a string" {
		detail = fmt.Sprintf("Put it in quotes: %q", d.text(v.rng()))
	}
	d.errorf(v.rng(), detail, "%s must be %s, not %s", v.name, want, got)
}

// text is what stands in the file at r.
func (d *decoder) text(r hcl.Range) string {
	start := min(max(r.Start.Byte, 0), len(d.source.data))
	return string(d.source.data[start:min(max(r.End.Byte, start), len(d.source.data))])
}

// literal reports whether expr is a plain value or a list or object; else it says what is wrong. Nothing is offered
// that would have to be computed.
func (d *decoder) literal(expr hcl.Expression) bool {
	if d.source.templated(expr.Range()) {
		return false
	}
	const plain = "A value is a string in quotes, a number, true, false, a list [ … ] or an object { … }."
	switch e := expr.(type) {
	case *hclsyntax.LiteralValueExpr, *hclsyntax.TemplateExpr, *hclsyntax.TupleConsExpr, *hclsyntax.ObjectConsExpr:
		return true
	case *hclsyntax.UnaryOpExpr:
		if literal, ok := e.Val.(*hclsyntax.LiteralValueExpr); ok && literal.Val.Type() == cty.Number {
			return true
		}
	case *hclsyntax.ScopeTraversalExpr:
		word := d.text(e.Range())
		d.errorf(e.Range(), fmt.Sprintf("Put a string in quotes: %q", word), "unknown variable %s: there are no variables here", word)
		return false
	case *hclsyntax.FunctionCallExpr:
		d.errorf(e.Range(), plain, "unknown function %s: there are no functions here", e.Name)
		return false
	case hclsyntax.Expression:
	default:
		return d.literalJSON(expr)
	}
	d.errorf(expr.Range(), plain, "a value must be written out, not computed")
	return false
}

// literalJSON is literal for HCL's JSON syntax, whose strings are templates.
func (d *decoder) literalJSON(expr hcl.Expression) bool {
	raw, diags := expr.Value(nil)
	if diags.HasErrors() {
		d.syntax(diags)
		return false
	}
	if raw.IsNull() || raw.Type() != cty.String {
		return true
	}
	tokens, _ := hclsyntax.LexTemplate([]byte(raw.AsString()), d.source.name, hcl.InitialPos)
	for _, t := range tokens {
		if t.Type == hclsyntax.TokenTemplateInterp || t.Type == hclsyntax.TokenTemplateControl {
			d.template(expr.Range().Start.Byte, t.Type == hclsyntax.TokenTemplateControl)
			return false
		}
	}
	return true
}

// scalar returns v if it is neither list nor object, and a word for what it is. What is wrong is reported.
func (d *decoder) scalar(v value) (_ cty.Value, kind string, ok bool) {
	if !d.literal(v.expr) {
		return cty.NilVal, "", false
	}
	if list, diags := hcl.ExprList(v.expr); !diags.HasErrors() && list != nil {
		return cty.NilVal, "a list", true
	}
	if pairs, diags := hcl.ExprMap(v.expr); !diags.HasErrors() && pairs != nil {
		return cty.NilVal, "an object", true
	}
	got, diags := v.expr.Value(&hcl.EvalContext{})
	if diags.HasErrors() {
		d.syntax(diags)
		return cty.NilVal, "", false
	}
	switch {
	case got.IsNull():
		return cty.NilVal, "null", true
	case !got.IsKnown():
		return cty.NilVal, "unknown", true
	case got.Type() == cty.String:
		return got, "a string", true
	case got.Type() == cty.Number:
		return got, "a number", true
	case got.Type() == cty.Bool:
		return got, "true or false", true
	case got.Type().IsTupleType():
		return cty.NilVal, "a list", true
	default:
		return cty.NilVal, "an object", true
	}
}

// string returns a string that is not empty, unless empty is true, and has no NUL.
func (d *decoder) string(v value, empty bool) (string, bool) {
	got, kind, ok := d.scalar(v)
	if !ok {
		return "", false
	}
	if kind != "a string" {
		d.wrong(v, "a string", kind)
		return "", false
	}
	s := got.AsString()
	switch {
	case strings.IndexByte(s, 0) >= 0:
		d.errorf(v.rng(), "No program, path or name can have one.", "%s has a NUL byte in it", v.name)
	case s == "" && !empty:
		d.errorf(v.rng(), v.usage(), "%s is empty", v.name)
	case len(s) > maxArgument:
		d.errorf(v.rng(), "", "%s is longer than the %d bytes that Linux takes", v.name, maxArgument)
	default:
		return s, true
	}
	return "", false
}

// quantity returns what was written as a string or a number as text, for one of the parse functions.
func (d *decoder) quantity(v value, want string) (string, bool) {
	got, kind, ok := d.scalar(v)
	switch {
	case !ok:
		return "", false
	case kind == "a string":
		return got.AsString(), true
	case kind == "a number":
		// 20 digits hold every whole number of 64 bits; what needs an exponent is refused by the parse functions.
		return got.AsBigFloat().Text('g', 20), true
	}
	d.wrong(v, want, kind)
	return "", false
}

// refuse reports a quantity that a parse function did not take.
func (d *decoder) refuse(v value, want string, err error) {
	d.errorf(v.rng(), v.usage(), "%s is not %s: %v", v.name, want, err)
}

func (d *decoder) bool(v value, dst *bool) {
	got, kind, ok := d.scalar(v)
	switch {
	case !ok:
	case kind != "true or false":
		d.wrong(v, "true or false", kind)
	default:
		*dst = got.True()
	}
}

// duration sets dst. With forever, "infinity" is allowed and is 0.
func (d *decoder) duration(v value, dst *time.Duration, forever bool) {
	const want = "a duration"
	text, ok := d.quantity(v, want)
	if !ok {
		return
	}
	if text == "infinity" && forever {
		*dst = 0
		return
	}
	got, err := parseDuration(text)
	if err != nil {
		d.refuse(v, want, err)
		return
	}
	*dst = got
}

// maxSize is the largest size that parseSize takes, 1E: what is added to it still is an int64.
const maxSize = 1 << 60

// size sets dst to a number of bytes.
func (d *decoder) size(v value, dst *int64) { d.sizeWithin(v, dst, 0, maxSize) }

// sizeWithin sets dst to a number of bytes between least and most.
func (d *decoder) sizeWithin(v value, dst *int64, least, most int64) {
	const want = "a size"
	text, ok := d.quantity(v, want)
	if !ok {
		return
	}
	got, err := parseSize(text)
	if err != nil {
		d.refuse(v, want, err)
		return
	}
	switch {
	case got < least:
		d.errorf(v.rng(), v.usage(), "%s must be %s at least, not %s", v.name, sizeText(least), text)
		return
	case got > most:
		d.errorf(v.rng(), v.usage(), "%s must be %s at most, not %s", v.name, sizeText(most), text)
		return
	}
	*dst = got
}

// integer sets dst to a whole number between least and most.
func (d *decoder) integer(v value, dst *int64, least, most int64) {
	const want = "a whole number"
	text, ok := d.quantity(v, want)
	if !ok {
		return
	}
	got, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil:
		d.errorf(v.rng(), v.usage(), "%s must be %s, not %q", v.name, want, text)
	case got < least || got > most:
		d.errorf(v.rng(), v.usage(), "%s must be from %d to %d, not %d", v.name, least, most, got)
	default:
		*dst = got
	}
}

// maxRate is the largest rate that there is a use for, and minRate the smallest above 0, in requests a second: one in a day.
const (
	maxRate = 1_000_000
	minRate = 1.0 / 86400
)

// rate sets dst to a number of requests a second.
func (d *decoder) rate(v value, dst *float64) {
	const want = "a number"
	text, ok := d.quantity(v, want)
	if !ok {
		return
	}
	got, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil || math.IsNaN(got):
		d.errorf(v.rng(), v.usage(), "%s must be %s, not %q", v.name, want, text)
	case got < 0 || got > maxRate:
		d.errorf(v.rng(), v.usage(), "%s must be from 0 to %d requests a second, not %s", v.name, maxRate, text)
	case got > 0 && got < minRate:
		d.errorf(v.rng(), v.usage(), "%s is less than one request a day", v.name)
	default:
		*dst = got
	}
}

// maxBuckets is how many bounds a histogram may have: each is a time series.
const maxBuckets = 50

// buckets sets dst to the upper bounds of a histogram.
func (d *decoder) buckets(v value, dst *[]float64) {
	list, ok := d.list(v)
	if !ok {
		return
	}
	if len(list) > maxBuckets {
		d.errorf(v.rng(), "", "%s has more than %d bounds", v.name, maxBuckets)
		return
	}
	var bounds []float64
	for i, expr := range list {
		e := v.element(fmt.Sprintf("%s[%d]", v.name, i), expr)
		text, ok := d.quantity(e, "a number")
		if !ok {
			return
		}
		bound, err := strconv.ParseFloat(text, 64)
		switch {
		case err != nil || math.IsNaN(bound) || math.IsInf(bound, 0) || bound <= 0:
			d.errorf(e.rng(), v.usage(), "%s must be a number of seconds above 0, not %q", e.name, text)
			return
		case i > 0 && bound <= bounds[i-1]:
			d.errorf(e.rng(), v.usage(), "%s is not above the one before", e.name)
			return
		}
		bounds = append(bounds, bound)
	}
	*dst = bounds
}

func (d *decoder) signal(v value, dst *syscall.Signal) {
	const want = "a signal"
	text, ok := d.quantity(v, want)
	if !ok {
		return
	}
	got, err := parseSignal(text)
	if err != nil {
		d.refuse(v, want, err)
		return
	}
	*dst = got
}

// choice sets dst to one of words.
func (d *decoder) choice(v value, dst *string, words ...string) {
	text, ok := d.string(v, false)
	if !ok {
		return
	}
	if !slices.Contains(words, text) {
		d.errorf(v.rng(), v.usage(), "%s must be %s, not %q", v.name, strings.Join(words, " or "), text)
		return
	}
	*dst = text
}

// list returns the parts of a list, or reports that v is none.
func (d *decoder) list(v value) ([]hcl.Expression, bool) {
	if list, diags := hcl.ExprList(v.expr); !diags.HasErrors() {
		return list, true
	}
	if _, kind, ok := d.scalar(v); ok {
		d.wrong(v, "a list", kind)
	}
	return nil, false
}

// names sets dst to a list of strings without repetition, each as check demands, which reports what is wrong.
func (d *decoder) names(v value, dst *[]string, check func(value, string) bool) {
	list, ok := d.list(v)
	if !ok {
		return
	}
	var got []string
	for i, expr := range list {
		e := v.element(fmt.Sprintf("%s[%d]", v.name, i), expr)
		s, ok := d.string(e, false)
		if !ok || !check(e, s) {
			continue
		}
		if slices.Contains(got, s) {
			d.errorf(e.rng(), "", "%s names %q a second time", v.name, s)
			continue
		}
		got = append(got, s)
	}
	*dst = got
}

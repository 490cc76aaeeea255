// Package expression evaluates what a webhook's configuration asks of a request: conditions and values, in HCL's expression
// language, over what the request says.
//
// Compile checks an expression when the configuration is read. An evaluation reads no file and no clock, changes nothing, and
// ends after a bounded number of steps, whatever the request has in it: its data is a stranger's, even where it is signed. Text is
// compared and handed on as it came, to the byte: what HCL cannot hold exactly is neither equal nor unequal to anything.
//
// The engine's packages may import it. It knows requests as package daemon/auth/webhook does, and no configuration file.
package expression

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/rtask/rtask/sandbox/wording"
)

// Type is what an expression has to come to.
type Type int

// The values of Type.
const (
	// Condition is true or false.
	Condition Type = iota + 1
	// Text is a string, or a number or a boolean, which are written as JSON writes them.
	Text
)

var (
	// ErrUnfit is returned for a request that cannot be judged: it can be read in two ways, or it is more than an evaluation
	// may read or compute.
	ErrUnfit = errors.New("the request cannot be judged")
	// ErrMissing is returned for data that the request does not have, or that is not what the expression needs.
	ErrMissing = errors.New("the request does not have it")
)

// Source is an expression as it stands in a file.
type Source struct {
	// Name is what it is called in messages: "when", "environment TAG".
	Name string
	// Text is the expression, which stands at Start of File.
	Text  []byte
	File  string
	Start hcl.Pos
	// Template says that Text is a string of HCL's JSON syntax: an expression stands in it as "${…}".
	Template bool
	// Secretive says that who reads a reason may not know the expression: strings and numbers in it are left out.
	Secretive bool
}

// Expression is one that has been checked. Several goroutines may evaluate it at the same time.
type Expression struct {
	source Source
	want   Type
	root   hclsyntax.Expression
	// wrapped says that root is all of a template: "${…}".
	wrapped   bool
	functions map[string]function.Function
	// needs are what it reads of body and query, by these names.
	needs map[string]*need
}

// String is the expression as it stands in its file.
func (e *Expression) String() string { return string(e.source.Text) }

// Native is the expression as it stands in HCL's native syntax.
func (e *Expression) Native() string {
	if !e.source.Template {
		return strings.TrimSpace(string(e.source.Text))
	}
	if e.wrapped {
		return e.source.slice(e.root.Range())
	}
	tokens, _ := hclsyntax.LexTemplate(e.source.Text, "", hcl.InitialPos)
	var b strings.Builder
	depth := 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenTemplateInterp:
			depth++
		case hclsyntax.TokenTemplateSeqEnd:
			depth--
		}
		text := string(t.Bytes)
		if t.Type == hclsyntax.TokenStringLit && depth == 0 { // where $${ stands for ${ in both
			text = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(text)
		}
		b.WriteString(text)
	}
	return `"` + b.String() + `"`
}

// WithoutStrings is Native for who may not know what only the sender knows: without strings and numbers, if the source is Secretive.
func (e *Expression) WithoutStrings() string {
	if !e.source.Secretive {
		return e.Native()
	}
	return hideStrings(e.Native())
}

// OfBody reports whether it reads the body, and nothing else of a request.
func (e *Expression) OfBody() bool {
	for root := range e.needs {
		if root != nameBody {
			return false
		}
	}
	return e.needs[nameBody] != nil
}

// Reason evaluates a Condition. It returns "" if that is true, and otherwise what of it is false or missing, and where that
// stands. An error is around ErrUnfit.
func (e *Expression) Reason(in *Input) (string, error) {
	v, err := e.evaluate(newRun(in), e.root)
	if err == nil && v.True() {
		return "", nil
	}
	if errors.Is(err, ErrUnfit) {
		return "", err
	}
	c := e.firstFalse(newRun(in), e.root)
	if c == nil { // to explain takes more steps
		c = &cause{node: e.root, err: err}
	}
	if c.err != nil {
		return c.err.Error(), nil
	}
	return e.located(c.node, e.text(c.node.Range())+" is false"), nil
}

// MaxText is how many bytes a Text may come to. Linux takes 128 KiB for a variable and its name.
const MaxText = 64 << 10

// Text evaluates a Text. An error is around ErrUnfit or ErrMissing. A text has no NUL, which no variable of the environment can
// have.
func (e *Expression) Text(in *Input) (string, error) {
	text := ""
	v, err := e.evaluate(newRun(in), e.root)
	raw, exact := in.exact(e)
	switch {
	case err == nil:
		text = v.AsString()
	case exact && errors.Is(err, ErrMissing):
		text = raw // HCL would change it, and it can be handed on as it came, since nothing is computed from it
	default:
		return "", err
	}
	switch {
	case strings.ContainsRune(text, 0):
		return "", e.fault(ErrUnfit, e.root, e.text(e.root.Range())+" has a NUL byte in it")
	case len(text) > MaxText:
		return "", e.fault(ErrUnfit, e.root, fmt.Sprintf("%s has more than %d bytes", e.text(e.root.Range()), MaxText))
	}
	return text, nil
}

// evaluate returns what a part of e comes to, converted to what e has to come to.
func (e *Expression) evaluate(r *run, node hclsyntax.Expression) (cty.Value, error) {
	if text := r.in.unfit(e); text != "" {
		return cty.NilVal, e.fault(ErrUnfit, node, text)
	}
	v, diags := r.value(e, node)
	switch {
	case r.exceeded:
		return cty.NilVal, e.fault(ErrUnfit, node, fmt.Sprintf("it takes more than %d steps, or all expressions together more than %d", maxSteps, maxAllSteps))
	case diags.HasErrors():
		return cty.NilVal, e.problem(r, diags, node)
	case !v.IsWhollyKnown():
		return cty.NilVal, e.fault(ErrMissing, node, r.inexact(e))
	case v.IsNull():
		return cty.NilVal, e.fault(ErrMissing, node, e.text(node.Range())+" is null")
	}
	want, word := cty.Bool, "true or false"
	if e.want == Text {
		want, word = cty.String, "text"
	}
	if !v.Type().IsPrimitiveType() {
		return cty.NilVal, e.fault(ErrMissing, node, e.text(node.Range())+" is not "+word+", but "+kindOf(v.Type()))
	}
	converted, err := convert.Convert(v, want)
	if err != nil {
		return cty.NilVal, e.fault(ErrMissing, node, e.text(node.Range())+" is not "+word)
	}
	return converted, nil
}

// kindOf is a word for a type.
func kindOf(t cty.Type) string {
	switch {
	case t == cty.String:
		return "a string"
	case t == cty.Number:
		return "a number"
	case t == cty.Bool:
		return "true or false"
	case t.IsObjectType() || t.IsMapType():
		return "an object"
	default:
		return "a list"
	}
}

// fault is an error around kind about a part of e. Its text goes to the sender, too.
func (e *Expression) fault(kind error, node hclsyntax.Expression, text string) error {
	return &fault{kind: kind, text: e.located(node, text)}
}

type fault struct {
	kind error
	text string
}

func (f *fault) Error() string { return f.text }
func (f *fault) Unwrap() error { return f.kind }

// located says which expression a text is about, and where that stands.
func (e *Expression) located(node hclsyntax.Expression, text string) string {
	return fmt.Sprintf("%s: %s (%s:%d)", e.source.Name, text, filepath.Base(e.source.File), node.Range().Start.Line)
}

// problem is the error that HCL's diagnostics are.
func (e *Expression) problem(r *run, diags hcl.Diagnostics, node hclsyntax.Expression) error {
	for _, d := range diags {
		if d.Severity != hcl.DiagError {
			continue
		}
		at := node.Range()
		if d.Expression != nil {
			at = d.Expression.Range()
		}
		switch d.Summary {
		case "Unknown variable":
			if t, ok := d.Expression.(*hclsyntax.ScopeTraversalExpr); ok {
				if why := r.in.missing(e, t.Traversal.RootName()); why != "" {
					return e.fault(ErrMissing, node, why)
				}
			}
			return e.fault(ErrMissing, node, e.text(at)+" is missing")
		case "Unsupported attribute", "Invalid index", "Attempt to get attribute from null value", "Attempt to index null value", "Missing map element":
			return e.fault(ErrMissing, node, e.text(at)+" is missing")
		case summaryOwn:
			return e.fault(ErrMissing, node, e.text(at)+" "+d.Detail)
		}
		if d.Context != nil { // what is wrong is a part of it
			at = *d.Context
		}
		detail := strings.TrimSuffix(strings.Join(strings.Fields(d.Detail), " "), ".")
		detail = strings.ToLower(detail[:min(len(detail), 1)]) + detail[min(len(detail), 1):]
		if call, ok := hcl.DiagnosticExtra[hclsyntax.FunctionCallDiagExtra](d); ok && call.FunctionCallError() != nil {
			detail = call.FunctionCallError().Error()
		}
		return e.fault(ErrMissing, node, e.text(at)+" cannot be computed: "+cut(wording.Printable(detail, ""), maxDetail))
	}
	return e.fault(ErrMissing, node, e.text(node.Range())+" cannot be computed")
}

const (
	// maxPart is how many characters of a part of an expression a reason has, maxDetail how many of a cause.
	maxPart   = 200
	maxDetail = 150
)

// text is what stands at r in the source, in one line, as a reason has it.
func (e *Expression) text(r hcl.Range) string {
	text := e.source.slice(r)
	if e.source.Secretive {
		text = hideStrings(text)
	}
	return cut(strings.Join(strings.Fields(wording.Printable(text, "\n\t")), " "), maxPart)
}

// slice is what stands at r.
func (s Source) slice(r hcl.Range) string {
	start := min(max(r.Start.Byte-s.Start.Byte, 0), len(s.Text))
	return string(s.Text[start:min(max(r.End.Byte-s.Start.Byte, start), len(s.Text))])
}

// cut returns at most n characters of s.
func cut(s string, n int) string {
	if runes := []rune(s); len(runes) > n {
		return string(runes[:n]) + "…"
	}
	return s
}

// hideStrings puts … in place of each string and each number in an expression: one may be what only the sender knows.
func hideStrings(text string) string {
	tokens, _ := hclsyntax.LexExpression([]byte(text), "", hcl.InitialPos)
	var b strings.Builder
	depth, at := 0, 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
			if depth == 0 {
				b.WriteString(text[at:t.Range.Start.Byte])
			}
			depth++
		case hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc:
			if depth--; depth == 0 {
				b.WriteString(`"…"`)
				at = t.Range.End.Byte
			}
		case hclsyntax.TokenNumberLit:
			if depth == 0 {
				b.WriteString(text[at:t.Range.Start.Byte] + "…")
				at = t.Range.End.Byte
			}
		}
	}
	if depth > 0 { // the part is cut off in one
		return b.String() + `"…"`
	}
	return b.String() + text[at:]
}

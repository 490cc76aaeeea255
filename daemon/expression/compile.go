package expression

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/rtask/rtask/sandbox/wording"
)

const (
	// maxSource is how many bytes an expression may have, and maxNesting how deep its parts may stand in each other: an
	// evaluation recurses as deep.
	maxSource  = 8 << 10
	maxNesting = 100
)

// Compile reads and checks an expression: names and functions that there are, and types as far as they are known without a
// request. Diagnostics are errors, with a place in the file.
func Compile(src Source, want Type) (*Expression, hcl.Diagnostics) {
	whole := hcl.Range{Filename: src.File, Start: src.Start, End: src.Start}
	if len(src.Text) > maxSource {
		return nil, wrong(whole, "Write a script that decides, or several webhooks.", "%s has more than %d bytes", src.Name, maxSource)
	}
	if d := src.lex(); d.HasErrors() {
		return nil, d
	}
	var root hclsyntax.Expression
	var diags hcl.Diagnostics
	if src.Template {
		root, diags = hclsyntax.ParseTemplate(src.Text, src.File, src.Start)
	} else {
		root, diags = hclsyntax.ParseExpression(src.Text, src.File, src.Start)
	}
	if diags.HasErrors() {
		return nil, diags
	}
	template, wrapped := root.(*hclsyntax.TemplateWrapExpr)
	if wrapped = wrapped && src.Template; src.Template {
		if wrapped {
			root = template.Wrapped
		} else if want == Condition {
			return nil, wrong(whole, `In JSON an expression stands in "${…}": "${body.ref == \"refs/heads/main\"}"`,
				"%s must be true or false, not text", src.Name)
		}
	}
	e := &Expression{source: src, want: want, wrapped: wrapped, functions: map[string]function.Function{}, needs: map[string]*need{}}
	if d := e.check(root); d.HasErrors() {
		return nil, d
	}
	e.root = meter(root)
	if d := e.try(); d.HasErrors() {
		return nil, d
	}
	return e, nil
}

// wrong is one error at a place.
func wrong(r hcl.Range, detail, format string, args ...any) hcl.Diagnostics {
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: fmt.Sprintf(format, args...), Detail: detail, Subject: &r}}
}

// lex looks at the tokens before the parser does, which recurses: it reports what is nested too deep, and %{…}, for which there are
// expressions.
func (s Source) lex() hcl.Diagnostics {
	lex := hclsyntax.LexExpression
	if s.Template {
		lex = hclsyntax.LexTemplate
	}
	tokens, _ := lex(s.Text, s.File, s.Start) // the parser reports again what is wrong with them
	depth := 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenTemplateControl:
			return wrong(t.Range, "Write a condition as: CONDITION ? A : B", `%s: "%%{" cannot stand in an expression`, s.Name)
		case hclsyntax.TokenTemplateInterp, hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenBang,
			hclsyntax.TokenMinus, hclsyntax.TokenQuestion:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
			depth--
		}
		if depth > maxNesting {
			return wrong(t.Range, "", "%s is too deeply nested", s.Name)
		}
	}
	return nil
}

// check reports names and functions that there are not, and notes those that e uses.
func (e *Expression) check(root hclsyntax.Expression) hcl.Diagnostics {
	var diags hcl.Diagnostics
	known := unknowns()
	for _, t := range hclsyntax.Variables(root) {
		name := t.RootName()
		if _, ok := known[name]; !ok {
			diags = append(diags, unknownName(t.SourceRange(), name, slices.Collect(maps.Keys(known)))...)
			continue
		}
		if e.needs[name] == nil {
			e.needs[name] = &need{}
		}
		e.needs[name].add(t)
	}
	all := functions()
	more := hclsyntax.VisitAll(root, func(node hclsyntax.Node) hcl.Diagnostics {
		call, ok := node.(*hclsyntax.FunctionCallExpr)
		if !ok {
			return nil
		}
		f, known := all[call.Name]
		if known {
			e.functions[call.Name] = f
		} else if !slices.Contains(syntaxes(), call.Name) {
			return unknownFunction(call, slices.Collect(maps.Keys(all)))
		}
		return e.checkCall(call)
	})
	return append(diags, more...)
}

// checkCall checks a call of what is a part of the language, or takes a pattern.
func (e *Expression) checkCall(call *hclsyntax.FunctionCallExpr) hcl.Diagnostics {
	least, most := 1, 1
	switch call.Name {
	case "try":
		most = maxNesting
	case "regex", "regexall":
		if len(call.Args) == 0 {
			return nil // the evaluation reports it
		}
		pattern, ok := literalText(call.Args[0])
		if !ok {
			return wrong(call.Args[0].Range(), `Write for example: regex("^v[0-9]+$", body.release.tag_name)`,
				"the pattern of %s must be written out: one that is computed could take any time", call.Name)
		}
		if _, err := checkPattern(pattern); err != nil {
			return wrong(call.Args[0].Range(), "It is a regular expression of RE2: https://github.com/google/re2/wiki/Syntax", "the pattern of %s cannot be used: %v", call.Name, err)
		}
		return nil
	case nameHeader:
		e.needs[nameHeader] = &need{}
	case "can":
	default:
		return nil
	}
	if n := len(call.Args); n < least || n > most || call.ExpandFinal {
		return wrong(call.Range(), "", "%s takes %s", call.Name, map[string]string{
			"try": "expressions, the first of which that has a value is the result", "can": "one expression", nameHeader: `the name of a header: header("X-GitHub-Event")`,
		}[call.Name])
	}
	if call.Name == nameHeader {
		name, ok := literalText(call.Args[0])
		if ok && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~") != "" || ok && name == "" {
			return wrong(call.Args[0].Range(), "", "%q cannot be the name of a header", name)
		}
	}
	return nil
}

func unknownName(r hcl.Range, name string, known []string) hcl.Diagnostics {
	detail := "An expression reads body, query, method, remote_addr, event, ref and header(\"NAME\"). A string stands in quotes."
	if name == nameHeader || name == "headers" {
		detail = `A header is read by its name: header("X-GitHub-Event")`
	} else if near := wording.Nearest(name, slices.Values(slices.Sorted(slices.Values(append(known, "true", "false", "null"))))); len(near) > 0 {
		detail = fmt.Sprintf("Did you mean %s?", near[0])
	}
	return wrong(r, detail, "unknown name %s", name)
}

func unknownFunction(call *hclsyntax.FunctionCallExpr, known []string) hcl.Diagnostics {
	known = slices.Sorted(slices.Values(append(known, syntaxes()...)))
	detail := "There are " + strings.Join(known, ", ") + "."
	if near := wording.Nearest(call.Name, slices.Values(known)); len(near) > 0 {
		detail = fmt.Sprintf("Did you mean %s?", near[0])
	}
	return wrong(call.NameRange, detail, "unknown function %s", call.Name)
}

// try evaluates e without a request, and reports what is wrong whatever a request has.
func (e *Expression) try() hcl.Diagnostics {
	r := newRun(nil)
	v, diags := r.value(e, e.root)
	at := e.root.Range()
	switch {
	case r.exceeded:
		return wrong(at, "", "%s takes too many steps", e.source.Name)
	case diags.HasErrors():
		for _, d := range diags {
			if d.Summary == summaryOwn {
				d.Summary, d.Detail = e.text(d.Expression.Range())+" "+d.Detail, ""
			}
		}
		return diags
	case v.Type() == cty.DynamicPseudoType && (!v.IsKnown() || !v.IsNull()):
	case v.IsKnown() && v.IsNull():
		return wrong(at, "", "%s is always null", e.source.Name)
	case e.want == Condition && v.Type() != cty.Bool:
		return wrong(at, `Write a comparison, for example: body.ref == "refs/heads/main"`, "%s must be true or false, not %s", e.source.Name, kindOf(v.Type()))
	case e.want == Text && !v.Type().IsPrimitiveType():
		return wrong(at, "For its JSON write: jsonencode(…)", "%s must be text, not %s", e.source.Name, kindOf(v.Type()))
	}
	return nil
}

// Functions are the names of all functions, in order.
func Functions() []string {
	return slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(functions())), syntaxes()...)))
}

package expression

import (
	"reflect"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
)

const (
	// maxSteps is how many steps an evaluation has: one for each part of the expression each time, and one for each value, and
	// each textPerStep bytes of text, that it reads there. HCL itself knows no bound.
	maxSteps    = 400_000
	textPerStep = 64
	// encodedEach is what each value weighs of which jsonencode makes JSON.
	encodedEach = 16
	// textEach is what each value weighs that may be a number of which text is made.
	textEach = 8
	// bitsPerStep is how many bits of a number's exponent weigh a step: it is written with all its digits. Those behind the point take
	// time with the square of how many they are, of which squarePerStep weighs a step.
	bitsPerStep   = 32
	squarePerStep = 5000
	// maxAllSteps is how many all evaluations over a request have together.
	maxAllSteps = 1_000_000
	// numberFactor is how much more than other text weighs what is read as a number, which takes longer than its length says.
	numberFactor = 64

	// summaryOwn is the summary of diagnostics that are not HCL's.
	summaryOwn = "own"
	// nameRun is a name that no expression can read. Its value is the run.
	nameRun = " run"
)

// run is one evaluation.
type run struct {
	// in is nil for a check without a request.
	in       *Input
	steps    int
	exceeded bool
	// flaws are those of what it read beside body and query.
	flaws []flaw
}

var runType = cty.Capsule("run", reflect.TypeFor[run]())

func newRun(in *Input) *run { return &run{in: in} }

// context is what e is evaluated in.
func (r *run) context(e *Expression) *hcl.EvalContext {
	vars := unknowns()
	if r.in != nil {
		vars = r.variables(e)
	}
	vars[nameRun] = cty.CapsuleVal(runType, r)
	return &hcl.EvalContext{Variables: vars, Functions: e.functions}
}

// value evaluates a part of e. HCL and cty panic where they meet what their authors did not think of: no request may make the engine do.
func (r *run) value(e *Expression, node hclsyntax.Expression) (v cty.Value, diags hcl.Diagnostics) {
	defer func() {
		if recover() != nil { // what it says may have data of the request in it
			v, diags = cty.DynamicVal, own(node, "cannot be computed")
		}
	}()
	return node.Value(r.context(e))
}

// runOf returns the run that a context is of.
func runOf(ctx *hcl.EvalContext) *run {
	for ctx.Parent() != nil {
		ctx = ctx.Parent()
	}
	return ctx.Variables[nameRun].EncapsulatedValue().(*run)
}

// spend takes steps, and returns false if there are none left.
func (r *run) spend(n int) bool {
	r.steps += n
	if r.in != nil {
		r.in.steps += n
		r.exceeded = r.exceeded || r.in.steps > maxAllSteps
	}
	r.exceeded = r.exceeded || r.steps > maxSteps
	return !r.exceeded
}

// weigh spends what a value weighs: each of its values, and factor times its text.
func (r *run) weigh(v cty.Value, each, factor int) bool {
	if !r.spend(each - 1) {
		return false
	}
	switch {
	case !v.IsKnown() || v.IsNull() || v.Type() == cty.Bool || v.Type().IsCapsuleType():
		return r.spend(1)
	case v.Type() == cty.String:
		return r.spend(1 + factor*(1+len(v.AsString())/textPerStep))
	case v.Type() == cty.Number:
		return r.spend(1 + weightOf(exponent(v)))
	}
	if !r.spend(1) {
		return false
	}
	for it := v.ElementIterator(); it.Next(); {
		k, one := it.Element()
		if k.Type() == cty.String && !r.weigh(k, each, factor) || !r.weigh(one, each, factor) {
			return false
		}
	}
	return true
}

// weightOf is what a number of an exponent weighs beside 1.
func weightOf(exponent int) int {
	if exponent < 0 {
		return -exponent/bitsPerStep + exponent*exponent/squarePerStep
	}
	return exponent / bitsPerStep
}

// own is an error that is not HCL's: detail goes on after the text of node.
func own(node hclsyntax.Expression, detail string) hcl.Diagnostics {
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: summaryOwn, Detail: detail, Subject: node.Range().Ptr(), Expression: node}}
}

// metered is a part of an expression whose steps are counted.
type metered struct {
	hclsyntax.Expression
	// light says that only the kind of its value is looked at, or one of its elements.
	light bool
	// each and factor are how much its values and its text weigh.
	each, factor int
}

// Value implements hcl.Expression.
func (m *metered) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	r := runOf(ctx)
	if !r.spend(1) {
		return cty.DynamicVal, own(m, "takes too many steps")
	}
	v, diags := m.Expression.Value(ctx)
	if !m.light && !r.weigh(v, m.each, m.factor) || r.exceeded {
		return cty.DynamicVal, own(m, "takes too many steps")
	}
	if v.Type() == cty.Number && v.IsKnown() && !v.IsNull() && !fits(v) {
		return cty.DynamicVal, own(m, "is too large a number")
	}
	return v, diags
}

// choice is a conditional expression. HCL's own makes one type of those of both results, which for two long lists takes long.
type choice struct{ *hclsyntax.ConditionalExpr }

// Value implements hcl.Expression.
func (c *choice) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	is, diags := c.Condition.Value(ctx)
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	is, err := convert.Convert(is, cty.Bool)
	switch {
	case err != nil || is.IsNull():
		return cty.DynamicVal, own(c.Condition, "is not true or false")
	case !is.IsKnown():
		yes, diags := c.TrueResult.Value(ctx)
		no, more := c.FalseResult.Value(ctx)
		if yes.Type().Equals(no.Type()) {
			return cty.UnknownVal(yes.Type()), append(diags, more...)
		}
		return cty.DynamicVal, append(diags, more...)
	case is.True():
		return c.TrueResult.Value(ctx)
	default:
		return c.FalseResult.Value(ctx)
	}
}

// attempt is a call of try or can. Those of HCL evaluate each argument several times.
type attempt struct {
	*hclsyntax.FunctionCallExpr
	// can asks only whether the argument has a value.
	can bool
}

// Value implements hcl.Expression.
func (a *attempt) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	r := runOf(ctx)
	for _, arg := range a.Args {
		v, diags := arg.Value(ctx)
		switch {
		case r.exceeded:
			return v, diags
		case diags.HasErrors():
			continue
		case !v.IsWhollyKnown() && a.can:
			return cty.UnknownVal(cty.Bool), nil
		case !v.IsWhollyKnown():
			return cty.DynamicVal, nil
		case a.can:
			return cty.True, nil
		}
		return v, nil
	}
	if a.can {
		return cty.False, nil
	}
	if r.in == nil { // of what is checked without a request, nothing need have a value
		return cty.DynamicVal, nil
	}
	return cty.DynamicVal, own(a, "has no argument with a value")
}

// head is a call of header.
type head struct{ *hclsyntax.FunctionCallExpr }

// Value implements hcl.Expression.
func (h *head) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	name, diags := h.Args[0].Value(ctx)
	if diags.HasErrors() {
		return cty.UnknownVal(cty.String), diags
	}
	name, err := convert.Convert(name, cty.String)
	if err != nil || name.IsNull() {
		return cty.UnknownVal(cty.String), own(h.Args[0], "is not the name of a header")
	}
	r := runOf(ctx)
	if r.in == nil || !name.IsKnown() {
		return cty.UnknownVal(cty.String).RefineNotNull(), nil
	}
	v, problem := r.header(name.AsString())
	if problem != "" {
		return cty.UnknownVal(cty.String), own(h, problem)
	}
	return v, nil
}

// meter returns an expression whose every part counts its steps. It changes the expression.
func meter(e hclsyntax.Expression) hclsyntax.Expression { return meterPart(e, false, 1) }

func meterPart(e hclsyntax.Expression, light bool, factor int) hclsyntax.Expression {
	made := e
	switch e := e.(type) {
	case *hclsyntax.AnonSymbolExpr: // which its splat expression knows
		return e
	case *hclsyntax.ParenthesesExpr:
		e.Expression = meterPart(e.Expression, light, factor)
	case *hclsyntax.RelativeTraversalExpr:
		e.Source = meterPart(e.Source, true, 1)
	case *hclsyntax.FunctionCallExpr:
		made = meterCall(e)
	case *hclsyntax.ConditionalExpr:
		e.Condition, e.TrueResult, e.FalseResult = meter(e.Condition), meterPart(e.TrueResult, true, 1), meterPart(e.FalseResult, true, 1)
		made = &choice{e}
	case *hclsyntax.IndexExpr:
		e.Collection, e.Key = meterPart(e.Collection, true, 1), meterPart(e.Key, false, numberFactor)
	case *hclsyntax.TupleConsExpr:
		for i, one := range e.Exprs {
			e.Exprs[i] = meterPart(one, true, 1)
		}
	case *hclsyntax.ObjectConsExpr:
		for i, item := range e.Items {
			e.Items[i].ValueExpr = meterPart(item.ValueExpr, true, 1)
			if key, ok := item.KeyExpr.(*hclsyntax.ObjectConsKeyExpr); ok {
				key.Wrapped = meterKey(key.Wrapped)
			}
		}
	case *hclsyntax.ForExpr:
		e.CollExpr, e.ValExpr = meterPart(e.CollExpr, true, 1), meterPart(e.ValExpr, true, 1)
		if e.KeyExpr != nil {
			e.KeyExpr = meter(e.KeyExpr)
		}
		if e.CondExpr != nil {
			e.CondExpr = meter(e.CondExpr)
		}
	case *hclsyntax.SplatExpr:
		e.Source, e.Each = meterPart(e.Source, true, 1), meterPart(e.Each, true, 1)
	case *hclsyntax.TemplateExpr:
		for i, part := range e.Parts {
			made := meter(part)
			if m, ok := made.(*metered); ok {
				m.each = textEach
			}
			e.Parts[i] = made
		}
	case *hclsyntax.TemplateWrapExpr:
		e.Wrapped = meterPart(e.Wrapped, light, factor)
	case *hclsyntax.BinaryOpExpr:
		factor := operandFactor(e.Op)
		e.LHS, e.RHS = meterPart(e.LHS, false, factor), meterPart(e.RHS, false, factor)
	case *hclsyntax.UnaryOpExpr:
		e.Val = meterPart(e.Val, false, operandFactor(e.Op))
	}
	return &metered{Expression: made, light: light, each: 1, factor: factor}
}

// makesText reports whether a function makes text of numbers.
func makesText(name string) bool {
	f, ok := functions()[name]
	return name == "tostring" || ok && slices.ContainsFunc(f.Params(), func(p function.Parameter) bool { return p.Type == cty.String })
}

// operandFactor is how much more the text of an operator's operands weighs.
func operandFactor(op *hclsyntax.Operation) int {
	if op.Impl.Params()[0].Type == cty.Number {
		return numberFactor
	}
	return 1
}

// meterKey is meter for the key of an object, which may be a bare word.
func meterKey(e hclsyntax.Expression) hclsyntax.Expression {
	if hcl.ExprAsKeyword(e) != "" {
		return e
	}
	return meter(e)
}

// meterCall is meter for a call of a function.
func meterCall(e *hclsyntax.FunctionCallExpr) hclsyntax.Expression {
	factor := weights(e.Name)
	if (e.Name == "regex" || e.Name == "regexall") && len(e.Args) > 0 {
		factor = patternCost(e.Args[0])
	}
	for i, arg := range e.Args {
		made := meterPart(arg, false, factor)
		if m, ok := made.(*metered); ok && e.Name == "jsonencode" {
			m.each = encodedEach
		} else if ok && makesText(e.Name) {
			m.each = textEach
		}
		e.Args[i] = made
	}
	switch e.Name {
	case "try", "can":
		return &attempt{e, e.Name == "can"}
	case nameHeader:
		return &head{e}
	}
	return e
}

// plain returns a part of an expression without what was put around it.
func plain(e hclsyntax.Expression) hclsyntax.Expression {
	for {
		switch outer := e.(type) {
		case *metered:
			e = outer.Expression
		case *hclsyntax.ParenthesesExpr:
			e = outer.Expression
		case *hclsyntax.TemplateWrapExpr:
			e = outer.Wrapped
		default:
			return e
		}
	}
}

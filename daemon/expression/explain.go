package expression

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/rtask/rtask/sandbox/wording"
)

// Part is a part of a Condition, between its &&, || and !, and what it came to.
type Part struct {
	// Text is the part as it stands in line Line of its file, in one line.
	Text string
	Line int
	// Value is what it came to, as JSON, and of a comparison what was compared; cut where it is long.
	Value string
	// False says that it is false. Err is why it has no value.
	False bool
	Err   error
}

// Explain evaluates the parts of a Condition, each by itself.
func (e *Expression) Explain(in *Input) []Part {
	var parts []Part
	r := newRun(in)
	for _, node := range leaves(e.root) {
		parts = append(parts, e.explain(r, node))
	}
	return parts
}

func (e *Expression) explain(r *run, node hclsyntax.Expression) Part {
	open := *e
	open.source.Secretive = false // it is for who knows the configuration
	part := Part{Text: open.text(node.Range()), Line: node.Range().Start.Line}
	v, err := open.evaluate(r, node)
	switch {
	case err != nil:
		part.Err = err
	case v.Type() == cty.Bool && v.False():
		part.False = true
	}
	if compared, ok := plain(node).(*hclsyntax.BinaryOpExpr); ok {
		var seen []string
		for _, side := range []hclsyntax.Expression{compared.LHS, compared.RHS} {
			if v, _ := newRun(nil).value(e, side); v.IsWhollyKnown() {
				continue // it is written out
			}
			if v, diags := r.value(e, side); !diags.HasErrors() && v.IsWhollyKnown() {
				seen = append(seen, open.text(side.Range())+" = "+show(v))
			}
		}
		part.Value = strings.Join(seen, ", ")
	} else if err == nil {
		part.Value = show(v)
	}
	return part
}

// show writes a value as JSON, for a person.
func show(v cty.Value) string {
	const longest = 100
	b, err := ctyjson.Marshal(v, v.Type())
	if err == nil && v.Type() == cty.String && !v.IsNull() {
		b, err = json.Marshal(v.AsString())
	}
	if err != nil {
		return "?"
	}
	return cut(wording.Printable(string(b), ""), longest)
}

// leaves are the parts of a condition that are no && and no ||.
func leaves(node hclsyntax.Expression) []hclsyntax.Expression {
	if op, ok := plain(node).(*hclsyntax.BinaryOpExpr); ok && (op.Op == hclsyntax.OpLogicalAnd || op.Op == hclsyntax.OpLogicalOr) {
		return append(leaves(op.LHS), leaves(op.RHS)...)
	}
	return []hclsyntax.Expression{node}
}

// cause is the part of a condition that keeps it from being true.
type cause struct {
	node hclsyntax.Expression
	err  error
}

// firstFalse returns the first part of a condition that is false or has no value, and so keeps the whole from being true. nil:
// there is none, or it takes too many steps to find it.
func (e *Expression) firstFalse(r *run, node hclsyntax.Expression) *cause {
	v, err := e.evaluate(r, node)
	switch {
	case errors.Is(err, ErrUnfit):
		return nil
	case err == nil && v.True():
		return nil
	}
	if op, ok := plain(node).(*hclsyntax.BinaryOpExpr); ok {
		switch op.Op {
		case hclsyntax.OpLogicalAnd:
			if c := e.firstFalse(r, op.LHS); c != nil {
				return c
			}
			return e.firstFalse(r, op.RHS)
		case hclsyntax.OpLogicalOr:
			if err == nil {
				return &cause{node: node}
			}
			for _, side := range []hclsyntax.Expression{op.LHS, op.RHS} {
				if c := e.firstFalse(r, side); c != nil && c.err != nil {
					return c
				}
			}
		}
	}
	return &cause{node: node, err: err}
}

package foreign

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// outcome is what a rule of webhook comes to, see Evaluate in its internal/hook: missing data is an error that goes up to the next
// "or", or to the end of the rule, where it is passed over.
type outcome struct{ is, missing bool }

// evaluated is what webhook makes of a rule whose matches compare members of the body.
func evaluated(r *rule, body map[string]string) outcome {
	switch r.kind {
	case "and":
		for _, kid := range r.kids {
			if o := evaluated(kid, body); o.missing {
				return outcome{false, true}
			} else if !o.is {
				return outcome{}
			}
		}
		return outcome{is: true}
	case "or":
		for _, kid := range r.kids {
			if evaluated(kid, body).is {
				return outcome{is: true}
			}
		}
		return outcome{}
	case "not":
		o := evaluated(r.kids[0], body)
		return outcome{!o.is, o.missing}
	default:
		value, ok := body[r.match.parameter.name]
		if !ok {
			return outcome{missing: true}
		}
		if r.match.kind == "regex" {
			return outcome{is: strings.Contains(value, r.match.regex)}
		}
		return outcome{is: value == r.match.value}
	}
}

// randomRule is a rule over the members a, b and c.
func randomRule(r *rand.Rand, depth int) *rule {
	kind := []string{"match", "match", "and", "or", "not"}[r.IntN(5)]
	if depth == 0 {
		kind = "match"
	}
	out := &rule{kind: kind}
	switch kind {
	case "and", "or":
		for range 1 + r.IntN(3) {
			out.kids = append(out.kids, randomRule(r, depth-1))
		}
	case "not":
		out.kids = []*rule{randomRule(r, depth-1)}
	default:
		name := string(rune('a' + r.IntN(3)))
		out.match = match{kind: "value", value: "yes", parameter: argument{source: "payload", name: name}}
		if r.IntN(2) == 0 {
			out.match = match{kind: "regex", regex: "yes", parameter: argument{source: "payload", name: name}}
		}
	}
	return out
}

// said is a rule as text, for messages.
func (r *rule) String() string {
	if r.kind == "match" {
		return r.match.kind + " " + r.match.parameter.name
	}
	return fmt.Sprint(r.kind, r.kids)
}

// A condition triggers for the same bodies as the rule that it comes from, whatever is missing. Where it does not, it is for a rule
// that has a "not" within an "and" within a "not", and then it only triggers less.
func TestConditionsTriggerAsRules(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	functions := map[string]function.Function{
		"try": tryfunc.TryFunc, "can": tryfunc.CanFunc, "length": stdlib.LengthFunc, "regexall": stdlib.RegexAllFunc,
	}
	less := 0
	for range 3000 {
		r := randomRule(random, 4)
		_, c := (&rules{hook: &hook{}}).split(r)
		text := c.simple().expression()
		expr, diags := hclsyntax.ParseExpression([]byte(text), "when", hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatalf("%v: %s: %v", r, text, diags)
		}
		for n := range 27 { // each member is missing, "yes" or "no"
			body, members := map[string]string{}, map[string]cty.Value{}
			for i, name := range []string{"a", "b", "c"} {
				if state := n / []int{1, 3, 9}[i] % 3; state > 0 {
					body[name] = []string{"", "yes", "no"}[state]
					members[name] = cty.StringVal(body[name])
				}
			}
			got := false
			v, diags := expr.Value(&hcl.EvalContext{Variables: map[string]cty.Value{"body": cty.ObjectVal(members)}, Functions: functions})
			if !diags.HasErrors() {
				got = v.True()
			}
			switch want := evaluated(r, body).is; {
			case got && !want:
				t.Fatalf("%v of %v: %s triggers, and webhook does not", body, r, text)
			case !got && want:
				less++
				if !strings.Contains(r.String(), "not[and") {
					t.Fatalf("%v of %v: %s does not trigger, and webhook does", body, r, text)
				}
			}
		}
	}
	if less > 3000 {
		t.Errorf("%d of %d decisions are stricter", less, 3000*27)
	}
}

// A member that is something else than a rule is about never makes a condition trigger that would not otherwise.
func TestOtherDataTriggersNothing(t *testing.T) {
	not := &rule{kind: "not", kids: []*rule{{kind: "match", match: match{kind: "regex", regex: "x", parameter: argument{source: "payload", name: "a"}}}}}
	for _, r := range []*rule{not, {kind: "or", kids: []*rule{not, not}}, {kind: "not", kids: []*rule{{kind: "and", kids: not.kids}}}} {
		_, c := (&rules{hook: &hook{}}).split(r)
		expr, diags := hclsyntax.ParseExpression([]byte(c.simple().expression()), "when", hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		v, diags := expr.Value(&hcl.EvalContext{
			Variables: map[string]cty.Value{"body": cty.ObjectVal(map[string]cty.Value{"a": cty.EmptyTupleVal})},
			Functions: map[string]function.Function{"try": tryfunc.TryFunc, "can": tryfunc.CanFunc, "length": stdlib.LengthFunc, "regexall": stdlib.RegexAllFunc},
		})
		if !diags.HasErrors() && v.True() {
			t.Errorf("%v: a list triggers", r)
		}
	}
}

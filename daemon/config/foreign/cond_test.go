package foreign

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/daemon/expression"
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
	less := 0
	for range 1000 {
		r := randomRule(random, 4)
		_, c := (&rules{hook: &hook{}}).split(r)
		text := c.simple().expression()
		when := compiled(t, text)
		for n := range 27 { // each member is missing, "yes" or "no"
			body := map[string]string{}
			for i, name := range []string{"a", "b", "c"} {
				if state := n / []int{1, 3, 9}[i] % 3; state > 0 {
					body[name] = []string{"", "yes", "no"}[state]
				}
			}
			data, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			got := triggers(when, data)
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
	if less > 1000 {
		t.Errorf("%d of %d decisions are stricter", less, 1000*27)
	}
}

// A member that is something else than a rule is about never makes a condition trigger that would not otherwise.
func TestOtherDataTriggersNothing(t *testing.T) {
	not := &rule{kind: "not", kids: []*rule{{kind: "match", match: match{kind: "regex", regex: "x", parameter: argument{source: "payload", name: "a"}}}}}
	for _, r := range []*rule{not, {kind: "or", kids: []*rule{not, not}}, {kind: "not", kids: []*rule{{kind: "and", kids: not.kids}}}} {
		_, c := (&rules{hook: &hook{}}).split(r)
		if when := compiled(t, c.simple().expression()); triggers(when, []byte(`{"a":[]}`)) || !triggers(when, []byte(`{"a":"y"}`)) {
			t.Errorf("%v: %s: a list triggers, or a string does not", r, when)
		}
	}
}

// compiled is a condition as rtask reads it.
func compiled(t *testing.T, text string) *expression.Expression {
	t.Helper()
	e, diags := expression.Compile(expression.Source{Name: "when", Text: []byte(text), Start: hcl.InitialPos}, expression.Condition)
	if diags.HasErrors() {
		t.Fatalf("%s: %v", text, diags)
	}
	return e
}

// triggers reports whether a condition is true of a body.
func triggers(when *expression.Expression, body []byte) bool {
	r := &webhook.Request{Method: "POST", Body: body}
	reason, err := when.Reason(expression.NewInput(r, webhook.Delivery{Payload: body}, when))
	return err == nil && reason == ""
}

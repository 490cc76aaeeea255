package expression

import (
	"errors"
	"strings"
	"testing"

	"github.com/rtask/rtask/daemon/auth/webhook"
)

// FuzzReason evaluates expressions over bodies, queries and headers that strangers send: it ends, says the same each time, and a
// text that is handed on is in the request as it is.
func FuzzReason(f *testing.F) {
	var conditions, texts []*Expression
	for _, text := range []string{
		`body.ref == "refs/heads/main" && body.repository.full_name == "acme/site"`, `contains(flatten(body.commits[*].added), "docs/x")`,
		`anytrue([for c in body.commits : startswith(c.id, "a")])`, `can(regex("^v[0-9]+(.[0-9]+)*$", body.tag))`, `length(body) > 2`,
		`body == jsondecode(jsonencode(body))`, `jsondecode(body.payload).a.b == 1`, `body[event] == query[ref]`, `header("X-A") == query.a || body.n + 1 > 2`,
		`cidrcontains("10.0.0.0/8", header("X-A"))`, `"${body.a}-${body.b}" == lower(query.c)`, `try(body.a[0].b[1], body.c, "d") == "d"`,
		`{for k, v in body : upper(k) => v}["A"] == base64decode(body.b)`, `body.a ? body.b : body.c`, `-body.n * 3 % 2 == 1`,
	} {
		conditions = append(conditions, compiled(f, Condition, text))
	}
	for _, text := range []string{`body.a`, `body.a.b[0]`, `query.a`, `header("X-A")`} {
		texts = append(texts, compiled(f, Text, text))
	}
	all := append(append([]*Expression{}, conditions...), texts...)
	for _, body := range []string{
		pushed, "", "a=1&b=2&a=3", `{"a":"\u212a","a":1}`, `[1,2,{"a":[]}]`, `{"a":{"b":["x\u0000y"]},"n":"1e400","payload":"{\"a\":{\"b\":1}}"}`, `{"a":`, "\xff",
	} {
		f.Add([]byte(body), "a=1&b=%zz&c=x", "10.1.2.3")
	}
	f.Fuzz(func(t *testing.T, body []byte, query, header string) {
		r := &webhook.Request{Method: "POST", Query: query, Body: body, Headers: webhook.Headers{{Name: "X-A", Value: header}}}
		d := webhook.Delivery{Event: header, Ref: query, Payload: body}
		in := NewInput(r, d, all...)
		for _, e := range conditions {
			reason, err := e.Reason(in)
			again, err2 := e.Reason(NewInput(r, d, e))
			if reason != again || (err == nil) != (err2 == nil) || err != nil && !errors.Is(err, ErrUnfit) || strings.ContainsAny(reason, "\n\x00") {
				t.Fatalf("%s: %q, %v; again %q, %v", e, reason, err, again, err2)
			}
			e.Explain(in)
		}
		for _, e := range texts {
			got, err := e.Text(in)
			if err != nil && !errors.Is(err, ErrUnfit) && !errors.Is(err, ErrMissing) {
				t.Fatalf("%s: %v", e, err)
			}
			if err == nil && e.String() == `header("X-A")` && got != header {
				t.Fatalf("%q is handed on as %q", header, got)
			}
		}
	})
}

// FuzzCompile reads expressions, and evaluates those that pass.
func FuzzCompile(f *testing.F) {
	for _, text := range []string{
		`body.ref == "x" && (event == "y" || !can(header("X")))`, `[for k, v in body : k => v...]`, `"a${body.a[*].b}c"`, `try(body["a"], 1) > -2`,
		`regex("a(b)(?P<c>d)", ref)`, `{a = 1, "b" : 2, (ref) = 3}`, "<<-E\n  x ${ref}\n  E\n", `length(body...)`, `a::b()`, `body.`, `ref ? 1 : 2`, `body.a.*.b`,
	} {
		f.Add(text, false)
		f.Add(text, true)
	}
	f.Fuzz(func(t *testing.T, text string, template bool) {
		s := source(text)
		s.Template = template
		for _, want := range []Type{Condition, Text} {
			e, diags := Compile(s, want)
			if diags.HasErrors() {
				continue
			}
			if want == Text {
				_, _ = e.Text(input(pushed, e))
				continue
			}
			_, _ = e.Reason(input(pushed, e))
			e.Explain(input(pushed, e))
		}
	})
}

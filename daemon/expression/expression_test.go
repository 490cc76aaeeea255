package expression

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/rtask/rtask/daemon/auth/webhook"
)

// compiled compiles an expression that stands in line 7 of a file.
func compiled(t testing.TB, want Type, text string) *Expression {
	t.Helper()
	e, diags := Compile(source(text), want)
	if diags.HasErrors() {
		t.Fatalf("%s: %v", text, diags)
	}
	return e
}

func source(text string) Source {
	return Source{Name: "when", Text: []byte(text), File: "/etc/rtask/tasks.d/deploy.hcl", Start: hcl.Pos{Line: 7, Column: 10, Byte: 100}}
}

// push is a request of which the tests read.
func push(body string) (*webhook.Request, webhook.Delivery) {
	r := &webhook.Request{
		Method: "POST", Query: "env=prod&twice=1&twice=2&plus=a+b%2B", Remote: "192.0.2.7", Body: []byte(body),
		Headers: webhook.Headers{{Name: "X-Kind", Value: "Deploy"}, {Name: "X-Two", Value: "1"}, {Name: "x-two", Value: "2"}, {Name: "X-Bad", Value: "\xff"}},
	}
	return r, webhook.Delivery{Event: "push", Ref: "refs/heads/main", Payload: r.Body}
}

func input(body string, all ...*Expression) *Input {
	r, d := push(body)
	return NewInput(r, d, all...)
}

const pushed = `{"ref":"refs/heads/main","Ref":"REFS","big":12345678901234567890,"float":1.10,"small":0.1,"exp":1e3,"flag":true,"none":null,
	"yes":"true","head_commit":{"id":"abc","message":"fix\nmore","author":{"name":"Ann"}},"a-b":{"0":"zero"},"esc\u0061ped":"\u00e9\n",
	"commits":[{"id":"1","added":["a.txt","docs/x"],"size":3},{"id":"2","added":[],"size":5}],"list":["x","y"],"nested":[[1,2],[3]],
	"kelvin":"\u212aate","surrogate":"\ud800","nul":"a\u0000b","huge":1e999999999,"payload":"{\"a\":{\"b\":[1,2]}}","cafe":"cafe\u0301"}`

func TestReason(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{`body.ref == "refs/heads/main"`, ""},
		{`body["ref"] == ref && event == "push" && method == "POST" && remote_addr == "192.0.2.7"`, ""},
		{`body.ref == "refs/heads/dev"`, `when: body.ref == "refs/heads/dev" is false (deploy.hcl:7)`},
		{"body.ref == ref &&\n  (body.flag &&\n  body.list[0] == \"y\")", `when: body.list[0] == "y" is false (deploy.hcl:9)`},
		{`body.ref == "a" || event == "b"`, `when: body.ref == "a" || event == "b" is false (deploy.hcl:7)`},
		{`!body.flag`, "when: !body.flag is false (deploy.hcl:7)"},
		{`body.REF == "x"`, "when: body.REF is missing (deploy.hcl:7)"},
		{`body.Ref == "REFS"`, ""},
		{`body.head_commit.author.email == "x"`, "when: body.head_commit.author.email is missing (deploy.hcl:7)"},
		{`body.ref.x == "x"`, "when: body.ref.x is missing (deploy.hcl:7)"},
		{`body.none.x == "x"`, "when: body.none.x is missing (deploy.hcl:7)"},
		{`body.none == null`, ""},
		{`body.none`, "when: body.none is null (deploy.hcl:7)"},
		{`body.list[2] == "x"`, "when: body.list[2] is missing (deploy.hcl:7)"},
		{`body.list["1"] == "y" && body.list.1 == "y"`, ""},
		{`body.list[5000] == "y"`, "when: body.list[5000] is missing (deploy.hcl:7)"},
		{`body["a-b"]["0"] == "zero" && body["a-b"][0] == "zero"`, ""},
		{`body.escaped == "é\n"`, ""},
		{`body.yes`, ""},
		{`body.ref`, "when: body.ref is not true or false (deploy.hcl:7)"},
		{`body.list`, "when: body.list is not true or false, but a list (deploy.hcl:7)"},
		{`body.ref > 5`, "when: body.ref > 5 cannot be computed: unsuitable value for left operand: a number is required (deploy.hcl:7)"},
		{`body.ref == "x" && body.missing == "x"`, `when: body.ref == "x" is false (deploy.hcl:7)`},
		{`body.missing == "x" && body.ref == ref`, "when: body.missing is missing (deploy.hcl:7)"},
		{`can(body.missing) || event == "push"`, ""},
		{`try(body.missing, body.also, "d") == "d" && try(body.ref, "") == ref`, ""},
		{`try(body.missing, body.also) == "d"`, "when: try(body.missing, body.also) has no argument with a value (deploy.hcl:7)"},
		{`can(regex("^refs/(heads|tags)/", body.ref)) && regex("heads/(.*)", body.ref)[0] == "main"`, ""},
		{`regex("x", body.ref) == "x"`, `when: regex("x", body.ref) cannot be computed: pattern did not match any part of the given string (deploy.hcl:7)`},

		// Numbers are exact, and equal whatever they are written like.
		{`body.big == 12345678901234567890`, ""},
		{`body.big == 12345678901234567891`, "when: body.big == 12345678901234567891 is false (deploy.hcl:7)"},
		{`body.float == 1.1 && body.exp == 1000 && body.small == 0.1`, ""},
		{`body.huge > 1`, "when: body.huge is too large a number (deploy.hcl:7)"},
		{`"1e999999999" * 1 > 1`, ``},

		// Headers are found in any case, and one that is there twice has no value.
		{`header("x-KIND") == "Deploy"`, ""},
		{`header("X-None") == ""`, `when: header("X-None") is missing (deploy.hcl:7)`},
		{`header("X-Two") == "1"`, `when: header("X-Two") is there several times (deploy.hcl:7)`},
		{`try(header("X-None"), "") == "" && !can(header("X-Two"))`, ""},
		{`header("X-Bad") != "x"`, "when: header.X-Bad is not valid text (deploy.hcl:7)"},
		{`query.env == "prod" && query.plus == "a b+"`, ""},
		{`query.none == "prod"`, "when: query.none is missing (deploy.hcl:7)"},

		// Text is what it is to the byte: neither equal nor unequal to what only looks like it.
		{`body.kelvin == "Kate"`, "when: body.kelvin is not in Unicode's normal form NFC, so it cannot be compared or changed (deploy.hcl:7)"},
		{`body.kelvin != "Kate"`, "when: body.kelvin is not in Unicode's normal form NFC, so it cannot be compared or changed (deploy.hcl:7)"},
		{`!can(body.kelvin) || try(body.kelvin, "Kate") == "Kate"`, "when: body.kelvin is not in Unicode's normal form NFC, so it cannot be compared or changed (deploy.hcl:7)"},
		{`body.surrogate != "x"`, "when: body.surrogate is not valid text (deploy.hcl:7)"},
		{`body.kelvin == "Kate" || event == "push"`, ""},

		// Lists and objects.
		{`contains(flatten(body.commits[*].added), "docs/x")`, ""},
		{`anytrue([for f in flatten(body.commits[*].added) : startswith(f, "docs/")])`, ""},
		{`alltrue([for c in body.commits : c.size > 3])`, "when: alltrue([for c in body.commits : c.size > 3]) is false (deploy.hcl:7)"},
		{`length(body.commits) == 2 && length(body.ref) == 15 && length(keys(body.head_commit)) == 3`, ""},
		{`{for c in body.commits : c.id => c.size}["2"] == 5`, ""},
		{`lookup(body.head_commit, "none", "d") == "d" && body.head_commit[lower("ID")] == "abc"`, ""},
		{`jsondecode(body.payload).a.b[1] == 2`, ""},
		{`jsondecode(body.ref) == 2`, "when: jsondecode(body.ref) cannot be computed: it is not JSON (deploy.hcl:7)"},
		{`base64decode("aGk") == "hi" && base64decode("_-8=") == "x"`, `when: it depends on text that is not valid, or not in Unicode's normal form NFC (deploy.hcl:7)`},
		{`cidrcontains("192.0.2.0/24", remote_addr) && !cidrcontains("2001:db8::/32", "192.0.2.1") && cidrcontains("10.0.0.0/8", "::ffff:10.1.2.3")`, ""},
		{`sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" && sha256(body.big) == sha256("12345678901234567890")`, ""}, // FIPS 180-4
		{`cidrcontains("192.0.2.0/24", "192.0.2.128/25") && !cidrcontains("192.0.2.128/25", "192.0.2.0/24")`, ""},
		{`replace("a.b", ".", "-") == "a-b" && join(",", body.list) == "x,y" && split("/", ref)[2] == "main" && upper("a") == "A"`, ""},
		{`coalesce("", body.none, "z") == "z" && (body.flag ? body.nested : "no")[1][0] == 3 && min(3, 2) == 2`, ""},
		{`"${event}-${body.big}" == "push-12345678901234567890"`, ""},
	} {
		e, diags := Compile(source(test.text), Condition)
		if diags.HasErrors() {
			if test.want != "" || !strings.Contains(test.text, "1e999") {
				t.Errorf("%s: %v", test.text, diags)
			}
			continue
		}
		got, err := e.Reason(input(pushed, e))
		if got != test.want || err != nil {
			t.Errorf("%s: %q, %v; want %q", test.text, got, err, test.want)
		}
	}
}

func TestText(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{`body.big`, "12345678901234567890"},
		{`body.small`, "0.1"},
		{`body.flag`, "true"},
		{`body.head_commit.message`, "fix\nmore"},
		{`body.kelvin`, "\u212aate"},
		{`body.cafe`, "cafe\u0301"},
		{`"${body.head_commit.id}/${query.env}"`, "abc/prod"},
		{`try(body.tag, "none")`, "none"},
		{`jsonencode(body.commits[0])`, `{"added":["a.txt","docs/x"],"id":"1","size":3}`},
	} {
		e := compiled(t, Text, test.text)
		if got, err := e.Text(input(pushed, e)); got != test.want || err != nil {
			t.Errorf("%s: %q, %v; want %q", test.text, got, err, test.want)
		}
	}
	for text, want := range map[string]string{
		`body.tag`:         "when: body.tag is missing (deploy.hcl:7)",
		`body.none`:        "when: body.none is null (deploy.hcl:7)",
		`body.list`:        "when: body.list is not text, but a list (deploy.hcl:7)",
		`upper(body.cafe)`: "when: body.cafe is not in Unicode's normal form NFC, so it cannot be compared or changed (deploy.hcl:7)",
		`body.surrogate`:   "when: body.surrogate is not valid text (deploy.hcl:7)",
		`body.huge`:        "when: body.huge is too large a number (deploy.hcl:7)",
	} {
		e := compiled(t, Text, text)
		if got, err := e.Text(input(pushed, e)); !errors.Is(err, ErrMissing) || err.Error() != want {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestUnfitText(t *testing.T) {
	for body, want := range map[string]string{
		`{"a":"x\u0000y"}`: "when: body.a has a NUL byte in it (deploy.hcl:7)",
		`{"a":"` + strings.Repeat("x", MaxText+1) + `"}`:        "when: body.a has more than 65536 bytes (deploy.hcl:7)",
		`{"a":"` + strings.Repeat("x", 2<<20) + `"}`:            "body.a is more than can be read here",
		`{"a":"` + strings.Repeat("\u00e9\u0301", 1<<15) + `"}`: "when: body.a has more than 65536 bytes (deploy.hcl:7)",
	} {
		e := compiled(t, Text, `body.a`)
		if got, err := e.Text(input(body, e)); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30s: %q, %v; want %q", body, got, err, want)
		}
	}
	e := compiled(t, Text, `body.a`)
	if got, err := e.Text(input(`{"a":"`+strings.Repeat("x", MaxText)+`"}`, e)); len(got) != MaxText || err != nil {
		t.Error(len(got), err)
	}
}

func TestForms(t *testing.T) {
	body := "command=%2Fdeploy&text=a+b&empty=&payload=%7B%22a%22%3A1%7D&two=1&two=2"
	for text, want := range map[string]string{
		`body.command == "/deploy" && body.text == "a b" && body.empty == "" && jsondecode(body.payload).a == 1`: "",
		`body.Command == "/deploy"`: "when: body.Command is missing (deploy.hcl:7)",
		`body.payload.a == 1`:       "when: body.payload.a is missing (deploy.hcl:7)",
		`body.command == 1 || true`: "",
	} {
		e := compiled(t, Condition, text)
		if got, err := e.Reason(input(body, e)); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
	e := compiled(t, Condition, `body.two == "1"`)
	if got, err := e.Reason(input(body, e)); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "body.two is there twice") {
		t.Errorf("%q, %v", got, err)
	}
	for body, want := range map[string]string{
		"":             "when: the body is neither JSON nor a form (deploy.hcl:7)",
		"<x/>":         "when: the body is neither JSON nor a form (deploy.hcl:7)",
		"a=1;ref=x":    "when: the body is neither JSON nor a form (deploy.hcl:7)",
		"ref=%zz":      "when: the body is neither JSON nor a form (deploy.hcl:7)",
		`{"ref":"x"`:   "when: the body is not JSON: unexpected end of JSON input (deploy.hcl:7)",
		`{"ref":"x",}`: "when: the body is not JSON: invalid character '}' looking for beginning of object key string (deploy.hcl:7)",
		"5":            "when: body.ref is missing (deploy.hcl:7)",
		"null":         "when: body.ref is missing (deploy.hcl:7)",
	} {
		e := compiled(t, Condition, `body.ref == "x"`)
		if got, err := e.Reason(input(body, e)); got != want || err != nil {
			t.Errorf("%q: %q, %v; want %q", body, got, err, want)
		}
		e = compiled(t, Condition, `try(body.ref, "none") == "none"`)
		if got, err := e.Reason(input(body, e)); got != "" || err != nil {
			t.Errorf("%q: %q, %v", body, got, err)
		}
	}
}

func TestCompile(t *testing.T) {
	for text, want := range map[string]string{
		`boddy.ref == "x"`:           "unknown name boddy; Did you mean body?",
		`main`:                       "unknown name main; An expression reads body",
		`header.X == "x"`:            "unknown name header; A header is read by its name",
		`startwith(body.ref, "x")`:   "unknown function startwith; Did you mean startswith?",
		`file("/etc/passwd") == "x"`: "unknown function file; There are abs, alltrue",
		`timestamp() == "x"`:         "unknown function timestamp",
		`event`:                      "when must be true or false, not a string",
		`"refs/heads/main"`:          "when must be true or false, not a string",
		`null`:                       "when is always null",
		`event.name == "x"`:          "Unsupported attribute",
		`body.ref = "x"`:             "Extra characters after expression",
		`regex(body.x, "a") == "a"`:  "the pattern of regex must be written out",
		`regex("(", "a") == "a"`:     "the pattern of regex cannot be used: error parsing regexp",
		`can(regex("(a{20}){20}(b{20}){40}", ref))`: "the pattern of regex cannot be used: it repeats too much",
		`header() == "a"`:                  "header takes the name of a header",
		`header("a b") == "a"`:             `"a b" cannot be the name of a header`,
		`try()`:                            "try takes expressions",
		`startswith(ref)`:                  "Not enough function arguments",
		`event + 1`:                        "when must be true or false, not a number",
		`"%{ if true }x%{ endif }" == ref`: `"%{" cannot stand in an expression`,
		strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200): "too deeply nested",
		`ref == "` + strings.Repeat("x", 9000) + `"`:                 "has more than 8192 bytes",
		`"1e999999999" * 1 > 1`:                                      "is too large a number",
	} {
		_, diags := Compile(source(text), Condition)
		if !diags.HasErrors() || !strings.Contains(diags[0].Summary+"; "+diags[0].Detail, want) {
			t.Errorf("%.60s: %v; want %q", text, diags, want)
			continue
		}
		if s := diags[0].Subject; s == nil || s.Start.Line != 7 || s.Start.Byte < 100 {
			t.Errorf("%.60s: stands at %v", text, s)
		}
	}
	for text, want := range map[string]string{`body.a == 1`: "", `[1]`: "must be text, not a list", `{a = 1}`: "must be text, not an object", `5`: ""} {
		if _, diags := Compile(source(text), Text); diags.HasErrors() != (want != "") || want != "" && !strings.Contains(diags.Error(), want) {
			t.Errorf("%s: %v; want %q", text, diags, want)
		}
	}
}

func TestTemplates(t *testing.T) {
	of := func(text string) Source {
		s := source(text)
		s.Template = true
		return s
	}
	e, diags := Compile(of(`${body.ref == "x"}`), Condition)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if got, err := e.Reason(input(pushed, e)); got != `when: body.ref == "x" is false (deploy.hcl:7)` || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, diags := Compile(of(`body.ref == "x"`), Condition); !strings.Contains(diags.Error(), `in "${…}"`) {
		t.Error(diags)
	}
	e, diags = Compile(of(`at ${body.ref}`), Text)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if got, err := e.Text(input(pushed, e)); got != "at refs/heads/main" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestSecretive(t *testing.T) {
	s := source(`header("X-Key") == "s3cret" || body.ref == "a${"b"}c"`)
	s.Secretive = true
	e, diags := Compile(s, Condition)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if got, _ := e.Reason(input(pushed, e)); got != `when: header("…") is missing (deploy.hcl:7)` {
		t.Errorf("%q", got)
	}
	e, _ = Compile(Source{Name: "when", Text: []byte(`body.commits[0].size == 1234`), Secretive: true}, Condition)
	if got, _ := e.Reason(input(pushed, e)); got != `when: body.commits[…].size == … is false (.:0)` {
		t.Errorf("%q", got)
	}
	e, _ = Compile(Source{Name: "when", Text: []byte(`body.ref == "s3cret" || event == "a${"b"}c"`), Secretive: true}, Condition)
	if got, _ := e.Reason(input(pushed, e)); got != `when: body.ref == "…" || event == "…" is false (.:0)` {
		t.Errorf("%q", got)
	}
}

func TestExplain(t *testing.T) {
	e := compiled(t, Condition, "event == \"push\" &&\n(body.ref == \"x\" || !body.flag) && body.none.a && startswith(ref, \"refs\")")
	var got []string
	for _, p := range e.Explain(input(pushed, e)) {
		line := p.Text + "|" + p.Value
		if p.False {
			line += "|false"
		}
		if p.Err != nil {
			line += "|" + p.Err.Error()
		}
		got = append(got, line)
	}
	want := `event == "push"|event = "push"
body.ref == "x"|body.ref = "refs/heads/main"|false
!body.flag|false|false
body.none.a||when: body.none.a is missing (deploy.hcl:8)
startswith(ref, "refs")|true`
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}

// TestExplainNull: what is compared may be null, of any type.
func TestExplainNull(t *testing.T) {
	for text, want := range map[string]string{
		`tostring(body.none) == "x"`: "tostring(body.none) = null", `tonumber(body.none) == 1`: "tonumber(body.none) = null", `body.none == 1`: "body.none = null",
	} {
		e := compiled(t, Condition, text)
		if parts := e.Explain(input(pushed, e)); len(parts) != 1 || parts[0].Value != want || !parts[0].False {
			t.Errorf("%s: %+v", text, parts)
		}
	}
}

// broken is a part of an expression that panics.
type broken struct{ hclsyntax.Expression }

func (broken) Value(*hcl.EvalContext) (cty.Value, hcl.Diagnostics) { panic("s3cret") }

// TestPanic: what panics is not true, and has no value.
func TestPanic(t *testing.T) {
	e := compiled(t, Condition, `body.flag`)
	e.root = broken{e.root}
	const want = "when: body.flag cannot be computed (deploy.hcl:7)"
	if reason, err := e.Reason(input(pushed, e)); reason != want || err != nil {
		t.Errorf("%q, %v", reason, err)
	}
	if parts := e.Explain(input(pushed, e)); len(parts) != 1 || parts[0].Err == nil || parts[0].Err.Error() != want {
		t.Errorf("%+v", parts)
	}
	if d := e.try(); !d.HasErrors() || strings.Contains(d.Error(), "s3cret") {
		t.Error(d)
	}
	e = compiled(t, Text, `body.ref`)
	e.root = broken{e.root}
	if text, err := e.Text(input(pushed, e)); text != "" || !errors.Is(err, ErrMissing) {
		t.Errorf("%q, %v", text, err)
	}
}

func TestOfBody(t *testing.T) {
	for text, want := range map[string]bool{`body.id`: true, `"${body.id}-${event}"`: false, `header("X-Id")`: false, `try(body.id, header("X-Id"))`: false, `"x"`: false} {
		if got := compiled(t, Text, text).OfBody(); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

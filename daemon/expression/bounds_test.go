package expression

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// manyKeys is a body of about size bytes of members, the last of which is ref.
func manyKeys(size int) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `"k%d":%d,`, i, i)
	}
	b.WriteString(`"ref":"refs/heads/main"}`)
	return b.String()
}

// TestBounds tries bodies that strangers make so that an evaluation takes long or much.
func TestBounds(t *testing.T) {
	keys, fewer := "{"+strings.Repeat(`"k":1,`, 25<<20/6)+`"ref":"refs/heads/main"}`, manyKeys(2<<20)
	list := `{"a":[` + strings.Repeat(`{"x":"y"},`, 2000) + `{"x":"y"}],"s":"` + strings.Repeat("a", 1<<20-200_000) + `","digits":"` + strings.Repeat("9", 100_000) + `"}`
	const deep = 100_000
	for _, test := range []struct{ name, text, body, want string }{
		{"keys", `body.ref == ref`, keys, ""},
		{"all keys", `length(keys(body)) > 1`, fewer, "body is more than can be read here: it may have 50000 values"},
		{"one key of all", `body[event] == 1`, fewer, "body is more than can be read here"},
		{"deep", `body.ref == ref`, strings.Repeat(`{"a":`, deep) + "1" + strings.Repeat("}", deep), "exceeded max depth"},
		{"deep list", `body[0] == 1`, strings.Repeat("[", deep) + strings.Repeat("]", deep), "exceeded max depth"},
		{"less deep", `jsonencode(body.a) == ""`, `{"a":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "}", "body.a is nested more than 64 deep"},
		{"beside what is deep", `body.b == 1`, `{"a":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `,"b":1}`, ""},
		{"loops", `length([for a in body.a : [for b in body.a : b.x == a.x]]) == 1`, list, "takes more than"},
		{"loops over text", `length([for a in body.a : "${body.s}${a.x}"]) == 1`, list, "takes more than"},
		{"deep equality", `length([for a in body.a : body.a == body.a]) == 1`, list, "takes more than"},
		{"splats", `length(body.a[*].x) == 2001`, list, ""},
		{"types", `length(event == "x" ? body.a : [1]) == 1`, list, ""},
		{"types of a list", `length(concat(body.a, [1], body.a)) == 4003`, list, ""},
		{"regex", `can(regex("(a?){50}b$", body.s))`, list, "takes more than"},
		{"short regex", `!can(regex("a*b", body.s))`, list, ""},
		{"digits", `body.digits > 1`, list, ""},
		{"digits, often", `length([for a in body.a : body.digits > 1]) == 1`, list, "takes more than"},
		{"digits of a function", `length([for a in body.a : tonumber(body.digits)]) == 1`, list, "takes more than"},
		{"growth", `length(replace(body.s, "a", body.s)) == 1`, list, "the result has more than"},
		{"growth by joining", `length(join(body.s, [for a in body.a : a.x])) == 1`, list, "the result has more than"},
		{"twice", `body.ref == ref`, `{"ref":"refs/heads/main","ref":"refs/heads/main"}`, "body.ref is there twice"},
		{"twice, escaped", `body.ref == ref`, `{"ref":"refs/heads/main","r\u0065f":"refs/heads/main"}`, "body.ref is there twice"},
		{"twice above", `body.a.b == 1`, `{"a":{"b":1},"a":{"b":1}}`, "body.a is there twice"},
		{"twice below", `length(body.a) == 1`, `{"a":{"b":{"c":1,"c":1}}}`, "body.a.b.c is there twice"},
		{"twice elsewhere", `body.b == 1`, `{"a":{"c":1,"c":1},"b":1}`, ""},
		{"form of many fields", `body.ref == ref`, strings.Repeat("a&", 1<<20) + "ref=refs%2Fheads%2Fmain", ""},
		{"all of many fields", `length(body) == 1`, strings.Repeat("a=1&", 1<<16), "body.a is there twice"},
	} {
		e := compiled(t, Condition, test.text)
		in := input(test.body, e)
		reason, err := e.Reason(in)
		if most := maxSteps + maxSteps/2; strings.Contains(test.name, "loops") && in.steps > most {
			t.Errorf("%s: %d steps", test.name, in.steps)
		}
		switch {
		case test.want == "" && (reason != "" || err != nil):
			t.Errorf("%s: %q, %v", test.name, reason, err)
		case test.want != "" && err != nil && (!errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), test.want)),
			test.want != "" && err == nil && !strings.Contains(reason, test.want):
			t.Errorf("%s: %q, %v; want %q", test.name, reason, err, test.want)
		}
	}
}

// TestCosts tries functions whose time or memory would grow faster than their arguments do.
func TestCosts(t *testing.T) {
	body := `{"n":[` + strings.Repeat("1,", 30_000) + `1],"far":[` + strings.Repeat("1e1200,", 30_000) + `1],"tiny":[` +
		strings.Repeat("1e-1200,", 1000) + `1],"s":"` + strings.Repeat("a", 400_000) +
		`","cut":"` + strings.Repeat("b", 1000) + `éa","commas":"` + strings.Repeat(",", 100_000) + `","hundred":"` + strings.Repeat("1,", 100) + `"}`
	for text, want := range map[string]string{
		`length(join(",", body.n)) == 60001`:                    "",
		`!anytrue([for n in body.n : n == 2])`:                  "",
		`alltrue([for n in body.n : n == 1])`:                   "",
		`(event == "x" ? body.n : [body.n])[0] == body.n`:       "",
		`concat(body.n, [body.s], body.n)[0] == 1`:              "",
		`trim(body.s, body.cut) == ""`:                          "it has more than 256 bytes",
		`length(split("", body.s)) > 1`:                         "it has more than 50000 parts",
		`length(split(",", body.commas)) > 1`:                   "it has more than 50000 parts",
		`length(split(",", body.hundred)) == 101`:               "",
		`length(regexall("a", body.s)) > 1`:                     "it has more than 16384 bytes",
		`length(regexall("[0-9]", body.hundred)) == 100`:        "",
		`jsonencode(body.n) == ""`:                              "takes more than",
		`length([for n in body.far : "${n}"]) == 1`:             "takes more than",
		`jsonencode(body.far) == ""`:                            "takes more than",
		`length([for n in body.tiny : "${n}"]) == 1`:            "takes more than",
		`length([for n in body.tiny : tostring(n)]) == 1`:       "takes more than",
		`{for n in body.tiny : n => 1...}["1"] == [1]`:          "takes more than",
		`length([for n in body.tiny : can(body.n)]) == 1`:       "takes more than",
		`length([for n in body.tiny : try(body.n)[0]]) == 1`:    "takes more than",
		`length([for n in body.n : "${n}-"]) == 1`:              "takes more than",
		`jsonencode(body.tiny) == ""`:                           "takes more than",
		`join(",", body.tiny) == ""`:                            "takes more than",
		`length([for n in body.n : substr(body.s, 0, 1)]) == 1`: "takes more than",
		`length([for n in body.n : upper(body.s)]) == 1`:        "takes more than",
		`anytrue([for n in [1, 2] : body.hundred])`:             "each of the list must be true or false",
		`anytrue(body.s)`:                                       "a list is required",
		`join(",", [body.n]) == ""`:                             "each of the list must be a string",
	} {
		e := compiled(t, Condition, text)
		in := input(body, e)
		reason, err := e.Reason(in)
		if err != nil {
			reason = err.Error()
		}
		if want == "" && reason != "" || !strings.Contains(reason, want) {
			t.Errorf("%s: %q, want %q", text, reason, want)
		}
		if most := 3 * maxSteps; in.steps > most {
			t.Errorf("%s: %d steps", text, in.steps)
		}
	}
}

// TestTogether: what all expressions of a request read and compute is bounded, too, and what several read is read once.
func TestTogether(t *testing.T) {
	var same, other []*Expression
	body := "{"
	const lists = 6
	for i := range lists {
		same = append(same, compiled(t, Condition, `length(body.a0) > 1`))
		other = append(other, compiled(t, Condition, fmt.Sprintf(`length(body.a%d) > 1`, i)))
		body += fmt.Sprintf(`"a%d":[%s1],`, i, strings.Repeat("1,", 40_000))
	}
	body += `"b":1}`
	evaluated := func(all []*Expression) (good int) {
		in := input(body, all...)
		for _, e := range all {
			switch reason, err := e.Reason(in); {
			case err == nil && reason == "":
				good++
			case !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "all expressions together"):
				t.Errorf("%q, %v", reason, err)
			}
		}
		return good
	}
	if got := evaluated(same); got != lists {
		t.Errorf("%d of one list", got)
	}
	if got := evaluated(other); got != atOnce {
		t.Errorf("%d of several lists", got)
	}
	var long []*Expression
	for range lists {
		long = append(long, compiled(t, Condition, `length([for a in body.a0 : a if a == 1]) > 1`))
	}
	if got := evaluated(long); got == 0 || got > maxAllSteps/100_000 {
		t.Errorf("%d that take long", got)
	}
}

// TestAtOnce evaluates one expression in several goroutines, each over another body.
func TestAtOnce(t *testing.T) {
	e := compiled(t, Condition, `contains(body.a[*].b[*].c, query.env) && [for a in body.a : a.n][0] == body.n`)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				got, err := e.Reason(input(fmt.Sprintf(`{"n":%d,"a":[{"n":%d,"b":[{"c":"prod"}]}]}`, i, i), e))
				if err != nil || got != `when: contains(body.a[*].b[*].c, query.env) is false (deploy.hcl:7)` {
					t.Errorf("%q, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkPush(b *testing.B) {
	body := `{"ref":"refs/heads/main","commits":[` + strings.Repeat(`{"id":"x","added":["a","b"],"message":"one two three four five six seven eight"},`, 200) + `{}],"repository":{"full_name":"acme/site"}}`
	e := compiled(b, Condition, `body.ref == "refs/heads/main" && body.repository.full_name == "acme/site"`)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if got, err := e.Reason(input(body, e)); got != "" || err != nil {
			b.Fatal(got, err)
		}
	}
}

func BenchmarkWorst(b *testing.B) {
	list := `{"a":[` + strings.Repeat(`{"x":"y"},`, 2000) + `{"x":"y"}],"s":"` + strings.Repeat("a", 1<<20-10_000) + `","digits":"` + strings.Repeat("9", 8000) + `"}`
	for name, text := range map[string]string{
		"loops": `length([for a in body.a : [for b in body.a : b.x == a.x]]) == 1`, "equal": `length([for a in body.a : body == body]) == 1`,
		"regex": `can(regex("(a?){8}b$", body.s))`, "digits": `length([for a in body.a : body.digits > 1]) == 1`,
		"misses": `length([for a in body.a : can(a.nothing)]) == 1`, "text": `length([for a in body.a : "${body.digits}${a.x}"]) == 1`,
		"substr": `length([for a in body.a : substr(body.digits, 1, 2)]) == 1`, "keys": `length(keys({for i, a in body.a : "${i}" => a})) == 1`,
	} {
		e := compiled(b, Condition, text)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, _ = e.Reason(input(list, e))
			}
		})
	}
	keys := manyKeys(25 << 20)
	e := compiled(b, Condition, `length(body) == 1`)
	few := compiled(b, Condition, `body.ref == ref`)
	in := input(keys, few)
	_, _ = in.json()
	b.Run("25M again", func(b *testing.B) {
		for b.Loop() {
			clear(in.read)
			_, _ = few.Reason(in)
		}
	})
	b.Run("25M", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = e.Reason(input(keys, e))
		}
	})
}

package foreign

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// A document is bounded as it is when each alias is replaced, whatever is long in it.
func TestAliasesOfLongText(t *testing.T) {
	text := "- id: a\n  execute-command: /bin/true\n  pass-arguments-to-command:\n  - &a {source: string, name: " + strings.Repeat("x", 200_000) + "}\n" +
		strings.Repeat("  - *a\n", 100)
	var wrong *Error
	if _, err := Convert([]byte(text), options()); !errors.As(err, &wrong) || !strings.Contains(wrong.Text, "too large") {
		t.Errorf("%v", err)
	}
}

// A name that only one of the programs can read is no rule that is left out.
func TestBinaryNames(t *testing.T) {
	const text = "- {id: a, execute-command: /a, !!binary dHJpZ2dlci1ydWxl: {match: {type: value, value: x, parameter: {source: url, name: y}}}}"
	if _, err := Convert([]byte(text), options()); err == nil || !strings.Contains(err.Error(), "write its names out") {
		t.Errorf("%v", err)
	}
}

// The name of the file is a comment, and nothing else.
func TestFileNames(t *testing.T) {
	o := options()
	o.Name = "x\n}\ntask \"evil\" {\n  command = [\"id\"]\n}\n#.json"
	for _, text := range []string{"- {id: a, execute-command: /a}", "actions: [{title: a, exec: [/a]}]"} {
		r, err := Convert([]byte(text), o)
		if err != nil {
			t.Fatal(err)
		}
		f, diags := hclsyntax.ParseConfig(r.Text, "hcl", hcl.InitialPos)
		if diags.HasErrors() || len(f.Body.(*hclsyntax.Body).Blocks) != 1 {
			t.Errorf("%v\n%s", diags, r.Text)
		}
	}
}

// What webhook stops at with an error never triggers anything there, whatever stands around it.
func TestBrokenRulesTriggerNothing(t *testing.T) {
	const good = "{match: {type: value, value: x, parameter: {source: url, name: z}}}"
	for _, broken := range []string{
		"{match: {type: ip-whitelist, ip-range: 10.0.0.0/8 none}}", "{match: {type: ip-whitelist, ip-range: none}}",
		"{match: {type: regex, regex: '(', parameter: {source: url, name: z}}}",
		"{match: {type: payload-hmac-sha256, parameter: {source: url, name: z}}}", "{match: {type: scalr-signature}}",
	} {
		for _, rule := range []string{"%s", "{not: %s}", "{or: [%s, " + good + "]}", "{not: {and: [%s, " + good + "]}}"} {
			rule = fmt.Sprintf(rule, broken)
			r, err := Convert([]byte("- {id: a, execute-command: /a, trigger-rule: "+rule+"}"), options())
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(r.Text), "\n    when = false\n") || !strings.Contains(said(r), "The whole rule triggers nothing") {
				t.Errorf("%s: %s%s", rule, r.Text, said(r))
			}
		}
	}
}

// A limit never becomes 0, which is none.
func TestSeldom(t *testing.T) {
	r, err := Convert([]byte("actions: [{title: a, exec: [/a], maxRate: [{limit: 1, duration: 1000h}]}]"), options())
	if err != nil || !strings.Contains(string(r.Text), "rate_limit = 0.000000277") {
		t.Errorf("%v %s", err, r.Text)
	}
}

// Where /bin/sh is bash, no value of an argument is computed, becomes the program or ends the shell, whatever the argument's name is.
func TestShellsOwnVariables(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	own, err := exec.Command(bash, "--posix", "-c", "compgen -v").Output()
	if err != nil {
		t.Fatal(err)
	}
	// Some are there once they are used.
	names := append(strings.Fields(string(own)), "BASH_ARGV0", "COMP_WORDS", "HISTCMD", "MAPFILE", "OPTARG", "REPLY", "TMOUT", "MAILCHECK")
	for _, name := range names {
		a := &action{mapping: &mapping{}, exec: []string{"/bin/echo", "{{ " + name + " }}"}, arguments: []input{{name: name, kind: "raw_string_multiline"}}}
		c := &actionTask{action: a, output: &output{options: options()}, task: &task{}}
		command := c.command()
		if c.task.err != nil {
			t.Fatalf("%s: %v", name, c.task.err)
		}
		dir := t.TempDir()
		const hostile = "a[$(touch ran)]"
		run := exec.Command(bash, append([]string{"--posix"}, command[1:]...)...)
		run.Dir, run.Env = dir, append(os.Environ(), "RTASK_PARAM_"+strings.ToUpper(name)+"="+hostile)
		out, err := run.CombinedOutput()
		if err != nil || string(out) != hostile+"\n" {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
			t.Errorf("%s: the value ran", name)
		}
	}
}

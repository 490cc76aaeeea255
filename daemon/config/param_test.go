package config

import (
	"slices"
	"strings"
	"testing"
)

// paramTask is a task with parameters of each kind.
func paramTask(t testing.TB) *Task {
	t.Helper()
	cfg, diags := build([]*source{{name: "a.hcl", data: []byte(`
task "t" {
  command = ["true"]
  param "env" {
    values  = ["staging", "prod"]
    default = "staging"
  }
  param "commit-id" {
    pattern = "[0-9a-f]{4}|HEAD"
    default = "HEAD"
  }
  param "text" {
    max_length = 4
    default    = ""
  }
  param "lines" {
    pattern = "(?m)a$"
    default = "a"
  }
}
`)}}, Options{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return cfg.Tasks["t"]
}

func TestParameters(t *testing.T) {
	task := paramTask(t)
	for _, c := range []struct {
		given []Parameter
		want  string // the variables, or what the error has in it
		bad   bool
	}{
		{nil, "RTASK_PARAM_ENV=staging RTASK_PARAM_COMMIT_ID=HEAD RTASK_PARAM_TEXT= RTASK_PARAM_LINES=a", false},
		{[]Parameter{{"env", "prod"}, {"commit-id", "00ff"}, {"text", "äöü€"}},
			"RTASK_PARAM_ENV=prod RTASK_PARAM_COMMIT_ID=00ff RTASK_PARAM_TEXT=äöü€ RTASK_PARAM_LINES=a", false},
		{[]Parameter{{"env", "production"}}, `the parameter env must be "staging" or "prod"`, true},
		{[]Parameter{{"env", ""}}, "must be", true},
		{[]Parameter{{"env", "prod"}, {"env", "prod"}}, "twice", true},
		{[]Parameter{{"ENV", "prod"}}, `there is no parameter "ENV"; the task takes env, commit-id, text, lines`, true},
		{[]Parameter{{"x\x1b[2J", "prod"}}, "there is no parameter \"x\ufffd[2J\"", true},
		{[]Parameter{{"", "prod"}}, "there is no parameter", true},
		{[]Parameter{{"commit-id", "00ff; rm -rf /"}}, "the parameter commit-id does not match [0-9a-f]{4}|HEAD", true},
		{[]Parameter{{"commit-id", "00ff\n"}}, "does not match", true},
		{[]Parameter{{"commit-id", "x00ff"}}, "does not match", true},
		{[]Parameter{{"commit-id", "HEAD^"}}, "does not match", true},
		{[]Parameter{{"lines", "a\nrm"}}, "does not match", true},
		{[]Parameter{{"text", "12345"}}, "longer than 4 characters", true},
		{[]Parameter{{"text", "a\x00b"}}, "NUL", true},
		{[]Parameter{{"text", "\xff"}}, "not UTF-8", true},
	} {
		env, err := task.Parameters(c.given)
		switch {
		case c.bad && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q: %v, want %q", c.given, err, c.want)
		case !c.bad && (err != nil || strings.Join(env, " ") != c.want):
			t.Errorf("%q: %q, %v, want %q", c.given, env, err, c.want)
		}
	}
}

// Whatever somebody says, the job gets the variables that the configuration names, with values that it allows.
func FuzzParameters(f *testing.F) {
	f.Add("env", "prod", "text", "x")
	f.Add("commit-id", "HEAD\n", "lines", "a\na")
	task := paramTask(f)
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		env, err := task.Parameters([]Parameter{{name1, value1}, {name2, value2}})
		if err != nil {
			return
		}
		if len(env) != len(task.Params) {
			t.Fatalf("%q", env)
		}
		for i, p := range task.Params {
			value, ok := strings.CutPrefix(env[i], p.Variable()+"=")
			if !ok || strings.ContainsRune(value, 0) || len(p.Values) > 0 && !slices.Contains(p.Values, value) {
				t.Fatalf("%q", env)
			}
			if p.Pattern != "" && p.Name == "commit-id" && value != "HEAD" && (len(value) != 4 || strings.Trim(value, "0123456789abcdef") != "") {
				t.Fatalf("%q", env)
			}
		}
	})
}

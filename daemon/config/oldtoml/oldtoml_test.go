package oldtoml

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what comes out now into testdata")

// The file that its documentation shows, word for word.
func TestDocumentation(t *testing.T) {
	data, err := os.ReadFile("testdata/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Convert(data, "/etc/old")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/config.hcl", got.Text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/config.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Text, want) {
		t.Errorf("got\n%s", got.Text)
	}
	if n := bytes.Count(got.Text, []byte("\n")); n != len(got.Lines) {
		t.Fatalf("%d lines, and places of %d", n, len(got.Lines))
	}
	// Each line knows where it comes from.
	source := strings.Split(string(data), "\n")
	for i, line := range strings.Split(string(got.Text), "\n")[:len(got.Lines)] {
		for hcl, toml := range map[string]string{"api_keys": "apiKeyNames", "timeout =": "executionTimeoutSeconds", "LOG_LEVEL": "LOG_LEVEL", "token_file": "gitlab"} {
			if strings.Contains(line, hcl) && !strings.Contains(source[got.Lines[i]-1], toml) {
				t.Errorf("%q comes from %q", line, source[got.Lines[i]-1])
			}
		}
	}
}

func TestConvert(t *testing.T) {
	for in, want := range map[string]string{
		"":                               "",
		"[tasks.a]\ncommand = [\"x\"]\n": "task \"a\" {\n  command = [\"x\"]\n}\n",
		"tasks.a = { command = ['${x}', \"a\\n\\\"b\\u0007\"], workdir = 'sub', executionTimeoutSeconds = 0.5 }\n": "task \"a\" {\n  command = [\"$${x}\", \"a\\n\\\"b\\u0007\"]\n  workdir = \"/etc/old/sub\"\n  timeout = \"0.5s\"\n}\n",
		"[tasks.a]\ncommand = ['bin/x']\nworkdir = '/srv'\n":                                                       "task \"a\" {\n  command = [\"bin/x\"]\n  workdir = \"/srv\"\n}\n",
		"[tasks.a]\ncommnad = ['x']\n":                                                                             "!2:1: unknown name \"tasks.a.commnad\"; a task has command,",
		"[task.a]\ncommand = ['x']\n":                                                                              "!1:",
		"[tasks.a]\ncommand = 'x'\n":                                                                               "!2:",
		"[tasks.a]\nblocking = 1\n":                                                                                "!2:",
		"[tasks.a]\ncommand = [1]\n":                                                                               "!2:",
		"[tasks.a]\n[tasks.a]\n":                                                                                   "!2:",
		"[tasks.a]\ncommand = ['x'\n":                                                                              "!",
		"x":                                                                                                        "!1:",
		"a = " + strings.Repeat("[", 100000):                                                                       "!1:1: too deeply nested",
		"a = " + strings.Repeat("{a=", 100000):                                                                     "!1:1: too deeply nested",
		"[tasks.a]\nmaxInputBytes = 1e3\n":                                                                         "!2:",
		"[tasks.a]\nenvironment = { A = 1 }\n":                                                                     "!2:",
		"[[tasks.a]]\ncommand = ['x']\n":                                                                           "!",
		"[tasks.a]\nrateLimit = 1\n":                                                                               "task \"a\" {\n  rate_limit = 1\n}\n",
		"[tasks.a]\nmaxConcurrentTasks = -1\n":                                                                     "task \"a\" {\n  max_concurrent = -1\n}\n", // the reader of HCL says so
		"[tasks.'a b']\ncommand = []\n":                                                                            "task \"a b\" {\n  command = []\n}\n",
	} {
		got, err := Convert([]byte(in), "/etc/old")
		var wrong *Error
		switch text, bad := strings.CutPrefix(want, "!"); {
		case bad && (!errors.As(err, &wrong) || !strings.HasPrefix(err.Error(), text)):
			t.Errorf("%.60q: %v, want %q", in, err, text)
		case !bad && (err != nil || string(got.Text) != want):
			t.Errorf("%.60q: %v\n%s", in, err, got.Text)
		}
	}
}

// Whatever the file, nothing panics, and each line of what comes out knows one of the file.
func FuzzConvert(f *testing.F) {
	data, err := os.ReadFile("testdata/config.toml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("[tasks.\"a\\u0000\"]\ncommand = ['''\n''']\nenvironment = {\"\" = ''}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Convert(data, "/etc/old")
		var wrong *Error
		if err != nil {
			if !errors.As(err, &wrong) || wrong.Text == "" || wrong.Line > bytes.Count(data, []byte("\n"))+1 {
				t.Fatalf("%#v", err)
			}
			return
		}
		if bytes.Count(got.Text, []byte("\n")) != len(got.Lines) {
			t.Fatalf("%d places of %q", len(got.Lines), got.Text)
		}
		for _, line := range got.Lines {
			if line < 1 || line > bytes.Count(data, []byte("\n"))+1 {
				t.Fatalf("line %d of %q", line, data)
			}
		}
	})
}

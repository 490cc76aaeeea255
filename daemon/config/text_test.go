package config

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

const mark = "\xef\xbb\xbf"

// A file of another system's editor means what it means without the byte order mark and the \r.
func TestOtherSystemsFiles(t *testing.T) {
	hcl := "task \"a\" {\n  command = [\"/bin/sh\", \"-c\", <<EOT\necho one\necho two\nEOT\n  ]\n}\n"
	folder(t, map[string]string{
		"rtask.hcl":          mark + "max_jobs = 7\r\n",
		"tasks.d/a.hcl":      mark + strings.ReplaceAll(hcl, "\n", "\r\n"),
		"tasks.d/c.toml":     mark + strings.ReplaceAll("[tasks.c]\ncommand = [\"/bin/echo\", \"\"\"x\ny\"\"\"]\n", "\n", "\r\n"),
		"tasks.d/d.hcl.json": mark + "{\r\n\"task\": {\"d\": {\"command\": [\"/bin/true\"]}}}\r\n",
	})
	cfg, diags := Load(here())
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	if got, want := cfg.Tasks["a"].Command[2], "echo one\necho two\n"; got != want {
		t.Errorf("the script is %q, want %q", got, want)
	}
	if got, want := cfg.Tasks["c"].Command[1], "x\ny"; got != want {
		t.Errorf("the string is %q, want %q", got, want)
	}
	if cfg.MaxJobs != 7 || cfg.Tasks["d"] == nil {
		t.Errorf("%+v", cfg)
	}
}

func TestUTF16(t *testing.T) {
	folder(t, map[string]string{"tasks.d/a.hcl": "\xff\xfet\x00a\x00s\x00k\x00"})
	if _, diags := Load(here()); len(diags) != 1 || !strings.Contains(diags.Error(), "refused: it is UTF-16\n  Save it as UTF-8.") {
		t.Error(diags)
	}
}

// Every part of a finding is text, whatever bytes are in the file, its name and the names in it.
func TestFindingsAreText(t *testing.T) {
	folder(t, map[string]string{
		"tasks.d/a.hcl": "task \"a\" {\n  command = [\"caf\xe9\"]\n}\n", "tasks.d/b\xe9.hcl": "task \"b\" {\n  command = 1\n}\n",
		"tasks.d/c.toml": "[tasks.c]\ncommand = [\"\xe9\"]\n", "tasks.d/d.hcl.json": "{\"task\": {\"\xe9\": 1}}\n", "rtask.hcl": "# \xe9\n",
	})
	_, diags := Load(here())
	if len(diags) != 5 {
		t.Errorf("%d findings, want one for each file: %v", len(diags), diags)
	}
	for _, d := range diags {
		for _, s := range []string{d.File, d.Summary, d.Detail, d.Source, d.String()} {
			if !utf8.ValidString(s) {
				t.Errorf("%q is not UTF-8", s)
			}
		}
		if _, err := json.Marshal(d); err != nil {
			t.Error(err)
		}
	}
	if got := diags.Error(); !strings.Contains(got, `    |   command = ["caf\xe9"]`+"\n    |                  ^") || !strings.Contains(got, `tasks.d/b\xe9.hcl:2:13: error: command must be`) {
		t.Errorf("got:\n%s", got)
	}
}

func TestConfigurationIsBounded(t *testing.T) {
	task := func(i int) string { return fmt.Sprintf("task \"t%d\" { command = [\"/bin/true\"] }\n", i) }
	files := map[string]string{}
	for i := range maxFiles + 1 {
		files[fmt.Sprintf("tasks.d/%d.hcl", i)] = ""
	}
	folder(t, files)
	if _, diags := Load(here()); !strings.Contains(diags.Error(), "4096 files of 16M together at most") {
		t.Errorf("files: %.300v", diags)
	}
	files = map[string]string{}
	for i := range 17 {
		files[fmt.Sprintf("tasks.d/%d.hcl", i)] = task(i) + strings.Repeat("#\n", (maxFileBytes-100)/2)
	}
	folder(t, files)
	if _, diags := Load(here()); !strings.Contains(diags.Error(), "4096 files of 16M together at most") {
		t.Errorf("bytes: %.300v", diags)
	}
	var all strings.Builder
	for i := range maxTasks + 1 {
		all.WriteString(task(i))
	}
	folder(t, map[string]string{"tasks.d/a.hcl": all.String()})
	if _, diags := Load(here()); len(diags) != 1 || !strings.Contains(diags.Error(), fmt.Sprintf("a.hcl:%d:6: error: a configuration has 10000 tasks at most", maxTasks+1)) {
		t.Errorf("tasks: %.300v", diags)
	}
	folder(t, map[string]string{"tasks.d/a.hcl": strings.Repeat("#\n", maxFileBytes/2+1), "a.env": "A=" + strings.Repeat("x", maxFileBytes)})
	if _, diags := Load(here()); !strings.Contains(diags.Error(), "longer than 1 MiB") {
		t.Errorf("a file: %.300v", diags)
	}
	if _, err := ReadEnvironmentFile("a.env", os.Getuid()); err == nil || !strings.Contains(err.Error(), "longer than 1 MiB") {
		t.Errorf("an environment file: %v", err)
	}
}

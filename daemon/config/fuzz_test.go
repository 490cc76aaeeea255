package config

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/rtask/rtask/daemon/config/oldtoml"
)

// FuzzLoad gives strangers' bytes to each kind of file. Nothing may panic or hang, every finding has a place in the file,
// and what is accepted is a task that a job can be made of.
func FuzzLoad(f *testing.F) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range archives {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			f.Add(file.Data, filepath.Base(file.Name) == "rtask.hcl", filepath.Ext(file.Name) == ".json")
		}
	}
	examples, err := filepath.Glob("../../tasks.d/*.hcl")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range examples {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, false, false)
	}
	f.Add([]byte(`{"task":{"t":[{"command":["a"],"limits":{"tasks_max":1}}]}}`), false, true)
	f.Fuzz(func(t *testing.T, data []byte, root, json bool) {
		if len(data) > maxFileBytes {
			t.Skip("is refused before")
		}
		cfg, diags := build([]*source{{name: "file", data: data, root: root, json: json}}, Options{})
		lines := bytes.Split(data, []byte("\n"))
		for _, d := range diags {
			if d.Line < 1 || d.Line > len(lines) || d.Column < 1 || d.Summary == "" {
				t.Fatalf("%+v is outside of %d lines", d, len(lines))
			}
			if line := lines[d.Line-1]; d.Column > utf8.RuneCount(line)+1 {
				t.Fatalf("%+v is outside of %q", d, line)
			}
			if d.Source != "" && d.Column > utf8.RuneCountInString(d.Source)+1 {
				t.Fatalf("%+v has its caret outside of the line", d)
			}
			_ = d.String()
		}
		if diags.HasErrors() {
			return
		}
		for name, task := range cfg.Tasks {
			if !ValidName(name) || task.Name != name || len(task.Command) == 0 || task.Command[0] == "" || task.Workdir[0] != '/' ||
				task.Timeout < 0 || task.TimeoutStop < 0 || task.Retention < 0 || task.MaxInputBytes < 0 || task.MaxOutputBytes < 0 ||
				task.LogMaxBytes < 0 || task.KillSignal < 1 || task.User == gatewayUser {
				t.Fatalf("accepted: %+v", task)
			}
		}
	})
}

// FuzzLoadFiles gives strangers' bytes to what reads whole files, of each kind: findings are always text, and what becomes of a
// config.toml that is accepted is a file of tasks that is accepted, too.
func FuzzLoadFiles(f *testing.F) {
	toml, err := os.ReadFile("oldtoml/testdata/config.toml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add("config.toml", toml)
	for _, s := range []string{"", "\xff\xfea", "\xef\xbb\xbftask \"a\" {\r\n  command = [\"x\"]\r\n}\r\n", "max_jobs = 1", "{\"task\": {}}", "task \"\xe9\" {"} {
		f.Add("a.hcl", []byte(s))
		f.Add("a.toml", []byte(s))
		f.Add("\xe9.json", []byte(s))
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		data, err := asText(data)
		if err != nil {
			return
		}
		_, diags := LoadFiles([]File{{Path: name, Data: data, Root: isRoot(name, data)}}, Options{Part: true})
		for _, d := range diags {
			if !utf8.ValidString(d.File + d.Summary + d.Detail + d.Source) {
				t.Fatalf("%+q", d)
			}
		}
		if diags.HasErrors() || filepath.Ext(name) != ".toml" {
			return
		}
		hcl, err := oldtoml.Convert(data, "/etc")
		if err != nil {
			t.Fatal(err)
		}
		if _, diags := LoadFiles([]File{{Path: "converted.hcl", Data: hcl.Text}}, Options{Part: true}); diags.HasErrors() {
			t.Fatalf("%v\n%s", diags, hcl.Text)
		}
	})
}

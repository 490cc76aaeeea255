package foreign

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what comes out into testdata")

// options take every task.
func options() Options {
	return Options{
		Name:  "in",
		Check: func([]byte) error { return nil },
		Token: func() string { return "TOKEN" },
		Variable: func(name string) error {
			if name == "PATH" {
				return errors.New("it says which programs run")
			}
			return nil
		},
	}
}

// What becomes of a file, and what is said to be lost, is in testdata.
func TestConvert(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		in := archive.Files[0].Data
		r, err := Convert(in, options())
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		got := map[string][]byte{"in": in, "hcl": r.Text, "lost": []byte(said(r))}
		if _, diags := hclsyntax.ParseConfig(r.Text, "hcl", hcl.InitialPos); diags.HasErrors() {
			t.Errorf("%s: %v", file, diags)
		}
		if *update {
			archive.Files = nil
			for _, name := range []string{"in", "hcl", "lost"} {
				archive.Files = append(archive.Files, txtar.File{Name: name, Data: got[name]})
			}
			if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		for _, f := range archive.Files {
			if !bytes.Equal(got[f.Name], f.Data) {
				t.Errorf("%s: %s is\n%s", file, f.Name, got[f.Name])
			}
		}
	}
}

func said(r *Result) string {
	var b strings.Builder
	for _, l := range r.Lost {
		fmt.Fprintf(&b, "%d: %s\n", l.Line, l.Text)
	}
	return b.String()
}

// Whatever the file, what comes of it is HCL, and each line that is said to be lost is one of the file.
func FuzzConvert(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive.Files[0].Data)
	}
	for _, text := range []string{
		"- &a {id: *a}", "- {id: a, execute-command: /x, response-message: \"${\\u0000%{\"}", "[[[[[[", "actions: [{title: \"\\n}\", shell: \"{{a}}'\"}]",
		"- {id: \"\\u202e\", execute-command: \"/e\\u0301\", trigger-rule: {match: {type: value, value: \"\\n\", parameter: {source: payload, name: \"a.\\\"]..-1.007\"}}}}",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Convert(data, options())
		lines := bytes.Count(data, []byte("\n")) + 1
		if err != nil {
			var wrong *Error
			if !errors.As(err, &wrong) || wrong.Text == "" || wrong.Line > lines {
				t.Fatalf("%#v", err)
			}
			return
		}
		if _, diags := hclsyntax.ParseConfig(r.Text, "hcl", hcl.InitialPos); diags.HasErrors() {
			t.Fatalf("%v\n%s", diags, r.Text)
		}
		for _, l := range r.Lost {
			if l.Line < 1 || l.Line > lines || l.Text == "" {
				t.Fatalf("%+v of %d lines", l, lines)
			}
		}
	})
}

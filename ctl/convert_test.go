package ctl

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/rtask/rtask/daemon/config/foreign"
)

// archived returns the files to convert in foreign's testdata.
func archived(t testing.TB) map[string][]byte {
	t.Helper()
	archives, err := filepath.Glob("../daemon/config/foreign/testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatal(archives, err)
	}
	all := map[string][]byte{}
	for _, path := range archives {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[path] = archive.Files[0].Data
	}
	return all
}

// rtask takes each task that is made of another program's, and the file as a whole.
func TestForeignTasksAreTaken(t *testing.T) {
	for path, data := range archived(t) {
		r, err := foreign.Convert(data, foreignOptions(path))
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if _, err := loadTasks(r.Text); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// What is a comment is one because of the other program, and not because rtask does not take it.
		said := string(archive.Files[2].Data)
		for _, l := range r.Lost {
			if strings.Contains(l.Text, "is a comment") && !strings.Contains(said, l.Text) {
				t.Errorf("%s:%d: %s", path, l.Line, l.Text)
			}
		}
	}
}

// Whatever the file, rtask takes what comes of it, and each line that is said to be lost is one of the file.
func FuzzConvertForeign(f *testing.F) {
	for _, data := range archived(f) {
		f.Add(data)
	}
	for _, text := range []string{
		"- &a {id: *a}", "- {id: a, execute-command: /x, response-message: \"${\\u0000%{\"}", "[[[[[[", "actions: [{title: \"\\n}\", shell: \"{{a}}'\"}]",
		"- {id: \"\\u202e\", execute-command: \"/e\\u0301\", trigger-rule: {match: {type: value, value: \"\\n\", parameter: {source: payload, name: \"a.\\\"]..-1.007\"}}}}",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := foreign.Convert(data, foreignOptions("file"))
		lines := bytes.Count(data, []byte("\n")) + 1
		if err != nil {
			var wrong *foreign.Error
			if !errors.As(err, &wrong) || wrong.Text == "" || wrong.Line > lines {
				t.Fatalf("%#v", err)
			}
			return
		}
		if _, err := loadTasks(r.Text); err != nil {
			t.Fatalf("%v\n%s", err, r.Text)
		}
		for _, l := range r.Lost {
			if l.Line < 1 || l.Line > lines || l.Text == "" {
				t.Fatalf("%+v of %d lines", l, lines)
			}
		}
	})
}

// What is said of a hook is one line, whatever its name is.
func TestForeignHooksAreSaid(t *testing.T) {
	const text = "- {id: \"a\\n/hooks/b\\u001b\", execute-command: /bin/true}\n- id: c\n  execute-command: /bin/true\n  trigger-rule: " +
		"{match: {type: payload-hmac-sha256, secret: one, parameter: {source: header, name: X-Sig}}}\n"
	r, err := foreign.Convert([]byte(text), foreignOptions("file"))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := loadTasks(r.Text)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, h := range r.Hooks {
		all = append(all, moved(cfg, h))
	}
	if len(all) != 2 || !strings.HasPrefix(all[0], `/hooks/a\x0a/hooks/b\x1b has a secret URL now`) ||
		!strings.HasPrefix(all[1], "/hooks/c is now /wh/") {
		t.Errorf("%q", all)
	}
}

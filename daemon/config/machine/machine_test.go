package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/rtask/rtask/daemon/config"
)

// folder is a temporary folder that every user can enter, with files in it.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(name, "bin/") {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What would fail at the first run is a warning, with what to do.
func TestInspect(t *testing.T) {
	dir := folder(t, map[string]string{
		"bin/good": "#!/bin/sh\ntrue\n", "bin/crlf": "#!/bin/sh\r\ntrue\r\n", "bin/mark": "\xef\xbb\xbf#!/bin/sh\n", "bin/text": "echo hello\n",
		"bin/interpreter": "#!/usr/bin/nosuch -x\n", "bin/env": "#!/usr/bin/env nosuch\n", "bin/envgood": "#!/usr/bin/env sh\n", "bin/empty": "",
		"plain": "#!/bin/sh\n", "closed/bin": "#!/bin/sh\n", "own": "#!/bin/sh\n", "secret": "0123456789abcdef\n", "hidden": "0123456789abcdef\n", "own.d/x.sh": "#!/bin/sh\n", "env": "PATH=" + "DIR/bin\n",
	})
	for path, mode := range map[string]os.FileMode{"closed": 0o700, "closed/bin": 0o755, "own": 0o700, "hidden": 0o600, "own.d/x.sh": 0o755} {
		if err := os.Chmod(filepath.Join(dir, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "env"), []byte("PATH="+dir+"/bin\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := os.Geteuid() == 0
	const hook = "\n webhook \"w\" {\n  verify = \"github\"\n  "
	for i, c := range []struct {
		body, want string
		root       bool // it takes root, whose jobs have users of their own
	}{
		{`command = ["/bin/true"]`, "", false},
		{`command = ["true"]`, "", false},
		{`command = ["DIR/bin/good"]`, "", false},
		{`command = ["bin/good"]` + "\n workdir = \"DIR\"", "", false},
		{`command = ["DIR/bin/envgood"]`, "", false},
		{`command = ["good"]` + "\n environment_file = \"DIR/env\"", "", false},
		{`command = ["good"]` + "\n environment = { PATH = \"DIR/bin\" }", "", false},
		{`command = ["good"]`, `2:13: warning: command: there is no program "good" in PATH, which is /usr/local/sbin:`, false},
		{`command = ["DIR/none"]`, "2:13: warning: command: DIR/none is not there", false},
		{`command = ["DIR/bin"]`, "command: DIR/bin is not a program", false},
		{`command = ["DIR/plain"]`, "command: DIR/plain is not executable\n    |   command = [\"DIR/plain\"]\n    |             ^\n  Do: chmod +x DIR/plain", false},
		{`command = ["DIR/bin/crlf"]`, "command: the first line of DIR/bin/crlf ends with CRLF", false},
		{`command = ["DIR/bin/mark"]`, "command: DIR/bin/mark begins with a byte order mark", false},
		{`command = ["DIR/bin/text"]`, "command: DIR/bin/text is a text without a line #!", false},
		{`command = ["DIR/bin/interpreter"]`, "command: the interpreter /usr/bin/nosuch of DIR/bin/interpreter is not there", false},
		{`command = ["DIR/bin/env"]`, "command: the interpreter nosuch of DIR/bin/env is not in PATH", false},
		{`command = ["DIR/own"]`, "command: the job may not execute DIR/own", true},
		{`command = ["DIR/own"]` + "\n user = \"root\"", "", true},
		{`command = ["DIR/own"]` + "\n user = \"daemon\"", "command: user daemon may not execute DIR/own", true},
		{`command = ["DIR/closed/bin"]`, "command: the job may not enter DIR/closed", true},
		{`command = ["/bin/true"]` + "\n workdir = \"DIR/closed\"", "3:12: warning: workdir: the job may not enter DIR/closed", true},
		{`command = ["/bin/true"]` + "\n workdir = \"DIR/closed\"\n user = \"root\"", "", true},
		{`command = ["/bin/true"]` + "\n sandbox { load_credential = [\"a:DIR/secret\"] }", "load_credential: every user of this machine can read DIR/secret", false},
		{`command = ["/bin/true"]` + "\n sandbox {\n load_credential = [\"a:DIR/secret\"]\n temporary_file_system = [\"/mnt\"]\n }", "load_credential: every user of this machine can read DIR/secret", false},
		{`command = ["sh", "DIR/own.d/x.sh"]`, "2:13: warning: command: the job does not see DIR/own.d/x.sh, since the sandbox hides", false},
		{`command = ["sh", "DIR/own.d/x.sh"]` + "\n sandbox { bind_paths = [\"/usr\"] }", "Keep it in another folder, or show it: bind_read_only_paths = [\"DIR/own.d/x.sh\"]", false},
		{`command = ["sh", "DIR/own.d/x.sh"]` + "\n sandbox { profile = \"off\" }", "", false},
		{`command = ["sh", "DIR/own.d/x.sh"]` + "\n sandbox { bind_read_only_paths = [\"DIR/own.d\"] }", "", false},
		{`command = ["sh", "DIR/own.d/x.sh"]` + "\n workdir = \"DIR/own.d\"", "", false},
		{`command = ["DIR/own.d/x.sh", "DIR/own.d/none"]`, "", false},
		{`command = ["/bin/true"]` + hook + "secret_files = [\"DIR/secret\"]\n }", "secret_files[0]: every user of this machine can read the secret in DIR/secret", false},
		{`command = ["/bin/true"]` + hook + "secret_files = [\"DIR/hidden\"]\n }", "", false},
		{`command = ["/bin/true"]` + hook + "secrets = [\"0123456789abcdef\"]\n }", "secrets: every user of this machine can read the secret in DIR/tasks.d/a.hcl", false},
		{"\n command = [\"/bin/true\"]\n webhook \"w\" { token = \"0123456789abcdef\" }", "token: every user of this machine can read the secret in", false},
	} {
		if c.root && !root {
			t.Logf("skipped: case %d, which takes root", i)
			continue
		}
		file := filepath.Join(dir, "tasks.d", "a.hcl")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("task \"t\" {\n  "+strings.ReplaceAll(c.body, "DIR", dir)+"\n}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		m := New(os.Geteuid())
		m.private = append(m.private, filepath.Join(dir, "own.d"))
		_, diags := config.Load(m.Ask(config.Options{Dir: filepath.Join(dir, "tasks.d")}))
		got := strings.ReplaceAll(diags.Error(), dir, "DIR")
		if diags.HasErrors() || len(diags) > 1 || (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got\n%s\nwant %q", c.body, got, c.want)
		}
	}
}

// A file system that does not answer holds up nothing for long, and no more questions than a few.
func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(0)
		answer := make(chan struct{})
		never := func() error { <-answer; return nil }
		for i := range maxStuck {
			if err := within(m, "/mnt", never); !errors.Is(err, config.ErrNoAnswer) || !strings.HasPrefix(err.Error(), "/mnt: ") {
				t.Errorf("%d: %v", i, err)
			}
		}
		asked := false
		if err := within(m, "/", func() error { asked = true; return nil }); !errors.Is(err, config.ErrNoAnswer) || asked {
			t.Errorf("%v, asked: %v", err, asked)
		}
		close(answer)
		synctest.Wait()
		if err := within(m, "/", func() error { return fmt.Errorf("said") }); err == nil || err.Error() != "said" {
			t.Error(err)
		}
	})
}

// Whatever is in a program, looking at its beginning ends and says something that can be shown.
func FuzzScript(f *testing.F) {
	for _, s := range []string{"", "#!", "#!/bin/sh\n", "#!/bin/sh\r\n", "#!/usr/bin/env x", "\x7fELF", "\xef\xbb\xbf#!x", "#! \n", "#!/usr/bin/env\t-S a"} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "script")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o755); err != nil {
			t.Fatal(err)
		}
		summary, detail := account{name: "the job", uid: noUID}.scriptTrouble(path, defaultPath)
		if summary == "" && detail != "" || strings.HasPrefix(string(text), "\x7fELF") && summary != "" {
			t.Errorf("%q: %q, %q", text, summary, detail)
		}
	})
}

// TestRemote: who is root is asked by number, and a file with authorities is one that only its owner can write.
func TestRemote(t *testing.T) {
	opts := New(os.Geteuid()).Ask(config.Options{})
	for name, want := range map[string]bool{"root": true, "nobody": false, "no-such-user-here": false} {
		if got := opts.IsRoot(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "ca.pem")
	if err := opts.CheckFile(file); err == nil {
		t.Error("a file that is not there can be read")
	}
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := opts.CheckFile(file); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := opts.CheckFile(file); err == nil {
		t.Error("a file that everybody can write is trusted")
	}
}

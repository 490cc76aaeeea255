package config

import (
	"os"
	"strings"
	"testing"
)

func TestParseEnvironment(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "",
		"A=1":                                   "A=1",
		"A=1\nB=2\n":                            "A=1|B=2",
		"# A=1\n; B=2\n\n \t\nC=3":              "C=3",
		"  A = 1 2  \r\n":                       "A=1 2",
		"A=":                                    "A=",
		"A=1\nA=2\nB=x\nA=3":                    "B=x|A=3",
		"A=\"1 # 2 \"":                          "A=1 # 2 ",
		"A='a\\b\"c'":                           `A=a\b"c`,
		"A=\"a\\\"b\\\\c\\$d\\n\"":              `A=a"b\c$d\n`,
		"A=a\\ \\#b\\":                          `A=a #b\`,
		"A=one\\\ntwo\nB=3":                     "A=onetwo|B=3",
		"A=\"two\nlines\"\nB=3":                 "A=two\nlines|B=3",
		"A=it's":                                "A=it's",
		"A='x'y":                                "A=xy",
		"A=${B}`id`":                            "A=${B}`id`",
		"A=ä€":                                  "A=ä€",
		"A":                                     "!1",
		"A=1\nexport B=2":                       "!2",
		"\n\n1A=2":                              "!3",
		"=2":                                    "!1",
		"A=1\nRTASK_JOB_ID=x":                   "!2",
		"REQUEST_HEADER_X=x":                    "!1",
		"A=\"x\n\ny\"\nB":                       "!4",
		"A=1\nB='x\n":                           "!2",
		"A=\x00":                                "!1",
		"A=\xff":                                "!1",
		"A=" + strings.Repeat("x", maxArgument): "!1",
	} {
		env, line, err := parseEnvironment(text)
		got := strings.Join(env, "|")
		if err != nil {
			got = "!" + string(rune('0'+line))
			if strings.Contains(err.Error(), "xxx") {
				t.Errorf("%.40q: the error shows a value: %v", text, err)
			}
		}
		if got != want {
			t.Errorf("%.40q: %q, want %q", text, got, want)
		}
	}
}

func TestReadEnvironmentFile(t *testing.T) {
	folder(t, map[string]string{"good.env": "A=1\n", "windows.env": "\xef\xbb\xbfA=\"1\r\n2\"\r\n", "latin1.env": "A=1\nB=\xe9\n", "bad.env": "A=1\nsecret\n", "open.env": "A=1\n"})
	if err := os.Chmod("open.env", 0o666); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"good.env": "", "windows.env": "", "latin1.env": "environment_file latin1.env:2: it is not UTF-8 text", "bad.env": "environment_file bad.env:2: it is not NAME=value", "open.env": "refused",
		"none.env": "cannot read environment_file none.env: no such file", ".": "not a regular file",
	} {
		env, err := ReadEnvironmentFile(file, os.Getuid())
		if want == "" && (err != nil || len(env) != 1) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %q, %v, want %q", file, env, err, want)
		}
		if file == "windows.env" && (len(env) != 1 || env[0] != "A=1\n2") {
			t.Errorf("%s: %q", file, env)
		}
	}
}

// Nothing panics, and what is accepted is what execve takes.
func FuzzParseEnvironment(f *testing.F) {
	for _, s := range []string{"A=1", "A='x\ny'\nB=\"\\\n\"", "#\n;", "A=\\", " A = b\\ "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		env, line, err := parseEnvironment(text)
		if line < 1 || line > strings.Count(text, "\n")+2 {
			t.Fatalf("line %d of %q", line, text)
		}
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, kv := range env {
			name, value, ok := strings.Cut(kv, "=")
			if !ok || !validVariable(name) || reservedVariable(name) || seen[name] || strings.ContainsRune(value, 0) || len(kv) > maxArgument {
				t.Fatalf("%q of %q", env, text)
			}
			seen[name] = true
		}
	})
}

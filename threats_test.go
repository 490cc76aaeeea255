package rtask_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThreats: what ARCHITECTURE.md says was tried is tried by a test that is there, and a script that a row names tries each of
// what that row is about.
func TestThreats(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## What went wrong elsewhere\n")
	section, _, _ = strings.Cut(section, "\n## ")
	published := regexp.MustCompile(`(?:CVE-\d{4}-\d+|GHSA(?:-[0-9a-z]{4}){3})`)
	named := regexp.MustCompile("`([^`]+)`")
	rows := 0
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		ids := published.FindAllString(cells[0], -1)
		if len(ids) == 0 {
			continue
		}
		rows++
		tests := named.FindAllStringSubmatch(cells[len(cells)-1], -1)
		if len(cells) != 4 || len(tests) == 0 {
			t.Errorf("a row without tests: %s", line)
		}
		for _, m := range tests {
			if strings.HasSuffix(m[1], ".txtar") {
				script, err := os.ReadFile(filepath.Join("packaging/e2e/testdata", m[1]))
				if err != nil {
					t.Error(err)
				}
				for _, id := range ids {
					if strings.HasSuffix(m[1], "/threats.txtar") && !strings.Contains(string(script), id) {
						t.Errorf("%s does not try %s", m[1], id)
					}
				}
				continue
			}
			folder, name, _ := strings.Cut(m[1], ".")
			if !hasTest(t, folder, name) {
				t.Errorf("there is no test %s in %s", name, folder)
			}
		}
	}
	if rows < 10 {
		t.Errorf("found %d rows only", rows)
	}
}

func hasTest(t *testing.T, folder, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}

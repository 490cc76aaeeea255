package rtask_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThreats checks the tables of docs/threats.md and docs/bounds.md: each row names tests that exist, and a script named
// threats.txtar tries each published fault that its row is about.
func TestThreats(t *testing.T) {
	for file, cells := range map[string]int{"docs/threats.md": 4, "docs/bounds.md": 5} {
		rows := tableRows(t, file)
		if file == "docs/threats.md" && len(rows) < 12 {
			t.Errorf("%s has only %d rows", file, len(rows))
		}
		for _, row := range rows {
			if len(row) != cells {
				t.Errorf("%s: %d cells instead of %d: %s", file, len(row), cells, strings.Join(row, " | "))
				continue
			}
			checkRow(t, file, row)
		}
	}
}

// tableRows returns the rows of a document's tables, without their heads.
func tableRows(t *testing.T, file string) [][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	head := true
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case !strings.HasPrefix(line, "|"):
			head = true
		case strings.HasPrefix(line, "|---"):
			head = false
		case !head:
			rows = append(rows, strings.Split(strings.TrimSpace(strings.Trim(line, "|")), " | "))
		}
	}
	return rows
}

var (
	published = regexp.MustCompile(`(?:CVE-\d{4}-\d+|GHSA(?:-[0-9a-z]{4}){3})`)
	quoted    = regexp.MustCompile("`([^`]+)`")
)

// checkRow checks the tests that the last cell of a row names.
func checkRow(t *testing.T, file string, row []string) {
	t.Helper()
	tests := quoted.FindAllStringSubmatch(row[len(row)-1], -1)
	if len(tests) == 0 {
		t.Errorf("%s: a row without tests: %s", file, strings.Join(row, " | "))
	}
	for _, m := range tests {
		if !strings.HasSuffix(m[1], ".txtar") {
			folder, name, _ := strings.Cut(m[1], ".")
			if !hasTest(t, folder, name) {
				t.Errorf("%s: there is no test %s in %s", file, name, folder)
			}
			continue
		}
		script, err := os.ReadFile(filepath.Join("packaging/e2e/testdata", m[1]))
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if !strings.HasSuffix(m[1], "/threats.txtar") {
			continue
		}
		for _, id := range published.FindAllString(row[0], -1) {
			if !strings.Contains(string(script), id) {
				t.Errorf("%s: %s does not try %s", file, m[1], id)
			}
		}
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

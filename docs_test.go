package rtask_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rtask/rtask/daemon/config"
)

// TestArchitecture: the table of packages in docs/architecture.md has every package, and the glossary has at most twenty words.
func TestArchitecture(t *testing.T) {
	const file = "docs/architecture.md"
	var listed []string
	words := 0
	for _, row := range tableRows(t, file) {
		names := quoted.FindAllStringSubmatch(row[0], -1)
		if len(names) == 0 {
			words++
		}
		for _, name := range names {
			listed = append(listed, name[1])
		}
	}
	if words == 0 || words > 20 {
		t.Errorf("%s: the glossary has %d words", file, words)
	}
	all := rules()
	for name := range all {
		if !slices.Contains(listed, name) {
			t.Errorf("%s does not have the package %s", file, name)
		}
	}
	for _, name := range listed {
		if _, ok := all[name]; !ok {
			t.Errorf("%s: there is no package %s", file, name)
		}
	}
}

// TestSandboxDocument: docs/sandbox.md has every switch, and says which profile sets it.
func TestSandboxDocument(t *testing.T) {
	const file = "docs/sandbox.md"
	rows := map[string][]string{}
	for _, row := range tableRows(t, file) {
		if len(row) == 5 && strings.HasPrefix(row[0], "`") {
			rows[strings.Trim(row[0], "`")] = row
		}
	}
	for _, s := range config.Settings() {
		if s.Block != "sandbox" {
			continue
		}
		row, ok := rows[s.Name]
		if !ok {
			t.Errorf("%s does not have the switch %s", file, s.Name)
			continue
		}
		delete(rows, s.Name)
		if s.Name == "profile" {
			continue
		}
		for i, profile := range []string{config.ProfileDefault, config.ProfileStrict} {
			if sets := s.Profiles[profile] != s.Profiles[config.ProfileOff]; sets == (row[1+i] == "–") {
				t.Errorf("%s: under %s, %s is %q, and the profile says %q", file, profile, s.Name, row[1+i], s.Profiles[profile])
			}
		}
	}
	for name := range rows {
		t.Errorf("%s: there is no switch %s", file, name)
	}
}

// TestDecisions: decisions are numbered without gaps, and each one says what it costs.
func TestDecisions(t *testing.T) {
	files, err := filepath.Glob("docs/decisions/*.md")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	title := regexp.MustCompile(`^# ([1-9]\d*)\. \S`)
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := title.FindStringSubmatch(string(text))
		if m == nil || !strings.HasPrefix(filepath.Base(file), strings.Repeat("0", 4-len(m[1]))+m[1]+"-") || m[1] != strconv.Itoa(i+1) {
			t.Errorf("%s: its title is to be \"# %d. …\", and its name to begin with that", file, i+1)
		}
		for _, part := range []string{"**Context.**", "**Decision.**", "**Price.**"} {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s has no %s", file, part)
			}
		}
	}
}

// TestClientsDocument: docs/remote-clients.md shows how a client in Go connects as the program does that tests run.
func TestClientsDocument(t *testing.T) {
	program, err := os.ReadFile("packaging/interop/rpc/dial.go")
	if err != nil {
		t.Fatal(err)
	}
	_, code, ok := strings.Cut(string(program), "word for word (TestClientsDocument).\n\n")
	document, err := os.ReadFile("docs/remote-clients.md")
	if err != nil || !ok || !strings.Contains(string(document), "```go\n"+code+"```\n") {
		t.Errorf("docs/remote-clients.md does not have what is in packaging/interop/rpc/dial.go: %v", err)
	}
}

// TestLinks: what the documents link to in the tree exists.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	files, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "README.md", "CONTRIBUTING.md", "ARCHITECTURE.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

// TestChecklists: the files and folders that docs/changes.md names exist.
func TestChecklists(t *testing.T) {
	text, err := os.ReadFile("docs/changes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range quoted.FindAllStringSubmatch(string(text), -1) {
		name := strings.Fields(m[1])[0]
		if !strings.Contains(name, "/") {
			continue
		}
		if _, err := os.Stat(name); err != nil {
			t.Errorf("docs/changes.md: %v", err)
		}
	}
}

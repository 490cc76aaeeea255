// Command manual makes the entries of rtask.hcl(5) from the tables of daemon/config: what stands there between lines
//
//	.\" From daemon/config: BLOCK [FIRST [LAST]]
//	.\" End.
//
// are the settings of a block, or those from one name to another. "profiles" are the switches of the sandbox as a table. Each
// setting stands in the page once.
//
// The text of a setting is its Doc, where `…` is a name, a path, a variable or something that is typed, name(8) another page, and
// [SECTION] a section of this one. A line that begins with a dot is mdoc(7), an empty one begins a paragraph.
//
// It is run by packaging/generate.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/rtask/rtask/daemon/config"
)

func main() {
	out := flag.String("o", "packaging/man/rtask.hcl.5", "the file to write")
	in := flag.String("i", "packaging/man/rtask.hcl.5", "the page to read")
	flag.Parse()
	page, err := os.ReadFile(*in)
	if err == nil {
		page, err = made(page)
	}
	if err == nil {
		err = os.WriteFile(*out, page, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "manual:", err)
		os.Exit(1)
	}
}

const (
	begin = `.\" From daemon/config: `
	end   = `.\" End.`
)

// made returns the page with its entries made anew.
func made(page []byte) ([]byte, error) {
	m := manual{settings: config.Settings(), names: map[string]bool{}, done: map[string]bool{}}
	for _, s := range m.settings {
		m.names[s.Name], m.names[s.Block] = true, true
	}
	var out bytes.Buffer
	inside := false
	for line := range strings.Lines(string(page)) {
		selector, begins := strings.CutPrefix(strings.TrimSpace(line), begin)
		switch {
		case begins && inside:
			return nil, fmt.Errorf("%q is within another one", selector)
		case begins:
			text, err := m.region(strings.Fields(selector))
			if err != nil {
				return nil, fmt.Errorf("%q: %w", selector, err)
			}
			inside = true
			out.WriteString(line + text)
			continue
		case strings.TrimSpace(line) == end:
			inside = false
		}
		if !inside {
			out.WriteString(line)
		}
	}
	if inside {
		return nil, fmt.Errorf("there is no end: %s", end)
	}
	for _, s := range m.settings {
		if s.Block != "defaults" && !m.done[s.Block+"."+s.Name] { // which has what a task has
			return nil, fmt.Errorf("%s of %q stands nowhere", s.Name, s.Block)
		}
		if s.Block != "" && s.Block != "task" && !bytes.Contains(page, []byte("\n.It Ic "+s.Block+" No ")) {
			return nil, fmt.Errorf("there is no entry for the block %s", s.Block)
		}
	}
	return out.Bytes(), nil
}

// manual is a page while it is made.
type manual struct {
	settings []config.Setting
	// names are all that may stand in a file, and done those of which there is an entry, as BLOCK.NAME.
	names, done map[string]bool
}

// region is what stands between a begin and an end.
func (m *manual) region(selector []string) (string, error) {
	if slices.Equal(selector, []string{"profiles"}) {
		return m.profiles(), nil
	}
	if len(selector) == 0 || len(selector) > 3 {
		return "", fmt.Errorf("it is not BLOCK [FIRST [LAST]]")
	}
	block := strings.TrimSuffix(selector[0], "rtask.hcl")
	all := slices.DeleteFunc(slices.Clone(m.settings), func(s config.Setting) bool { return s.Block != block })
	find := func(name string) int {
		return slices.IndexFunc(all, func(s config.Setting) bool { return s.Name == name })
	}
	first, last := 0, len(all)-1
	if len(selector) > 1 {
		first, last = find(selector[1]), find(selector[len(selector)-1])
	}
	if first < 0 || last < first {
		return "", fmt.Errorf("there are no such settings")
	}
	var b strings.Builder
	for _, s := range all[first : last+1] {
		key := s.Block + "." + s.Name
		if m.done[key] {
			return "", fmt.Errorf("%s stands twice", s.Name)
		}
		m.done[key] = true
		b.WriteString(m.entry(s))
	}
	return b.String(), nil
}

// entry is the entry of one setting.
func (m *manual) entry(s config.Setting) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".It Ic %s No = Ar %s\n", s.Name, s.Type)
	if s.Directive != "" && s.Directive != s.Name {
		fmt.Fprintf(&b, "As\n.Ql %s= .\n", s.Directive)
	}
	b.WriteString(m.text(s.Doc))
	if named := func(v string) bool { return strings.Contains(s.Doc, v) }; len(s.Values) > 0 && !all(s.Values, named) {
		b.WriteString(m.text("It is `" + strings.Join(s.Values[:len(s.Values)-1], "`, `") + "` or `" + s.Values[len(s.Values)-1] + "`."))
	}
	switch {
	case s.Least != "" && s.Most != "":
		fmt.Fprintf(&b, "From %s to %s.\n", escaped(s.Least), s.Most)
	case s.Most != "":
		fmt.Fprintf(&b, "%s at most.\n", s.Most)
	}
	if s.Inherit {
		b.WriteString("Inheritable.\n")
	}
	switch holds := s.Otherwise; {
	case holds != "":
		b.WriteString(m.text("Default: " + holds + "."))
	case s.Default != "" && (s.Block != "sandbox" || s.Name == "profile"): // of which the profile decides
		fmt.Fprintf(&b, "Default: %s.\n", s.Default)
	}
	return b.String()
}

func all(values []string, is func(string) bool) bool {
	return !slices.ContainsFunc(values, func(v string) bool { return !is(v) })
}

// profiles are the switches that a profile sets, as rows of a table.
func (m *manual) profiles() string {
	var b strings.Builder
	for _, s := range m.settings {
		usual, strict := s.Profiles[config.ProfileDefault], s.Profiles[config.ProfileStrict]
		if s.Block == "sandbox" && s.Name != "profile" && usual+strict != "" {
			fmt.Fprintf(&b, ".It Ic %s Ta %s Ta %s\n", s.Name, brief(usual), brief(strict))
		}
	}
	return b.String()
}

// brief is a value in a column of a table.
func brief(value string) string {
	list, isList := strings.CutPrefix(value, "[")
	words := strings.Split(strings.Trim(list, `"]`), `", "`)
	switch {
	case value == "":
		return "unchanged"
	case !isList:
		return strings.Trim(value, `"`)
	case words[0] == "":
		return "none"
	case strings.HasPrefix(words[0], "~"):
		return "all but some"
	case len(words) > 1:
		return words[0] + ", but some"
	}
	return strings.ReplaceAll(words[0], "AF_", "")
}

// marked is what is not plain text: `…`, name(8), [SECTION].
var marked = regexp.MustCompile("`[^`]+`|[a-z][a-z0-9.-]*\\([1-9]\\)|\\[[A-Z][A-Z. ]+\\]")

// text turns the text of a setting into mdoc(7), with each sentence on a line of its own.
func (m *manual) text(doc string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(doc, "\n") {
		if line == "" {
			line = ".Pp"
		}
		if strings.HasPrefix(line, ".") {
			b.WriteString(line + "\n")
			continue
		}
		for _, sentence := range sentences(line) {
			m.sentence(&b, sentence)
		}
	}
	return b.String()
}

// sentences splits a text after each full stop and a blank.
func sentences(text string) []string {
	var all []string
	for part := range strings.SplitAfterSeq(text, ". ") {
		all = append(all, strings.TrimSpace(part))
	}
	return all
}

func (m *manual) sentence(b *strings.Builder, text string) {
	open := "" // a parenthesis before a macro
	plain := func(s string) {
		s, open = strings.TrimSpace(s), ""
		if inner, ok := strings.CutSuffix(s, "("); ok {
			s, open = strings.TrimSpace(inner), "( "
		}
		if s != "" {
			b.WriteString(escaped(s) + "\n")
		}
	}
	for text != "" {
		at := marked.FindStringIndex(text)
		if at == nil {
			plain(text)
			return
		}
		plain(text[:at[0]])
		word := text[at[0]:at[1]]
		text = text[at[1]:]
		after := text[:len(text)-len(strings.TrimLeft(text, ".,;:)"))]
		text = text[len(after):]
		fmt.Fprintf(b, ".%s\n", strings.TrimSpace(m.macro(word, open)+" "+strings.Join(strings.Split(after, ""), " ")))
	}
}

// macro is how mdoc(7) has something that is marked.
func (m *manual) macro(word, open string) string {
	inner, typed := strings.CutPrefix(word, "`")
	inner = strings.TrimSuffix(inner, "`")
	quoted := strings.NewReplacer(`\`, `\e`, `"`, `\(dq`, `'`, `\(aq`).Replace(inner)
	switch {
	case strings.HasPrefix(word, "["):
		return "Sx " + open + strings.Trim(word, "[]")
	case !typed:
		name, section, _ := strings.Cut(word, "(")
		return "Xr " + open + name + " " + strings.TrimSuffix(section, ")")
	case m.names[inner]:
		return "Ic " + open + inner
	case strings.HasPrefix(inner, "/"):
		return "Pa " + open + quoted
	case regexp.MustCompile(`^[A-Z][A-Z0-9_]+$`).MatchString(inner):
		return "Ev " + open + inner
	case regexp.MustCompile(`^[1-5][0-9][0-9]$`).MatchString(inner):
		return "Sy " + open + inner
	}
	return "Ql " + open + quoted
}

// escaped is plain text, in which a hyphen before a number is a minus sign.
func escaped(s string) string {
	s = regexp.MustCompile(`(^|[ (])-([0-9])`).ReplaceAllString(s, `$1\-$2`)
	if strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

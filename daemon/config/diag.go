package config

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/rtask/rtask/sandbox/wording"
)

// Severity tells an error from a warning.
type Severity int

// The severities.
const (
	// SeverityError keeps the configuration from being used.
	SeverityError Severity = iota
	// SeverityWarning does not.
	SeverityWarning
)

// String is the word as printed.
func (s Severity) String() string {
	if s == SeverityWarning {
		return "warning"
	}
	return "error"
}

// Diagnostic is one finding in a configuration file.
type Diagnostic struct {
	Severity Severity
	// Summary says what is wrong, in part of a line.
	Summary string
	// Detail says what would be right. May be empty.
	Detail string
	// File is the file as it was opened.
	File string
	// Line and Column are as in Pos; 0 if it is about the file as a whole.
	Line, Column int
	// Source is the line of the file, without its end.
	Source string
}

// valid returns d with \xNN in place of each byte that is not UTF-8: a file's name or its line may have some, and a finding is
// sent and shown as text.
func (d Diagnostic) valid() Diagnostic {
	for _, s := range []*string{&d.Summary, &d.Detail, &d.File, &d.Source} {
		*s = escapeInvalid(*s)
	}
	return d
}

// escapeInvalid writes \xNN in place of each byte of s that is not UTF-8.
func escapeInvalid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, `\x%02x`, s[0])
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// excerptWidth is how many characters of a long source line are shown.
const excerptWidth = 100

// String is the finding as a compiler would print it, without a newline at the end. Characters that a terminal could
// act on are replaced.
func (d Diagnostic) String() string {
	var b strings.Builder
	b.WriteString(wording.Printable(d.File, "\t"))
	if d.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", d.Line, d.Column)
	}
	fmt.Fprintf(&b, ": %s: %s", d.Severity, wording.Printable(d.Summary, "\t"))
	if d.Line > 0 && d.Source != "" {
		line, pad := excerpt(d.Source, d.Column)
		fmt.Fprintf(&b, "\n    | %s\n    | %s^", line, pad)
	}
	if d.Detail != "" {
		for line := range strings.SplitSeq(d.Detail, "\n") {
			b.WriteString("\n  ")
			b.WriteString(wording.Printable(line, "\t"))
		}
	}
	return b.String()
}

// excerpt returns the part of source around column, and what to print before a caret under that column.
func excerpt(source string, column int) (line, pad string) {
	runes := []rune(wording.Printable(source, "\t"))
	at := min(max(column-1, 0), len(runes))
	if len(runes) > excerptWidth {
		start := min(max(at-excerptWidth/2, 0), len(runes)-excerptWidth)
		end := start + excerptWidth
		cutEnd := end < len(runes)
		runes = runes[start:end]
		at -= start
		if cutEnd {
			runes = append(runes[:len(runes):len(runes)], '…')
		}
		if start > 0 {
			runes = append([]rune{'…'}, runes...)
			at++
		}
	}
	padding := make([]rune, at)
	for i, r := range runes[:at] {
		padding[i] = ' '
		if r == '\t' {
			padding[i] = '\t'
		}
	}
	return string(runes), string(padding)
}

// Diagnostics are findings, by file in the order of loading, then by place.
type Diagnostics []Diagnostic

// HasErrors reports whether there is more than warnings.
func (d Diagnostics) HasErrors() bool {
	for _, one := range d {
		if one.Severity == SeverityError {
			return true
		}
	}
	return false
}

// Error is the whole text as printed to a person, one finding after the other, without a newline at the end.
func (d Diagnostics) Error() string {
	lines := make([]string, len(d))
	for i, one := range d {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

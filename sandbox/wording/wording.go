// Package wording has what rtask does with words and lines of text: showing those that others wrote where a terminal or D-Bus reads
// them, guessing what a mistyped name means, and saying how long something takes. It is for all programs, so it imports nothing of the
// project and little else.
package wording

import (
	"fmt"
	"iter"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// IsPrintable reports whether s is UTF-8 without control characters and others that cannot be seen.
func IsPrintable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// Printable replaces characters that are not printable, and bytes that are not UTF-8, with U+FFFD. Characters of keep stay.
func Printable(s, keep string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || strings.ContainsRune(keep, r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// Escape writes characters that are not printable as a Go string has them, such as \x1b: control characters, those that change
// the direction of text, bytes that are not UTF-8. Characters of keep stay.
func Escape(s, keep string) string {
	wrong := func(r rune) bool { return !unicode.IsPrint(r) && !strings.ContainsRune(keep, r) }
	if !strings.ContainsFunc(s, func(r rune) bool { return wrong(r) || r == utf8.RuneError }) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1 || r < 0x80 && wrong(r):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case wrong(r) && r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		case wrong(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

// Span says how long something is, with its largest units, most of them at most: "2 d", "15 h 12 min", "45 s". It is rounded down, and
// less than a second is "0 s".
func Span(d time.Duration, most int) string {
	var parts []string
	for _, u := range []struct {
		name string
		unit time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"min", time.Minute}, {"s", time.Second}} {
		if n := d / u.unit; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, u.name))
			d -= n * u.unit
		} else if len(parts) > 0 {
			break
		}
		if len(parts) == most {
			break
		}
	}
	if len(parts) == 0 {
		return "0 s"
	}
	return strings.Join(parts, " ")
}

// HCL quotes a string with the escapes that HCL has.
func HCL(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteString("\\" + string(r))
		case r == '\n':
			b.WriteString(`\n`)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return `"` + strings.NewReplacer("${", "$${", "%{", "%%{").Replace(b.String()) + `"`
}

// Nearest returns the known names that a mistyped name most likely means, in their order; none if none is near. MemoryMax,
// memory-max and memory_max are the same.
func Nearest(name string, known iter.Seq[string]) []string {
	name = plain(name)
	var near []string
	least := 0
	for k := range known {
		d := distance(name, plain(k))
		switch {
		case d > max(1, len(k)/3), len(near) > 0 && d > least:
			continue
		case d < least:
			near = nil
		}
		near, least = append(near, k), d
	}
	return near
}

func plain(name string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name))
}

// distance counts the bytes to change, add, leave out or swap with their neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}

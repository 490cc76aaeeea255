package ctl

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/sandbox/wording"
)

// isTerminal reports whether a reader or writer is one (tcgetattr(3)).
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// colour is a graphic rendition of ECMA-48.
type colour string

const (
	bold   colour = "1"
	red    colour = "1;31"
	green  colour = "1;32"
	yellow colour = "1;33"
	plain  colour = "0"
)

// code is what a terminal is sent.
func (c colour) code() string { return "\x1b[" + string(c) + "m" }

// paint colours text on a terminal, unless NO_COLOR is set to anything (https://no-color.org) or it is a dumb one.
func (a *app) paint(c colour, text string) string {
	if !isTerminal(a.stdout) || a.env.get("NO_COLOR") != "" || a.env.get("TERM") == "dumb" {
		return text
	}
	return c.code() + text + plain.code()
}

// oneLine makes one printable line of a text.
func oneLine(s string) string {
	return printable(strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), " "))
}

// diagnostics prints what is wrong with a configuration.
func (a *app) diagnostics(all []*rtaskv1.Diagnostic) {
	for _, d := range all {
		a.say("%s", lines(d.Text))
	}
}

// lines makes every line of a text printable; the caret under a source line must keep its place, so tabs stay.
func lines(s string) string { return wording.Escape(strings.TrimRight(s, "\n"), "\n\t") }

// fields prints names, aligned to the right as in `systemctl status`, and values. Fields without a value are left out.
// Values come printable, so that they may have colours. Their further lines are aligned with the first.
func (a *app) fields(all [][2]string) error {
	width := 0
	for _, f := range all {
		if f[1] != "" {
			width = max(width, len(f[0]))
		}
	}
	var b strings.Builder
	total := a.width()
	for _, f := range all {
		if total > 0 {
			f[1] = wrap(f[1], max(total-width-2, usualWidth/4))
		}
		if f[1] != "" {
			fmt.Fprintf(&b, "%*s: %s\n", width, f[0], strings.ReplaceAll(f[1], "\n", "\n"+strings.Repeat(" ", width+2)))
		}
	}
	return a.print(b.String())
}

// commandLine is an argument vector as one would type it into a shell, in one line: where a word has what cannot be seen, such as
// the end of a line, it is quoted as $'…' (bash(1), QUOTING), as systemctl(1) does.
func commandLine(argv []string) string {
	words := make([]string, len(argv))
	for i, word := range argv {
		switch {
		case printable(word) != word:
			word = strings.NewReplacer(`\`, `\\`, "'", `\'`, "\n", `\n`, "\t", `\t`, "\r", `\r`).Replace(word)
			words[i] = "$'" + printable(word) + "'"
		case word == "" || strings.ContainsFunc(word, func(r rune) bool {
			return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("%+,-./:=@_", r)
		}):
			words[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		default:
			words[i] = word
		}
	}
	return strings.Join(words, " ")
}

// moment is a time for people, local, as systemctl shows it; "" if it is not known.
func moment(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Local().Format("Mon 2006-01-02 15:04:05 MST")
}

// ago is how long ago that was, with its two largest units; "" if it is not known.
func ago(t *timestamppb.Timestamp) string { return agoIn(t, 2) }

// agoIn is ago with so many units.
func agoIn(t *timestamppb.Timestamp, units int) string {
	if t == nil {
		return ""
	}
	d := time.Since(t.AsTime())
	if d < 0 {
		return spanIn(-d, units) + " left"
	}
	return spanIn(d, units) + " ago"
}

// span is a time span with its two largest units, as systemctl shows it.
func span(d time.Duration) string { return spanIn(d, 2) }

// spanIn is a time span with its largest units, at most two.
func spanIn(d time.Duration, most int) string {
	const day = 24 * time.Hour
	units := []struct {
		one, more string
		unit      time.Duration
	}{
		{" year", " years", 365 * day}, {" month", " months", 30 * day}, {" day", " days", day}, {"h", "h", time.Hour},
		{"min", "min", time.Minute}, {"s", "s", time.Second},
	}
	count := func(n time.Duration, i int) string {
		if n == 1 {
			return "1" + units[i].one
		}
		return fmt.Sprintf("%d%s", n, units[i].more)
	}
	for i, u := range units {
		if d < u.unit {
			continue
		}
		text := count(d/u.unit, i)
		if i+1 < len(units) && most > 1 {
			if m := d % u.unit / units[i+1].unit; m > 0 {
				text += " " + count(m, i+1)
			}
		}
		return text
	}
	return fmt.Sprintf("%dms", d.Milliseconds())
}

// size is a number of bytes to the base of 1024, as systemctl shows it.
func size(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%dB", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return fmt.Sprintf("%.1f%c", f, units[i])
}

// plural is a count and what it counts.
func plural(n int32, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

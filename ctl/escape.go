package ctl

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// escape replaces what a terminal could act on or a reader not see, in the manner of a Go string: control characters, those that
// change the direction of text, bytes that are not UTF-8. Characters of keep stay.
func escape(s, keep string) string {
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

// printable escapes all of that in one word or line.
func printable(s string) string { return escape(s, "") }

// shown is what may be written of a text that rtaskctl has put together: it escapes all of that but the ends of lines, tabs and
// rtaskctl's own colours. Values are made printable where they are put in, so that they cannot end a line either; this is for what
// was forgotten there.
func shown(text string) string {
	var b strings.Builder
	for text != "" {
		n := strings.IndexByte(text, 0x1b)
		if n < 0 {
			n = len(text)
		}
		b.WriteString(escape(text[:n], "\n\t"))
		text = text[n:]
		if text == "" {
			break
		}
		code := ""
		for _, c := range []colour{bold, red, green, yellow, plain} {
			if strings.HasPrefix(text, c.code()) {
				code = c.code()
			}
		}
		if code == "" {
			b.WriteString(printable(text[:1]))
			text = text[1:]
		}
		b.WriteString(code)
		text = text[len(code):]
	}
	return b.String()
}

// escaper writes a job's output so that a terminal only shows it. Lines may end with \r\n.
type escaper struct {
	to io.Writer
	// rest is the beginning of a character, or of the end of a line.
	rest []byte
}

// Write implements io.Writer.
func (e *escaper) Write(p []byte) (int, error) {
	data := append(e.rest, p...)
	keep := len(data)
	for n := 1; n <= min(utf8.UTFMax-1, len(data)); n++ {
		if last := data[len(data)-n:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) || last[0] == '\r' && n == 1 {
				keep -= n
			}
			break
		}
	}
	e.rest = bytes.Clone(data[keep:])
	return len(p), e.write(data[:keep])
}

// Flush writes what was kept back.
func (e *escaper) Flush() error {
	data := e.rest
	e.rest = nil
	return e.write(data)
}

func (e *escaper) write(data []byte) error {
	all := strings.Split(string(data), "\r\n")
	for i := range all {
		all[i] = escape(all[i], "\n\t")
	}
	_, err := io.WriteString(e.to, strings.Join(all, "\r\n"))
	return err
}

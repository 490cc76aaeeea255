package ctl

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/rtask/rtask/sandbox/wording"
)

// printable escapes what a terminal could act on, or a reader not see, in one word or line.
func printable(s string) string { return wording.Escape(s, "") }

// shown is what may be written of a text that rtaskctl has put together: it escapes all of that but the ends of lines, tabs and
// rtaskctl's own colours. Values are made printable where they are put in, so that they cannot end a line either; this is for what
// was forgotten there.
func shown(s string) string {
	var b strings.Builder
	for s != "" {
		n := strings.IndexByte(s, 0x1b)
		if n < 0 {
			n = len(s)
		}
		b.WriteString(wording.Escape(s[:n], "\n\t"))
		s = s[n:]
		if s == "" {
			break
		}
		code := ""
		for _, c := range []colour{bold, red, green, yellow, plain} {
			if strings.HasPrefix(s, c.code()) {
				code = c.code()
			}
		}
		if code == "" {
			b.WriteString(printable(s[:1]))
			s = s[1:]
		}
		b.WriteString(code)
		s = s[len(code):]
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
		all[i] = wording.Escape(all[i], "\n\t")
	}
	_, err := io.WriteString(e.to, strings.Join(all, "\r\n"))
	return err
}

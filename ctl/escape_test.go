package ctl

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"plain": "plain", "größe – 日本": "größe – 日本", "\x1b[31m": `\x1b[31m`, "a\nb\tc": `a\x0ab\x09c`, "\u009b31m": `\u009b31m`,
		"\u202efdp": `\u202efdp`, "a\xffb": `a\xffb`, "\u200b": `\u200b`, "\U000e0041": `\U000e0041`, "\x7f": `\x7f`, "�": "�",
	} {
		if got := printable(text); got != want {
			t.Errorf("printable(%q) = %s, want %s", text, got, want)
		}
	}
}

func TestShown(t *testing.T) {
	for text, want := range map[string]string{
		"a\tb\n": "a\tb\n", red.code() + "x" + plain.code(): "\x1b[1;31mx\x1b[0m", "\x1b]0;owned\a": `\x1b]0;owned\x07`, "\x1b[2J": `\x1b[2J`,
		"\x1b": `\x1b`, "\x1b\x1b[1m": `\x1b` + "\x1b[1m", "caf\xe9\r\n": `caf\xe9\x0d` + "\n",
	} {
		if got := shown(text); got != want {
			t.Errorf("shown(%q) = %q, want %q", text, got, want)
		}
	}
}

// TestEscaper checks that output is escaped in the same way, wherever it was cut into pieces.
func TestEscaper(t *testing.T) {
	text := "größe\r\n日本\t\x1b[2J\r50%\r\n\xe9\xe4x\xf0\x9f\x98"
	want := "größe\r\n日本\t" + `\x1b[2J\x0d50%` + "\r\n" + `\xe9\xe4x\xf0\x9f\x98`
	for size := 1; size <= len(text); size++ {
		var out bytes.Buffer
		e := &escaper{to: &out}
		for rest := []byte(text); len(rest) > 0; {
			n := min(size, len(rest))
			if _, err := e.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := e.Flush(); err != nil || out.String() != want {
			t.Errorf("in pieces of %d: %q, %v; want %q", size, out.String(), err, want)
		}
	}
}

// FuzzEscape checks that nothing reaches a terminal but what it shows, and that nothing which it shows is lost.
func FuzzEscape(f *testing.F) {
	f.Add("größe\x1b[31m\u202e", "\xff\r\n")
	f.Fuzz(func(t *testing.T, a, b string) {
		var out bytes.Buffer
		e := &escaper{to: &out}
		for _, piece := range []string{a, b} {
			if _, err := fmt.Fprint(e, piece); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Flush(); err != nil {
			t.Fatal(err)
		}
		for name, got := range map[string]string{"escaper": strings.ReplaceAll(out.String(), "\r\n", "\n"), "shown": strings.ReplaceAll(shown(a+b), plain.code(), "")} {
			if !utf8.ValidString(got) {
				t.Errorf("%s: %q is not UTF-8", name, got)
			}
			for _, r := range got {
				if !unicode.IsPrint(r) && r != '\n' && r != '\t' && r != 0x1b {
					t.Errorf("%s: %q has %U", name, got, r)
				}
			}
		}
		if strings.ContainsRune(out.String(), 0x1b) || strings.ContainsRune(printable(a), 0x1b) {
			t.Error("an escape is left")
		}
	})
}

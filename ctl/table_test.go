package ctl

import (
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// psColumns are columns of each kind.
func psColumns() []column {
	return []column{
		{name: "JOB"}, {name: "TASK/COMMAND", least: 16}, {name: "USER", least: 8, drop: 2}, {name: "PID", drop: 1}, {name: "EMPTY"}, {name: "PROBLEM", below: true},
	}
}

func TestFit(t *testing.T) {
	natural, empty := []int{16, 40, 10, 7, 5, 60}, []bool{4: true, 5: false}
	for _, test := range []struct {
		total int
		want  []int
	}{
		{0, natural},
		{148, natural},
		{147, []int{16, 40, 10, 7, leftOut, 60}},
		{141, []int{16, 40, 10, 7, leftOut, 60}},
		{140, []int{16, 40, 10, 7, leftOut, putBelow}},
		{79, []int{16, 40, 10, 7, leftOut, putBelow}},
		{60, []int{16, 21, 10, 7, leftOut, putBelow}},
		{52, []int{16, 24, 8, leftOut, leftOut, putBelow}},
		{40, []int{16, 22, leftOut, leftOut, leftOut, putBelow}},
		{20, []int{16, 16, leftOut, leftOut, leftOut, putBelow}}, // too narrow for what must be there
	} {
		got := fit(psColumns(), natural, empty, test.total)
		if test.total == 52 {
			// One character more or less of a column that may be cut is the same to a reader.
			if lineWidth(got) > 52 || got[3] != leftOut {
				t.Errorf("fit(52) = %v", got)
			}
			continue
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("fit(%d) = %v, want %v", test.total, got, test.want)
		}
	}
}

func TestRow(t *testing.T) {
	widths := fit(psColumns(), []int{4, 30, 4, 3, 5, 60}, []bool{4: true, 5: false}, 40)
	got := row(psColumns(), widths, []string{"abcd", strings.Repeat("x", 30), "root", "12", "", "a reason that is longer than the terminal is wide"}, 40)
	want := "abcd  " + strings.Repeat("x", 22) + "…  root  12\n    a reason that is longer than the\n    terminal is wide\n"
	if got != want {
		t.Errorf("row =\n%s\nwant\n%s", got, want)
	}
	// A word that is longer than the terminal, such as a URL, stays whole.
	url := "https://example.org/" + strings.Repeat("a", 64)
	if got := row(psColumns(), widths, []string{"abcd", "", "", "", "", url}, 40); got != "abcd  -                        -     -\n    "+url+"\n" {
		t.Errorf("row = %q", got)
	}
}

// TestWidth: what is no terminal has no width, whatever COLUMNS says.
func TestWidth(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close(); _ = w.Close() }()
	for _, to := range []io.Writer{w, io.Discard} {
		if n := (&app{stdout: to, env: testEnv(map[string]string{"COLUMNS": "80"})}).width(); n != 0 {
			t.Errorf("width() = %d, want 0", n)
		}
	}
}

// TestHelpWidth: the help of every command fits a terminal of 80 columns, and no line is lost.
func TestHelpWidth(t *testing.T) {
	seen := 0
	var walk func(args []string, commands []*cli.Command)
	try := func(args []string) {
		var out strings.Builder
		if status := Run(t.Context(), append(args[:len(args):len(args)], "--help"), nil, &out, io.Discard, testEnv(nil)); status != 0 {
			t.Errorf("%v --help: exit status %d", args, status)
		}
		seen++
		for line := range strings.Lines(out.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > usualWidth {
				t.Errorf("%v --help: a line of %d characters: %s", args, n, line)
			}
		}
		if !strings.HasSuffix(out.String(), "\n") {
			t.Errorf("%v --help does not end with a line: %q", args, out.String())
		}
	}
	walk = func(args []string, commands []*cli.Command) {
		try(args)
		for _, c := range commands {
			walk(append(args[:len(args):len(args)], c.Name), c.Subcommands)
		}
	}
	walk([]string{"rtaskctl"}, (&app{env: testEnv(nil)}).build().Commands)
	if seen < 40 {
		t.Errorf("only %d commands were seen", seen)
	}
}

func TestWrap(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"short", "short"},
		{"   --flag  a text that does not fit", "   --flag  a text that\n           does not fit"},
		{"   plain words that go on and on", "   plain words that go\n   on and on"},
		{"Usage: rtaskctl x [--a A | --b B] [--long L]", "Usage: rtaskctl x\n    [--a A | --b B]\n    [--long L]"},
		{"words, then averyverylongwordthatcannotbebroken x", "words, then\naveryverylongwordthatcannotbebroken\nx"},
		{"größe größe größe größe…", "größe größe größe größe…"},
	} {
		if got := wrap(test.text, 24); got != test.want {
			t.Errorf("wrap(%q) =\n%s\nwant\n%s", test.text, got, test.want)
		}
	}
}

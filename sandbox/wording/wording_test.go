package wording

import (
	"slices"
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	known := []string{"memory_max", "memory_high", "tasks_max", "start", "status", "ps", "user", "stat"}
	for name, want := range map[string][]string{
		"MemoryMax": {"memory_max"}, "memory-mx": {"memory_max"}, "memory_mux": {"memory_max"}, "usre": {"user"}, "sp": {"ps"},
		"stats": {"status", "stat"}, "sttat": {"stat"}, "frobnicate": nil, "": nil, "psychology": nil,
	} {
		if got := Nearest(name, slices.Values(known)); !slices.Equal(got, want) {
			t.Errorf("%q is near %q, want %q", name, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"abc", "abc", 0},
		{"abc", "acb", 1},
		{"abc", "ab", 1},
		{"kitten", "sitting", 3},
		{"ca", "abc", 3}, // nothing is changed twice
	} {
		if ab, ba := distance(test.a, test.b), distance(test.b, test.a); ab != test.want || ba != test.want {
			t.Errorf("from %q to %q it is %d, and back %d; want %d", test.a, test.b, ab, ba, test.want)
		}
	}
}

// Whatever comes in, what comes out is printable but for what was to be kept.
func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[31m\tb\xff\n\u202e\U000e0001")
	f.Fuzz(func(t *testing.T, s string) {
		for _, out := range []string{Printable(s, "\t"), Escape(s, "\t")} {
			if !IsPrintable(strings.ReplaceAll(out, "\t", "")) {
				t.Errorf("%q became %q", s, out)
			}
		}
		if IsPrintable(s) && (Printable(s, "") != s || Escape(s, "") != s) {
			t.Errorf("%q was changed", s)
		}
	})
}

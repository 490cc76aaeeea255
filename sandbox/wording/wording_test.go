package wording

import (
	"slices"
	"strings"
	"testing"
	"time"
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

func TestSpan(t *testing.T) {
	const day = 24 * time.Hour
	for _, test := range []struct {
		d    time.Duration
		most int
		want string
	}{
		{0, 1, "0 s"}, {999 * time.Millisecond, 2, "0 s"}, {-time.Hour, 1, "0 s"}, {59 * time.Second, 1, "59 s"}, {7 * time.Minute, 1, "7 min"},
		{3*time.Hour + 59*time.Minute, 1, "3 h"}, {15*time.Hour + 12*time.Minute, 2, "15 h 12 min"}, {15*time.Hour + 12*time.Second, 2, "15 h"},
		{2*day + 5*time.Hour, 1, "2 d"}, {400 * day, 2, "400 d"}, {day + time.Hour + time.Minute, 3, "1 d 1 h 1 min"},
	} {
		if got := Span(test.d, test.most); got != test.want {
			t.Errorf("Span(%v, %d) = %q, want %q", test.d, test.most, got, test.want)
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

package ctl

import (
	"strings"
	"testing"
)

// TestEnding: the end of an output is kept, whatever its lines are, and no more of it than a terminal is worth.
func TestEnding(t *testing.T) {
	for _, test := range []struct {
		name   string
		pieces []string
		want   string
		more   bool
	}{
		{"nothing", nil, "", false},
		{"one line", []string{"a\n"}, "a\n", false},
		{"a line without an end", []string{"a\nb"}, "a\nb", false},
		{"as many as are shown", []string{"a\n", "b\n", "c\n"}, "a\nb\nc\n", false},
		{"one more", []string{"a\nb\n", "c\nd\n"}, "b\nc\nd\n", true},
		{"one more, without an end", []string{"a\nb\nc\nd"}, "b\nc\nd", true},
		{"empty lines", []string{"\n\n\n\n"}, "\n\n\n", true},
	} {
		e := &ending{}
		for _, p := range test.pieces {
			if n, err := e.Write([]byte(p)); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
		}
		if got, more := e.lines(3); string(got) != test.want || more != test.more {
			t.Errorf("%s: %q, %v; want %q, %v", test.name, got, more, test.want, test.more)
		}
	}
	// A line of any length, as it comes.
	e := &ending{}
	piece := []byte(strings.Repeat("x", 5000))
	for range 1000 {
		if _, err := e.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.Write([]byte("the end")); err != nil {
		t.Fatal(err)
	}
	got, more := e.lines(3)
	if len(got) != lastBytes || !more || !strings.HasSuffix(string(got), "xthe end") || cap(e.data) > 4*lastBytes {
		t.Errorf("%d bytes are kept, in %d; %v", len(got), cap(e.data), more)
	}
}

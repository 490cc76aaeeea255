package jobid

import (
	"crypto/sha256"
	"strings"
	"testing"
)

func TestNew(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := New()
		if !Valid(id) || seen[id] {
			t.Fatalf("%q", id)
		}
		seen[id] = true
	}
}

func TestOf(t *testing.T) {
	a, b := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b"))
	if !Valid(Of(a)) || Of(a) == Of(b) {
		t.Errorf("%q, %q", Of(a), Of(b))
	}
	digits := [32]byte{}
	for i := range digits {
		digits[i] = 0xff
	}
	if id := Of(digits); !Valid(id) || id != "a"+strings.Repeat("7", Length-1) {
		t.Errorf("%q", id)
	}
	if was := "zklycewkdo64v6wc"; Of(a) != was { // changed ids would run what was run already
		t.Errorf("%q, was %q", Of(a), was)
	}
}

func TestValid(t *testing.T) {
	for _, s := range []string{"", "a", "2aaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaa1", "Aaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaa", "../../etc/passwd", "aaaaaaaaaaaaaaa/"} {
		if Valid(s) {
			t.Errorf("%q is valid", s)
		}
	}
}

package seccomp

import (
	"testing"

	"github.com/rtask/rtask/sandbox/spec"
)

func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		filter []string
		name   string
		want   bool
	}{
		{nil, "@clock", false},
		{[]string{"~@clock"}, "@clock", true},
		{[]string{"~@clock"}, "@mount", false},
		{[]string{"~settimeofday"}, "@clock", false}, // not all of it
		{[]string{"~settimeofday"}, "settimeofday", true},
		{[]string{"@system-service"}, "@mount", true},
		{[]string{"@system-service"}, "@resources", false},
		{[]string{"@system-service", "~@resources"}, "@resources", true},
		{[]string{"~@clock"}, "@nonesuch", false},
		{[]string{"~nonesuch"}, "@clock", false},
	} {
		if got := Refuses(spec.Sandbox{SystemCallFilter: c.filter}, c.name); got != c.want {
			t.Errorf("%q refuses %s: %v", c.filter, c.name, got)
		}
	}
}

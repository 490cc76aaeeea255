package expression

import (
	"os"
	"strings"
	"testing"
)

// TestManual: rtask.hcl(5) has each function and each name.
func TestManual(t *testing.T) {
	b, err := os.ReadFile("../../packaging/man/rtask.hcl.5")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(b), "\n.Sh EXPRESSIONS\n")
	section, _, _ = strings.Cut(section, "\n.Sh ")
	words := strings.Fields(section)
	for i, w := range words {
		words[i] = strings.Trim(w, ",")
	}
	has := strings.Join(words, " ") + " "
	for _, name := range Functions() {
		if !strings.Contains(has, "Fn "+name+" ") {
			t.Errorf("the function %s is not in the manual", name)
		}
	}
	for name := range unknowns() {
		if !strings.Contains(has, " "+name+" ") {
			t.Errorf("the name %s is not in the manual", name)
		}
	}
}

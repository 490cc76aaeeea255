package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestFuzz checks that packaging/fuzz runs every target, takes only what was found for a failure, and sums up. Go itself stands aside
// here: each target's output is what `go test` prints in that case.
func TestFuzz(t *testing.T) {
	dir := t.TempDir()
	script, err := os.ReadFile("fuzz")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"packaging/fuzz": string(script),
		"a/a_test.go":    "func FuzzGood(f *testing.F) {}\nfunc FuzzLate(f *testing.F) {}\n",
		"b/b_test.go":    "func FuzzFound(f *testing.F) {}\nfunc FuzzFoundLate(f *testing.F) {}\nfunc FuzzLast(f *testing.F) {}\n",
		"c/c_test.go":    "func FuzzBroken(f *testing.F) {}\n",
		"bin/go": `#!/bin/sh
late='--- FAIL: x (45.1s)
    context deadline exceeded
FAIL'
found='    Failing input written to testdata/fuzz/x/0123'
case $* in
*FuzzLate*) echo "$late"; exit 1 ;;
*FuzzFoundLate*) echo "$found"; echo "$late"; exit 1 ;;
*FuzzFound*) echo "$found"; exit 1 ;;
*FuzzBroken*) echo "undefined: x"; exit 1 ;;
esac
echo PASS
`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, error) {
		cmd := exec.Command(filepath.Join(dir, "packaging/fuzz"), args...)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+string(filepath.ListSeparator)+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run("45s")
	_, summary, _ := strings.Cut(out, "\n\n")
	want := `== fuzz: 3 targets ran for 45s each and nothing was found, 3 failed
./b FuzzFound: testdata/fuzz/x/0123
./b FuzzFoundLate: testdata/fuzz/x/0123
./c FuzzBroken: it cannot run, see above
`
	if err == nil || summary != want {
		t.Errorf("%v, summary %q, want %q", err, summary, want)
	}
	if out, err := run("45s", "FuzzGood", "FuzzLate"); err != nil || !strings.Contains(out, "== fuzz: 2 targets") || strings.Contains(out, "FuzzLast") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := run("45s", "FuzzNone"); err == nil {
		t.Errorf("no target: %s", out)
	}
}

//go:build testbed

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// source is where the testbed shows this repository.
const source = "/src"

// TestInstalled installs the package as README.md says, and then runs the scripts of testdata/installed one after the
// other: they share one machine.
func TestInstalled(t *testing.T) {
	t.Run("quick start", quickStart)
	if t.Failed() {
		t.FailNow()
	}
	scripts(t, "installed")
}

// TestMachine runs the scripts of testdata/vm, for which the kernel must have all controllers: the virtual machine. The
// package is installed there.
func TestMachine(t *testing.T) { scripts(t, "vm") }

// before keeps what testdata/remote/end brings back: after a script that failed, or where one calls it.
const before = "rm -rf /run/rtask-before && mkdir -m 0700 /run/rtask-before && cp -a /etc/rtask /etc/hosts /run/rtask-before/ && " +
	"echo $(date +%s) $(cut -d . -f 1 /proc/uptime) >/run/rtask-before/clock"

// scripts runs those of one folder, in the order of their names. Later ones build on what earlier ones leave in /etc/rtask, so
// one that failed loses its own changes only.
func scripts(t *testing.T, dir string) {
	files, err := filepath.Glob(filepath.Join(source, "packaging/e2e/testdata", dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	slices.Sort(files)
	for _, f := range files {
		if out, err := exec.Command("sh", "-c", before).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		// A test of its own around each, which ends when the script does: testscript runs what it is given side by side.
		passed := t.Run(filepath.Base(f), func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Files: []string{f}, Cmds: commands(), RequireExplicitExec: true,
				Setup: func(e *testscript.Env) error {
					e.Setenv("HOME", "/root")
					e.Setenv("RTASK_SOAK", os.Getenv("RTASK_SOAK"))
					holdings(e)
					return open(e.WorkDir)
				},
			})
		})
		if !passed {
			out, err := exec.Command("timeout", "120", "bash", filepath.Join(source, "packaging/e2e/testdata/remote/end")).CombinedOutput()
			t.Logf("what %s has left is taken back: %v\n%s", filepath.Base(f), err, out)
		}
	}
}

// quickStart runs the quick start of README.md word for word, on a machine that has just the package file.
func quickStart(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(source, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(readme), "<!-- quick start: run by a test -->\n\n```sh\n")
	script, rest, ok2 := strings.Cut(after, "```\n")
	if !ok || !ok2 {
		t.Fatal("README.md has no quick start")
	}
	dir := t.TempDir()
	if out, err := exec.Command("cp", "-r", source+"/dist", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("the quick start failed: %v", err)
	}
	// What was installed is what was built: the programs in bin say so.
	built, err := exec.Command(source+"/bin/rtaskctl", "version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if installed, err := exec.Command("/usr/bin/rtaskctl", "version").Output(); err != nil || string(installed) != string(built) {
		t.Fatalf("installed is %q, built %q, %v", installed, built, err)
	}
	// The reply is the one that README.md shows, but for the id and the times.
	_, shown, ok := strings.Cut(rest, "```json\n")
	shown, _, ok2 = strings.Cut(shown, "```\n")
	if !ok || !ok2 {
		t.Fatal("README.md shows no reply")
	}
	var want, got map[string]any
	if err := json.Unmarshal([]byte(shown), &want); err != nil {
		t.Fatalf("the reply in README.md: %v", err)
	}
	line := regexp.MustCompile(`(?m)^\{"status".*\}$`).Find(out)
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatalf("no JSON reply in the output: %v", err)
	}
	if id, _ := got["task_id"].(string); !regexp.MustCompile(`^[a-z][a-z2-7]{15}$`).MatchString(id) {
		t.Errorf("task_id is %q", id)
	}
	for _, name := range []string{"queued_at", "started_at", "ended_at"} {
		for _, r := range []map[string]any{got, want} {
			at, _ := r[name].(string)
			if _, err := time.Parse(time.RFC3339, at); err != nil || !strings.HasSuffix(at, "Z") {
				t.Errorf("%s is %q", name, at)
			}
		}
	}
	for _, name := range []string{"task_id", "queued_at", "started_at", "ended_at", "duration"} {
		if got[name] == nil || want[name] == nil {
			t.Errorf("%s: the reply has %v, README.md shows %v", name, got[name], want[name])
		}
		delete(got, name)
		delete(want, name)
	}
	if !mapsEqual(got, want) {
		t.Errorf("the reply is %v, README.md shows %v", got, want)
	}
	// The journal writes a line a moment after the reply, so its command is run again once the journal has caught up.
	out, err = exec.Command("sh", "-c", "journalctl --sync && journalctl -t hello").CombinedOutput()
	if err != nil || !regexp.MustCompile(`(?m) hello\[\d+\]: Hello, alice!$`).Match(out) {
		t.Errorf("journalctl -t hello does not show the task's output: %v, %s", err, out)
	}
}

func mapsEqual(a, b map[string]any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}

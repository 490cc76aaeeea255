package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// What was disabled stays so through reloads and restarts, and while the task is not configured.
func TestSwitchesLast(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "tasks.d", "a.hcl")
	const one = `task "one" { command = ["true"] }`
	write(t, file, one)
	r := run(t, dir)
	if _, err := r.Jobs.SwitchTask(t.Context(), &rtaskv1.SwitchTaskRequest{Task: "one"}); err != nil {
		t.Fatal(err)
	}
	disabled := func(want bool) {
		t.Helper()
		reply, err := r.Jobs.Tasks(t.Context(), &rtaskv1.TasksRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if got := len(reply.Tasks) == 1 && !reply.Tasks[0].Enabled; got != want {
			t.Errorf("%v", reply.Tasks)
		}
	}
	reload := func() {
		t.Helper()
		if _, err := r.Jobs.Reload(t.Context(), &rtaskv1.ReloadRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	disabled(true)
	reload()
	disabled(true)
	write(t, file, "")
	reload()
	disabled(false) // it is not there
	info, err := r.Jobs.Info(t.Context(), &rtaskv1.InfoRequest{})
	if err != nil || len(info.Switches) != 1 {
		t.Errorf("%v, %v", info, err)
	}
	r.stop(t)
	write(t, file, one)
	r = run(t, dir)
	disabled(true)
	if fi, err := os.Stat(filepath.Join(r.options.StateDir, "tasks.json")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	// Where it cannot be written, nothing changes.
	if err := os.Mkdir(filepath.Join(r.options.StateDir, "tasks.json.new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Jobs.SwitchTask(t.Context(), &rtaskv1.SwitchTaskRequest{Task: "one", Enabled: true}); err == nil {
		t.Error("no error")
	}
	disabled(true)
	r.stop(t)

	// What nobody can read keeps the engine from starting what somebody disabled.
	write(t, filepath.Join(r.options.StateDir, "tasks.json"), "{")
	if err := Run(t.Context(), r.options); err == nil || !strings.Contains(err.Error(), "tasks.json") {
		t.Errorf("%v", err)
	}
}

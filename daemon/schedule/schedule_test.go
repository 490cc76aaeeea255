package schedule

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rtask/rtask/daemon/config"
)

func everything() map[string]*config.Task {
	return map[string]*config.Task{
		"all": {
			Name: "all", Enabled: true, Pos: config.Pos{File: "/etc/rtask/tasks.d/100%.hcl", Line: 1, Column: 1},
			Schedule: &config.Schedule{OnCalendar: []string{"Mon..Fri 03:00", "*-*-01 04:30 Europe/Berlin"}, Persistent: true, RandomizedDelay: 5 * time.Minute},
			Watch: &config.Watch{
				Changed: []string{"/srv/in coming/100%h"}, Modified: []string{"/srv/#list"}, Exists: []string{"/srv/ready"},
				DirectoryNotEmpty: []string{"/srv/in\"coming'"},
			},
		},
		"changed":  {Name: "changed", Enabled: true, Watch: &config.Watch{Changed: []string{"/srv"}}},
		"off":      {Name: "off", Schedule: &config.Schedule{OnCalendar: []string{"daily"}}},
		"by-hand_": {Name: "by-hand_", Enabled: true},
	}
}

func enabled(t *config.Task) bool { return t.Enabled }

func TestUnits(t *testing.T) {
	units := Units(everything(), enabled)
	for _, want := range []string{"rtask-schedule@all.timer", "rtask-path@all.path", "rtask-exists@all.path", "rtask-path@changed.path"} {
		if units[want] == "" {
			t.Errorf("there is no %s", want)
		}
	}
	if len(units) != 4 {
		t.Errorf("%v", units)
	}
	for _, line := range []string{
		"Persistent=yes", "RandomizedDelaySec=300000000us", "OnCalendar=Mon..Fri 03:00", "OnCalendar=*-*-01 04:30 Europe/Berlin", "SourcePath=/etc/rtask/tasks.d/100%%.hcl",
	} {
		if !strings.Contains(units["rtask-schedule@all.timer"], "\n"+line+"\n") {
			t.Errorf("no line %s in\n%s", line, units["rtask-schedule@all.timer"])
		}
	}
	for _, name := range []string{"rtask-path@all.path", "rtask-exists@all.path"} {
		if !strings.Contains(units[name], "\nDefaultDependencies=no\n") {
			t.Errorf("a boot waits for %s", name)
		}
	}
	if !strings.Contains(units["rtask-path@all.path"], "\nPathChanged=/srv/in coming/100%%h\n") {
		t.Errorf("%s", units["rtask-path@all.path"])
	}
}

// What was written is read again, and systemd understands each line of it.
func TestWrite(t *testing.T) {
	dir, units := t.TempDir(), Units(everything(), enabled)
	if got, err := Read(filepath.Join(dir, "missing")); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if err := Write(dir, units); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(dir); err != nil || !maps.Equal(got, units) {
		t.Errorf("%v, %v", got, err)
	}
	for name := range units {
		if b, err := os.ReadFile(filepath.Join(dir, wanted, name)); err != nil || string(b) != units[name] {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed: its verdict is not asked for")
	}
	for _, of := range []string{"schedule", "path", "exists"} {
		service := "[Service]\nType=oneshot\nExecStart=/bin/true\n"
		if err := os.WriteFile(filepath.Join(dir, "rtask-"+of+"@.service"), []byte(service), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "rtask.socket"), []byte("[Socket]\nListenStream=/run/x\nAccept=yes\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"verify", "--man=no", "--generators=no"}
	for name := range units {
		args = append(args, filepath.Join(dir, name))
	}
	cmd := exec.Command("systemd-analyze", args...)
	cmd.Env = append(cmd.Environ(), "SYSTEMD_UNIT_PATH="+dir+":/usr/lib/systemd/system", "SYSTEMD_LOG_LEVEL=warning")
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, dir) || strings.Contains(line, "rtask-") {
			t.Errorf("systemd says: %s", line)
		}
	}
	t.Logf("%v\n%s", err, out)
}

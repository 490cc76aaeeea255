package daemon

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/control"
)

// Whoever changes what is in force tells of it, and only then.
func TestSettingsTell(t *testing.T) {
	dir := t.TempDir()
	told := 0
	s := newSettings(Options{
		ConfigFile: filepath.Join(dir, "rtask.hcl"), TasksDir: filepath.Join(dir, "tasks.d"), Logger: slog.New(slog.DiscardHandler),
	}, func(*config.Config) { told++ })
	write(t, filepath.Join(dir, "tasks.d", "a.hcl"), one)
	write(t, filepath.Join(dir, "switches"), "{}")
	for i, c := range []struct {
		what string
		do   func()
		want int
	}{
		{"the switches at the start", func() {
			if err := s.loadSwitches(filepath.Join(dir, "switches")); err != nil {
				t.Fatal(err)
			}
		}, 1},
		{"a check", func() { s.load(true, nil) }, 0},
		{"a load", func() { s.load(false, nil) }, 1},
		{"a load with an error", func() { s.load(false, config.Diagnostics{{Severity: config.SeverityError, Summary: "x"}}) }, 1},
		{"an error that was found later", func() { s.note(config.Diagnostics{{Severity: config.SeverityError, Summary: "x"}}) }, 1},
		{"a switch", func() {
			if err := s.switchTask("one", &control.TaskSwitch{}); err != nil {
				t.Fatal(err)
			}
		}, 1},
	} {
		told = 0
		if c.do(); told != c.want {
			t.Errorf("%d: %s was told %d times, want %d", i, c.what, told, c.want)
		}
	}
}

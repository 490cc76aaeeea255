package daemon

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/schedule"
)

// The generator makes what the engine would: of the configuration, or while that has errors of the last good one, without the tasks
// that were disabled. Where there is neither it makes nothing, and says so.
func TestGenerate(t *testing.T) {
	const nightly = "task \"nightly\" {\n command = [\"true\"]\n schedule {\n  on_calendar = [\"daily\"]\n }\n}\n"
	const weekly = "task \"weekly\" {\n command = [\"true\"]\n schedule {\n  on_calendar = [\"weekly\"]\n }\n}\n"
	for name, c := range map[string]struct {
		file, kept, switches string
		want                 []string
		fails                bool
	}{
		"good":               {file: nightly, kept: weekly, want: []string{"nightly"}},
		"broken":             {file: nightly + "}", kept: weekly, want: []string{"weekly"}},
		"broken, both":       {file: nightly + "}", kept: weekly + "}", fails: true},
		"broken, none good":  {file: nightly + "}", fails: true},
		"disabled":           {file: nightly + weekly, switches: `{"weekly":{"enabled":false}}`, want: []string{"nightly"}},
		"disabled, unknown":  {file: nightly, switches: `{"weekly":{"enabled":false}}`, want: []string{"nightly"}},
		"switches unread":    {file: nightly, switches: `{`, fails: true},
		"no schedule at all": {file: "task \"a\" {\n command = [\"true\"]\n}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := dirs{config: filepath.Join(dir, "rtask.hcl"), state: filepath.Join(dir, "state")}
			tasks, out := filepath.Join(dir, "tasks.d"), filepath.Join(dir, "out")
			for _, folder := range []string{d.state, tasks, out} {
				if err := os.Mkdir(folder, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			write := func(path string, b []byte) {
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write(filepath.Join(tasks, "a.hcl"), []byte(c.file))
			if c.kept != "" {
				b, err := json.Marshal(kept{Files: []config.File{{Path: "/etc/rtask/tasks.d/a.hcl", Data: []byte(c.kept)}}})
				if err != nil {
					t.Fatal(err)
				}
				write(filepath.Join(d.state, keptName), b)
			}
			if c.switches != "" {
				write(filepath.Join(d.state, switchesName), []byte(c.switches))
			}
			if err := generate(out, d, tasks); (err != nil) != c.fails {
				t.Errorf("%v", err)
			}
			got, err := schedule.Read(out)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, task := range c.want {
				want = append(want, schedule.Timer(task))
			}
			if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
				t.Errorf("%v, want %v", names, want)
			}
		})
	}
}

// An engine that systemd does not run refuses what should start by itself, and says why.
func TestUnscheduled(t *testing.T) {
	d := defaultDirs(func(string) string { return "" })
	for name, o := range map[string]Options{
		"in the foreground": {ConfigFile: d.config, TasksDir: "/etc/rtask/tasks.d", StateDir: d.state, NoSystemd: true},
		"files elsewhere":   {ConfigFile: "/srv/rtask.hcl", TasksDir: "/srv/tasks.d", StateDir: d.state},
	} {
		if o.unscheduled() == "" {
			t.Errorf("%s: it can", name)
		}
	}
}

// What is asked for while systemd is slow is done afterwards, once for all who asked.
func TestSchedulesForgetNoWish(t *testing.T) {
	s := (&engine{}).newSchedules()
	first := s.wish()
	if s.wish() != first || len(s.wake) != 1 {
		t.Error("one that has not begun is not the same")
	}
	<-s.wake // as run does
	s.next = nil
	if s.wish() == first || len(s.wake) != 1 {
		t.Error("one that comes later is lost")
	}
}

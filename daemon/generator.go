package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/control"
	"github.com/rtask/rtask/daemon/schedule"
)

// generatorPatience is how long the generator takes at most: systemd, and with it a boot, waits for it.
const generatorPatience = 20 * time.Second

// IsGenerator reports whether a program was started as systemd's generator, by its name.
func IsGenerator(program string) bool { return filepath.Base(program) == generatorName }

// Generate is a generator of systemd's, systemd.generator(7): it writes the units by which tasks start by themselves into the first
// of the folders that systemd gives. It reads what an engine would: the configuration, or while that has errors the last good one, and
// which tasks are disabled. It runs early at boot, so it looks up no names, starts nothing, and writes nowhere else.
func Generate(args []string) error {
	if len(args) != 4 && len(args) != 2 {
		return errors.New("usage: " + generatorName + " FOLDER [FOLDER FOLDER]; see systemd.generator(7)")
	}
	d := dirs{"/etc/rtask/rtask.hcl", "/var/lib/rtask", "", ""}
	done := make(chan error, 1)
	go func() { done <- generate(args[1], d, filepath.Join(filepath.Dir(d.config), "tasks.d")) }()
	late := time.NewTimer(generatorPatience)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return errors.New("the configuration cannot be read: its file system does not answer")
	}
}

func generate(out string, d dirs, tasksDir string) error {
	opts := config.Options{File: d.config, Dir: tasksDir, OwnerUID: os.Geteuid()}
	cfg, diags := config.Load(opts)
	if diags.HasErrors() {
		k, err := loadKept(filepath.Join(d.state, keptName))
		if err != nil || k == nil { // at boot, it may be on a file system that is not mounted yet
			return errors.Join(errors.New("the configuration has errors, see: rtaskctl config check"), err)
		}
		if cfg, diags = config.LoadFiles(k.Files, opts); diags.HasErrors() {
			return errors.New("the configuration has errors, and so has the last good one, see: rtaskctl config check")
		}
	}
	in := control.Snapshot{Config: cfg}
	b, err := os.ReadFile(filepath.Join(d.state, switchesName))
	if err == nil {
		err = json.Unmarshal(b, &in.Switches)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read which tasks are enabled: %w", err)
	}
	return schedule.Write(out, schedule.Units(cfg.Tasks, in.Enabled))
}

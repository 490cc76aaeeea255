package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"

	"github.com/rtask/rtask/daemon/control"
	"github.com/rtask/rtask/sandbox/durable"
)

// switchesName is the file in the state folder that says which tasks were enabled and disabled.
const switchesName = "tasks.json"

// loadSwitches reads what SwitchTask left behind. They are read once: nobody else writes the file.
func (s *settings) loadSwitches(path string) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	s.switchesFile = path
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read which tasks are enabled: %w", err)
	}
	next := *s.current.Load()
	if err := json.Unmarshal(b, &next.Switches); err != nil {
		// Without them, a task that somebody disabled would run.
		return fmt.Errorf("cannot read which tasks are enabled, in %s (remove the file to use the configuration only): %w", path, err)
	}
	s.put(&next)
	return nil
}

// switchTask records a switch and puts it in force, or with nil removes it. Where it cannot be recorded, nothing changes.
func (s *settings) switchTask(task string, to *control.TaskSwitch) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	next := *s.current.Load()
	next.Switches = maps.Clone(next.Switches)
	if next.Switches == nil {
		next.Switches = map[string]control.TaskSwitch{}
	}
	if delete(next.Switches, task); to != nil {
		next.Switches[task] = *to
	}
	b, err := json.MarshalIndent(next.Switches, "", "  ")
	if err == nil {
		err = durable.Replace(s.switchesFile, s.switchesFile+".new", append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot record which tasks are enabled: %w", err)
	}
	s.put(&next)
	return nil
}

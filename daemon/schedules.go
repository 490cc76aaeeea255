package daemon

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/control"
	"github.com/rtask/rtask/daemon/schedule"
	"github.com/rtask/rtask/sandbox"
)

const (
	// generatorName is the name of the generator that the package installs.
	generatorName = "rtask-generator"
	// applyPatience is how long a reload of the configuration waits for systemd to have its timers, and applyTimeout when that is given
	// up: systemd runs all generators for it, one after the other.
	applyPatience = 5 * time.Second
	applyTimeout  = 2 * time.Minute
	// nextPatience bounds the questions about when timers elapse.
	nextPatience = 2 * time.Second
)

// generatorFolders are where systemd looks for generators of the system, systemd.generator(7), the most important one first.
func generatorFolders() []string {
	return []string{
		"/run/systemd/system-generators", "/etc/systemd/system-generators", "/usr/local/lib/systemd/system-generators",
		"/usr/lib/systemd/system-generators", "/lib/systemd/system-generators",
	}
}

// unscheduled returns why systemd cannot start tasks of this engine; "": it can.
func (o *Options) unscheduled() string {
	system := defaultDirs(func(string) string { return "" })
	switch _, err := os.Stat("/run/systemd/system"); {
	case os.Geteuid() != 0:
		return "schedule and path are for the system's rtaskd, which runs as root"
	case o.NoSystemd || o.Gateway != nil || err != nil:
		return "schedule and path need systemd to run rtask.service"
	case o.ConfigFile != system.config || o.TasksDir != filepath.Join(filepath.Dir(system.config), "tasks.d") || o.StateDir != system.state:
		return fmt.Sprintf("schedule and path are for a configuration in %s only, which systemd's generator reads", filepath.Dir(system.config))
	}
	for _, dir := range generatorFolders() {
		fi, err := os.Stat(filepath.Join(dir, generatorName))
		switch {
		case err != nil:
			continue
		case !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0 || fi.Size() == 0:
			return fmt.Sprintf("schedule and path are turned off on this machine: %s is masked", filepath.Join(dir, generatorName))
		}
		return ""
	}
	return "schedule and path need " + generatorName + ", which is not installed"
}

// schedules keep systemd's timers and path units as the configuration in force says. Units come from the generator, so that they are
// there after a boot without an engine; the engine has systemd run it when something has changed.
type schedules struct {
	*engine
	wake chan struct{} // there is a next
	gone chan struct{} // closed when run has returned

	mu   sync.Mutex
	next chan struct{} // closed when what run takes up next is done; nil: nobody has asked
}

func (e *engine) newSchedules() *schedules {
	return &schedules{engine: e, wake: make(chan struct{}, 1), gone: make(chan struct{})}
}

// run does what is asked for until ctx ends. What many ask for meanwhile it does once.
func (s *schedules) run(ctx context.Context) {
	defer close(s.gone)
	s.apply(ctx, false)
	for {
		select {
		case <-s.wake:
			s.mu.Lock()
			done := s.next
			s.next = nil
			s.mu.Unlock()
			s.apply(ctx, true)
			close(done)
		case <-ctx.Done():
			return
		}
	}
}

// wish asks run to take over what has changed, and returns what is closed when it has.
func (s *schedules) wish() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = make(chan struct{})
		s.wake <- struct{}{} // run has taken the one before it
	}
	return s.next
}

// changed has systemd take over what has changed, and waits a moment for it.
func (s *schedules) changed() {
	late := time.NewTimer(applyPatience)
	defer late.Stop()
	select {
	case <-s.wish():
	case <-s.gone: // the next engine does it
	case <-late.C:
		s.Logger.Warn("systemd has not taken over the schedules yet")
	}
}

// apply makes systemd's units those of the configuration. With all, units that should run and do not are started. Without it, units that are as they should be are left alone, whether they
// run or not: somebody may have stopped one.
func (s *schedules) apply(ctx context.Context, all bool) {
	units, ok := s.host.Units()
	if !ok || s.Options.unscheduled() != "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	if err := s.take(ctx, units, all); err != nil && ctx.Err() == nil {
		s.Logger.Error("cannot take over the schedules", "error", err)
	}
}

func (s *schedules) take(ctx context.Context, units sandbox.Units, all bool) error {
	in := s.settings.snapshot()
	if in.Config == nil {
		return nil // what systemd has is as good as anything
	}
	want := schedule.Units(in.Config.Tasks, in.Enabled)
	have, err := schedule.Read(schedule.Folder)
	if err != nil {
		return err
	}
	same := maps.Equal(want, have)
	if same && !all {
		return nil
	}
	active, err := units.Active(ctx, schedule.Patterns()...)
	if err != nil {
		return err
	}
	// First, since a timer that has no unit any more fails.
	stop := slices.DeleteFunc(active, func(name string) bool { return want[name] != "" })
	if err := units.Stop(ctx, stop); err != nil {
		return err
	}
	if !same {
		if err := units.Reload(ctx); err != nil {
			return err
		}
		if have, err = schedule.Read(schedule.Folder); err != nil {
			return err
		}
		if !maps.Equal(want, have) {
			s.Logger.Warn("the units of schedules are not those of the configuration in force", "folder", schedule.Folder)
		}
	}
	if active, err = units.Active(ctx, schedule.Patterns()...); err != nil {
		return err
	}
	start := slices.DeleteFunc(slices.Sorted(maps.Keys(want)), func(name string) bool { return slices.Contains(active, name) })
	if err := units.Start(ctx, start); err != nil {
		return err
	}
	if len(start)+len(stop) > 0 {
		s.Logger.Info("schedules taken over", "started", len(start), "stopped", len(stop))
	}
	return nil
}

// nextRuns returns when the timers of tasks elapse next, by their names.
func (e *engine) nextRuns(ctx context.Context, tasks []*config.Task) map[string]time.Time {
	units, ok := e.host.Units()
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, nextPatience)
	defer cancel()
	next := map[string]time.Time{}
	for _, t := range tasks {
		if t.Schedule == nil {
			continue
		}
		at, err := units.NextElapse(ctx, schedule.Timer(t.Name))
		if err != nil {
			e.Logger.Warn("cannot find out when a task runs next", "task", t.Name, "error", err)
			return next
		}
		if !at.IsZero() {
			next[t.Name] = at
		}
	}
	return next
}

// switchTask is control.Options.SwitchTask.
func (e *engine) switchTask(task string, to *control.TaskSwitch) error {
	if err := e.settings.switchTask(task, to); err != nil {
		return err
	}
	e.schedules.changed()
	return nil
}

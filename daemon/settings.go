package daemon

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/config/calendar"
	"github.com/rtask/rtask/daemon/config/machine"
	"github.com/rtask/rtask/daemon/control"
	"github.com/rtask/rtask/daemon/job"
)

// settings are the configuration in force: one pointer that a reload swaps, or leaves alone.
type settings struct {
	machine *machine.Machine
	options config.Options
	logger  *slog.Logger
	changed func(*config.Config)

	loading sync.Mutex // held by a reload from its reading to its swap, or by any other change of current, so that the newer of two wins
	current atomic.Pointer[control.Snapshot]
	empty   *config.Config
	// switchesFile keeps the Switches of current.
	switchesFile string
	// keptFile keeps the last configuration that was good, "": it is not kept; kept is what is in it. loading guards both.
	keptFile string
	kept     *kept
}

func newSettings(o Options, changed func(*config.Config)) *settings {
	m := machine.New(os.Geteuid())
	s := &settings{
		machine: m,
		options: m.Ask(config.Options{File: o.ConfigFile, Dir: o.TasksDir, CredentialsDir: o.CredentialsDir, Calendars: calendar.Ask, Unscheduled: o.unscheduled}),
		logger:  o.Logger, changed: changed,
	}
	s.empty, _ = config.Load(config.Options{}) // of no files, it has no errors
	s.current.Store(&control.Snapshot{})
	return s
}

func (s *settings) snapshot() control.Snapshot { return *s.current.Load() }

// orDefaults returns the configuration in force, or what holds without one.
func (s *settings) orDefaults() *config.Config {
	if c := s.snapshot().Config; c != nil {
		return c
	}
	return s.empty
}

// buckets are the bounds of a task's histogram, nil: it names none.
func (s *settings) buckets(task string) []float64 {
	if t := s.orDefaults().Tasks[task]; t != nil {
		return t.DurationBuckets
	}
	return nil
}

// openKept reads the last configuration that was good, for the time until load reads another one.
func (s *settings) openKept(path string) {
	s.loading.Lock()
	defer s.loading.Unlock()
	s.keptFile = path
	var err error
	if s.kept, err = loadKept(path); err != nil {
		s.logger.Error("cannot read the last configuration that was good", "error", err)
	}
}

// load reads the configuration. With errors the one in force stays in force, or at a start the last good one comes in force, and
// the errors are kept to be shown.
// more is what else is wrong, beside the configuration.
func (s *settings) load(checkOnly bool, more config.Diagnostics) (*config.Config, config.Diagnostics) {
	s.loading.Lock()
	defer s.loading.Unlock()
	cfg, diags := config.Load(s.options)
	diags = append(diags, more...)
	if checkOnly {
		return cfg, diags
	}
	s.log(diags)
	next := control.Snapshot{
		Config: cfg, Diagnostics: diags,
		MayBeTask: func(name string) bool { return config.MayDefine(s.options, name) },
		Switches:  s.current.Load().Switches, ReadAt: time.Now(),
	}
	if diags.HasErrors() {
		next.Config, next.ReadAt = s.current.Load().Config, s.current.Load().ReadAt
		if next.Config == nil {
			next.Config, next.ReadAt = s.fallBack()
		}
		if next.Config != nil {
			s.logger.Error("configuration not loaded, the last good one is in force", "read_at", next.ReadAt.Format(time.RFC3339))
		} else {
			s.logger.Error("configuration not loaded, and there is no good one: no task can be started")
		}
	} else {
		s.keep(cfg, next.ReadAt)
	}
	s.put(&next)
	return cfg, diags
}

func (s *settings) log(diags config.Diagnostics) {
	for _, d := range diags {
		level := slog.LevelWarn
		if d.Severity == config.SeverityError {
			level = slog.LevelError
		}
		s.logger.Log(context.Background(), level, "configuration: "+d.String())
	}
}

// note adds findings to those that are shown.
func (s *settings) note(diags config.Diagnostics) {
	s.loading.Lock()
	defer s.loading.Unlock()
	s.log(diags)
	next := *s.current.Load()
	next.Diagnostics = slices.Concat(next.Diagnostics, diags)
	s.put(&next)
}

// put puts another state in place and tells of it. settings.loading is held.
func (s *settings) put(next *control.Snapshot) {
	s.current.Store(next)
	s.changed(s.orDefaults())
}

// named reports whether a task names a user.
func (s *settings) named(uid uint32, name string, groups []uint32) bool {
	number := strconv.FormatUint(uint64(uid), 10)
	for _, t := range s.orDefaults().Tasks {
		if slices.Contains(t.AllowUsers, number) || name != "" && slices.Contains(t.AllowUsers, name) {
			return true
		}
		for _, g := range t.AllowGroups {
			if gid, err := job.LookupGroup(g); err == nil && slices.Contains(groups, gid) {
				return true
			}
		}
	}
	return false
}

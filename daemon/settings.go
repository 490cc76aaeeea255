package daemon

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/config/machine"
	"github.com/rtask/rtask/daemon/control"
	"github.com/rtask/rtask/daemon/job"
)

// settings are the configuration in force: one pointer that a reload swaps, or leaves alone.
type settings struct {
	options config.Options
	logger  *slog.Logger
	changed func(*config.Config)

	loading sync.Mutex // held by a reload from its reading to its swap, or by any other change of current, so that the newer of two wins
	current atomic.Pointer[control.Snapshot]
	empty   *config.Config
	// switchesFile keeps the Switches of current.
	switchesFile string
}

func newSettings(o Options, changed func(*config.Config)) *settings {
	s := &settings{
		options: machine.Ask(config.Options{File: o.ConfigFile, Dir: o.TasksDir, CredentialsDir: o.CredentialsDir}, os.Geteuid()),
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

// load reads the configuration. With errors the one in force stays in force, and the errors are kept to be shown.
func (s *settings) load(checkOnly bool) (*config.Config, config.Diagnostics) {
	s.loading.Lock()
	defer s.loading.Unlock()
	cfg, diags := config.Load(s.options)
	if checkOnly {
		return cfg, diags
	}
	for _, d := range diags {
		level := slog.LevelWarn
		if d.Severity == config.SeverityError {
			level = slog.LevelError
		}
		s.logger.Log(context.Background(), level, "configuration: "+d.String())
	}
	next := control.Snapshot{
		Config: cfg, Diagnostics: diags,
		MayBeTask: func(name string) bool { return config.MayDefine(s.options, name) },
		Switches:  s.current.Load().Switches,
	}
	if diags.HasErrors() {
		next.Config = s.current.Load().Config
		s.logger.Error("configuration not loaded, the one in force stays in force", "in_force", next.Config != nil)
	}
	s.current.Store(&next)
	s.changed(s.orDefaults())
	return cfg, diags
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

package ctl

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/config/calendar"
	"github.com/rtask/rtask/daemon/config/machine"
)

// systemConfig is the folder of the system's configuration.
const systemConfig = "/etc/rtask"

// checkPath checks what is at a path, without an engine.
func (a *app) checkPath(c *cli.Context, path string) error {
	opts, err := config.Locate(path)
	if err != nil {
		return err
	}
	return a.checkWithout(c, opts)
}

// checkInstalled checks the configuration that the engine would read, of which err says that it does not run.
func (a *app) checkInstalled(c *cli.Context, err error) error {
	dir := a.configOf()
	if !errors.Is(client.Classify(err), client.ErrNotRunning) || dir == "" {
		return err
	}
	if _, statErr := os.Stat(dir); statErr != nil {
		return err
	}
	a.say("rtaskd is not running: checking %s without it", dir)
	return a.checkWithout(c, config.Options{File: filepath.Join(dir, "rtask.hcl"), Dir: filepath.Join(dir, "tasks.d")})
}

// configOf is the folder of the configuration of the engine at a.path, as far as that is known.
func (a *app) configOf() string {
	switch a.path {
	case client.DefaultPath:
		return systemConfig
	case a.userSocket():
		f, _ := a.folder() // contexts are there, too
		return f.Path
	}
	return ""
}

func (a *app) checkWithout(c *cli.Context, opts config.Options) error {
	opts.Calendars, opts.Unscheduled = calendar.Ask, unscheduled
	cfg, found := config.Load(machine.New(a.env.UID).Ask(opts))
	l := loaded{diagnostics: diagnosticsOf(found), checkOnly: true, without: true}
	if cfg != nil {
		l.tasks = int32(len(cfg.Tasks))
		for _, name := range slices.Sorted(maps.Keys(cfg.Tasks)) {
			if s := cfg.Tasks[name].Schedule; s != nil && !s.Next.IsZero() {
				l.next = append(l.next, &rtaskv1.NextRun{Task: name, At: timestamppb.New(s.Next)})
			}
		}
	}
	return a.printLoaded(c, l)
}

// unscheduled returns why this machine cannot start tasks by themselves, as far as that can be told without an engine.
func unscheduled() string {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return "schedule and path need systemd, which does not run on this machine"
	}
	return ""
}

// diagnosticsOf is what an engine would send.
func diagnosticsOf(found config.Diagnostics) []*rtaskv1.Diagnostic {
	var all []*rtaskv1.Diagnostic
	for _, d := range found {
		all = append(all, &rtaskv1.Diagnostic{
			Error: d.Severity == config.SeverityError, Summary: d.Summary, Detail: d.Detail, File: d.File, Line: int32(d.Line),
			Column: int32(d.Column), Source: d.Source, Text: d.String(),
		})
	}
	return all
}

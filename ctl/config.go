package ctl

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/config/oldtoml"
)

func (a *app) configCommand() *cli.Command {
	return &cli.Command{
		Name: "config", Usage: "check or convert a configuration, print its schema", UsageText: "rtaskctl config check|convert|schema",
		Subcommands: []*cli.Command{a.convertCommand(), a.schemaCommand(), {
			Name: "check", Usage: "check the configuration, or what a request would do",
			UsageText:   "rtaskctl config check [--json] [PATH]\nrtaskctl config check --task TASK [--key NAME | --webhook NAME] [--param NAME=VALUE…] [--json]",
			Description: "PATH is checked without an engine. It is rtask.hcl, a file of tasks, or a folder with either.\nWithout PATH the engine checks its own configuration.\nThe exit status is 1 if there is an error, or if the request would be refused.",
			Flags:       append(dryRunFlags(), jsonFlag()),
			Action:      a.configCheck,
		}},
	}
}

func (a *app) configCheck(c *cli.Context) error {
	request, err := dryRunRequest(c)
	switch {
	case err != nil:
		return err
	case c.NArg() > 1:
		return misuse(c, "one PATH at a time, not %d", c.NArg())
	case c.NArg() == 1 && request != nil:
		return misuse(c, "--task asks the engine about its own configuration: leave out %s", c.Args().First())
	case c.NArg() == 1:
		return a.checkPath(c, c.Args().First())
	case request != nil:
		return a.dryRun(c, request)
	}
	return a.reload(c, true)
}

// maxConfig is the largest configuration file that rtaskd takes, in bytes.
const maxConfig = 1 << 20

func (a *app) convertCommand() *cli.Command {
	return &cli.Command{
		Name: "convert", Usage: "print a config.toml as a file of tasks.d", UsageText: "rtaskctl config convert FILE.toml",
		Description: "No engine is needed. A relative command without a workdir is looked up in the folder of FILE.toml.",
		Action: func(c *cli.Context) error {
			path, err := oneArg(c, "FILE.toml")
			if err != nil {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return fmt.Errorf("cannot convert it: %w", err)
			}
			data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
			_ = f.Close() // it was only read
			if err != nil {
				return fmt.Errorf("cannot convert it: %w", err)
			}
			if len(data) > maxConfig {
				return fmt.Errorf("%s is longer than 1 MiB", path)
			}
			dir, err := filepath.Abs(filepath.Dir(path))
			if err != nil {
				return fmt.Errorf("cannot find its folder: %w", err)
			}
			if err := a.refuseUnusable(path, data); err != nil {
				return err
			}
			hcl, err := oldtoml.Convert(data, dir)
			if err != nil {
				return fmt.Errorf("%s:%w", path, err)
			}
			return a.print(string(hcl.Text))
		},
	}
}

func (a *app) schemaCommand() *cli.Command {
	return &cli.Command{
		Name: "schema", Usage: "print the JSON Schema of *.hcl.json", UsageText: "rtaskctl config schema",
		Description: "It needs no engine. Editors complete and check files in HCL's JSON syntax by it.",
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			schema, err := config.JSONSchema()
			if err != nil {
				return err
			}
			return a.print(string(schema))
		},
	}
}

// refuseUnusable returns an error, and prints why, for a config.toml whose tasks rtask would refuse.
func (a *app) refuseUnusable(path string, data []byte) error {
	name := path
	if !strings.HasSuffix(name, ".toml") {
		name += ".toml" // which is what says that it is one
	}
	_, found := config.LoadFiles([]config.File{{Path: name, Data: data}}, config.Options{Part: true})
	if !found.HasErrors() {
		return nil
	}
	for _, d := range found {
		d.File = path
		a.say("%s", lines(d.String()))
	}
	return errors.New("cannot convert it: rtask would refuse its tasks")
}

func (a *app) reloadCommand() *cli.Command {
	return &cli.Command{
		Name: "reload", Usage: "read the configuration again", UsageText: "rtaskctl reload [--json]",
		Description: "If the configuration has an error, nothing changes.",
		Flags:       []cli.Flag{jsonFlag()},
		Action:      func(c *cli.Context) error { return a.reload(c, false) },
	}
}

// reload has the engine read its configuration and shows what is wrong with it.
func (a *app) reload(c *cli.Context, checkOnly bool) error {
	if err := noArgs(c); err != nil {
		return err
	}
	r, err := call(a, c, jobs.Reload, &rtaskv1.ReloadRequest{CheckOnly: checkOnly})
	if err != nil && checkOnly {
		return a.checkInstalled(c, err)
	}
	if err != nil {
		return err
	}
	return a.printLoaded(c, loaded{diagnostics: r.GetDiagnostics(), tasks: r.GetTasks(), checkOnly: checkOnly})
}

// loaded is what came of reading a configuration.
type loaded struct {
	diagnostics []*rtaskv1.Diagnostic
	tasks       int32
	// checkOnly says that nothing was to change, without that no engine was asked.
	checkOnly, without bool
}

func (a *app) printLoaded(c *cli.Context, l loaded) error {
	if c.Bool("json") {
		value := struct {
			Tasks       int32             `json:"tasks"`
			Diagnostics []view.Diagnostic `json:"diagnostics"`
			Engine      bool              `json:"engine"`
		}{l.tasks, view.Each(l.diagnostics, view.DiagnosticOf), !l.without}
		if err := a.printJSON(value); err != nil {
			return err
		}
		if hasErrors(l.diagnostics) {
			return exitStatus(exitError)
		}
		return nil
	}
	a.diagnostics(l.diagnostics)
	switch {
	case hasErrors(l.diagnostics) && l.checkOnly:
		return errors.New("the configuration has errors")
	case hasErrors(l.diagnostics):
		return errors.New("the configuration has errors, nothing has changed")
	case l.checkOnly:
		return a.print("configuration is good: " + plural(l.tasks, "task") + "\n")
	default:
		return a.print("configuration reloaded: " + plural(l.tasks, "task") + "\n")
	}
}

func hasErrors(all []*rtaskv1.Diagnostic) bool {
	return slices.ContainsFunc(all, func(d *rtaskv1.Diagnostic) bool { return d.Error })
}

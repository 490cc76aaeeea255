package ctl

import (
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
	"github.com/rtask/rtask/daemon/config"
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
	return a.printLoaded(c, loaded{diagnostics: r.GetDiagnostics(), tasks: r.GetTasks(), next: r.GetNextRuns(), checkOnly: checkOnly})
}

// loaded is what came of reading a configuration.
type loaded struct {
	diagnostics []*rtaskv1.Diagnostic
	tasks       int32
	next        []*rtaskv1.NextRun
	// checkOnly says that nothing was to change, without that no engine was asked.
	checkOnly, without bool
}

func (a *app) printLoaded(c *cli.Context, l loaded) error {
	if c.Bool("json") {
		value := struct {
			Tasks       int32             `json:"tasks"`
			Diagnostics []view.Diagnostic `json:"diagnostics"`
			Engine      bool              `json:"engine"`
			NextRuns    []view.NextRun    `json:"next_runs"`
		}{l.tasks, view.Each(l.diagnostics, view.DiagnosticOf), !l.without, view.Each(l.next, view.NextRunOf)}
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
		text := "configuration is good: " + plural(l.tasks, "task") + "\n"
		for _, n := range l.next {
			text += fmt.Sprintf("task %s: next run %s\n", printable(n.GetTask()), moment(n.GetAt()))
		}
		return a.print(text)
	default:
		return a.print("configuration reloaded: " + plural(l.tasks, "task") + "\n")
	}
}

func hasErrors(all []*rtaskv1.Diagnostic) bool {
	return slices.ContainsFunc(all, func(d *rtaskv1.Diagnostic) bool { return d.Error })
}

// Package ctl is the command line rtaskctl: what it asks of an engine, and how it shows the answer.
//
// It talks to the engine through ctl/client and knows the API's messages; it runs nothing itself but journalctl (see package
// ctl/journal) and reads no file of rtask's. Only cmd/rtaskctl imports it.
package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/ctl/credentials"
)

// The exit statuses that are rtask's own, as env(1) and timeout(1) use them.
const (
	exitError         = 1
	exitTimeout       = 124
	exitRtask         = 125
	exitNotExecutable = 126
	exitNotFound      = 127
	// exitSignal is added to the number of a signal.
	exitSignal = 128
)

// Env is what a command knows of the process it is in.
type Env struct {
	// Lookup returns a variable of the environment, as os.LookupEnv does.
	Lookup func(name string) (value string, ok bool)
	// UID is the effective user.
	UID int
	// Version is rtaskctl's own.
	Version string
}

func (e Env) get(name string) string {
	v, _ := e.Lookup(name)
	return v
}

// Interrupted is the cause of a context that ends because of a signal: Run then returns 128 and the signal's number.
type Interrupted struct{ Signal syscall.Signal }

// Error implements error.
func (i Interrupted) Error() string { return i.Signal.String() }

// app is one call of rtaskctl.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            Env
	cli            *cli.App
	// engine, its target and its socket's path are set by connect. The path is empty for an engine on another machine.
	engine *client.Client
	target target
	path   string
	// credstore is where systemd looks for sealed keys.
	credstore string
}

// Run does what args (the program's name first) say and returns the exit status. Results go to stdout, everything else
// to stderr. When ctx ends, `run` stops its job and waits for that; everything else ends at once.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env Env) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, env: env, credstore: credentials.DefaultFolder}
	return a.execute(ctx, args)
}

// execute is Run.
func (a *app) execute(ctx context.Context, args []string) int {
	a.cli = a.build()
	defer func() {
		if a.engine != nil {
			a.engine.Close()
		}
	}()
	return a.status(ctx, a.cli.RunContext(ctx, permute(a.cli, args)))
}

// build returns the whole tree of commands.
func (a *app) build() *cli.App {
	root := &cli.App{
		Name:      "rtaskctl",
		Usage:     "start, follow and stop the jobs of rtaskd",
		UsageText: "rtaskctl [--socket PATH | --user | --host URL | --context NAME] COMMAND [OPTION…] [ARG…]",
		Version:   a.env.Version,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "socket", Usage: "talk to the engine at `PATH`; also RTASK_SOCKET"},
			boolFlag("talk to your own engine instead of the system's", "user"),
			&cli.StringFlag{Name: "host", Usage: "talk to the engine of another machine at `URL`, such as https://build.example.org:8843; also RTASK_HOST"},
			&cli.StringFlag{Name: "context", Usage: "talk to the engine of the context `NAME`, which rtaskctl login made, or local: this machine's; also RTASK_CONTEXT"},
			cli.HelpFlag, // comes by itself only together with the library's own command help
		},
		Commands: []*cli.Command{
			a.startCommand(), a.runCommand(), a.triggerCommand(), a.stopCommand(), a.statusCommand(), a.logsCommand(), a.waitCommand(),
			a.psCommand(), a.tasksCommand(), a.keyCommand(), a.addKeyCommand(), a.webhookCommand(), a.configCommand(), a.providerCommand(), a.caCommand(), a.deviceCommand(), a.reloadCommand(), a.drainCommand(), a.auditCommand(),
			a.doctorCommand(), a.loginCommand(), a.logoutCommand(), a.whoamiCommand(), a.contextCommand(), a.versionCommand(), a.completionCommand(), a.helpCommand(),
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return unknownCommand(c, c.App.Commands)
			}
			c.App.Writer = a.help(a.stderr)
			if err := cli.ShowAppHelp(c); err != nil {
				return err
			}
			return exitStatus(exitError)
		},
		Before:          noEmptyFlag,
		OnUsageError:    onUsageError,
		HideHelpCommand: true,
		Reader:          a.stdin,
		Writer:          a.help(a.stdout),
		ErrWriter:       a.stderr,
		ExitErrHandler:  func(*cli.Context, error) {}, // status decides
	}
	prepare(root.Commands)
	return root
}

// prepare gives every command what all have in common.
func prepare(commands []*cli.Command) {
	for _, c := range commands {
		c.HideHelpCommand = true
		c.OnUsageError = onUsageError
		c.Before = noEmptyFlag
		if len(c.Subcommands) > 0 && c.Action == nil {
			c.Action = func(ctx *cli.Context) error { return unknownCommand(ctx, c.Subcommands) }
		}
		prepare(c.Subcommands)
	}
}

func (a *app) helpCommand() *cli.Command {
	return &cli.Command{
		Name: "help", Usage: "show what a command does", UsageText: "rtaskctl help [COMMAND]",
		// With an argument it is that command's --help: see permute.
		Action: func(c *cli.Context) error { return cli.ShowAppHelp(c) },
	}
}

// status reports an error and returns the exit status.
func (a *app) status(ctx context.Context, err error) int {
	var silent exitStatus
	var failed *statusError
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &silent):
		return int(silent)
	case brokenPipe(err):
		return exitSignal + int(syscall.SIGPIPE) // as of any program whose output nobody reads
	case errors.As(err, &usage):
		a.say("rtaskctl: %s\n%s", oneLine(usage.message), usage.usage)
		return exitError
	case ctx.Err() != nil:
		var i Interrupted
		if !errors.As(context.Cause(ctx), &i) {
			i.Signal = syscall.SIGINT
		}
		return exitSignal + int(i.Signal)
	}
	status := exitError
	if errors.As(err, &failed) {
		status = failed.status
	}
	a.report(err)
	return status
}

// report prints an error: one line, what the engine says of its configuration, and at most one hint.
func (a *app) report(err error) {
	err = client.Classify(err)
	if s, ok := errors.AsType[*client.Skewed](err); ok {
		a.say("rtaskctl: %s", oneLine(s.Clock()))
	}
	text := client.Message(err)
	detail, _ := client.Detail(err)
	for _, d := range detail.GetDiagnostics() {
		text = strings.TrimSuffix(text, ": "+d.Text)
	}
	a.say("rtaskctl: %s", oneLine(text))
	a.diagnostics(detail.GetDiagnostics())
	if h := a.hint(err); h != "" {
		a.say("hint: %s", h)
	}
}

// say prints a line on standard error. Nobody can be told of a failure to do so.
func (a *app) say(format string, args ...any) {
	_, _ = io.WriteString(a.stderr, shown(fmt.Sprintf(format+"\n", args...)))
}

// print prints a result. What cannot be printed is an error, or a script would take half an answer for the whole.
func (a *app) print(text string) error {
	if _, err := io.WriteString(a.stdout, shown(text)); err != nil {
		return &writeError{"the result", err}
	}
	return nil
}

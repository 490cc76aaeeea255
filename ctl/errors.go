package ctl

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"connectrpc.com/connect/v2"
	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/sandbox/wording"
)

// errRelative is returned by lookPath for a command that only a relative folder in PATH has.
var errRelative = errors.New("it is in the current folder only")

// exitStatus is returned by a command that has said all there is to say.
type exitStatus int

// Error implements error.
func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// statusError is an error with an exit status other than 1.
type statusError struct {
	error
	status int
}

// Unwrap returns the error.
func (e *statusError) Unwrap() error { return e.error }

// hintError is an error with something to add.
type hintError struct {
	error
	hint string
}

// Unwrap returns the error.
func (e *hintError) Unwrap() error { return e.error }

// writeError is returned where a result or output cannot be written, which no new call mends.
type writeError struct {
	what string
	err  error
}

// Error implements error.
func (e *writeError) Error() string { return "cannot write " + e.what + ": " + e.err.Error() }

// Unwrap returns the system's error.
func (e *writeError) Unwrap() error { return e.err }

// brokenPipe reports whether an error is that nobody reads rtaskctl's output any more.
func brokenPipe(err error) bool {
	var w *writeError
	return errors.As(err, &w) && errors.Is(w.err, syscall.EPIPE)
}

// usageError is a command line that makes no sense.
type usageError struct{ message, usage string }

// Error implements error.
func (e *usageError) Error() string { return e.message }

// usageWord is before how a command is called.
const usageWord = "Usage: "

// misuse says what is wrong with the command line of a command.
func misuse(c *cli.Context, format string, args ...any) error {
	text, name := c.App.UsageText, c.App.HelpName
	if c.Command != nil && c.Command.UsageText != "" && c.Command.HelpName != "" {
		text, name = c.Command.UsageText, c.Command.HelpName
	}
	usage := usageWord + strings.Join(strings.Split(text, "\n"), "\n"+strings.Repeat(" ", len(usageWord))) + "\nSee also: " + name + " --help"
	return &usageError{message: fmt.Sprintf(format, args...), usage: wrap(usage, usualWidth)}
}

// onUsageError puts the library's errors into rtask's words.
func onUsageError(c *cli.Context, err error, _ bool) error {
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		if near := nearOption(c, name); near != "" {
			return misuse(c, "unknown option %s, did you mean %s?", dashed(name), near)
		}
		return misuse(c, "unknown option %s", dashed(name))
	}
	if name, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		return misuse(c, "the option %s needs a value", dashed(name))
	}
	return misuse(c, "%s", text)
}

// nearOption is the option that a mistyped name most likely means, "" if none is near.
func nearOption(c *cli.Context, name string) string {
	flags := c.App.Flags
	if c.Command != nil && c.Command.HelpName != "" {
		flags = slices.Concat(c.Command.Flags, flags)
	}
	var known []string
	for _, f := range flags {
		for _, n := range f.Names() {
			if len(n) > 1 {
				known = append(known, n)
			}
		}
	}
	name, _, _ = strings.Cut(name, "=")
	if near := wording.Nearest(name, slices.Values(known)); len(name) > 1 && len(near) > 0 && !destroys(near[0]) {
		return dashed(near[0])
	}
	return ""
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// unknownCommand is the error of a first argument that is none of commands, or not there.
func unknownCommand(c *cli.Context, commands []*cli.Command) error {
	name := c.Args().First()
	if name == "" {
		var names []string
		for _, known := range commands {
			names = append(names, known.Name)
		}
		return misuse(c, "which one: %s?", strings.Join(names, ", "))
	}
	var known []string
	for _, one := range commands {
		known = append(known, one.Names()...)
	}
	if near := wording.Nearest(name, slices.Values(known)); len(near) > 0 && !destroys(near[0]) {
		return misuse(c, "unknown command %q, did you mean %q?", name, near[0])
	}
	return misuse(c, "unknown command %q", name)
}

// destroys reports whether a command or an option ends or takes away something: it is never suggested, since a suggestion is soon followed.
func destroys(command string) bool {
	return slices.Contains([]string{"cancel", "disable", "distrust-old", "drain", "forget", "import", "kill", "logout", "remove", "revoke", "rotate", "stop"}, command)
}

// oneArg returns the one argument of a command, called what in its usage.
func oneArg(c *cli.Context, what string) (string, error) {
	switch n := c.NArg(); {
	case n == 0 || c.Args().First() == "":
		return "", misuse(c, "%s is missing", what)
	case n > 1:
		return "", misuse(c, "too many arguments, from %q on", c.Args().Get(1))
	}
	return c.Args().First(), nil
}

// noArgs refuses arguments.
func noArgs(c *cli.Context) error {
	if c.Args().Present() {
		return misuse(c, "unexpected argument %q", c.Args().First())
	}
	return nil
}

// failing gives a command's errors an exit status of their own; a wrong command line keeps 1.
func failing(status int, action cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		err := action(c)
		var usage *usageError
		var silent exitStatus
		var failed *statusError
		if err == nil || errors.As(err, &usage) || errors.As(err, &silent) || errors.As(err, &failed) {
			return err
		}
		return &statusError{err, status}
	}
}

// hint is what may help with an error, "" if nothing is known.
func (a *app) hint(err error) string {
	var h *hintError
	if errors.As(err, &h) {
		return h.hint
	}
	if hint := a.remoteHint(err); hint != "" {
		return hint
	}
	switch {
	case errors.Is(err, client.ErrNotRunning) && a.path == client.DefaultPath:
		return "systemctl start rtask.socket"
	case errors.Is(err, client.ErrNotRunning):
		return "start rtaskd, or name its socket with --socket or RTASK_SOCKET"
	case errors.Is(err, client.ErrPermission) && a.target.remote != nil:
		return "rtaskctl whoami shows what your roles allow"
	case errors.Is(err, client.ErrPermission):
		return "members of the group rtask may start jobs and see them; members of rtask-admin may do everything"
	case connect.CodeOf(err) == connect.CodeUnimplemented:
		return "rtaskd is older than rtaskctl; restart it after an upgrade"
	}
	return ""
}

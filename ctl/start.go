package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"connectrpc.com/connect/v2"
	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

// maxInput is the largest standard input that start and run hand over, in bytes. A task may take less.
const maxInput = 16 << 20

func startFlags() []cli.Flag {
	properties := &settings{} // two flags, since an alias would give each value twice
	return []cli.Flag{
		boolFlag("run a command, even if a task has that name", "command"),
		&cli.GenericFlag{Name: "E", Value: &settings{}, Usage: "set the variable `NAME[=VALUE]` for a command; without a value, pass on rtaskctl's own"},
		&cli.GenericFlag{Name: "p", Value: properties, Usage: "set `NAME=VALUE` for a command, such as memory_max=512M or private_network=true; see limits and sandbox in rtask.hcl(5)"},
		&cli.GenericFlag{Name: "property", Value: properties, Usage: "the same as -p `NAME=VALUE`"},
		&cli.StringFlag{Name: "sandbox", Usage: "run a command under `PROFILE`: off, default or strict; see rtask.hcl(5)"},
		&cli.StringFlag{Name: "input", Usage: "use `FILE` as standard input; - is rtaskctl's own"},
		&cli.GenericFlag{Name: "param", Value: &settings{}, Usage: "set the parameter `NAME=VALUE` of a task"},
		boolFlag("start a command even if you already run it with the same arguments", "allow-duplicate"),
	}
}

const startDescription = "NAME is a configured task; if no task has that name, it is a command in PATH. A command runs as you, in the current " +
	"directory, in a scope of its own. Options come before NAME; everything after it belongs to the command.\n" +
	"A task takes no arguments, only the parameters that its configuration declares."

func (a *app) startCommand() *cli.Command {
	return &cli.Command{
		Name: "start", Usage: "start a task or a command", UsageText: "rtaskctl start [OPTION…] NAME [ARG…]",
		Description: startDescription,
		Flags:       append(startFlags(), jsonFlag()),
		Action: func(c *cli.Context) error {
			job, err := a.launch(c.Context, c)
			if err != nil {
				return err
			}
			err = a.result(c, view.JobOf(job), "Job: "+printable(job.GetId())+"\n")
			if err == nil && job.Ended() && job.GetReason() == rtaskv1.Reason_REASON_SETUP {
				return notStarted(job)
			}
			return err
		},
	}
}

// notStarted is the error of a job that was accepted and could not be set up.
func notStarted(j *rtaskv1.Job) error {
	if d := j.GetDetail(); d != "" {
		return fmt.Errorf("job %s could not be started: %s", j.GetId(), d)
	}
	return fmt.Errorf("job %s could not be started", j.GetId())
}

// launch starts what the command line of start and run names.
func (a *app) launch(ctx context.Context, c *cli.Context) (*rtaskv1.Job, error) {
	if c.Args().First() == "" {
		return nil, misuse(c, "the name of a task or a command is missing")
	}
	engine, err := a.connect(c)
	if err != nil {
		return nil, err
	}
	request, found, err := a.startRequest(c)
	if err != nil {
		return nil, err
	}
	r, err := engine.Jobs.Start(ctx, request)
	switch connect.CodeOf(err) {
	case connect.CodeNotFound:
		if errors.Is(found, errRelative) {
			return nil, &hintError{err, fmt.Sprintf("%s is in the current folder; to run it, write ./%s", request.Name, request.Name)}
		}
		return nil, a.noTask(c, request.Name, err)
	case connect.CodeAlreadyExists:
		return nil, &hintError{err, "use --allow-duplicate to start it again"}
	case connect.CodeInvalidArgument:
		if d, ok := client.Detail(err); ok && rtaskv1.Kind(d.GetKind()) == rtaskv1.KindWorkingDirectory && a.target.remote == nil {
			return nil, folderError()
		}
	case connect.CodePermissionDenied:
		if d, ok := client.Detail(err); ok && d.GetKind() == "property" { // it is not about who may start something
			return nil, &hintError{err, "rtaskctl(1) says under -p what a non-root user can set"}
		}
	}
	if err != nil {
		return nil, err
	}
	a.setuidHint(request, r.GetJob())
	return r.GetJob(), nil
}

// folderError says what is wrong with a current folder that has no path.
func folderError() error {
	_, err := os.Getwd()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &hintError{errors.New("a command runs in the current folder, which was removed"), "cd to another folder first"}
	case errors.Is(err, fs.ErrPermission):
		return &hintError{errors.New("a command runs in the current folder, which this user may not enter"), "cd to another folder first"}
	}
	return fmt.Errorf("cannot find the current folder, in which a command runs: %w", err)
}

// startRequest is the request that a command line means. Found is why no command of that name was found: it may be a
// task, which the engine knows. An engine on another machine is told the name and the arguments only: it looks the command up there.
func (a *app) startRequest(c *cli.Context) (_ *rtaskv1.StartRequest, found, err error) {
	name := c.Args().First()
	var path, dir, search string
	if a.target.remote == nil {
		// A task does not need one; of a command without one the engine says so.
		if dir, err = os.Getwd(); err != nil {
			dir = ""
		}
		search = a.env.get("PATH")
		path, found = lookPath(name, search, dir)
		if dir == "" && strings.Contains(name, "/") && !filepath.IsAbs(name) {
			return nil, nil, folderError()
		}
		if found != nil {
			path = ""
			if strings.Contains(name, "/") { // no task has such a name
				return nil, nil, cannotRun(name, found)
			}
		}
	}
	environment, err := a.environment(settingsOf(c, "E"))
	if err != nil {
		return nil, nil, err
	}
	properties, err := propertiesOf(c)
	if err != nil {
		return nil, nil, err
	}
	parameters, err := parametersOf(c)
	if err != nil {
		return nil, nil, err
	}
	input, err := a.input(c.Context, c.String("input"))
	if err != nil {
		return nil, nil, err
	}
	return &rtaskv1.StartRequest{
		Name: name, Arguments: c.Args().Tail(), Command: c.Bool("command"), Path: path, WorkingDirectory: dir, SearchPath: search,
		Environment: environment, Input: input, AllowDuplicate: c.Bool("allow-duplicate"), Properties: properties,
		Parameters: parameters,
	}, found, nil
}

// propertiesOf reads the values of -p. What they mean is for the engine to say.
func propertiesOf(c *cli.Context) ([]*rtaskv1.Property, error) {
	var all []*rtaskv1.Property
	if profile := c.String("sandbox"); profile != "" {
		all = append(all, &rtaskv1.Property{Name: "profile", Value: profile})
	}
	for _, s := range settingsOf(c, "p") {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q is not NAME=VALUE, such as memory_max=512M", s)
		}
		all = append(all, &rtaskv1.Property{Name: name, Value: value})
	}
	return all, nil
}

// parametersOf reads the values of --param. What they may be is for the engine to say.
func parametersOf(c *cli.Context) ([]*rtaskv1.Parameter, error) {
	var all []*rtaskv1.Parameter
	for _, s := range settingsOf(c, "param") {
		name, value, ok := strings.Cut(s, "=")
		switch {
		case !ok || name == "":
			return nil, fmt.Errorf("%q is not NAME=VALUE", s)
		case !utf8.ValidString(s):
			return nil, fmt.Errorf("%q is not UTF-8", s)
		}
		all = append(all, &rtaskv1.Parameter{Name: name, Value: value})
	}
	return all, nil
}

// setuidHint says why a program that has more rights than its user has not got them here, or nothing.
func (a *app) setuidHint(r *rtaskv1.StartRequest, j *rtaskv1.Job) {
	if j.GetTask() != "" || r.GetPath() == "" || os.Geteuid() == 0 {
		return
	}
	for _, p := range r.GetProperties() {
		if name := strings.ToLower(strings.ReplaceAll(p.GetName(), "_", "")); name == "nonewprivileges" {
			return
		}
	}
	if fi, err := os.Stat(r.GetPath()); err == nil && fi.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		a.say("hint: %s is a set-user-ID program, but a command gains no rights from it unless you add -p no_new_privileges=false",
			printable(r.GetName()))
	}
}

// cannotRun is the error of a command given by its path.
func cannotRun(name string, err error) error {
	cause := err
	var p *fs.PathError
	if errors.As(err, &p) {
		cause = p.Err
	}
	return fmt.Errorf("cannot run %s: %w", name, cause)
}

// environment reads the values of -E; the last one of a name wins.
func (a *app) environment(settings []string) (map[string]string, error) {
	all := map[string]string{}
	for _, s := range settings {
		name, value, ok := strings.Cut(s, "=")
		if name == "" {
			return nil, fmt.Errorf("%q does not name a variable", s)
		}
		if !ok {
			if value, ok = a.env.Lookup(name); !ok {
				return nil, fmt.Errorf("%s is not set, so there is no value to pass on", name)
			}
		}
		all[name] = value
	}
	return all, nil
}

// input reads the file that becomes standard input; "" is none, "-" rtaskctl's own standard input.
func (a *app) input(ctx context.Context, file string) ([]byte, error) {
	switch file {
	case "":
		return nil, nil
	case "-":
		type result struct {
			data []byte
			err  error
		}
		done := make(chan result, 1)
		// Nothing wakes a read of a terminal, so an interrupt leaves this goroutine to the end of the process.
		go func() {
			data, err := readInput(a.stdin, "standard input")
			done <- result{data, err}
		}()
		select {
		case r := <-done:
			return r.data, r.err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the input: %w", err)
	}
	data, err := readInput(f, file)
	_ = f.Close() // it was only read
	return data, err
}

func readInput(r io.Reader, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the input: %w", err)
	}
	if len(data) > maxInput {
		return nil, fmt.Errorf("%s is too large: the input can have at most %d MiB", name, maxInput>>20)
	}
	return data, nil
}

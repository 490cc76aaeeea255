package job

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxArgument and maxArguments are the kernel's limits of one argument or variable, its NUL included, and of all of
	// them together, in bytes (execve(2)).
	maxArgument  = 128 << 10
	maxArguments = 6 << 20
)

// check finds every mistake of the request before anything is done.
func (d *drafter) check(s *Spec) error {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	if s.Command() == "" {
		return invalid("no command")
	}
	if s.Dir == "" {
		s.Dir = "/"
	}
	if !filepath.IsAbs(s.Dir) {
		return invalid("working directory %q is not absolute", s.Dir)
	}
	for _, v := range append([]string{s.Path, s.Dir}, s.Args...) {
		if strings.ContainsRune(v, 0) {
			return invalid("%.100q has a NUL byte", v)
		}
	}
	for _, kv := range s.Env {
		// The value may be a secret, and is not repeated.
		name, value, ok := strings.Cut(kv, "=")
		switch {
		case !ok || name == "" || strings.ContainsRune(name, 0):
			return invalid("an environment variable is not NAME=VALUE")
		case strings.ContainsRune(value, 0):
			return invalid("the environment variable %.100s has a NUL byte", name)
		}
	}
	total := 0
	for _, v := range slices.Concat(s.Args, s.Env) {
		if total += len(v) + 1; len(v) >= maxArgument || total > maxArguments {
			return invalid("its arguments and environment are longer than Linux takes: %d bytes each, %d together", maxArgument-1, maxArguments)
		}
	}
	if s.Once.Key != "" && s.Volatile {
		return invalid("what is to be done once must be on record")
	}
	if d.euid != 0 {
		if s.As != nil && int(s.As.UID) != d.euid {
			return invalid("only an rtaskd that runs as root can run jobs as user %s", s.As.Name)
		}
		if s.Group != nil && int(*s.Group) != os.Getegid() || len(s.Groups) > 0 {
			return invalid("only an rtaskd that runs as root can give jobs another group")
		}
		if s.Sandbox.AmbientCapabilities != 0 {
			return invalid("only an rtaskd that runs as root can give jobs ambient_capabilities")
		}
	}
	if err := d.opts.Host.Check(s.Limits); err != nil {
		if !s.LimitsOptional {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		d.opts.Logger.Warn("a job starts without a limit", "task", s.Task, "command", s.Command(), "error", err)
	}
	_, missing := d.opts.Host.Give(s.Sandbox)
	for _, name := range missing {
		if slices.Contains(s.Sandbox.Named, name) {
			return invalid("%s cannot be given here: %s", name, d.opts.Host.WhyNot(s.Sandbox, name))
		}
	}
	if s.KillSignal == 0 {
		s.KillSignal = unix.SIGTERM
	}
	return nil
}

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/daemon/companion"
	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/sandbox/privilege"
	"github.com/rtask/rtask/sandbox/spec"
)

// Environment is what a command line runs in.
type Environment struct {
	Args    []string
	Getenv  func(string) string
	Stdout  io.Writer
	Version string
	Reload  <-chan struct{}
	Logger  *slog.Logger
	// OwnProcess says that the process is the engine's alone, so that it can give up what an engine does not need.
	OwnProcess bool
}

// Main is rtaskd's command line: flags to Options, then Run.
func Main(ctx context.Context, env Environment) error {
	d := defaultDirs(env.Getenv)
	run := func(c *cli.Context, gateway *companion.Options) error {
		if c.Args().Present() {
			return fmt.Errorf("unexpected argument %q; see rtaskd --help", c.Args().First())
		}
		o := Options{
			ConfigFile: c.String("config"), TasksDir: c.String("tasks-dir"), StateDir: c.String("state-dir"), LogDir: c.String("log-dir"),
			RuntimeDir: c.String("runtime-dir"), CredentialsDir: env.Getenv("CREDENTIALS_DIRECTORY"), Shim: c.String("shim"), NoSystemd: c.Bool("no-systemd"), Gateway: gateway,
			Version: env.Version, Reload: env.Reload, Logger: env.Logger,
		}
		if o.TasksDir == "" {
			o.TasksDir = filepath.Join(filepath.Dir(o.ConfigFile), "tasks.d")
		}
		if o.Shim == "" {
			o.Shim = sibling("rtask-shim", "/usr/libexec/rtask/rtask-shim")
		}
		if err := o.absolute(); err != nil {
			return err
		}
		if env.OwnProcess {
			if err := keepDescriptors(); err != nil {
				return err
			}
			if err := giveUp(gateway != nil); err != nil {
				return err
			}
		}
		return Run(c.Context, o)
	}
	flags := []cli.Flag{
		&cli.StringFlag{Name: "config", Value: d.config, Usage: "read the settings that are not of a task from `FILE`"},
		&cli.StringFlag{Name: "tasks-dir", Usage: "read the task files of `FOLDER` (default: tasks.d beside the configuration file)"},
		&cli.StringFlag{Name: "state-dir", Value: d.state, Usage: "keep records and keys in `FOLDER`"},
		&cli.StringFlag{Name: "log-dir", Value: d.log, Usage: "keep the output of jobs in `FOLDER`"},
		&cli.StringFlag{Name: "runtime-dir", Value: d.runtime, Usage: "make the sockets in `FOLDER`"},
		&cli.StringFlag{Name: "shim", Usage: "use `PROGRAM` as rtask-shim (default: beside rtaskd, or in /usr/libexec/rtask)"},
		&cli.BoolFlag{Name: "no-systemd", Usage: "run jobs as plain processes even where systemd runs"},
	}
	app := &cli.App{
		Name: "rtaskd", Usage: "run jobs in transient systemd scopes", Version: env.Version, Writer: env.Stdout,
		HideHelpCommand: true, Flags: flags,
		Action: func(c *cli.Context) error { return run(c, nil) },
		Commands: []*cli.Command{{
			Name: "unfinished", Usage: "exit 0 if unfinished jobs exist and no engine is running", HideHelpCommand: true,
			Flags:  flags,
			Action: func(c *cli.Context) error { return unfinished(c.String("state-dir")) },
		}, {
			Name: "run", Usage: "run engine and gateway together in the foreground", HideHelpCommand: true,
			Flags: append([]cli.Flag{
				&cli.StringFlag{Name: "api-address", Value: "127.0.0.1:8800", Usage: "serve the HTTP API at `HOST:PORT`"},
				&cli.StringFlag{Name: "https-address", Usage: "serve the HTTP API over TLS at `HOST:PORT` (default: do not)"},
				&cli.StringFlag{Name: "https-cert", Usage: "read the certificate for TLS from `FILE`, in PEM"},
				&cli.StringFlag{Name: "https-key", Usage: "read the certificate's key from `FILE`, in PEM"},
				&cli.StringFlag{Name: "remote-address", Usage: "serve clients with certificates at `HOST:PORT` (default: do not)"},
				&cli.StringFlag{Name: "remote-key", Usage: "read the key for that from `FILE`, in PEM (default: the one that rtaskctl ca init makes)"},
				&cli.StringFlag{Name: "remote-cert", Usage: "read the certificate for that from `FILE`, in PEM (default: rtask's authority issues one)"},
				&cli.StringFlag{Name: "metrics-address", Value: "127.0.0.1:9090", Usage: "serve the metrics at `HOST:PORT`"},
				&cli.StringFlag{Name: "gateway", Usage: "use `PROGRAM` as rtask-gateway (default: beside rtaskd)"},
			}, flags...),
			Action: func(c *cli.Context) error {
				g := &companion.Options{
					Path: c.String("gateway"), APIAddress: c.String("api-address"), MetricsAddress: c.String("metrics-address"),
					HTTPSAddress: c.String("https-address"), HTTPSCert: c.String("https-cert"), HTTPSKey: c.String("https-key"),
					RemoteAddress: c.String("remote-address"), RemoteKey: c.String("remote-key"), RemoteCert: c.String("remote-cert"),
				}
				if (g.HTTPSAddress != "" || g.HTTPSCert != "" || g.HTTPSKey != "") && (g.HTTPSAddress == "" || g.HTTPSCert == "" || g.HTTPSKey == "") {
					return errors.New("--https-address, --https-cert and --https-key go together")
				}
				if g.RemoteAddress == "" && (g.RemoteKey != "" || g.RemoteCert != "") {
					return errors.New("--remote-key and --remote-cert need --remote-address")
				}
				g.KeptKey = filepath.Join(c.String("state-dir"), "remote.key")
				if g.Path == "" {
					g.Path = sibling("rtask-gateway", "/usr/bin/rtask-gateway")
				}
				return run(c, g)
			},
		}},
	}
	return app.RunContext(ctx, env.Args)
}

// keepDescriptors keeps from gateway and shims what this process was started with beyond standard input and output: a file that
// whoever started it left open is neither for the process that faces the network nor to be held for as long as a job runs.
func keepDescriptors() error {
	// Linux 5.11 (close_range(2)). The listeners of systemd's are marked so in any case, see package activation.
	err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
	if err != nil { // an older kernel, or a container that does not allow it
		err = closeOnExec(3)
	}
	if err != nil {
		return fmt.Errorf("cannot keep inherited files from other processes: %w", err)
	}
	return nil
}

// closeOnExec marks every descriptor from first on as not for the programs that this process executes, one by one.
func closeOnExec(first int) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < first {
			continue
		}
		// That of the folder itself is closed by now.
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil && !errors.Is(err, unix.EBADF) {
			return fmt.Errorf("descriptor %d: %w", fd, err)
		}
	}
	return nil
}

// giveUp gives up the capabilities that an engine does not need. It keeps those to read and write files of others and give them
// away, to signal jobs, to look into processes; CAP_SYS_ADMIN, which systemd asks for, with those that tell it which limits it
// can have set; and to start a gateway, those to change its user. A shim has all again, since it is executed as root; where that is
// not so, because this is not root or may not gain privileges by executing (PR_GET_NO_NEW_PRIVS, prctl(2)), all are kept.
func giveUp(gateway bool) error {
	fixed, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("cannot read no_new_privs: %w", err)
	}
	if os.Geteuid() != 0 || fixed != 0 {
		return nil
	}
	names := "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SYS_PTRACE SYS_ADMIN SYS_NICE SYS_RESOURCE"
	if gateway {
		names += " SETUID SETGID"
	}
	var set uint64
	for name := range strings.FieldsSeq(names) {
		set |= spec.Capability("CAP_" + name)
	}
	return privilege.Keep(set)
}

// unfinished returns nil if there is a reason to start an engine before anybody asks it for something.
func unfinished(stateDir string) error {
	found, err := job.Unfinished(stateDir)
	if err == nil && !found {
		err = errors.New("no jobs are unfinished")
	}
	return err
}

// sibling is a program beside this one, or else where it is installed.
func sibling(name, installed string) string {
	if self, err := os.Executable(); err == nil {
		if path := filepath.Join(filepath.Dir(self), name); isFile(path) {
			return path
		}
	}
	return installed
}

func isFile(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular()
}

// absolute makes every path of o absolute: the engine changes no folder, but its children do.
func (o *Options) absolute() error {
	paths := []*string{&o.ConfigFile, &o.TasksDir, &o.StateDir, &o.LogDir, &o.RuntimeDir, &o.Shim}
	if o.Gateway != nil {
		paths = append(paths, &o.Gateway.Path, &o.Gateway.KeptKey)
		for _, p := range []*string{&o.Gateway.RemoteKey, &o.Gateway.RemoteCert} {
			if *p != "" {
				paths = append(paths, p)
			}
		}
		if o.Gateway.HTTPSAddress != "" {
			paths = append(paths, &o.Gateway.HTTPSCert, &o.Gateway.HTTPSKey)
		}
	}
	for _, p := range paths {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("cannot find the current folder: %w", err)
		}
		*p = abs
	}
	return nil
}

type dirs struct{ config, state, log, runtime string }

// defaultDirs are the system's for root, and for others those of file-hierarchy(7) in the home folder.
func defaultDirs(getenv func(string) string) dirs {
	if os.Geteuid() == 0 {
		return dirs{"/etc/rtask/rtask.hcl", "/var/lib/rtask", "/var/log/rtask/jobs", "/run/rtask"}
	}
	or := func(name, below string) string {
		if v := getenv(name); filepath.IsAbs(v) {
			return v
		}
		return filepath.Join(getenv("HOME"), below)
	}
	state := filepath.Join(or("XDG_STATE_HOME", ".local/state"), "rtask")
	runtime := filepath.Join(state, "run")
	if v := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(v) {
		runtime = filepath.Join(v, "rtask")
	}
	return dirs{
		filepath.Join(or("XDG_CONFIG_HOME", ".config"), "rtask", "rtask.hcl"), state, filepath.Join(state, "jobs"), runtime,
	}
}

package ctl

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rtask/rtask/packaging/testkit"
)

// TestMain lets the test binary be rtaskctl for the scripts, as cmd/rtaskctl makes it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"rtaskctl": func() {
			ctx, cancel := context.WithCancelCause(context.Background())
			signals := make(chan os.Signal, 1)
			signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
			go func() {
				if s, ok := (<-signals).(syscall.Signal); ok {
					cancel(Interrupted{Signal: s})
				}
			}()
			os.Exit(Run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr, Env{Lookup: os.LookupEnv, UID: os.Geteuid(), Version: "0.0.0-test"}))
		},
	})
}

// TestScripts runs testdata/script: what rtaskctl does without an engine. What it does with one is tested with the engine itself, by
// the scripts ctl-*.txtar of packaging/e2e. The condition [systemd] is that it runs this machine; the command "ends N" runs a
// command that must end with exit status N.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("RTASK_SOCKET", filepath.Join(env.WorkDir, "rtask.sock"))
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // or every call takes a second
			env.Setenv("XDG_RUNTIME_DIR", filepath.Join(env.WorkDir, "run"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"ends": testkit.Ends},
		Condition: func(name string) (bool, error) {
			if name != "systemd" {
				return false, errors.New("unknown condition " + name)
			}
			return exists("/run/systemd/system"), nil // sd_booted(3)
		},
	})
}

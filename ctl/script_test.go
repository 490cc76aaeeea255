package ctl

import (
	"bytes"
	"context"
	"errors"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary be rtaskctl for the scripts, as cmd/rtaskctl makes it, and interrupt.
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
		"interrupt": func() {
			if err := interrupt(os.Args[1], os.Args[2:]); err != nil {
				log.Fatal(err)
			}
		},
	})
}

// interrupt runs a command, as `interrupt TEXT COMMAND…`, sends it SIGINT once it has written the text to its standard output,
// and ends as it did.
func interrupt(text string, command []string) error {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var written []byte
	piece := make([]byte, 4096)
	for sent := false; ; {
		n, err := out.Read(piece)
		if _, err := os.Stdout.Write(piece[:n]); err != nil {
			return err
		}
		written = append(written, piece[:n]...)
		if !sent && bytes.Contains(written, []byte(text)) {
			sent = true
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				return err
			}
		}
		if err != nil {
			break
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	os.Exit(cmd.ProcessState.ExitCode())
	return nil
}

// TestScripts runs testdata/script, where the condition [systemd] is that it runs this machine. Each script has an engine with
// canned jobs at $RTASK_SOCKET; the command "ends N" runs a command that must end with exit status N.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			path := filepath.Join(env.WorkDir, "rtask.sock")
			env.Setenv("RTASK_SOCKET", path)
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // or every call takes a second
			env.Setenv("XDG_RUNTIME_DIR", filepath.Join(env.WorkDir, "run"))
			return newFakeEngine(env.WorkDir).serve(path, env.Defer)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"ends": ends},
		Condition: func(name string) (bool, error) {
			if name != "systemd" {
				return false, errors.New("unknown condition " + name)
			}
			return exists("/run/systemd/system"), nil // sd_booted(3)
		},
	})
}

// ends N COMMAND… runs a command as exec does and checks its exit status.
func ends(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: ends N COMMAND [ARG…]")
	}
	got := 0
	var exit interface{ ExitCode() int }
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
}

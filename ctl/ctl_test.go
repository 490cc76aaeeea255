package ctl

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/proto"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

func testEnv(vars map[string]string) Env {
	return Env{
		Lookup:  func(name string) (string, bool) { v, ok := vars[name]; return v, ok },
		Version: "0.0.0-test", UID: 1000,
	}
}

func TestPermute(t *testing.T) {
	root := (&app{env: testEnv(nil)}).build()
	for _, test := range []struct{ args, want string }{
		{"", ""},
		{"ps", "ps --"},
		{"ps -a --json", "ps -a --json --"},
		{"logs job -f", "logs -f -- job"},
		{"stop a --kill b", "stop --kill -- a b"},
		{"stop a -- --kill", "stop -- a --kill"},
		{"key add ci --expires 90d --json", "key add --expires 90d --json -- ci"},
		{"key add --expires=90d ci", "key add --expires=90d -- ci"},
		{"key revoke list", "key revoke -- list"},
		{"status job --socket /s", "--socket /s status -- job"},
		{"--socket /s status job", "--socket /s status -- job"},
		{"--socket=/s --user status job", "--socket=/s --user status -- job"},
		{"start top -n 2", "start top -n 2"},
		{"--user run --json top --json --socket x", "--user run --json top --json --socket x"},
		{"ps --frob x", "ps --frob -- x"},
		{"frob -x", "frob -x"},
		{"help key add", "key add --help"},
		{"ps -h", "ps -h --"},
		{"key add --expires", "key add --expires --"},
	} {
		got := permute(root, append([]string{"rtaskctl"}, strings.Fields(test.args)...))
		if want := append([]string{"rtaskctl"}, strings.Fields(test.want)...); !slices.Equal(got, want) {
			t.Errorf("permute(%s) = %v, want %v", test.args, got, want)
		}
	}
	if got := permute(root, nil); !slices.Equal(got, []string{"rtaskctl"}) {
		t.Errorf("permute() = %v", got)
	}
}

// TestEmptyFlags checks that no command takes a flag that is set to nothing for one that is not there.
func TestEmptyFlags(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none.sock")
	tried := 0
	try := func(args []string, flags []cli.Flag) {
		for _, f := range flags {
			if _, exact := f.(*cli.GenericFlag); exact || !f.(cli.DocGenerationFlag).TakesValue() {
				continue
			}
			var errs strings.Builder
			tried++
			status := Run(t.Context(), append(args[:len(args):len(args)], dashed(f.Names()[0])+"="), nil, io.Discard, &errs, testEnv(nil))
			want := "rtaskctl: " + dashed(f.Names()[0]) + ": it is empty\n"
			if status != exitError || !strings.HasPrefix(errs.String(), want) {
				t.Errorf("%s: exit status %d, %q; want %q", args, status, errs.String(), want)
			}
		}
	}
	root := (&app{env: testEnv(nil)}).build()
	try([]string{"rtaskctl"}, root.Flags)
	var walk func(args []string, commands []*cli.Command)
	walk = func(args []string, commands []*cli.Command) {
		for _, c := range commands {
			args := append(args[:len(args):len(args)], c.Name)
			try(args, c.Flags)
			walk(args, c.Subcommands)
		}
	}
	walk([]string{"rtaskctl", "--socket", socket}, root.Commands)
	if tried < 40 {
		t.Errorf("only %d flags were tried", tried)
	}
}

func TestParseSpan(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"90d": 90 * day, "12h": 12 * time.Hour, "1y": 31557600 * time.Second, "1h 30min": 90 * time.Minute, "1h30m": 90 * time.Minute,
		"2weeks": 14 * day, "90s": 90 * time.Second, "1.5d": 36 * time.Hour, " 5 days ": 5 * day, "1M": 2629800 * time.Second, "0": 0,
		"500ms": 500 * time.Millisecond, "3us": 3 * time.Microsecond,
	} {
		if got, err := parseSpan(text); err != nil || got != want {
			t.Errorf("parseSpan(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"90", "1h 30", "1.5", "", " ", "d", "-5d", "5q", "soon", "infinity", "1.2.3d", "300y", "9999999999999999999999y", "5d x", "1e3s", "5D"} {
		if got, err := parseSpan(text); err == nil {
			t.Errorf("parseSpan(%q) = %v, want an error", text, got)
		}
	}
}

func TestSpan(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		0: "0ms", 20 * time.Millisecond: "20ms", time.Second: "1s", 63 * time.Second: "1min 3s", time.Hour: "1h", 25*time.Hour + time.Second: "1 day 1h",
		40 * day: "1 month 10 days", 800 * day: "2 years 2 months",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0B", 1023: "1023B", 1024: "1.0K", 3 << 20: "3.0M", 1<<64 - 1: "16.0E"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestExitOf(t *testing.T) {
	code := func(n int32) *int32 { return proto.Int32(n) }
	for _, test := range []struct {
		reason rtaskv1.Reason
		code   *int32
		signal string
		want   int
	}{
		{rtaskv1.Reason_REASON_UNSPECIFIED, code(0), "", 0},
		{rtaskv1.Reason_REASON_EXIT_CODE, code(3), "", 3},
		{rtaskv1.Reason_REASON_SIGNAL, nil, "SIGKILL", 137},
		{rtaskv1.Reason_REASON_SIGNAL, nil, "SIGRTMIN+3", 165},
		{rtaskv1.Reason_REASON_SIGNAL, nil, "SIGRTMIN+99", 137},
		{rtaskv1.Reason_REASON_SIGNAL, nil, "", 137},
		{rtaskv1.Reason_REASON_TIMEOUT, nil, "SIGTERM", 124},
		{rtaskv1.Reason_REASON_OOM, nil, "SIGKILL", 137},
		{rtaskv1.Reason_REASON_OOM, code(9), "", 9},
		{rtaskv1.Reason_REASON_STOPPED, nil, "SIGTERM", 143},
		{rtaskv1.Reason_REASON_STOPPED, nil, "SIGKILL", 137},
		{rtaskv1.Reason_REASON_STOPPED, code(0), "", 143},
		{rtaskv1.Reason_REASON_STOPPED, code(7), "", 7},
		{rtaskv1.Reason_REASON_LOST, nil, "", 125},
		{rtaskv1.Reason_REASON_SETUP, nil, "", 125},
		{rtaskv1.Reason_REASON_SETUP, code(126), "", 126},
		{rtaskv1.Reason_REASON_SETUP, code(127), "", 127},
		{rtaskv1.Reason_REASON_SETUP, code(1), "", 125},
		{rtaskv1.Reason(99), code(1), "", 125},
	} {
		j := &rtaskv1.Job{State: rtaskv1.State_STATE_ENDED, Reason: test.reason, ExitCode: test.code, Signal: test.signal}
		if got := exitOf(j); got != test.want {
			t.Errorf("exitOf(%v) = %d, want %d", j, got, test.want)
		}
	}
	if got := exitOf(&rtaskv1.Job{State: rtaskv1.State_STATE_RUNNING}); got != exitRtask {
		t.Errorf("exitOf(running) = %d", got)
	}
}

func TestSocket(t *testing.T) {
	run := t.TempDir()
	own := filepath.Join(run, "rtask", "rtask.sock")
	if exists(client.DefaultPath) {
		t.Skip("an engine is installed on this machine")
	}
	socketOf := func(env Env, args ...string) string {
		var errs bytes.Buffer
		Run(t.Context(), append(append([]string{"rtaskctl"}, args...), "ps"), nil, io.Discard, &errs, env)
		_, rest, _ := strings.Cut(errs.String(), "cannot connect to ")
		path, _, _ := strings.Cut(rest, ")")
		return path
	}
	env := testEnv(map[string]string{"XDG_RUNTIME_DIR": run})
	if got := socketOf(env); got != client.DefaultPath {
		t.Errorf("no socket anywhere: %q", got)
	}
	if got := socketOf(env, "--user"); got != own {
		t.Errorf("--user: %q", got)
	}
	if got := socketOf(testEnv(nil), "--user"); got != "/run/user/1000/rtask/rtask.sock" {
		t.Errorf("--user without XDG_RUNTIME_DIR: %q", got)
	}
	if err := os.MkdirAll(filepath.Dir(own), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := socketOf(env); got != own {
		t.Errorf("the user's socket only: %q", got)
	}
	env.UID = 0
	if got := socketOf(env); got != client.DefaultPath {
		t.Errorf("root: %q", got)
	}
	env = testEnv(map[string]string{"RTASK_SOCKET": "/there", "XDG_RUNTIME_DIR": run})
	if got := socketOf(env); got != "/there" {
		t.Errorf("RTASK_SOCKET: %q", got)
	}
	if got := socketOf(env, "--socket", "/here"); got != "/here" {
		t.Errorf("--socket: %q", got)
	}
	if got := socketOf(env, "--user"); got != own {
		t.Errorf("--user before RTASK_SOCKET: %q", got)
	}
}

// TestPersistGivesUp checks how long a follower waits for an engine that stays away.
func TestPersistGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, calls := time.Now(), 0
		err := persist(t.Context(), patience, func() (bool, error) { calls++; return false, client.ErrNotRunning })
		if !errors.Is(err, client.ErrNotRunning) {
			t.Errorf("err = %v", err)
		}
		if d := time.Since(began); d < patience || d > patience+2*lastPause {
			t.Errorf("gave up after %v", d)
		}
		if calls < 20 || calls > 60 {
			t.Errorf("%d calls", calls)
		}
	})
}

// TestPersistAgain checks that every time the engine is reached counts anew.
func TestPersistAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := persist(t.Context(), patience, func() (bool, error) {
			switch d := time.Since(began); {
			case d < 20*time.Second:
				return false, client.ErrNotRunning
			case d < 25*time.Second:
				return true, io.ErrUnexpectedEOF
			case d < 50*time.Second:
				return false, client.ErrNotRunning
			}
			return true, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestPersistEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		if err := persist(ctx, patience, func() (bool, error) { return false, client.ErrNotRunning }); err == nil || time.Since(began) != 3*time.Second {
			t.Errorf("err = %v after %v", err, time.Since(began))
		}
	})
}

func TestInput(t *testing.T) {
	a := &app{stdin: iotest.ErrReader(io.ErrClosedPipe), env: testEnv(nil)}
	if _, err := a.input(t.Context(), "-"); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("err = %v", err)
	}
	blocked, w := io.Pipe()
	defer func() { _ = w.Close() }()
	a.stdin = blocked
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(Interrupted{syscall.SIGINT})
	var i Interrupted
	if _, err := a.input(ctx, "-"); !errors.As(err, &i) {
		t.Errorf("err = %v", err)
	}
}

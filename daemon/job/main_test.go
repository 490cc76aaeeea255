package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/packaging/testkit"
	"github.com/rtask/rtask/sandbox"
	"github.com/rtask/rtask/sandbox/log"
	"github.com/rtask/rtask/sandbox/spec"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// open opens a Manager in folders of its own, and ends what still runs at the end of the test.
func open(t testing.TB, change ...func(*Options)) *Manager {
	t.Helper()
	m := openIn(t, t.TempDir(), change...)
	t.Cleanup(func() { end(t, m) })
	return m
}

// openIn opens a Manager on what another one left in dir. Who calls it closes it.
func openIn(t testing.TB, dir string, change ...func(*Options)) *Manager {
	t.Helper()
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	h, err := sandbox.Open(t.Context(), sandbox.Options{
		Shim: testkit.Shim(), RuntimeDir: filepath.Join(dir, "run"), NoSystemd: true, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Host: h, StateDir: filepath.Join(dir, "state"), LogDir: filepath.Join(dir, "log"), UIDs: spec.UIDRange{First: 70000, Last: 70999}, MaxJobs: 1000,
		Logger: logger,
	}
	for _, f := range change {
		f(&o)
	}
	m, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func end(t testing.TB, m *Manager) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, j := range m.jobs.those(func(j Job) bool { return j.State != Ended }) {
		if _, err := m.Stop(ctx, j.ID, StopOptions{Kill: true}); err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("cannot clean up: %v", err)
		}
	}
	if err := m.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// sh is a command for a shell.
func sh(script string) Spec {
	return Spec{
		Run: spec.Run{
			Args: []string{"/bin/sh", "-c", script}, TimeoutStop: 5 * time.Second, LogMax: 1 << 20, MaxReply: 1 << 16, RedirectStderr: true,
		},
		Owner: Owner{UID: 1000, Name: "ada"}, Trigger: "local",
	}
}

// obedient is a job that says ready, two when it gets SIGUSR2, and ends with three and status 7 when it gets SIGUSR1.
const obedient = `trap 'echo two' USR2; trap 'echo three; exit 7' USR1; echo ready; while :; do sleep 0.02; done`

func start(t testing.TB, m *Manager, s Spec) Job {
	t.Helper()
	j, err := m.Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func wait(t testing.TB, m *Manager, id string) Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := m.Wait(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return r.Job
}

// output is what a job wrote so far.
func output(t testing.TB, m *Manager, id string) string {
	t.Helper()
	var b strings.Builder
	err := m.StreamLogs(t.Context(), id, LogOptions{}, func(e log.Entry) error {
		b.Write(e.Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// until waits for a job to have written want.
func until(t testing.TB, m *Manager, id, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var b strings.Builder
	enough := errors.New("enough")
	err := m.StreamLogs(ctx, id, LogOptions{Follow: true}, func(e log.Entry) error {
		b.Write(e.Data)
		if strings.Contains(b.String(), want) {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatalf("no %q in %q: %v", want, b.String(), err)
	}
}

func signal(t testing.TB, pid int, sig unix.Signal) {
	t.Helper()
	if err := unix.Kill(pid, sig); err != nil {
		t.Fatalf("cannot send %v to %d: %v", sig, pid, err)
	}
}

// parent is a process's parent, of a job's main process the shim.
func parent(t testing.TB, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b)[strings.LastIndexByte(string(b), ')')+1:])
	ppid, err := strconv.Atoi(f[1])
	if err != nil {
		t.Fatal(err)
	}
	return ppid
}

// eventually waits for something that nobody tells of.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	testkit.Eventually(t, what, ok)
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start jobs as other users")
	}
}

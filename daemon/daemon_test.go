package daemon

import (
	"context"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/daemon/logging"
	"github.com/rtask/rtask/packaging/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// running is an engine of a test.
type running struct {
	*client.Client
	options Options
	logs    *testkit.Logs
	reload  chan struct{}
	cancel  func()
	done    chan error
}

func options(dir string) Options {
	return Options{
		ConfigFile: filepath.Join(dir, "rtask.hcl"), TasksDir: filepath.Join(dir, "tasks.d"), StateDir: filepath.Join(dir, "state"),
		LogDir: filepath.Join(dir, "state", "jobs"), RuntimeDir: filepath.Join(dir, "state", "run"), Shim: testkit.Shim(),
		NoSystemd: true, Version: "1.2.3",
	}
}

// run runs an engine below dir with the task files given. Time brings it nothing: what the minute's tick would do at some time too, it has
// to do at once.
func run(t testing.TB, dir string) *running {
	t.Helper()
	r := &running{options: options(dir), logs: &testkit.Logs{}, reload: make(chan struct{}), done: make(chan error, 1)}
	ready := make(chan struct{}, 8)
	r.options.Reload, r.options.Ready = r.reload, func() { ready <- struct{}{} }
	r.options.ticks = make(chan time.Time)
	r.options.Logger = logging.New(r.logs, func(string) string { return "" })
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { r.done <- Run(ctx, r.options) }()
	select {
	case <-ready:
	case err := <-r.done:
		t.Fatalf("%v\n%s", err, r.logs)
	}
	r.Client = client.Dial(filepath.Join(r.options.RuntimeDir, "rtask.sock"))
	t.Cleanup(func() { r.stop(t) })
	return r
}

func (r *running) stop(t testing.TB) {
	r.cancel()
	if err, ok := <-r.done; ok && err != nil {
		t.Error(err)
	}
	r.Close()
	select {
	case <-r.done:
	default:
		close(r.done)
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r *running) tasks(t testing.TB) string {
	t.Helper()
	reply, err := r.Jobs.Tasks(t.Context(), &rtaskv1.TasksRequest{})
	if err != nil {
		return connect.CodeOf(err).String()
	}
	var names []string
	for _, k := range reply.Tasks {
		names = append(names, k.Name)
	}
	return strings.Join(names, " ")
}

const one, two, wrong = "task \"one\" { command = [\"/bin/true\"] }\n", "task \"two\" { command = [\"/bin/true\"] }\n", "task \"x\" { comand = 1 }\n"

func TestFolders(t *testing.T) {
	for range 8 { // the order is not left to chance
		dir := t.TempDir()
		r := run(t, dir)
		for path, mode := range map[string]fs.FileMode{
			"": 0o700, "jobs": 0o750, "run": 0o755, "run/rtask.sock": 0o666 | fs.ModeSocket, "run/gateway.sock": 0o600 | fs.ModeSocket, "run/shim": 0o700,
			"exits": 0o700, "jobs.db": 0o600,
		} {
			fi, err := os.Stat(filepath.Join(dir, "state", path))
			if err != nil {
				t.Fatal(err)
			}
			if got := fi.Mode() &^ fs.ModeDir; got != mode {
				t.Errorf("%s: %v, want %v", path, got, mode)
			}
		}
		r.stop(t)
		if _, err := os.Stat(filepath.Join(dir, "state", "run", "rtask.sock")); err == nil {
			t.Error("the socket is still there")
		}
	}
}

// An engine with a wrong configuration serves and says so, and takes a right one when it comes.
func TestInvalidConfiguration(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "tasks.d", "a.hcl")
	write(t, file, wrong)
	r := run(t, dir)
	info, err := r.Jobs.Info(t.Context(), &rtaskv1.InfoRequest{})
	if err != nil || len(info.Diagnostics) == 0 || !info.Diagnostics[0].Error || info.Manager != "none" || len(info.Weaker) == 0 || info.Version != "1.2.3" {
		t.Errorf("%v, %v", info, err)
	}
	if got := r.tasks(t); got != "unavailable" {
		t.Error(got)
	}
	if !strings.Contains(r.logs.String(), "comand") {
		t.Errorf("the log does not say it: %s", r.logs)
	}
	write(t, file, one)
	r.reload <- struct{}{}
	testkit.Eventually(t, "the task is there", func() bool { return r.tasks(t) == "one" })
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "tasks.d", "a.hcl")
	write(t, file, one)
	r := run(t, dir)
	reload := func(check bool) *rtaskv1.ReloadResponse {
		t.Helper()
		reply, err := r.Jobs.Reload(t.Context(), &rtaskv1.ReloadRequest{CheckOnly: check})
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	write(t, file, wrong)
	for _, check := range []bool{true, false} {
		if m := reload(check); len(m.Diagnostics) == 0 || m.Diagnostics[0].File != file || m.Diagnostics[0].Line != 1 || m.Tasks != 0 {
			t.Errorf("check %v: %v", check, m)
		}
		info, err := r.Jobs.Info(t.Context(), &rtaskv1.InfoRequest{})
		if got := r.tasks(t); got != "one" || err != nil || (len(info.Diagnostics) == 0) != check {
			t.Errorf("check %v: %s, %v, %v", check, got, info, err)
		}
	}
	r.reload <- struct{}{}
	testkit.Eventually(t, "it was loaded twice", func() bool { return strings.Count(r.logs.String(), "configuration not loaded") == 2 })
	if got := r.tasks(t); got != "one" {
		t.Error(got)
	}
	write(t, file, one+two)
	if m := reload(true); m.Tasks != 2 || r.tasks(t) != "one" {
		t.Errorf("a check changes what is in force: %v", m)
	}
	if m := reload(false); m.Tasks != 2 || len(m.Diagnostics) != 0 || r.tasks(t) != "one two" {
		t.Errorf("%v", m)
	}
	// What is not a task is put in force, too.
	write(t, r.options.ConfigFile, "max_jobs = 1\n")
	reload(false)
	start := func() error {
		_, err := r.Jobs.Start(t.Context(), &rtaskv1.StartRequest{
			Name: "sleep", Path: "/bin/sleep", Arguments: []string{"100"}, WorkingDirectory: "/", AllowDuplicate: true,
		})
		return err
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	if err := start(); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("max_jobs = 1: %v", err)
	}
	r.stopJobs(t)
}

func (r *running) stopJobs(t testing.TB) {
	t.Helper()
	list, err := r.Jobs.List(t.Context(), &rtaskv1.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range list.Jobs {
		if _, err := r.Jobs.Stop(t.Context(), &rtaskv1.StopRequest{Job: j.Id, Kill: true}); err != nil {
			t.Error(err)
		}
	}
}

func TestSockets(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state", "run", "rtask.sock")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	// One that a killed engine left.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	r := run(t, dir)
	if _, err := r.Jobs.Info(t.Context(), &rtaskv1.InfoRequest{}); err != nil {
		t.Error(err)
	}
	// One that an engine serves, in other folders.
	other := options(t.TempDir())
	other.RuntimeDir, other.Logger = r.options.RuntimeDir, slog.New(slog.DiscardHandler)
	if err := Run(t.Context(), other); err == nil || !strings.Contains(err.Error(), "another rtaskd serves it") {
		t.Errorf("a second engine on the socket: %v", err)
	}
	if _, err := r.Jobs.Info(t.Context(), &rtaskv1.InfoRequest{}); err != nil {
		t.Errorf("the first one suffers: %v", err)
	}
	// The same state.
	other = options(dir)
	other.RuntimeDir, other.Logger = t.TempDir(), slog.New(slog.DiscardHandler)
	if err := Run(t.Context(), other); err == nil || !strings.Contains(err.Error(), "in use by another rtaskd") {
		t.Errorf("a second engine on the records: %v", err)
	}
	// Something that is no socket.
	other = options(t.TempDir())
	other.Logger = slog.New(slog.DiscardHandler)
	precious := filepath.Join(other.RuntimeDir, "rtask.sock")
	write(t, precious, "precious")
	if err := Run(t.Context(), other); err == nil || !strings.Contains(err.Error(), "another file has that name") {
		t.Errorf("a file in the way: %v", err)
	}
	if b, err := os.ReadFile(precious); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
}

// The engine ends within seconds whoever follows, and its jobs run on; the next one goes on with them.
func TestStop(t *testing.T) {
	dir := t.TempDir()
	r := run(t, dir)
	started, err := r.Jobs.Start(t.Context(), &rtaskv1.StartRequest{
		Name: "sh", Path: "/bin/sh", Arguments: []string{"-c", "echo on; trap 'echo off; exit 3' USR1; while :; do sleep 0.02; done"}, WorkingDirectory: "/",
	})
	if err != nil {
		t.Fatal(err)
	}
	j := started.Job
	stream, err := r.Jobs.StreamLogs(t.Context(), &rtaskv1.StreamLogsRequest{Job: j.Id, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := r.Jobs.Wait(t.Context(), &rtaskv1.WaitRequest{Job: j.Id})
		waits <- err
	}()
	time.Sleep(50 * time.Millisecond)
	r.stop(t) // the job has no end, so this has none if it waits for one
	var broken error
	for _, err := range client.Messages(stream) {
		broken = err
	}
	if err := <-waits; err == nil || broken == nil || !client.Broken(err) || !client.Broken(broken) {
		t.Errorf("who waits is to come back: %v, %v", err, broken)
	}
	if err := unix.Kill(int(j.Pid), 0); err != nil {
		t.Fatalf("the job: %v", err)
	}
	r = run(t, dir)
	if err := unix.Kill(int(j.Pid), unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	w, err := r.Jobs.Wait(t.Context(), &rtaskv1.WaitRequest{Job: j.Id})
	if err != nil || w.Job.GetExitCode() != 3 {
		t.Errorf("%v, %v", w, err)
	}
}

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	var out strings.Builder
	env := func(args ...string) Environment {
		return Environment{
			Args: append([]string{"rtaskd"}, args...), Getenv: func(string) string { return dir }, Stdout: &out, Version: "1.2.3",
			Logger: slog.New(slog.DiscardHandler),
		}
	}
	if err := Main(t.Context(), env("--version")); err != nil || !strings.Contains(out.String(), "1.2.3") {
		t.Errorf("%q, %v", out.String(), err)
	}
	if err := Main(t.Context(), env("run", "now")); err == nil || !strings.Contains(err.Error(), `"now"`) {
		t.Errorf("%v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	args := []string{"--config", filepath.Join(dir, "x.hcl"), "--state-dir", dir, "--log-dir", dir, "--runtime-dir", dir, "--no-systemd"}
	if err := Main(gone, env(append(args, "--shim", filepath.Join(dir, "no-shim"))...)); err == nil || !strings.Contains(err.Error(), "rtask-shim") {
		t.Errorf("%v", err)
	}
	if err := Main(gone, env(append(args, "--shim", testkit.Shim())...)); err != nil {
		t.Errorf("%v", err)
	}
	d := defaultDirs(func(name string) string {
		return map[string]string{"HOME": "/home/ada", "XDG_RUNTIME_DIR": "/run/user/1000", "XDG_STATE_HOME": "relative"}[name]
	})
	want := dirs{"/home/ada/.config/rtask/rtask.hcl", "/home/ada/.local/state/rtask", "/home/ada/.local/state/rtask/jobs", "/run/user/1000/rtask"}
	if os.Geteuid() == 0 {
		want = dirs{"/etc/rtask/rtask.hcl", "/var/lib/rtask", "/var/log/rtask/jobs", "/run/rtask"}
	}
	if d != want {
		t.Errorf("%v, want %v", d, want)
	}
}

func TestNamed(t *testing.T) {
	gid, err := job.LookupGroup("daemon")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "tasks.d", "a.hcl"), `task "a" {
  command      = ["/bin/true"]
  allow_users  = ["ada", "4711"]
  allow_groups = ["daemon"]
}`)
	o := options(dir)
	o.Logger = slog.New(slog.DiscardHandler)
	e := &engine{Options: o}
	s := newSettings(o, e.apply)
	if s.named(1, "ada", nil) {
		t.Error("before there is a configuration")
	}
	if _, diags := s.load(false, nil); diags.HasErrors() {
		t.Fatal(diags)
	}
	for _, c := range []struct {
		uid    uint32
		name   string
		groups []uint32
		want   bool
	}{
		{1000, "ada", nil, true}, {4711, "", nil, true}, {4712, "", nil, false}, {1000, "ben", []uint32{1000}, false}, {1000, "", []uint32{1000, gid}, true},
	} {
		if got := s.named(c.uid, c.name, c.groups); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// What local users do wrong on the control socket is no line in the log: they could have as many as they like.
func TestLogOfStrangers(t *testing.T) {
	r := run(t, t.TempDir())
	for _, text := range []string{
		"nonsense\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "POST /x HTTP/1.1\r\nContent-Length: x\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense that is no frame",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x01",
	} {
		c, err := net.Dial("unix", filepath.Join(r.options.RuntimeDir, "rtask.sock"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.Copy(io.Discard, c) // until it is closed
		c.Close()
	}
	if log := r.logs.String(); strings.Contains(log, "http: ") || strings.Contains(log, "http2: ") {
		t.Errorf("logged\n%s", log)
	}
}

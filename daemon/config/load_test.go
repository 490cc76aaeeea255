package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/rtask/rtask/sandbox/spec"
)

var update = flag.Bool("update", false, "write the messages as they are now into testdata")

// folder writes files below a new folder that only its owner can write, and goes there, so that messages name the files
// as they are named in the archive.
func folder(t *testing.T, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{".", "tasks.d"} {
		if err := os.Chmod(path, 0o755); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// here are the options for folder.
func here() Options { return Options{File: "rtask.hcl", Dir: "tasks.d", OwnerUID: os.Getuid()} }

// TestMessages loads each archive of testdata and compares what is said with the file "want" in it. A machine where
// only root exists, and only the folder /, stands behind the lookups.
func TestMessages(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, path := range archives {
		path, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]string{}
			want := -1
			for i, f := range archive.Files {
				if f.Name == "want" {
					want = i
					continue
				}
				files[f.Name] = string(f.Data)
			}
			if want < 0 {
				t.Fatal("no file named want")
			}
			folder(t, files)
			opts := here()
			only := func(known string) func(string) error {
				return func(name string) error {
					if name != known {
						return errors.New("not there")
					}
					return nil
				}
			}
			opts.LookupUser, opts.LookupGroup, opts.StatDir = only("root"), only("root"), only("/")
			opts.IsRoot = func(name string) bool { return name == "toor" }
			opts.CheckFile = only("/etc/rtask/corp.crl")
			opts.Calendars = calendars
			cfg, diags := Load(opts)
			if (cfg == nil) != diags.HasErrors() {
				t.Errorf("Config is nil: %v, HasErrors: %v", cfg == nil, diags.HasErrors())
			}
			if cfg != nil && !reflect.DeepEqual(cfg.Warnings, diags) {
				t.Errorf("Warnings are %v, want %v", cfg.Warnings, diags)
			}
			got := diags.Error()
			if got != "" {
				got += "\n"
			}
			if *update {
				archive.Files[want].Data = []byte(got)
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got != string(archive.Files[want].Data) {
				t.Errorf("got:\n%swant:\n%s", got, archive.Files[want].Data)
			}
		})
	}
}

// calendars takes all events but "refused", and says that "past" never comes.
func calendars(events []string) []Calendar {
	answers := make([]Calendar, len(events))
	for i, e := range events {
		switch e {
		case "refused":
			answers[i].Err = errors.New("systemd does not take it")
		case "past":
		default:
			answers[i].Next = time.Date(2100, 1, 1, len(e), 0, 0, 0, time.UTC)
		}
	}
	return answers
}

func TestNoFilesAreTheDefaults(t *testing.T) {
	folder(t, nil)
	for _, opts := range []Options{{}, here()} {
		cfg, diags := Load(opts)
		if len(diags) != 0 {
			t.Fatalf("%v", diags)
		}
		want := &Config{
			Tasks: map[string]*Task{}, keyPlaces: map[string]Diagnostic{}, Argon2: Argon2{MemoryKiB: 19456, Time: 2, Threads: 1},
			LimitsUnavailable: "refuse", MaxJobs: 1000, DynamicUIDs: spec.UIDRange{First: 70000, Last: 70999},
			Retention: spec.Retention{KeepFor: 720 * time.Hour, KeepBytes: 2 << 30, KeepJobs: 100_000},
			Remote:    Remote{Authorities: []string{"rtask"}, StaleCRL: "refuse", TokenTTL: time.Hour},
			Authority: Authority{UserLifetime: 16 * time.Hour, MachineLifetime: 720 * time.Hour, RenewExpired: 72 * time.Hour},
		}
		if !reflect.DeepEqual(cfg, want) {
			t.Errorf("got %+v", cfg)
		}
	}
}

func TestTaskDefaults(t *testing.T) {
	folder(t, map[string]string{"tasks.d/a.hcl": "\n task \"a\" {\n command = [\"true\"]\n}\n"})
	cfg, diags := Load(here())
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	want := &Task{
		Name: "a", Command: []string{"true"}, Workdir: "/", Enabled: true, Timeout: 30 * time.Second, TimeoutStop: 10 * time.Second,
		KillSignal: syscall.SIGTERM, MaxInputBytes: 16384, MaxOutputBytes: 16384, RedirectStderr: true, LogMaxBytes: 67108864,
		Journal: true, Retention: 20 * time.Second, Pos: Pos{"tasks.d/a.hcl", 2, 2},
		Overflow: "reject", OnDisconnect: "continue", Queue: 10, Pool: Pool{Keep: 10 * time.Second}, Sandbox: profile(ProfileDefault),
		Hash: cfg.Tasks["a"].Hash,
	}
	if !reflect.DeepEqual(cfg.Tasks["a"], want) {
		t.Errorf("got %+v", cfg.Tasks["a"])
	}
}

// TestWholeConfiguration loads the same tasks from HCL and from JSON, each attribute with another value than its default.
func TestWholeConfiguration(t *testing.T) {
	const root = `
		argon2 {
		  memory  = "46M"
		  time    = 1
		  threads = 4
		}
		limits_unavailable = "warn"
		max_jobs           = 5
		dynamic_uids       = "80000-80009"
		retention {
		  keep_for   = "infinity"
		  keep_bytes = "1.5G"
		  keep_jobs  = 7
		}
		defaults {
		  timeout      = "1h 30min"
		  workdir      = "/tmp"
		  user         = "root"
		  environment  = { A = "default", B = "default" }
		  allow_groups = ["devs"]
		  limits {
		    memory_max = "1G"
		    tasks_max  = 10
		  }
		}`
	const native = `
		task "plain" {
		  command = ["./run", "a $${HOME}", "", "%%{x}"]
		}
		task "full" {
		  command              = ["make"]
		  workdir              = "/srv/x/"
		  user                 = "1000"
		  group                = "audio"
		  supplementary_groups = ["video", "dialout"]
		  enabled              = false
		  blocking             = true
		  api_keys             = ["k1", "k-2"]
		  allow_users          = ["alice"]
		  allow_groups         = []
		  timeout              = 0
		  timeout_stop_sec     = "500ms"
		  kill_signal          = "INT"
		  max_input_bytes      = "25M"
		  max_output_bytes     = 100
		  redirect_stderr      = false
		  environment          = { B = "task", "C" = "", LD_PRELOAD = "x" }
		  retention            = "2d"
		  log_max_bytes        = "1G"
		  max_concurrent       = 2
		  overflow             = "queue"
		  queue                = 7
		  pool {
		    warm = 1
		    keep = "1min"
		  }
		  sandbox {
		    private_tmp = false
		    private_ipc = false
		  }
		  journal              = false
		  limits {
		    memory_max = 536870912
		    cpu_quota  = "150%"
		  }
		}`
	const inJSON = `{"task": {
		"plain": {"//": "a comment", "command": ["./run", "a $${HOME}", "", "%%{x}"]},
		"full": {
		  "command": ["make"], "workdir": "/srv/x/", "user": "1000", "group": "audio",
		  "supplementary_groups": ["video", "dialout"], "enabled": false, "blocking": true,
		  "api_keys": ["k1", "k-2"], "allow_users": ["alice"], "allow_groups": [],
		  "timeout": 0, "timeout_stop_sec": "500ms", "kill_signal": "INT",
		  "max_input_bytes": "25M", "max_output_bytes": 100, "redirect_stderr": false,
		  "environment": {"B": "task", "C": "", "LD_PRELOAD": "x"},
		  "retention": "2d", "log_max_bytes": "1G", "journal": false, "max_concurrent": 2, "overflow": "queue", "queue": 7,
		  "pool": {"warm": 1, "keep": "1min"}, "sandbox": {"private_tmp": false, "private_ipc": false},
		  "limits": {"memory_max": 536870912, "cpu_quota": "150%"}
		}}}`
	n := func(v uint64) *uint64 { return &v }
	plain := Task{
		Name: "plain", Command: []string{"./run", "a ${HOME}", "", "%{x}"}, Workdir: "/tmp", User: "root", Enabled: true,
		AllowGroups: []string{"devs"}, Timeout: 90 * time.Minute, TimeoutStop: 10 * time.Second, KillSignal: syscall.SIGTERM,
		MaxInputBytes: 16384, MaxOutputBytes: 16384, RedirectStderr: true, Environment: []string{"A=default", "B=default"},
		Limits: spec.Limits{MemoryMax: n(1 << 30), TasksMax: n(10)}, LogMaxBytes: 64 << 20, Journal: true,
		Retention: 20 * time.Second,
		Overflow:  "reject", OnDisconnect: "continue", Queue: 10, Pool: Pool{Keep: 10 * time.Second}, Sandbox: profile(ProfileDefault),
	}
	full := Task{
		Name: "full", Command: []string{"make"}, Workdir: "/srv/x", User: "1000", Group: "audio",
		SupplementaryGroups: []string{"video", "dialout"}, Blocking: true, APIKeys: []string{"k1", "k-2"},
		AllowUsers: []string{"alice"}, TimeoutStop: 500 * time.Millisecond, KillSignal: syscall.SIGINT,
		MaxInputBytes: 25 << 20, MaxOutputBytes: 100,
		Environment: []string{"A=default", "B=task", "C=", "LD_PRELOAD=x"},
		Limits:      spec.Limits{MemoryMax: n(512 << 20), CPUQuota: n(1_500_000), TasksMax: n(10)}, LogMaxBytes: 1 << 30,
		Retention: 48 * time.Hour, MaxConcurrent: 2, Overflow: spec.Queue, OnDisconnect: OnDisconnectContinue, Queue: 7,
		Pool: Pool{Warm: 1, Keep: time.Minute},
	}
	full.Sandbox = profile(ProfileDefault)
	full.Sandbox.PrivateTmp, full.Sandbox.PrivateIPC, full.Sandbox.Named = false, false, []string{"private_ipc", "private_tmp"}
	for name, text := range map[string]string{"tasks.d/t.hcl": native, "tasks.d/t.hcl.json": inJSON} {
		t.Run(name, func(t *testing.T) {
			folder(t, map[string]string{"rtask.hcl": root, name: text})
			cfg, diags := Load(here())
			if len(diags) != 0 {
				t.Fatal(diags)
			}
			for _, task := range cfg.Tasks {
				if task.Pos.File != name || task.Pos.Line < 2 {
					t.Errorf("%s is at %v", task.Name, task.Pos)
				}
				task.Pos, task.Hash = Pos{}, ""
			}
			cfg.settings, cfg.keyPlaces, cfg.Files = nil, nil, nil // see TestShow
			want := &Config{
				Tasks:  map[string]*Task{"plain": &plain, "full": &full},
				Argon2: Argon2{MemoryKiB: 46 << 10, Time: 1, Threads: 4}, LimitsUnavailable: LimitsUnavailableWarn, MaxJobs: 5,
				DynamicUIDs: spec.UIDRange{First: 80000, Last: 80009}, Retention: spec.Retention{KeepBytes: 3 << 29, KeepJobs: 7},
				Remote:    Remote{Authorities: []string{"rtask"}, StaleCRL: "refuse", TokenTTL: time.Hour},
				Authority: Authority{UserLifetime: 16 * time.Hour, MachineLifetime: 720 * time.Hour, RenewExpired: 72 * time.Hour},
			}
			if !reflect.DeepEqual(cfg, want) {
				t.Errorf("got %+v\nplain %+v\nfull %+v", cfg, cfg.Tasks["plain"], cfg.Tasks["full"])
			}
		})
	}
}

func TestFilesByName(t *testing.T) {
	const task = `task "NAME" { command = ["true"] }`
	folder(t, map[string]string{
		"tasks.d/b.hcl": strings.Replace(task, "NAME", "b", 1), "tasks.d/a.hcl.json": `{"task":{"a":{"command":["true"]}}}`,
		"tasks.d/.#b.hcl": "not read", "tasks.d/.hcl": "not read", "tasks.d/c.hcl.bak": "not read", "tasks.d/README": "not read",
		"tasks.d/sub/d.hcl": "not read", "tasks.d/e.json": "not read",
	})
	cfg, diags := Load(here())
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	if len(cfg.Tasks) != 2 || cfg.Tasks["a"] == nil || cfg.Tasks["b"] == nil {
		t.Errorf("tasks are %v", cfg.Tasks)
	}
}

// TestFilesOthersCanChange has one file or folder that is not to be trusted for each row.
func TestFilesOthersCanChange(t *testing.T) {
	for _, c := range []struct {
		name   string
		spoil  func() error
		file   string
		reason string
		asRoot bool
	}{
		{"group can write", func() error { return os.Chmod("tasks.d/a.hcl", 0o664) }, "tasks.d/a.hcl", "its mode 0664 lets others", false},
		{"others can write", func() error { return os.Chmod("rtask.hcl", 0o646) }, "rtask.hcl", "its mode 0646 lets others", false},
		{"folder", func() error { return os.Chmod("tasks.d", 0o777) }, "tasks.d", "its mode 0777 lets others", false},
		{"sticky folder", func() error { return os.Chmod("tasks.d", 0o777|os.ModeSticky) }, "tasks.d", "its mode 0777 lets others", false},
		{"owner", func() error { return os.Chown("tasks.d/a.hcl", 4321, 0) }, "tasks.d/a.hcl", "owned by uid 4321", true},
		{"owner of folder", func() error { return os.Chown("tasks.d", 4321, 0) }, "tasks.d", "owned by uid 4321", true},
		{"fifo", func() error { return syscall.Mkfifo("tasks.d/f.hcl", 0o644) }, "tasks.d/f.hcl", "not a regular file", false},
		{"folder as file", func() error { return os.Mkdir("tasks.d/f.hcl", 0o755) }, "tasks.d/f.hcl", "not a regular file", false},
		{"link to nothing", func() error { return os.Symlink("gone", "tasks.d/f.hcl") }, "tasks.d/f.hcl", "no such file", false},
		{"link to what others own", func() error {
			return errors.Join(os.WriteFile("else", nil, 0o644), os.Chown("else", 4321, 0), os.Symlink("../else", "tasks.d/f.hcl"))
		}, "tasks.d/f.hcl", "owned by uid 4321", true},
		{"too long", func() error { return os.WriteFile("tasks.d/f.hcl", make([]byte, maxFileBytes+1), 0o644) }, "tasks.d/f.hcl", "longer than 1 MiB", false},
		{"tasks.d is a file", func() error { return errors.Join(os.RemoveAll("tasks.d"), os.WriteFile("tasks.d", nil, 0o644)) }, "tasks.d", "not a directory", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.asRoot && os.Getuid() != 0 {
				t.Skip("needs root")
			}
			folder(t, map[string]string{"rtask.hcl": "", "tasks.d/a.hcl": ""})
			if _, diags := Load(here()); len(diags) != 0 {
				t.Fatalf("before: %v", diags)
			}
			if err := c.spoil(); err != nil {
				t.Fatal(err)
			}
			_, diags := Load(here())
			if len(diags) != 1 || diags[0].File != c.file || diags[0].Line != 0 || !strings.Contains(diags[0].Summary, c.reason) {
				t.Errorf("got %v", diags)
			}
		})
	}
}

func TestOwnerUID(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	folder(t, map[string]string{"tasks.d/a.hcl": "", "tasks.d/b.hcl": ""})
	if err := os.Chown("tasks.d/a.hcl", 4321, 0); err != nil {
		t.Fatal(err)
	}
	opts := here()
	opts.OwnerUID = 4321
	if _, diags := Load(opts); len(diags) != 0 {
		t.Errorf("files of root and of OwnerUID: %v", diags)
	}
}

// TestErrorsOfAllFiles has something wrong in the folder, in two files, and of several kinds in one.
func TestErrorsOfAllFiles(t *testing.T) {
	folder(t, map[string]string{
		"rtask.hcl":     "max_jobs = 0\ndynamic_uids = 1",
		"tasks.d/a.hcl": "task \"a\" {",
		"tasks.d/b.hcl": "task \"b\" {\n command = []\n timeout = \"x\"\n}",
		"tasks.d/c.hcl": "",
	})
	if err := os.Chmod("tasks.d/c.hcl", 0o666); err != nil {
		t.Fatal(err)
	}
	cfg, diags := Load(here())
	if cfg != nil {
		t.Error("there is a Config")
	}
	var places []string
	for _, d := range diags {
		p := Pos{d.File, d.Line, d.Column}
		places = append(places, p.String())
	}
	want := []string{"tasks.d/c.hcl:0:0", "rtask.hcl:1:12", "rtask.hcl:2:16", "tasks.d/a.hcl:1:10", "tasks.d/b.hcl:2:12", "tasks.d/b.hcl:3:12"}
	if !reflect.DeepEqual(places, want) {
		t.Errorf("got %v\n%v", places, diags)
	}
}

// TestExamples loads the tasks that come with rtask.
func TestExamples(t *testing.T) {
	const examples = "../../tasks.d"
	entries, err := os.ReadDir(examples)
	if err != nil {
		t.Fatal(err)
	}
	// A copy, since a checkout may be writable for a group.
	files := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(examples, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files["tasks.d/"+e.Name()] = string(text)
	}
	folder(t, files)
	cfg, diags := Load(here())
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	if len(cfg.Tasks) != len(entries) {
		t.Errorf("%d files, tasks are %v", len(entries), cfg.Tasks)
	}
	hello := cfg.Tasks["hello"]
	if hello == nil || !hello.Blocking || !hello.Limits.IsZero() || !reflect.DeepEqual(hello.APIKeys, []string{"demo"}) {
		t.Errorf("hello is %+v", hello)
	}
}

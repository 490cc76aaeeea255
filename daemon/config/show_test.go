package config

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const shown = `task "deploy" {
  command = ["/usr/bin/make", "a b", "$${HOME} %%{x} \"q\" \\ \u001b\n€"]
  workdir = "/"
  user = "root"
  enabled = false
  blocking = false # default
  on_disconnect = "continue" # default
  rate_limit = 0 # default
  max_concurrent = 0 # default
  overflow = "reject" # default
  queue = 10 # default
  timeout = 90
  timeout_stop_sec = "10s" # default
  kill_signal = "SIGTERM" # default
  max_input_bytes = "16K" # default
  max_output_bytes = "16K" # default
  redirect_stderr = true # default
  environment = { A = "1", B = "2" }
  on_failure = ["notify"]
  retention = "20s" # default
  log_max_bytes = "64M" # default
  journal = true # default

  limits {
    cpu_quota = "150%"
    memory_max = "512M"
  }

  pool {
    keep = "10s" # default
    warm = 0 # default
  }

  sandbox {
    capability_bounding_set = ["~CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_AUDIT_CONTROL CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE"] # default
    lock_personality = true # default
    memory_deny_write_execute = false # default
    no_new_privileges = true # default
    private_devices = true
    private_ipc = true # default
    private_network = false # default
    private_pids = true # default
    private_tmp = true # default
    private_users = false # default
    proc_subset = "all" # default
    profile = "default" # default
    protect_clock = true # default
    protect_control_groups = true # default
    protect_home = "false" # default
    protect_hostname = true # default
    protect_kernel_logs = true # default
    protect_kernel_modules = false # default
    protect_kernel_tunables = true # default
    protect_proc = "default" # default
    protect_system = "full"
    read_only_paths = ["/srv", "-/opt"]
    restrict_address_families = ["AF_INET AF_INET6 AF_NETLINK AF_UNIX"] # default
    restrict_namespaces = true # default
    restrict_realtime = true # default
    restrict_suid_sgid = false # default
    system_call_architectures = ["native"] # default
    system_call_error_number = "EPERM" # default
    system_call_filter = ["~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap bpf io_uring_enter io_uring_register io_uring_setup perf_event_open userfaultfd"] # default
  }
}
`

// What Show shows is what holds: loaded again, it makes the same task.
func TestShow(t *testing.T) {
	files := map[string]string{
		"rtask.hcl": `defaults {
			user = "root"
			workdir = "/tmp"
			environment = { A = "0", B = "2" }
			on_failure = ["notify"]
			limits { memory_max = "512M" }
		}`,
		"tasks.d/a.hcl": `task "deploy" {
			command = ["/usr/bin/make", "a b", "$${HOME} %%{x} \"q\" \\ \u001b\n€"]
			enabled = false
			workdir = "/"
			timeout = 90 # seconds
			environment = { A = "1" }
			limits { cpu_quota = "150%" }
			sandbox {
				private_devices = true
				protect_system  = "full"
				read_only_paths = ["/srv", "-/opt"]
			}
		}
		task "notify" { command = ["true"] }`,
	}
	folder(t, files)
	cfg, diags := Load(here())
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	text, object, err := cfg.Show("deploy", true)
	if err != nil || text != shown {
		t.Errorf("%v\n%s", err, text)
	}
	notify, _, err := cfg.Show("notify", true)
	if err != nil || strings.Contains(notify, "on_failure") && !strings.Contains(notify, "on_failure = []") {
		t.Errorf("%v\n%s", err, notify)
	}
	asJSON, err := json.Marshal(map[string]any{"task": map[string]any{"deploy": object}})
	if err != nil {
		t.Fatal(err)
	}
	for name, again := range map[string]map[string]string{
		"HCL": {"tasks.d/a.hcl": text + notify}, "JSON": {"tasks.d/a.hcl.json": strings.ReplaceAll(string(asJSON), "${", "$${"), "tasks.d/b.hcl": notify},
	} {
		if name == "JSON" {
			again["tasks.d/a.hcl.json"] = strings.ReplaceAll(again["tasks.d/a.hcl.json"], "%{", "%%{")
		}
		folder(t, again)
		got, diags := Load(here())
		if len(diags) != 0 {
			t.Fatalf("%s: %v", name, diags)
		}
		a, b := *cfg.Tasks["deploy"], *got.Tasks["deploy"]
		a.Pos, b.Pos = Pos{}, Pos{}
		forgetNames(&a, &b)
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: %+v, want %+v", name, b, a)
		}
	}
	for _, out := range []func(bool) string{
		func(secrets bool) string { s, _, _ := cfg.Show("deploy", secrets); return s },
		func(secrets bool) string { _, s, _ := cfg.Show("deploy", secrets); return string(s) },
	} {
		if s := out(false); strings.Contains(s, `"1"`) || !strings.Contains(s, "A") || !strings.Contains(s, "…") {
			t.Errorf("without secrets: %s", s)
		}
	}
	if s, _, _ := cfg.Show("deploy", true); s != shown {
		t.Errorf("hidden for ever: %s", s)
	}
}

// What is shown as a default can be written, and is the default.
func TestShowDefaults(t *testing.T) {
	folder(t, map[string]string{"tasks.d/a.hcl": `task "a" { command = ["true"] }`})
	cfg, diags := Load(here())
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	text, _, err := cfg.Show("a", true)
	if err != nil {
		t.Fatal(err)
	}
	folder(t, map[string]string{"tasks.d/a.hcl": text})
	again, diags := Load(here())
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	a, b := *cfg.Tasks["a"], *again.Tasks["a"]
	a.Pos, b.Pos = Pos{}, Pos{}
	forgetNames(&a, &b)
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%s makes %+v, want %+v", text, b, a)
	}
	// Of all attributes that say what they are by default, those are left out that have no value for it.
	left := []string{}
	for _, attr := range taskAttributes() {
		if attr.fallback+attr.otherwise != "" && !strings.Contains(text, " "+attr.name+" = ") {
			left = append(left, attr.name)
		}
	}
	if want := []string{"user", "group", "on_failure", "on_success"}; !slices.Equal(left, want) {
		t.Errorf("no default is shown of %q, want %q", left, want)
	}
}

// forgetNames makes tasks equal that differ in what is written in a file and what a profile brought in.
func forgetNames(tasks ...*Task) {
	for _, t := range tasks {
		t.Sandbox.Named, t.Hash = nil, ""
	}
}

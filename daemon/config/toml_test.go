package config

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rtask/rtask/sandbox/spec"
)

// The file that the documentation of the runner shows which rtask grew from means here what it says there.
func TestOldConfiguration(t *testing.T) {
	text, err := os.ReadFile("oldtoml/testdata/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	shown := string(text)
	if !slices.Contains(taskScope().names(), "webhook") {
		// Without webhooks all of it is there but those.
		shown = shown[:strings.Index(shown, "[tasks.webhook-handler.webhookSecrets]")] + shown[strings.Index(shown, "[tasks.webhook-handler.environment]"):]
	}
	for name, opts := range map[string]func(*Options){
		"config.toml":       func(o *Options) { o.File = "config.toml" },
		"tasks.d/old.toml":  func(*Options) {},
		"tasks.d/plain.hcl": nil,
	} {
		if opts == nil {
			continue
		}
		folder(t, map[string]string{name: shown})
		o := here()
		opts(&o)
		cfg, diags := Load(o)
		if diags.HasErrors() {
			t.Fatalf("%s: %v", name, diags)
		}
		hello, build, hook := cfg.Tasks["hello"], cfg.Tasks["build"], cfg.Tasks["webhook-handler"]
		if len(cfg.Tasks) != 3 || hello == nil || build == nil || hook == nil {
			t.Fatalf("%s: %v", name, cfg.Tasks)
		}
		if !strings.HasSuffix(hello.Command[0], "/test.nu") || hello.Command[0][0] != '/' || !slices.Equal(hello.APIKeys, []string{"a1", "a3"}) ||
			!hello.Blocking || hello.RateLimit != 1 || hello.Timeout != 30*time.Second || hello.MaxInputBytes != 16<<10 || !hello.RedirectStderr {
			t.Errorf("%s: %+v", name, hello)
		}
		if !slices.Equal(build.Command, []string{"make", "build"}) || build.Workdir != "/path/to/project" || build.Blocking || build.RateLimit != 0.5 ||
			build.MaxConcurrent != 2 || build.Overflow != spec.Reject || build.Timeout != 5*time.Minute || build.Retention != 20*time.Second {
			t.Errorf("%s: %+v", name, build)
		}
		if !slices.Equal(hook.PassRequestHeaders, []string{"X-GitHub-Event", "X-Hub-Signature"}) ||
			!slices.Equal(hook.Environment, []string{"LOG_LEVEL=info", "WEBHOOK_TIMEOUT=30"}) || hook.MaxConcurrent != 0 {
			t.Errorf("%s: %+v", name, hook)
		}
	}
}

// What is wrong is shown where it stands in the TOML.
func TestOldConfigurationErrors(t *testing.T) {
	for text, want := range map[string]string{
		"[tasks.a]\ncommand = ['x']\nrateLimits = 1\n":                          "tasks.d/a.toml:3:1: error: unknown name",
		"[tasks.a]\ncommand = ['x']\nrateLimit = -1\n":                          "tasks.d/a.toml:3:1: error: rate_limit must be from 0",
		"[tasks.a]\ncommand = ['x']\n  apiKeyNames = ['No']\n":                  "tasks.d/a.toml:3:3: error: api_keys[0]: \"No\" cannot be the name of a key\n    |   apiKeyNames = ['No']\n    |   ^",
		"[tasks.a]\ncommand = ['x']\ndurationHistogramBuckets = [2.0, 1.0]\n":   "tasks.d/a.toml:3:1: error: duration_buckets[1] is not above",
		"[tasks.A]\ncommand = ['x']\n":                                          "tasks.d/a.toml:1:1: error: \"A\" cannot be the name of a task",
		"[tasks.a]\ncommand = ['x']\n[tasks.a.environment]\nB = '1'\n1 = '2'\n": "tasks.d/a.toml:5:1: error: environment: \"1\" is not the name",
		"[tasks.a]\nblocking = true\n":                                          "tasks.d/a.toml:1:1: error: task \"a\" has no command",
		"[tasks.a]\ncommand = ['x]\n":                                           "tasks.d/a.toml:2:",
	} {
		folder(t, map[string]string{"tasks.d/a.toml": text})
		_, diags := Load(here())
		if !diags.HasErrors() || !strings.Contains(diags.Error(), want) {
			t.Errorf("%q: %v, want %q", text, diags, want)
		}
	}
}

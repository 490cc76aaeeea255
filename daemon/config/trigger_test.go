package config

import (
	"slices"
	"testing"
)

// A task has the triggers of defaults, or its own in their place; those that defaults name do not.
func TestTriggersOfDefaults(t *testing.T) {
	folder(t, map[string]string{
		"rtask.hcl": `defaults {
			on_failure = ["notify", "page"]
			on_success = ["notify"]
		}`,
		"tasks.d/a.hcl": `
			task "notify" { command = ["true"] }
			task "page" { command = ["true"] }
			task "plain" { command = ["true"] }
			task "own" {
				command    = ["true"]
				on_failure = ["page"]
			}
			task "none" {
				command    = ["true"]
				on_failure = []
			}`,
	})
	cfg, diags := Load(here())
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	for name, want := range map[string][2][]string{
		"notify": {nil, nil}, "page": {nil, {"notify"}}, "plain": {{"notify", "page"}, {"notify"}}, "own": {{"page"}, {"notify"}},
		"none": {nil, {"notify"}},
	} {
		if got := cfg.Tasks[name]; !slices.Equal(got.OnFailure, want[0]) || !slices.Equal(got.OnSuccess, want[1]) {
			t.Errorf("%s: %q and %q, want %q", name, got.OnFailure, got.OnSuccess, want)
		}
	}
}

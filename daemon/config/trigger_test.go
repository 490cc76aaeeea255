package config

import (
	"slices"
	"strings"
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

// Tasks that trigger each other in a circle, however long, would run for ever.
func TestCircles(t *testing.T) {
	for hcl, want := range map[string]string{
		`task "a" {
			command    = ["true"]
			on_failure = ["a"]
		}`: `task "a" would trigger itself`,
		`task "a" {
			command    = ["true"]
			on_failure = ["b"]
		}
		task "b" {
			command    = ["true"]
			on_success = ["c", "d"]
		}
		task "c" { command = ["true"] }
		task "d" {
			command    = ["true"]
			on_failure = ["a"]
		}`: "a → b → d → a",
	} {
		cfg, diags := loadTasks(t, hcl)
		if cfg != nil || len(diags) != 1 || !strings.Contains(diags[0].Summary, want) {
			t.Errorf("%v, want %q", diags, want)
		}
	}
}

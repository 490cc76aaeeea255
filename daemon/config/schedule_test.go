package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// What systemd is to keep for a task is bounded.
func TestStarterBounds(t *testing.T) {
	many := func(form string, n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(form, i))
		}
		return strings.Join(all, ", ")
	}
	for text, want := range map[string]string{
		"schedule {\n on_calendar = [" + many(`"%d"`, maxCalendars) + "]\n}":                        "",
		"schedule {\n on_calendar = [" + many(`"%d"`, maxCalendars+1) + "]\n}":                      "100 at most",
		"schedule {\n on_calendar = [\"" + strings.Repeat("x", maxCalendar+1) + "\"]\n}":            "not a calendar event",
		"path {\n path_exists = [" + many(`"/a%d"`, maxCalendars) + "]\n}":                          "",
		"path {\n path_exists = [" + many(`"/a%d"`, maxCalendars) + "]\n path_changed = [\"/\"]\n}": "100 at most",
		"path {\n path_exists = [\"/" + strings.Repeat("%", maxWatched) + "\"]\n}":                  "longer than",
		"path {\n path_exists = [\"/" + strings.Repeat("x", maxWatched-1) + "\"]\n}":                "",
		"schedule {\n on_calendar = [\"daily\"]\n randomized_delay = \"infinity\"\n}":               "must end",
		"schedule {\n on_calendar = \"daily\"\n}":                                                   "must be a list",
		"path {\n directory_not_empty = [\"/srv\"]\n on_calendar = [\"daily\"]\n}":                  "belongs in schedule",
	} {
		_, diags := one("task \"t\" {\n command = [\"true\"]\n " + text + "\n}\n")
		if got := diags.Error(); (want == "") != (len(diags) == 0) || !strings.Contains(got, want) {
			t.Errorf("%.60s: %v, want %q", text, got, want)
		}
	}
}

// The earliest of a task's times is its next one. Where systemd cannot be asked, that is a warning.
func TestCalendars(t *testing.T) {
	text := "task \"t\" {\n command = [\"true\"]\n schedule {\n  on_calendar = [\"late\", \"soon\", \"past\"]\n }\n}\n"
	load := func(o Options) (*Config, Diagnostics) {
		return LoadFiles([]File{{Path: "t.hcl", Data: []byte(text)}}, o)
	}
	early := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	c, diags := load(Options{Calendars: func(events []string) []Calendar {
		if len(events) != 3 {
			t.Errorf("%q", events)
		}
		return []Calendar{{Next: early.Add(time.Hour)}, {Next: early}, {}}
	}})
	if c == nil || !c.Tasks["t"].Schedule.Next.Equal(early) || len(diags) != 1 {
		t.Errorf("%v", diags)
	}
	c, diags = load(Options{Calendars: func(events []string) []Calendar {
		return []Calendar{{Err: ErrUnchecked}, {Next: early}, {Err: errors.Join(ErrUnchecked)}}
	}})
	if c == nil || len(diags) != 2 || diags[0].Severity != SeverityWarning {
		t.Errorf("%v", diags)
	}
	if c, diags = load(Options{Unscheduled: func() string { return "there is no systemd" }}); c == nil || len(diags) != 1 || diags[0].Line != 3 {
		t.Errorf("%v", diags)
	}
}

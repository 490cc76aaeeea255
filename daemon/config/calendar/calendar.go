// Package calendar asks systemd-analyze(1) about calendar events, systemd.time(7), so that a configuration never has one that
// systemd would not take.
//
// It starts one program, systemd-analyze, whose arguments are the events, and which needs no running systemd. The engine and rtaskctl
// use it.
package calendar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/rtask/rtask/daemon/config"
)

const (
	// patience is how long systemd-analyze may take for atOnce events; it takes milliseconds.
	patience = 10 * time.Second
	atOnce   = 500
)

// Ask is config.Options.Calendars. Where systemd-analyze cannot be asked, the answers are config.ErrUnchecked.
func Ask(events []string) []config.Calendar {
	var all []config.Calendar
	for len(events) > 0 {
		n := min(len(events), atOnce)
		all = append(all, ask(events[:n])...)
		events = events[n:]
	}
	return all
}

// ask asks about all events at once; where systemd-analyze does not take one of them, about each half.
func ask(events []string) []config.Calendar {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemd-analyze", append([]string{"calendar", "--iterations=1", "--"}, events...)...)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C.UTF-8", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=", "COLUMNS=1000")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	answers, readErr := read(out)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return each(len(events), fmt.Errorf("%w: systemd-analyze is not installed", config.ErrUnchecked))
	case ctx.Err() != nil:
		return each(len(events), fmt.Errorf("%w: systemd-analyze does not answer", config.ErrUnchecked))
	case err == nil && readErr == nil && len(answers) == len(events):
		return answers
	case len(events) > 1:
		half := len(events) / 2
		return append(ask(events[:half]), ask(events[half:])...)
	case errors.As(err, new(*exec.ExitError)):
		return each(1, errors.New(reason(said.String())))
	default:
		return each(1, fmt.Errorf("%w: %w", config.ErrUnchecked, errors.Join(err, readErr)))
	}
}

func each(n int, err error) []config.Calendar {
	all := make([]config.Calendar, n)
	for i := range all {
		all[i].Err = err
	}
	return all
}

// reason is what systemd-analyze says of an event that it does not take: "Failed to parse calendar specification 'X': Invalid argument".
func reason(said string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	if i := strings.LastIndex(line, "': "); i >= 0 {
		line = line[i+len("': "):]
	}
	if line == "" {
		return "systemd does not take it"
	}
	return "systemd does not take it: " + line
}

// stamp is how systemd-analyze prints a time.
const stamp = "Mon 2006-01-02 15:04:05 MST"

// read reads what systemd-analyze prints: a block for each event, with its next time in the local zone, and where that is another one
// in UTC.
func read(out []byte) ([]config.Calendar, error) {
	var all []config.Calendar
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch {
		case name == "Normalized form":
			all = append(all, config.Calendar{})
		case len(all) == 0:
		case name == "(in UTC)", name == "Next elapse" && strings.HasSuffix(value, " UTC"):
			next, err := time.Parse(stamp, strings.TrimSpace(value))
			if err != nil {
				return nil, fmt.Errorf("systemd-analyze prints %q", value)
			}
			all[len(all)-1].Next = next
		}
	}
	return all, nil
}

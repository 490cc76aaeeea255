package ctl

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// momentForms are the forms of a moment, but for what is relative to now. Those without a date mean today, those without a
// time the day's beginning, those without a zone the local one.
var momentForms = [...]struct {
	layout string
	today  bool
}{
	{layout: time.RFC3339}, // fractions of a second need no place in a layout
	{layout: "2006-01-02 15:04:05"},
	{layout: "2006-01-02 15:04"},
	{layout: "2006-01-02"},
	{layout: "15:04:05", today: true},
	{layout: "15:04", today: true},
}

// parseMoment reads a moment as journalctl(1) takes it for --since.
func parseMoment(text string, now time.Time) (time.Time, error) {
	wrong := func() (time.Time, error) {
		return time.Time{}, fmt.Errorf(`%q is not a time such as "2026-01-02 15:04:05", "15:04", "-5min", "2h ago", "today", "yesterday", "now" or "@1767366245"`, text)
	}
	trimmed := strings.TrimSpace(text)
	day := func(offset int) time.Time {
		return time.Date(now.Year(), now.Month(), now.Day()+offset, 0, 0, 0, 0, now.Location())
	}
	switch trimmed {
	case "":
		return wrong()
	case "now":
		return now, nil
	case "today":
		return day(0), nil
	case "yesterday":
		return day(-1), nil
	}
	before, ago := strings.CutSuffix(trimmed, " ago")
	back, minus := strings.CutPrefix(trimmed, "-")
	ahead, plus := strings.CutPrefix(trimmed, "+")
	unix, at := strings.CutPrefix(trimmed, "@")
	switch {
	case ago, minus:
		if minus {
			before = back
		}
		span, err := parseSpan(before)
		return now.Add(-span), err
	case plus:
		span, err := parseSpan(ahead)
		return now.Add(span), err
	case at:
		return parseUnix(unix, wrong)
	}
	for _, f := range momentForms {
		t, err := time.ParseInLocation(f.layout, trimmed, now.Location())
		if err != nil {
			continue
		}
		if f.today {
			t = time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), now.Location())
		}
		return t, nil
	}
	return wrong()
}

// parseUnix reads seconds since 1970, with or without a fraction.
func parseUnix(text string, wrong func() (time.Time, error)) (time.Time, error) {
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || seconds > math.MaxInt32*100 || seconds < 0 || strings.HasPrefix(whole, "+") || len(fraction) > 9 {
		return wrong()
	}
	nanoseconds, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 32)
	if err != nil {
		return wrong()
	}
	return time.Unix(seconds, int64(nanoseconds)), nil
}

// near is a time for a table: with the hour if that is not far from now, else the date.
func near(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return ""
	}
	at := t.AsTime().Local()
	switch {
	case now.Sub(at).Abs() < 48*time.Hour:
		return at.Format("01-02 15:04")
	case at.Year() == now.Year():
		return at.Format("01-02")
	default:
		return at.Format(time.DateOnly)
	}
}

// clockTime is a moment without its date if that is today's.
func clockTime(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format("15:04")
	}
	return t.Format("2006-01-02 15:04")
}

package ctl

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// parseSpan reads a time span of systemd.time(7), such as "90d" or "1h 30min". Only 0 needs no unit: systemd's seconds are not
// what somebody means who lets a key expire in 90.
func parseSpan(text string) (time.Duration, error) {
	var sum float64
	rest := strings.TrimSpace(text)
	if rest == "0" {
		return 0, nil
	}
	if rest == "" {
		return 0, fmt.Errorf("%q is not a time span such as 90d, 12h or 1y", text)
	}
	for rest != "" {
		digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789."))]
		n, err := strconv.ParseFloat(digits, 64)
		if err != nil {
			return 0, fmt.Errorf("%q is not a time span such as 90d, 12h or 1y", text)
		}
		rest = strings.TrimLeft(rest[len(digits):], " \t")
		name := rest[:len(rest)-len(strings.TrimLeft(rest, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZµμ"))]
		if name == "" {
			return 0, fmt.Errorf("%q has no unit: write %sd for days, %sh for hours, %smin or %ss", text, digits, digits, digits, digits)
		}
		unit, ok := spanUnit(name)
		if !ok {
			return 0, fmt.Errorf("%q is not a time span: it has no unit %q; units are s, min, h, d, w, month, y", text, name)
		}
		sum += n * float64(unit)
		rest = strings.TrimLeft(rest[len(name):], " \t")
	}
	if sum >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too long a time, 292 years are the most", text)
	}
	return time.Duration(sum), nil
}

// spanUnit knows the units of systemd.time(7).
func spanUnit(name string) (time.Duration, bool) {
	const day = 24 * time.Hour
	switch name {
	case "usec", "us", "µs", "μs":
		return time.Microsecond, true
	case "msec", "ms":
		return time.Millisecond, true
	case "seconds", "second", "sec", "s":
		return time.Second, true
	case "minutes", "minute", "min", "m":
		return time.Minute, true
	case "hours", "hour", "hr", "h":
		return time.Hour, true
	case "days", "day", "d":
		return day, true
	case "weeks", "week", "w":
		return 7 * day, true
	case "months", "month", "M":
		return 2629800 * time.Second, true
	case "years", "year", "y":
		return 31557600 * time.Second, true
	}
	return 0, false
}

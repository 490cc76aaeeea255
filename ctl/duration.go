package ctl

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/rtask/rtask/daemon/config"
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
		unit, ok := config.TimeUnit(name)
		if !ok {
			return 0, fmt.Errorf("%q is not a time span: it has no unit %q; units are s, min, h, d, w, month, y", text, name)
		}
		sum += n * float64(unit)
		rest = strings.TrimLeft(rest[len(name):], " \t")
	}
	if sum >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too long: the maximum is 292 years", text)
	}
	return time.Duration(sum), nil
}

package config

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rtask/rtask/sandbox/spec"
)

// The parse functions read the notations of systemd. Their errors complete "… is not a duration: ".

// maxDuration is the longest time span that is taken, 100 years: the sum of two, and such a time from now on, can be computed.
const maxDuration = 100 * 31557600 * time.Second

// maxDigits is the longest number that is looked at; the longest sensible one has 20 digits.
const maxDigits = 40

// number cuts a decimal number off the beginning of text.
func number(text string) (_ *big.Rat, rest string, err error) {
	if strings.HasPrefix(text, "-") {
		return nil, "", fmt.Errorf("%q is negative", text)
	}
	end := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		end = len(text)
	}
	digits := text[:end]
	if digits == "" {
		return nil, "", fmt.Errorf("%q does not begin with a number", text)
	}
	if len(digits) > maxDigits {
		return nil, "", errors.New("it is too large")
	}
	r, ok := new(big.Rat).SetString(digits)
	if !ok || strings.HasPrefix(digits, ".") || strings.HasSuffix(digits, ".") {
		return nil, "", fmt.Errorf("%q is no number", digits)
	}
	return r, text[end:], nil
}

// whole rounds r down; ok is false if it is larger than most.
func whole(r *big.Rat, most uint64) (_ uint64, ok bool) {
	n := new(big.Int).Quo(r.Num(), r.Denom())
	return n.Uint64(), n.IsUint64() && n.Uint64() <= most
}

// parseDuration reads a time span of systemd.time(7), such as "1h 30min"; a number without a unit is seconds.
func parseDuration(text string) (time.Duration, error) { return parseSpan(text, time.Second) }

// ParseDuration is what a time span of a configuration is read with: "1h 30min", "30s", "30".
func ParseDuration(text string) (time.Duration, error) { return parseDuration(text) }

// parseSpan is parseDuration with another unit for a number without one.
func parseSpan(text string, without time.Duration) (time.Duration, error) {
	sum := new(big.Rat)
	rest := strings.TrimSpace(text)
	if rest == "" {
		return 0, errors.New("it is empty")
	}
	if rest == "infinity" {
		return 0, errors.New("it must end")
	}
	for rest != "" {
		n, after, err := number(rest)
		if err != nil {
			return 0, err
		}
		after = strings.TrimLeft(after, " \t")
		end := strings.IndexAny(after, "0123456789. \t-")
		if end < 0 {
			end = len(after)
		}
		unit, ok := TimeUnit(after[:end])
		if end == 0 {
			unit = without
		}
		if !ok {
			return 0, fmt.Errorf("%q is no unit; units are us, ms, s, min, h, d, w", after[:end])
		}
		sum.Add(sum, n.Mul(n, new(big.Rat).SetInt64(int64(unit))))
		rest = strings.TrimLeft(after[end:], " \t")
	}
	got, ok := whole(sum, uint64(maxDuration))
	if !ok {
		return 0, errors.New("it is too long, 100y are the most")
	}
	return time.Duration(got), nil
}

// TimeUnit knows the units of systemd.time(7).
func TimeUnit(s string) (time.Duration, bool) {
	const day = 24 * time.Hour
	switch s {
	case "usec", "us", "µs", "μs":
		return time.Microsecond, true
	case "msec", "ms":
		return time.Millisecond, true
	case "", "seconds", "second", "sec", "s":
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

// sizeText writes a size as short as it can be written.
func sizeText(n int64) string {
	const suffixes = "KMGTPE"
	suffix := ""
	for i := 0; n != 0 && n%1024 == 0 && i < len(suffixes); i++ {
		n, suffix = n/1024, suffixes[i:i+1]
	}
	return strconv.FormatInt(n, 10) + suffix
}

// parseSize reads a size to the base of 1024, such as "512M"; a number without a suffix is bytes.
func parseSize(text string) (int64, error) { return parseScaled(text, 1024) }

// parseScaled reads a number whose suffixes are to a base.
func parseScaled(text string, base int64) (int64, error) {
	text = strings.TrimSpace(text)
	if text == "infinity" {
		return 0, errors.New("it must have an end")
	}
	n, suffix, err := number(text)
	if err != nil {
		return 0, err
	}
	suffix = strings.TrimLeft(suffix, " \t")
	power := 0
	switch suffix {
	case "", "B":
	case "%":
		return 0, errors.New("a percentage is not taken here")
	default:
		power = strings.Index("KMGTPE", suffix) + 1
		if len(suffix) != 1 || power == 0 {
			return 0, fmt.Errorf("%q is no suffix; suffixes are K, M, G, T, P, E, to the base of %d", suffix, base)
		}
	}
	for range power {
		n.Mul(n, new(big.Rat).SetInt64(base))
	}
	if suffix == "" && !n.IsInt() {
		return 0, errors.New("there are no parts of a byte")
	}
	most := int64(1)
	for range len("KMGTPE") {
		most *= base
	}
	got, ok := whole(n, uint64(most))
	if !ok {
		return 0, errors.New("it is too large, 1E is the most")
	}
	return int64(got), nil
}

// parseMemory reads memory_max.
func parseMemory(text string) (uint64, error) {
	if strings.TrimSpace(text) == "infinity" {
		return spec.Infinity, nil
	}
	got, err := parseSize(text)
	if err == nil && got == 0 {
		err = errors.New("nothing can run without memory")
	}
	return uint64(got), err
}

// parseTasks reads tasks_max.
func parseTasks(text string) (uint64, error) {
	text = strings.TrimSpace(text)
	if text == "infinity" {
		return spec.Infinity, nil
	}
	n, rest, err := number(text)
	switch {
	case err != nil:
		return 0, err
	case rest == "%":
		return 0, errors.New("a percentage is not taken here")
	case rest != "" || !n.IsInt():
		return 0, fmt.Errorf("%q is no whole number", text)
	case n.Sign() == 0:
		return 0, errors.New("nothing can run without a process")
	}
	// pids.max takes no more than PID_MAX_LIMIT, 4194304 on 64 bits (kernel/cgroup/pids.c).
	got, ok := whole(n, 4<<20)
	if !ok {
		return 0, errors.New(`it is above the 4194304 that Linux knows; no limit is "infinity"`)
	}
	return got, nil
}

// parseQuota reads cpu_quota into microseconds a second, as CPUQuota= of systemd.resource-control(5) to two decimals.
func parseQuota(text string) (uint64, error) {
	text = strings.TrimSpace(text)
	if text == "infinity" {
		return spec.Infinity, nil
	}
	n, rest, err := number(text)
	if err != nil {
		return 0, err
	}
	if rest != "%" {
		return 0, fmt.Errorf("%q has no percent sign at its end; 100%% is one processor", text)
	}
	n.Mul(n, big.NewRat(10_000, 1))
	const most = math.MaxInt32 / 100 // percent
	got, ok := whole(n, most*10_000)
	switch {
	case !ok:
		return 0, fmt.Errorf("it is too large, %d%% are the most", most)
	case got < 1000:
		// cpu.max takes no quota under 1 ms and no period over 1 s.
		return 0, errors.New("the least that Linux can give is 0.1%")
	case !n.IsInt() || got%100 != 0:
		return 0, errors.New("it has more than two decimals")
	}
	return got, nil
}

// signalNames are the signals of signal(7) by number, from 1 on, as they are on amd64 and arm64.
const signalNames = "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN " +
	"TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"

// The real-time signals as the C library counts them.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// parseSignal reads "SIGTERM", "TERM", "SIGRTMIN+3" or a number.
func parseSignal(text string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil {
		if n < 1 || n > sigRTMax {
			return 0, fmt.Errorf("signals are 1 to %d", sigRTMax)
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(text, "SIG")
	if offset, ok := strings.CutPrefix(name, "RTMIN+"); ok {
		if n, err := strconv.ParseUint(offset, 10, 8); err == nil && sigRTMin+n <= sigRTMax {
			return syscall.Signal(sigRTMin + n), nil
		}
	}
	names := strings.Fields(signalNames)
	for i, n := range names {
		if n == name {
			return syscall.Signal(i + 1), nil
		}
	}
	if near := nearest(strings.TrimPrefix(strings.ToUpper(text), "SIG"), names); near != "" {
		return 0, fmt.Errorf(`there is none named %q; did you mean "SIG%s"?`, text, near)
	}
	return 0, fmt.Errorf("there is none named %q", text)
}

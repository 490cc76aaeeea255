package foreign

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// field is one of the five of crontab(5).
type field struct {
	low, high int
	// names are those of the numbers from low.
	names []string
}

// The fields, in their order.
const (
	minute = iota
	hour
	dayOfMonth
	month
	dayOfWeek
)

func cronFields() []field {
	return []field{
		{0, 59, nil}, {0, 23, nil}, {1, 31, nil},
		{1, 12, []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
		{0, 6, []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
	}
}

// onCalendar is when cron starts something, as systemd.time(7) writes it. What programs for cron do not all take in the same way is an
// error.
func onCalendar(cron string) (string, error) {
	switch strings.ToLower(cron) {
	case "@yearly", "@annually":
		cron = "0 0 1 1 *"
	case "@monthly":
		cron = "0 0 1 * *"
	case "@weekly":
		cron = "0 0 * * 0" // and systemd's "weekly" is on Mondays
	case "@daily", "@midnight":
		cron = "0 0 * * *"
	case "@hourly":
		cron = "0 * * * *"
	}
	words, fields := strings.Fields(cron), cronFields()
	if len(words) != len(fields) {
		return "", fmt.Errorf("it does not have five fields")
	}
	text := make([]string, len(fields))
	for i, f := range fields {
		set, err := f.numbers(words[i])
		if err != nil {
			return "", err
		}
		switch {
		case len(set) == f.high-f.low+1:
			text[i] = "*"
		case i == dayOfWeek:
			text[i] = weekdays(set)
		default:
			text[i] = calendarNumbers(set)
		}
	}
	if words[dayOfMonth] != "*" && words[dayOfWeek] != "*" {
		return "", fmt.Errorf("programs differ in what a day of the month beside a day of the week means")
	}
	when := fmt.Sprintf("*-%s-%s %s:%s:00", text[month], text[dayOfMonth], text[hour], text[minute])
	if text[dayOfWeek] != "*" {
		when = text[dayOfWeek] + " " + when
	}
	const longest = 256 // that rtask takes
	if len(when) > longest {
		return "", fmt.Errorf("it has too many numbers")
	}
	return when, nil
}

// numbers returns the numbers that a field stands for, in their order.
func (f field) numbers(text string) ([]int, error) {
	var all []int
	for part := range strings.SplitSeq(text, ",") {
		span, step, stepped := strings.Cut(part, "/")
		by := 1
		if stepped {
			var err error
			if by, err = digits(step); err != nil || by == 0 || by > f.high {
				return nil, fmt.Errorf("%q is no step that is certain", step)
			}
		}
		first, last, isRange := strings.Cut(span, "-")
		low, high := f.low, f.high
		if span != "*" {
			var err error
			if low, err = f.number(first); err != nil {
				return nil, err
			}
			high = low
			if isRange {
				if high, err = f.number(last); err != nil {
					return nil, err
				}
			} else if stepped {
				return nil, fmt.Errorf("programs differ in what %q means", part)
			}
		}
		if high < low {
			return nil, fmt.Errorf("programs differ in what %q means", part)
		}
		for n := low; n <= high; n += by {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func (f field) number(text string) (int, error) {
	if i := slices.Index(f.names, strings.ToLower(text)); i >= 0 {
		return f.low + i, nil
	}
	n, err := digits(text)
	if err != nil || n < f.low || n > f.high { // 7 is a Sunday for some
		return 0, fmt.Errorf("%q is not from %d to %d", text, f.low, f.high)
	}
	return n, nil
}

// digits reads a number without a sign.
func digits(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 8)
	return int(n), err
}

// calendarNumbers writes numbers: as a range, with its step, if they are one.
func calendarNumbers(set []int) string {
	if len(set) > 2 {
		first, last, step := set[0], set[len(set)-1], set[1]-set[0]
		even := true
		for i, n := range set {
			even = even && n == first+i*step
		}
		switch {
		case even && step == 1:
			return fmt.Sprintf("%02d..%02d", first, last)
		case even:
			return fmt.Sprintf("%02d..%02d/%d", first, last, step)
		}
	}
	text := make([]string, len(set))
	for i, n := range set {
		text[i] = fmt.Sprintf("%02d", n)
	}
	return strings.Join(text, ",")
}

func weekdays(set []int) string {
	text := make([]string, len(set))
	for i, n := range set {
		text[i] = []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}[n]
	}
	return strings.Join(text, ",")
}

package ctl

import (
	"testing"
	"time"
)

func TestParseMoment(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	now := time.Date(2026, 3, 1, 12, 30, 15, 5, zone)
	on := func(day, hour, min, sec int) time.Time { return time.Date(2026, 3, day, hour, min, sec, 0, zone) }
	for text, want := range map[string]time.Time{
		"now":                       now,
		"today":                     on(1, 0, 0, 0),
		"yesterday":                 time.Date(2026, 2, 28, 0, 0, 0, 0, zone),
		"2026-03-04 05:06:07":       on(4, 5, 6, 7),
		"2026-03-04 05:06:07.25":    on(4, 5, 6, 7).Add(250 * time.Millisecond),
		" 2026-03-04 05:06 ":        on(4, 5, 6, 0),
		"2026-03-04":                on(4, 0, 0, 0),
		"05:06":                     on(1, 5, 6, 0),
		"05:06:07":                  on(1, 5, 6, 7),
		"2026-03-01T10:00:00Z":      on(1, 11, 0, 0),
		"2026-03-01T10:00:00.5Z":    on(1, 11, 0, 0).Add(time.Second / 2),
		"2026-03-01T10:00:00+02:00": on(1, 9, 0, 0),
		"-5min":                     now.Add(-5 * time.Minute),
		"-1h 30min":                 now.Add(-90 * time.Minute),
		"+10s":                      now.Add(10 * time.Second),
		"5 minutes ago":             now.Add(-5 * time.Minute),
		"1d ago":                    now.Add(-24 * time.Hour),
		"@0":                        time.Unix(0, 0),
		"@1767366245.25":            time.Unix(1767366245, 250_000_000),
	} {
		if got, err := parseMoment(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", " ", "tomorrow?", "2026-13-01", "25:00", "@", "@x", "@-1", "@1.x", "@1.0000000001", "@99999999999999", "-", "- 5 parsecs", "ago", " ago", "5", "12",
		"2026-03-04T05:06:07",
	} {
		if got, err := parseMoment(text, now); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

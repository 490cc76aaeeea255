package foreign

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// What cron starts at is what systemd takes, and what is not certain is an error.
func TestOnCalendar(t *testing.T) {
	for cron, want := range map[string]string{
		"* * * * *":                "*-*-* *:*:00",
		"*/5 * * * *":              "*-*-* *:00..55/5:00",
		"7-59/7 1,3,5 * * *":       "*-*-* 01..05/2:07..56/7:00",
		"0 3 * * 1-5":              "Mon,Tue,Wed,Thu,Fri *-*-* 03:00:00",
		"0 3 * * Sun,wed":          "Sun,Wed *-*-* 03:00:00",
		"30 4 1,15 jan-mar *":      "*-01..03-01,15 04:30:00",
		"0 0 31 */2 *":             "*-01..11/2-31 00:00:00",
		"0 0 */10 * *":             "*-*-01..31/10 00:00:00",
		"0 8-18 * * *":             "*-*-* 08..18:00:00",
		"1,2,1 0-23 1-31 1-12 0-6": "!a day of the month beside",
		"0,3,4,50 0-23 * * *":      "*-*-* *:00,03,04,50:00",
		"*/40 * * * *":             "*-*-* *:00,40:00",
		"@yearly":                  "*-01-01 00:00:00",
		"@monthly":                 "*-*-01 00:00:00",
		"@weekly":                  "Sun *-*-* 00:00:00",
		"@daily":                   "*-*-* 00:00:00",
		"@hourly":                  "*-*-* *:00:00",
		"0 0 1 * 1":                "!a day of the month beside",
		"0 0 */2 * 1":              "!a day of the month beside",
		"0 0 * * 7":                "!not from",
		"60 * * * *":               "!not from",
		"-1 * * * *":               "!not from",
		"* * 0 * *":                "!not from",
		"5/10 * * * *":             "!differ",
		"* 22-3 * * *":             "!differ",
		"*/0 * * * *":              "!no step",
		"*/99 * * * *":             "!no step",
		"* * * *":                  "!five fields",
		"0 * * * * *":              "!five fields",
		"@every 1h":                "!five fields",
		"TZ=UTC 0 3 * * *":         "!five fields",
		"? * * * *":                "!not from",
		"L * * * *":                "!not from",
		", * * * *":                "!not from",
		"":                         "!five fields",
	} {
		got, err := onCalendar(cron)
		if text, bad := strings.CutPrefix(want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%q: %q, %v; want %q", cron, got, err, text)
			}
		} else if err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", cron, got, err, want)
		}
	}
}

// systemd starts at the minutes that cron does.
func TestSystemdAgrees(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	const runs = "12"
	for _, cron := range []string{
		"*/5 * * * *", "7-59/7 1,3,5 * * *", "0 3 * * 1-5", "0 3 * * Sun,wed", "30 4 1,15 jan-mar *", "0 0 31 */2 *", "0 0 */10 * *", "0,3,4,50 8-18 * * *",
		"*/40 * * * *", "@yearly", "@monthly", "@weekly", "@daily", "@hourly", "59 23 31 12 *", "0 0 29 2 *", "1-58 0-22/11 2-30 2-11 *",
	} {
		when, err := onCalendar(cron)
		if err != nil {
			t.Errorf("%s: %v", cron, err)
			continue
		}
		c := exec.Command(analyze, "calendar", "--iterations="+runs, "--base-time=2026-11-30 12:34:56 UTC", when)
		c.Env = append(c.Environ(), "TZ=UTC", "LC_ALL=C.UTF-8", "SYSTEMD_COLORS=0")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %s: %v: %s", cron, when, err, out)
			continue
		}
		var said []time.Time
		for line := range strings.Lines(string(out)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			if name == "Next elapse" || strings.HasPrefix(name, "Iter") || strings.HasPrefix(name, "Iteration") {
				at, err := time.Parse("Mon 2006-01-02 15:04:05 MST", value)
				if err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				said = append(said, at)
			}
		}
		if want := starts(t, cron, len(said)); len(said) != 12 || !slices.Equal(said, want) {
			t.Errorf("%s: %s is %v, and cron starts at %v", cron, when, said, want)
		}
	}
}

// starts looks, minute by minute, when cron starts something.
func starts(t *testing.T, cron string, most int) []time.Time {
	t.Helper()
	if whole, ok := map[string]string{
		"@yearly": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0", "@daily": "0 0 * * *", "@hourly": "0 * * * *",
	}[cron]; ok {
		cron = whole
	}
	var sets [5][]int
	for i, word := range strings.Fields(cron) {
		var err error
		if sets[i], err = cronFields()[i].numbers(word); err != nil {
			t.Fatal(err)
		}
	}
	var all []time.Time
	at := time.Date(2026, 11, 30, 12, 35, 0, 0, time.UTC)
	for end := at.AddDate(60, 0, 0); len(all) < most && at.Before(end); {
		switch {
		case !slices.Contains(sets[month], int(at.Month())), !slices.Contains(sets[dayOfMonth], at.Day()), !slices.Contains(sets[dayOfWeek], int(at.Weekday())):
			at = time.Date(at.Year(), at.Month(), at.Day()+1, 0, 0, 0, 0, time.UTC)
			continue
		case slices.Contains(sets[hour], at.Hour()) && slices.Contains(sets[minute], at.Minute()):
			all = append(all, at)
		}
		at = at.Add(time.Minute)
	}
	return all
}

// With seconds, OliveTin does not take a time of five fields.
func TestCronWithSeconds(t *testing.T) {
	const text = "cronSupportForSeconds: true\nactions: [{title: a, exec: [/a], execOnCron: ['0 3 * * *', '@daily', '0 0 3 * * *']}]"
	r, err := Convert([]byte(text), options())
	if err != nil || !strings.Contains(string(r.Text), `on_calendar = ["*-*-* 00:00:00"]`) || len(r.Lost) != 2 {
		t.Errorf("%v %s", err, r.Text)
	}
}

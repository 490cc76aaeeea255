package config

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

const (
	// maxCalendars is how many times or paths a block may have, and maxCalendar the longest text of a time, in bytes.
	maxCalendars = 100
	maxCalendar  = 256
	// maxWatched is the longest path that systemd watches: PATH_MAX without its NUL, and the characters that escape a %.
	maxWatched = 2047
)

// Schedule is when a task is started, by a timer of systemd's. See systemd.timer(5) for what the fields mean.
type Schedule struct {
	// OnCalendar are calendar events, systemd.time(7); at least one.
	OnCalendar []string
	// Persistent makes up for what was missed.
	Persistent bool
	// RandomizedDelay is the longest random time between an event and the start.
	RandomizedDelay time.Duration
	// Next is the next event after the configuration was loaded, the zero Time: nobody said, or there is none.
	Next time.Time
}

// Watch is what starts a task, by a path unit of systemd's: what happens at absolute and clean paths. See systemd.path(5).
type Watch struct {
	Changed, Modified, Exists, DirectoryNotEmpty []string
}

// ErrUnchecked is the answer where systemd cannot be asked about a calendar event.
var ErrUnchecked = errors.New("it cannot be checked")

// Calendar is what systemd says of a calendar event.
type Calendar struct {
	// Next is the next time of it, the zero Time: there is none.
	Next time.Time
	// Err is why systemd does not take it.
	Err error
}

// event is a calendar event, where it stands.
type event struct {
	rng  hcl.Range
	text string
	of   *Schedule
}

// scheduleScope is what may stand in schedule { … }.
func scheduleScope() scope[Schedule] {
	return scope[Schedule]{
		where: inSchedule,
		attributes: []attribute[Schedule]{
			{
				name: "on_calendar", example: `["Mon..Fri 03:00"]`,
				kind: texts(func(d *decoder, v value, s *Schedule) { d.calendars(v, s) }),
				doc: "The times, as `OnCalendar=` of systemd.timer(5) takes them: `\"daily\"`, `\"Mon..Fri 03:00\"`, `\"*-*-01 04:30 Europe/Berlin\"`; see " +
					"systemd.time(7). At least one is needed. `systemd-analyze calendar` explains one.",
			},
			{
				name: "persistent", example: "true", fallback: "false",
				kind: boolean(func(s *Schedule) *bool { return &s.Persistent }),
				doc: "Whether a time that was missed while the machine was off is made up for: the task is started once when the machine is " +
					"up again, however often it was missed. As `Persistent=` of systemd.timer(5).",
			},
			{
				name: "randomized_delay", example: `"5min"`, fallback: `"0s"`,
				kind: duration(func(s *Schedule) *time.Duration { return &s.RandomizedDelay }, false),
				doc: "The task is started later than the time by a random delay of this length at most, so that many machines do not all begin " +
					"at once. As `RandomizedDelaySec=` of systemd.timer(5).",
			},
		},
	}
}

// watchScope is what may stand in path { … }.
func watchScope() scope[Watch] {
	watched := func(field func(*Watch) *[]string) kind[Watch] {
		return list(field, func(d *decoder, v value, s string) bool { return d.watched(v, s) })
	}
	return scope[Watch]{
		where: inPath,
		attributes: []attribute[Watch]{
			{
				name: "path_changed", example: `["/srv/incoming"]`, kind: watched(func(w *Watch) *[]string { return &w.Changed }),
				doc: "The task is started when a file was written and closed, or a file of the folder was made, renamed or removed. As `PathChanged=` " +
					"of systemd.path(5). Changes between a change and the start that it causes cause no further one.",
			},
			{
				name: "path_modified", example: `["/srv/incoming/list"]`, kind: watched(func(w *Watch) *[]string { return &w.Modified }),
				doc: "The same, and also with each write to the file. As `PathModified=`.",
			},
			{
				name: "path_exists", example: `["/srv/incoming/ready"]`, kind: watched(func(w *Watch) *[]string { return &w.Exists }),
				doc: "The task is started while there is something at the path: again when the job has ended, unless the job has removed it. As `PathExists=`.",
			},
			{
				name: "directory_not_empty", example: `["/srv/incoming"]`, kind: watched(func(w *Watch) *[]string { return &w.DirectoryNotEmpty }),
				doc: "The task is started while something is in the folder: again when the job has ended, unless it left the folder empty. As " +
					"`DirectoryNotEmpty=`. No file is missed in this way.",
			},
		},
	}
}

// calendars sets the times of a schedule. What systemd thinks of them is asked for all of them at once; see checkCalendars.
func (d *decoder) calendars(v value, s *Schedule) {
	d.names(v, &s.OnCalendar, func(e value, text string) bool {
		if len(text) > maxCalendar || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) || strings.HasSuffix(text, `\`) || strings.TrimSpace(text) != text {
			d.errorf(e.rng(), v.usage(), "%s is not a calendar event", e.name)
			return false
		}
		d.events = append(d.events, event{e.rng(), text, s})
		return true
	})
	d.some(v, s.OnCalendar)
}

// some reports a list that is empty or too long.
func (d *decoder) some(v value, list []string) {
	if len(list) > maxCalendars {
		d.errorf(v.rng(), "", "%s has %d entries, and may have %d at most", v.name, len(list), maxCalendars)
	}
}

// watched reports whether systemd can watch a path.
func (d *decoder) watched(v value, s string) bool {
	bad := func(r rune) bool { return unicode.IsControl(r) }
	switch {
	case !path.IsAbs(s):
		d.errorf(v.rng(), `It must begin with a slash: "/srv/incoming"`, "%s %q is not absolute", v.name, s)
	case path.Clean(s) != s:
		d.errorf(v.rng(), fmt.Sprintf("Write it in short: %q", path.Clean(s)), "%s %q is not a plain path", v.name, s)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, bad) || strings.HasSuffix(s, `\`) || strings.TrimSpace(s) != s:
		d.errorf(v.rng(), "It has a control character, or ends with a space or a backslash.", "%s: systemd cannot watch %q", v.name, s)
	case len(s) > maxWatched:
		d.errorf(v.rng(), "", "%s is longer than %d bytes", v.name, maxWatched)
	default:
		return true
	}
	return false
}

// schedule decodes the schedule of a task.
func (d *decoder) schedule(found *hcl.Block, t *draft) {
	s := &Schedule{}
	d.tables.schedule.begin(s)
	before := len(d.diags)
	decodeBody(d, found.Body, d.tables.schedule, s)
	if len(s.OnCalendar) == 0 && !d.diags[before:].HasErrors() {
		d.errorf(found.TypeRange, `Write for example: on_calendar = ["Mon..Fri 03:00"]`, "schedule has no on_calendar")
	}
	t.Schedule = s
	t.starters = append(t.starters, found.TypeRange)
}

// watch decodes what starts a task by a path.
func (d *decoder) watch(found *hcl.Block, t *draft) {
	w := &Watch{}
	before := len(d.diags)
	decodeBody(d, found.Body, d.tables.watch, w)
	n := len(w.Changed) + len(w.Modified) + len(w.Exists) + len(w.DirectoryNotEmpty)
	switch {
	case d.diags[before:].HasErrors():
	case n == 0:
		d.errorf(found.TypeRange, `Write for example: path_changed = ["/srv/incoming"]`, "path has no path to watch")
	case n > maxCalendars:
		d.errorf(found.TypeRange, "", "path has %d paths, and may have %d at most", n, maxCalendars)
	}
	t.Watch = w
	t.starters = append(t.starters, found.TypeRange)
}

// checkStarters reports what systemd is to start and cannot: where there is none, and where nobody is there to say what a parameter is.
func (d *decoder) checkStarters(t *draft) {
	why := ""
	if d.opts.Unscheduled != nil && len(t.starters) > 0 {
		why = d.opts.Unscheduled()
	}
	for _, at := range t.starters {
		if why != "" {
			d.warnf(at, "The task is refused until that is so.", "%s", why)
		}
		if _, err := t.Parameters(nil); err != nil {
			d.errorf(at, "Nobody is there to say what it is. Give it a default.", "task %q cannot be started by itself: %v", t.Name, err)
		}
	}
}

// checkCalendars asks what systemd thinks of all calendar events, and reports those that it does not take.
func checkCalendars(decoders []*decoder, ask func([]string) []Calendar) {
	if ask == nil {
		return
	}
	var all []string
	index := map[string]int{}
	for _, d := range decoders {
		for _, e := range d.events {
			if _, ok := index[e.text]; !ok {
				index[e.text] = len(all)
				all = append(all, e.text)
			}
		}
	}
	if len(all) == 0 {
		return
	}
	answers := ask(all)
	for _, d := range decoders {
		for _, e := range d.events {
			switch a := answers[index[e.text]]; {
			case errors.Is(a.Err, ErrUnchecked):
				d.warnf(e.rng, "", "on_calendar %q: %v", e.text, a.Err)
			case a.Err != nil:
				d.errorf(e.rng, "systemd.time(7) has the notation, and systemd-analyze calendar explains it.", "on_calendar %q: %v", e.text, a.Err)
			case a.Next.IsZero():
				d.warnf(e.rng, "The task is not started by it.", "on_calendar %q lies in the past", e.text)
			case e.of.Next.IsZero() || a.Next.Before(e.of.Next):
				e.of.Next = a.Next
			}
		}
	}
}

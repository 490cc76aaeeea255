// Package logging makes the logger of rtask's daemons: lines for the journal where systemd collects them, lines with a
// time for a terminal or a file elsewhere. The commands import it; what it makes is handed down.
//
// A record with attributes whose names begin with RTASK_ is an entry for auditors: in the journal they become fields of it
// (systemd.journal-fields(7)), so that `journalctl RTASK_DECISION=refused` finds them.
package logging

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
)

// New returns a logger that writes to w. getenv is os.Getenv: GO_LOG or RTASK_LOG hold the least level that is written
// ("debug", "info", "warn", "error"; default info), and JOURNAL_STREAM says which file the journal reads: if that is w,
// lines begin with their priority (sd-daemon(3)) instead of a time.
func New(w io.Writer, getenv func(string) string) *slog.Logger {
	level := slog.LevelInfo
	for _, name := range []string{"GO_LOG", "RTASK_LOG"} {
		var l slog.Level
		// An unknown word leaves the default: a typo must not keep a daemon from starting.
		if v := getenv(name); v != "" && l.UnmarshalText([]byte(v)) == nil {
			level = l
		}
	}
	return slog.New(&handler{out: &output{w: w}, level: level, journal: journalReads(w, getenv("JOURNAL_STREAM")), send: journal.Send})
}

// journalReads compares device and inode, since the variable is inherited by processes whose output goes elsewhere
// (systemd.exec(5)).
func journalReads(w io.Writer, stream string) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	fi, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// output writes whole lines, one at a time.
type output struct {
	mu sync.Mutex
	w  io.Writer
}

// handler writes "message key=value …", the message as it is: it is a constant of ours.
type handler struct {
	out     *output
	level   slog.Level
	journal bool
	// send writes an entry with fields to the journal.
	send   func(message string, priority journal.Priority, fields map[string]string) error
	attrs  string // " key=value" of WithAttrs
	prefix string // "group." of WithGroup
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

// Handle implements slog.Handler.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	if !h.journal {
		fmt.Fprintf(&b, "%s %-5s ", r.Time.Format(time.RFC3339), r.Level)
	}
	b.WriteString(r.Message)
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		b.WriteString(format(h.prefix, a))
		return true
	})
	text := b.String()
	if fields := fieldsOf(r); h.journal && len(fields) > 0 {
		fields["SYSLOG_IDENTIFIER"] = identifier()
		if err := h.send(text, journal.Priority(priority(r.Level)), fields); err == nil {
			return nil
		} // else as a line: that it happened is more than its fields
	}
	if h.journal {
		// journald makes an entry of each line, and each has its own priority.
		mark := "<" + strconv.Itoa(priority(r.Level)) + ">"
		text = mark + strings.ReplaceAll(text, "\n", "\n"+mark)
	}
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := io.WriteString(h.out.w, text+"\n")
	return err
}

// fieldPrefix begins the names of attributes that become fields. In a line they stand without it, in small letters.
const fieldPrefix = "RTASK_"

// fieldsOf returns the attributes of a record that become fields.
func fieldsOf(r slog.Record) map[string]string {
	var fields map[string]string
	r.Attrs(func(a slog.Attr) bool {
		if strings.HasPrefix(a.Key, fieldPrefix) {
			if fields == nil {
				fields = map[string]string{}
			}
			fields[a.Key] = a.Value.Resolve().String()
		}
		return true
	})
	return fields
}

// identifier is what systemd calls the lines of a service: the program's name.
func identifier() string { return filepath.Base(os.Args[0]) }

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	for _, a := range attrs {
		c.attrs += format(h.prefix, a)
	}
	return &c
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	c := *h
	if name != "" {
		c.prefix += name + "."
	}
	return &c
}

// format quotes what could be mistaken for something else: values come from strangers, too.
func format(prefix string, a slog.Attr) string {
	v := a.Value.Resolve()
	if a.Key == "" && v.Kind() != slog.KindGroup {
		return "" // an empty Attr is none (slog.Handler)
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" { // without a name, its members stand on their own
			prefix += a.Key + "."
		}
		var s strings.Builder
		for _, g := range v.Group() {
			s.WriteString(format(prefix, g))
		}
		return s.String()
	}
	text := v.String()
	if q := strconv.Quote(text); text == "" || strings.ContainsAny(text, " =") || len(q) != len(text)+2 {
		text = q
	}
	key := a.Key
	if field, ok := strings.CutPrefix(key, fieldPrefix); ok {
		key = strings.ToLower(field)
	}
	return " " + prefix + key + "=" + text
}

// priority is the level as syslog(3) counts.
func priority(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= slog.LevelInfo:
		return 6
	default:
		return 7
	}
}

// Package journal reads entries of the systemd journal. It starts journalctl(1), which is there wherever systemd is, and knows
// rotation, compression and who may read what: the library for that, sd-journal(3), is C, and rtask has no C in it.
//
// Only package ctl imports it. It runs as the user who typed rtaskctl, with that user's rights.
package journal

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	// ErrNone is returned where there is no journal on this machine.
	ErrNone = errors.New("there is no systemd journal on this machine")
	// ErrUnreadable is returned where the caller may not read what was asked for.
	ErrUnreadable = errors.New("permission denied: this user may not read the journal")
)

// Journal is that of a machine.
type Journal struct {
	// Root is where its files are, "/" but for tests.
	Root string
}

// Query says which entries are wanted.
type Query struct {
	// Match has terms such as "_UID=0", as journalctl takes them: of one field those that fit any, of several fields those that
	// fit each. An entry is wanted that fits one of the lists.
	Match [][]string
	// Fields are the names of those that Entry.Fields is to have.
	Fields []string
	// Since and Until, where they are not zero, are the ends of the time that is asked for.
	Since, Until time.Time
	// Last is how many there may be, and the newest at that.
	Last int
	// Follow goes on with those that come.
	Follow bool
	// User is whose journal has them, beside the system's; nil: nobody's.
	User *int
}

// Entry is one entry.
type Entry struct {
	Time   time.Time
	Fields map[string]string
}

// Read calls each for every entry that q asks for, the oldest first. It returns the error of each, ErrNone, ErrUnreadable, or
// what journalctl says. With Follow it returns when ctx ends.
func (j Journal) Read(ctx context.Context, q Query, each func(Entry) error) error {
	if err := j.check(q.User); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "journalctl", q.arguments()...)
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("cannot read the journal: %w", err)
	}
	if err := cmd.Start(); errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: no journalctl was found in PATH", ErrNone)
	} else if err != nil {
		return fmt.Errorf("cannot read the journal: %w", err)
	}
	failed := readAll(out, each)
	if failed != nil {
		cancel()
	}
	err = cmd.Wait()
	switch text, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n"); {
	case failed != nil:
		return failed
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && text != "":
		return fmt.Errorf("cannot read the journal: %s", text)
	case err != nil:
		return fmt.Errorf("cannot read the journal: journalctl: %w", err)
	}
	return nil
}

// check finds out what journalctl says in a way that is no use to a program: of files that it may not read it shows nothing, and
// that is no error if there is another one that it may.
func (j Journal) check(user *int) error {
	// sd_booted(3)
	if _, err := os.Stat(filepath.Join(j.Root, "run/systemd/system")); errors.Is(err, fs.ErrNotExist) {
		return ErrNone
	}
	names := []string{"system.journal"}
	if user != nil {
		names = append(names, fmt.Sprintf("user-%d.journal", *user))
	}
	denied := false
	for _, base := range []string{"run/log/journal", "var/log/journal"} { // journald.conf(5), Storage=
		base = filepath.Join(j.Root, base)
		machines, err := os.ReadDir(base)
		denied = denied || errors.Is(err, fs.ErrPermission)
		for _, m := range machines {
			for _, name := range names {
				f, err := os.Open(filepath.Join(base, m.Name(), name))
				if err == nil {
					_ = f.Close() // nothing was done with it
					return nil
				}
				denied = denied || errors.Is(err, fs.ErrPermission) // of the folder, perhaps
			}
		}
	}
	if denied {
		return ErrUnreadable
	}
	return fmt.Errorf("%w: journald keeps no files", ErrNone)
}

func (q Query) arguments() []string {
	args := []string{
		"--quiet", "--no-pager", "--output=json", "--all", "--output-fields=" + strings.Join(q.Fields, ","), "--lines=" + strconv.Itoa(q.Last),
	}
	for name, t := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !t.IsZero() {
			args = append(args, fmt.Sprintf("--%s=@%d.%06d", name, t.Unix(), t.Nanosecond()/1000))
		}
	}
	if q.Follow {
		args = append(args, "--follow")
	}
	for i, terms := range q.Match {
		if i > 0 {
			args = append(args, "+")
		}
		args = slices.Concat(args, terms)
	}
	return args
}

// readAll reads the lines of --output=json.
func readAll(r io.Reader, each func(Entry) error) error {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			e, err := decode(line)
			if err != nil {
				return fmt.Errorf("cannot read the journal: journalctl printed %q: %w", line, err)
			}
			if err := each(e); err != nil {
				return err
			}
		}
		if err != nil { // a file that is closed while it is read ends here, too
			return nil
		}
	}
}

// decode reads one line. A value is a text, or the numbers of its bytes where it is none, or a list of values where the entry has
// the field more than once, of which the first is taken (https://systemd.io/JOURNAL_EXPORT_FORMATS).
func decode(line []byte) (Entry, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(line, &raw); err != nil {
		return Entry{}, err
	}
	e := Entry{Fields: map[string]string{}}
	for name, value := range raw {
		if text, ok := textOf(value); ok {
			e.Fields[name] = text
		}
	}
	usec, err := strconv.ParseInt(e.Fields["__REALTIME_TIMESTAMP"], 10, 64)
	if err != nil {
		return Entry{}, fmt.Errorf("its time is %q", e.Fields["__REALTIME_TIMESTAMP"])
	}
	e.Time = time.UnixMicro(usec)
	return e, nil
}

func textOf(value json.RawMessage) (string, bool) {
	var text *string
	if json.Unmarshal(value, &text) == nil {
		return deref(text)
	}
	var numbers []uint16
	if json.Unmarshal(value, &numbers) == nil {
		b := make([]byte, len(numbers))
		for i, n := range numbers {
			b[i] = byte(n)
		}
		return string(b), true
	}
	var list []json.RawMessage
	if json.Unmarshal(value, &list) == nil && len(list) > 0 {
		return textOf(list[0])
	}
	return "", false
}

func deref(s *string) (string, bool) {
	if s == nil {
		return "", false
	}
	return *s, true
}

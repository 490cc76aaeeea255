package logging

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
)

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestLines(t *testing.T) {
	var b bytes.Buffer
	l := New(&b, env("GO_LOG", "debug"))
	l.Info("job accepted", "job", "abc", "n", 3, "for", 2*time.Second, "ok", true)
	l.Debug("small")
	l.With("a", 1).WithGroup("g").With("b", 2).Warn("group", "c", 3, slog.Group("h", "d", 4), slog.Group("", "e", 5), slog.Attr{})
	lines := strings.Split(b.String(), "\n")
	for i, want := range []string{
		"INFO  job accepted job=abc n=3 for=2s ok=true", "DEBUG small", "WARN  group a=1 g.b=2 g.c=3 g.h.d=4 g.e=5", "",
	} {
		stamp, rest, _ := strings.Cut(lines[i], " ")
		if _, err := time.Parse(time.RFC3339, stamp); rest != want || err != nil && want != "" {
			t.Errorf("%q, want %q", lines[i], want)
		}
	}
}

// What strangers send stays one word on one line, whatever it is.
func TestQuoting(t *testing.T) {
	for value, want := range map[string]string{
		"plain": "v=plain", "": `v=""`, "two words": `v="two words"`, "a\nERROR forged": `v="a\nERROR forged"`, "a\r\x1b[2J": `v="a\r\x1b[2J"`,
		"k=v": `v="k=v"`, `"`: `v="\""`, "\xff": `v="\xff"`, "\u2028": `v="\u2028"`, "a\x00": `v="a\x00"`, "\t": `v="\t"`,
	} {
		var b bytes.Buffer
		New(&b, env()).Info("m", "v", value)
		if got := b.String(); !strings.HasSuffix(got, " m "+want+"\n") || strings.Count(got, "\n") != 1 {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

func TestLevels(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want string
	}{
		{nil, "iwe"}, {[]string{"GO_LOG", "debug"}, "diwe"}, {[]string{"RTASK_LOG", "ERROR"}, "e"}, {[]string{"GO_LOG", "warn"}, "we"},
		{[]string{"GO_LOG", "loud"}, "iwe"}, {[]string{"GO_LOG", "error", "RTASK_LOG", "debug"}, "diwe"},
	} {
		var b bytes.Buffer
		l := New(&b, env(c.env...))
		l.Debug("d")
		l.Info("i")
		l.Warn("w")
		l.Error("e")
		got := ""
		for line := range strings.Lines(b.String()) {
			got += line[len(line)-2 : len(line)-1]
		}
		if got != c.want {
			t.Errorf("%v: %q, want %q", c.env, got, c.want)
		}
	}
}

// For the journal each line has its priority in front and no time, and only what the journal itself reads.
func TestJournal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	stream := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	l := New(f, env("JOURNAL_STREAM", stream, "GO_LOG", "debug"))
	l.Error("a\nb", "v", "x\ny")
	l.Warn("c")
	l.Info("d")
	l.Debug("e")
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if want := "<3>a\n<3>b v=\"x\\ny\"\n<4>c\n<6>d\n<7>e\n"; string(b) != want {
		t.Errorf("%q, want %q", b, want)
	}
	var other bytes.Buffer
	New(&other, env("JOURNAL_STREAM", stream)).Info("f")
	if strings.HasPrefix(other.String(), "<") {
		t.Errorf("a writer that the journal does not read: %q", other.String())
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	New(f, env("JOURNAL_STREAM", "1:2")).Info("g")
	if b, _ := os.ReadFile(f.Name()); bytes.Contains(b, []byte("<6>")) {
		t.Errorf("a file that the journal does not read: %q", b)
	}
}

// What an auditor looks for are fields of an entry in the journal, and words of a line elsewhere, also where the journal does
// not take the entry.
func TestFields(t *testing.T) {
	var b bytes.Buffer
	l := New(&b, env())
	record := func(l *slog.Logger) {
		l.LogAttrs(t.Context(), slog.LevelWarn, "request refused", slog.String("RTASK_DECISION", "refused"), slog.String("RTASK_REASON", "two\nlines"), slog.Int("n", 3))
	}
	const line = `request refused decision=refused reason="two\nlines" n=3`
	record(l)
	if got := b.String(); !strings.HasSuffix(got, " WARN  "+line+"\n") {
		t.Errorf("%q", got)
	}
	b.Reset()
	var got []string
	var failure error
	h := &handler{out: &output{w: &b}, journal: true, send: func(message string, p journal.Priority, fields map[string]string) error {
		got = append(got, fmt.Sprintf("%s %d %v", message, p, fields))
		return failure
	}}
	record(slog.New(h))
	want := fmt.Sprintf("%s 4 map[RTASK_DECISION:refused RTASK_REASON:two\nlines SYSLOG_IDENTIFIER:%s]", line, filepath.Base(os.Args[0]))
	if len(got) != 1 || got[0] != want || b.Len() > 0 {
		t.Errorf("%q and %q, want %q", got, b.String(), want)
	}
	failure = errors.New("there is no journal")
	record(slog.New(h))
	if b.String() != "<4>"+line+"\n" {
		t.Errorf("%q", b.String())
	}
	slog.New(h).Info("no fields")
	if len(got) != 2 {
		t.Errorf("%q", got)
	}
}

package shim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/log"
	"github.com/rtask/rtask/sandbox/spec"
)

// entries is a journal that keeps what it is given.
func entries(t *testing.T, queue int) (*journal, func() []string) {
	t.Helper()
	j := &journal{to: &journald{entries: make(chan []byte, queue)}, common: appendField(nil, field{"SYSLOG_IDENTIFIER", "x"})}
	return j, func() []string {
		var messages []string
		for {
			select {
			case e := <-j.to.entries:
				_, m, ok := bytes.Cut(e, []byte("MESSAGE"))
				if !ok || !bytes.HasPrefix(e, []byte("SYSLOG_IDENTIFIER=x\n")) || !bytes.Contains(e, []byte("\nRTASK_STREAM=stdout\n")) {
					t.Fatalf("entry %q", e)
				}
				messages = append(messages, string(m))
			default:
				return messages
			}
		}
	}
}

func TestJournalLines(t *testing.T) {
	long := strings.Repeat("x", journalLine)
	tests := []struct {
		name   string
		writes []string
		want   []string
	}{
		{"lines", []string{"a\nb\n"}, []string{"=a\n", "=b\n"}},
		{"pieces", []string{"a", "b", "c\nd"}, []string{"=abc\n", "=d\n"}},
		{"empty lines", []string{"\n\n"}, []string{"=\n", "=\n"}},
		{"no end", []string{"a"}, []string{"=a\n"}},
		{"nothing", []string{""}, nil},
		{"long", []string{long + "y\n"}, []string{"=" + long + "\n", "=y\n"}},
		{"long, in pieces", []string{long[:1000], long[1000:] + "y", "z\n"}, []string{"=" + long + "\n", "=yz\n"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j, got := entries(t, 100)
			l := lines{j: j, stream: "stdout", priority: priorityInfo}
			for _, w := range tt.writes {
				l.write([]byte(w))
			}
			l.flush()
			if m := got(); strings.Join(m, "|") != strings.Join(tt.want, "|") {
				t.Errorf("got %.200q, want %.200q", m, tt.want)
			}
		})
	}
}

// TestJournalNeverBlocks: what does not fit into the queue is counted.
func TestJournalNeverBlocks(t *testing.T) {
	j, got := entries(t, 2)
	l := lines{j: j, stream: "stdout"}
	l.write([]byte("a\nb\nc\nd\n"))
	if m := got(); len(m) != 2 || j.dropped.Load() != 2 {
		t.Errorf("kept %q, dropped %d", m, j.dropped.Load())
	}
	var none *journal
	none.send([]byte("x"), priorityInfo)
	if n := none.close(); n != 0 {
		t.Errorf("dropped %d where there is no journal", n)
	}
}

// TestJournalField: a value with a newline has its length before it, so that it cannot forge fields.
func TestJournalField(t *testing.T) {
	value := "a\n_UID=0"
	want := append([]byte("NAME\n"), binary.LittleEndian.AppendUint64(nil, uint64(len(value)))...)
	want = append(append(want, value...), '\n')
	if got := appendField(nil, field{"NAME", value}); !bytes.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWriteRecord(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "id")
	for code := range 2 { // also over one that is there
		if err := writeRecord(path, &spec.Exit{Job: "id", Code: code}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := spec.DecodeExit(b); err != nil || e.Code != code {
			t.Errorf("read %+v, %v", e, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	// A folder in its place cannot be replaced, and no temporary file is left.
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeRecord(filepath.Join(dir, "folder"), &spec.Exit{Job: "id"}); err == nil {
		t.Error("no error")
	}
	err := writeRecord(filepath.Join(dir, "none", "id"), &spec.Exit{Job: "id"})
	if !errors.Is(err, fs.ErrNotExist) || mayPass(err) {
		t.Errorf("error %v, may pass: %v", err, mayPass(err))
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".exit-*")); len(left) > 0 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
	if full := errors.Join(errors.New("x"), &fs.PathError{Err: unix.ENOSPC}); !mayPass(full) {
		t.Error("a full disk is taken to stay full")
	}
}

// TestPersistTriesAgain: a record that cannot be written yet is not given up.
func TestPersistTriesAgain(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8k"); err != nil {
		t.Skipf("needs a file system that it can fill: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 8<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &shim{}
	s.report(&spec.Run{ID: "id", Record: filepath.Join(dir, "id")}, &spec.Exit{Job: "id", Code: 3})
	if len(s.pending) != 1 {
		t.Fatalf("given up: %v", s.failed)
	}
	time.AfterFunc(100*time.Millisecond, func() { _ = os.Remove(ballast) })
	if err := s.serve(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "id"))
	if err != nil {
		t.Fatal(err)
	}
	if e, err := spec.DecodeExit(b); err != nil || e.Code != 3 {
		t.Errorf("read %+v, %v", e, err)
	}
}

// TestOutputIsReadToItsEnd: what is in the pipes when reading is told to end is not lost, and what an outsider goes on
// writing is not waited for.
func TestOutputIsReadToItsEnd(t *testing.T) {
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	w := log.NewWriter(f, math.MaxInt64, time.Now)
	defer w.Close()
	o, stdout, stderr, err := newOutput(w, nil, &buffers{}, false, math.MaxInt64, os.Geteuid(), os.Getegid())
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("x"), 60<<10)
	if _, err := stdout.Write(want); err != nil {
		t.Fatal(err)
	}
	if _, err := stderr.WriteString("end"); err != nil {
		t.Fatal(err)
	}
	if err := stderr.Close(); err != nil { // while stdout is held
		t.Fatal(err)
	}
	defer stdout.Close()
	o.run()
	if err := o.close(); err != nil { // it would hang here
		t.Fatal(err)
	}
	if !bytes.Equal(o.stdout.reply, want) || string(o.stderr.reply) != "end" {
		t.Errorf("read %d bytes and %q", len(o.stdout.reply), o.stderr.reply)
	}
	if o.ended() || !o.stderr.ended {
		t.Error("a pipe that is held was taken for one that is not")
	}
}

func TestJudge(t *testing.T) {
	tests := []struct {
		ws     unix.WaitStatus
		oom    bool
		reason spec.Reason
		code   int
		signal int
	}{
		{0, false, spec.Succeeded, 0, 0},
		{0, true, spec.Succeeded, 0, 0},
		{7 << 8, false, spec.ExitCode, 7, 0},
		{255 << 8, false, spec.ExitCode, 255, 0},
		{9, false, spec.Signal, -1, 9},
		{9, true, spec.OOM, -1, 9},
		{15, true, spec.Signal, -1, 15},
		{11 | 0x80, false, spec.Signal, -1, 11},
		{0xffff, false, spec.Lost, -1, 0},
	}
	for _, tt := range tests {
		var e spec.Exit
		judge(&e, tt.ws, tt.oom)
		if e.Reason != tt.reason || e.Code != tt.code || e.Signal != tt.signal {
			t.Errorf("%#x, oom %v: %+v", tt.ws, tt.oom, e)
		}
	}
}

// TestSignalNeedsTheSameProcess: a PID that changed hands is not signalled.
func TestSignalNeedsTheSameProcess(t *testing.T) {
	me, ok := look(os.Getpid())
	if !ok || me.parent != os.Getppid() {
		t.Fatalf("looked %+v", me)
	}
	if err := me.signal(0); err != nil {
		t.Errorf("the same: %v", err)
	}
	me.started += "0"
	if err := me.signal(unix.SIGKILL); !errors.Is(err, unix.ESRCH) {
		t.Errorf("another: %v", err)
	}
}

package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// pair returns the two ends of a connection.
func pair(t testing.TB) (*Conn, *Conn) {
	t.Helper()
	a, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	b, err := FromFile(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// filled returns a sandbox in which each field is set.
func filled() spec.Sandbox {
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem())
		case reflect.Struct:
			for i := range v.NumField() {
				fill(v.Field(i))
			}
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			fill(v.Index(0))
			fill(v.Index(1))
		case reflect.Bool:
			v.SetBool(true)
		case reflect.String:
			v.SetString("\xff x")
		case reflect.Int, reflect.Int64:
			v.SetInt(-7)
		case reflect.Uint8, reflect.Uint32, reflect.Uint64:
			v.SetUint(7)
		default:
			panic("cannot fill a " + v.Kind().String())
		}
	}
	var s spec.Sandbox
	fill(reflect.ValueOf(&s).Elem())
	return s
}

func TestRoundTrip(t *testing.T) {
	limit := uint64(spec.Infinity)
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	messages := []Message{
		{Start: &Start{
			Job: spec.Run{
				ID: "id", Task: "task", Path: "/bin/sh", Args: []string{"sh", "", "\xff\xfe", "a b"},
				Env: []string{"A=\x80", "B="}, Dir: "/d", Credentials: &spec.Credentials{UID: 1, GID: 2, Groups: []uint32{3, 1<<32 - 2}},
				Sandbox: filled(), Limits: spec.Limits{MemoryMax: &limit, CPUQuota: new(uint64)}, LimitsOptional: true,
				Timeout: time.Minute, TimeoutStop: time.Nanosecond, KillSignal: 15, RedirectStderr: true, MaxReply: 1 << 40,
				LogMax: 1 << 41, Journal: true, Record: "/r", RecordAlways: true,
			},
			Mount: "/m", ControlGroup: "/c", Socket: "/s", NoFileSoft: 1, NoFileHard: 1<<64 - 1,
		}},
		{Hello: &Hello{Job: "id"}},
		{Stop: &Stop{Kill: true, By: "somebody"}},
		{Ack: &Ack{Job: "id"}},
		{Started: &Started{Job: "id", PID: 7, ControlGroup: "/c/job-id", At: at}},
		{Ended: &spec.Exit{
			Job: "id", Reason: spec.Timeout, Code: -1, Signal: 9, Detail: "\xff", Ended: at,
			Usage: spec.Usage{CPUUsec: &limit}, LogBytes: 1 << 60, LogDropped: 1, Stdout: []byte{0, 255}, Stderr: []byte("x"), Truncated: true,
		}},
		{Ended: &spec.Exit{Job: "large", Stdout: bytes.Repeat([]byte{0, 1, 2}, 1<<20)}},
	}
	a, b := pair(t)
	for _, m := range messages {
		if err := a.Send(m); err != nil {
			t.Fatal(err)
		}
		got, files, err := b.Receive()
		if err != nil {
			t.Fatal(err)
		}
		m.Version = Version
		if !reflect.DeepEqual(got, m) || len(files) != 0 {
			t.Errorf("got %+v and %d files, want %+v", got, len(files), m)
		}
	}
}

// TestFiles sends files with a small and with a large message, which has one of its own.
func TestFiles(t *testing.T) {
	a, b := pair(t)
	before := descriptors(t)
	for _, size := range []int{10, maxInline - 100, maxInline + 1, 4 << 20} {
		first, err := SealedFile("first", []byte("one"))
		if err != nil {
			t.Fatal(err)
		}
		second, err := SealedFile("second", []byte("two"))
		if err != nil {
			t.Fatal(err)
		}
		m := Message{Start: &Start{Job: spec.Run{ID: strings.Repeat("x", size)}}}
		if err := a.Send(m, first, second); err != nil {
			t.Fatal(err)
		}
		got, files, err := b.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Start.Job.ID) != size || len(files) != 2 {
			t.Fatalf("got %d bytes and %d files", len(got.Start.Job.ID), len(files))
		}
		for i, want := range []string{"one", "two"} {
			content, err := io.ReadAll(files[i])
			if err != nil || string(content) != want {
				t.Errorf("file %d holds %q, %v", i, content, err)
			}
			flags, err := unix.FcntlInt(files[i].Fd(), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("file %d would be inherited: %v", i, err)
			}
		}
		closeAll(append(files, first, second))
	}
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors, were %d", n, before)
	}
}

func TestSealedFile(t *testing.T) {
	f, err := SealedFile("name", []byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if content, err := io.ReadAll(f); err != nil || string(content) != "content" {
		t.Errorf("it holds %q, %v", content, err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("writing: %v", err)
	}
	if err := f.Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncating: %v", err)
	}
}

func TestEnd(t *testing.T) {
	a, b := pair(t)
	if err := a.Send(Message{Ack: &Ack{Job: "id"}}); err != nil {
		t.Fatal(err)
	}
	// What b sent is never read: the kernel tells b so before it hands out what is there.
	if err := b.Send(Message{Ack: &Ack{Job: "unread"}}); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if m, _, err := b.Receive(); err != nil || m.Ack == nil {
		t.Fatalf("got %+v, %v; want what was sent before the end", m, err)
	}
	for range 2 {
		if _, _, err := b.Receive(); !errors.Is(err, io.EOF) {
			t.Errorf("error %v, want EOF", err)
		}
	}
	if err := b.Send(Message{Ack: &Ack{}}); err == nil {
		t.Error("sending to nobody is no error")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("error %v after Close, want EOF", err)
	}
}

// TestSendRefuses: what is no message is not sent.
func TestSendRefuses(t *testing.T) {
	a, _ := pair(t)
	for _, m := range []Message{{}, {Ack: &Ack{}, Stop: &Stop{}}} {
		if err := a.Send(m); !errors.Is(err, ErrMessage) {
			t.Errorf("%+v: error %v", m, err)
		}
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := cbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// packet is a frame around a message.
func packet(t testing.TB, message any) []byte {
	t.Helper()
	return encode(t, map[string]any{"m": cbor.RawMessage(encode(t, message))})
}

func TestVersions(t *testing.T) {
	ack := map[string]any{"job": "id"}
	tests := []struct {
		name    string
		message any
		err     error
	}{
		{"this", map[string]any{"v": 1, "ack": ack}, nil},
		{"a field of a newer peer", map[string]any{"v": 1, "ack": map[string]any{"job": "id", "new": []int{1}}, "newer": true}, nil},
		{"a kind of a newer peer", map[string]any{"v": 1, "resize": ack}, nil},
		{"none", map[string]any{"ack": ack}, ErrMessage},
		{"zero", map[string]any{"v": 0, "ack": ack}, ErrMessage},
		{"negative", map[string]any{"v": -1, "ack": ack}, ErrMessage},
		{"a later one", map[string]any{"v": Version + 1, "ack": ack}, ErrMessage},
		{"two in one", map[string]any{"v": 1, "ack": ack, "hello": ack}, ErrMessage},
		{"another type", map[string]any{"v": 1, "ack": "id"}, ErrMessage},
		{"a list", []int{1}, ErrMessage},
	}
	a, b := pair(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := a.c.Write(packet(t, tt.message)); err != nil {
				t.Fatal(err)
			}
			m, _, err := b.Receive()
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if tt.name == "a kind of a newer peer" && m.kinds() != 0 {
				t.Errorf("it was taken for %+v", m)
			}
		})
	}
}

// TestBadPackets: none costs a descriptor or much memory, and the connection is good for the next message.
func TestBadPackets(t *testing.T) {
	a, b := pair(t)
	empty, err := SealedFile("empty", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	pipe, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer w.Close()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	large := encode(t, map[string]any{"f": maxMessage})
	tests := []struct {
		name   string
		packet []byte
		files  []*os.File
	}{
		{"garbage", []byte("garbage"), nil},
		{"garbage with files", []byte("garbage"), []*os.File{empty, pipe}},
		{"too long", make([]byte, maxInline+100), []*os.File{empty}},
		{"too many files", packet(t, map[string]any{"v": 1, "ack": map[string]any{}}), []*os.File{empty, empty, empty, empty, empty, empty}},
		{"no file", large, nil},
		{"a file that is shorter", large, []*os.File{empty}},
		{"a pipe", large, []*os.File{pipe}},
		{"a folder", large, []*os.File{dir}},
		{"a negative length", encode(t, map[string]any{"f": -1}), []*os.File{empty}},
		{"a huge length", encode(t, map[string]any{"f": int64(1) << 62}), []*os.File{empty}},
		{"indefinite lengths", []byte("\xbf\x61m\x9f\xff\xff"), nil},
		{"a huge array", []byte("\xa1\x61m\x9b\x00\x00\x00\xff\xff\xff\xff\xff"), nil},
	}
	before := descriptors(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var fds []int
			for _, f := range tt.files {
				fds = append(fds, int(f.Fd()))
			}
			var oob []byte
			if len(fds) > 0 {
				oob = unix.UnixRights(fds...)
			}
			if _, _, err := a.c.WriteMsgUnix(tt.packet, oob, nil); err != nil {
				t.Fatal(err)
			}
			if m, files, err := b.Receive(); !errors.Is(err, ErrMessage) || len(files) > 0 {
				t.Errorf("got %+v, %d files, error %v", m, len(files), err)
			}
			if err := a.Send(Message{Ack: &Ack{Job: "next"}}); err != nil {
				t.Fatal(err)
			}
			if m, _, err := b.Receive(); err != nil || m.Ack == nil || m.Ack.Job != "next" {
				t.Errorf("got %+v, error %v after it", m, err)
			}
		})
	}
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors, were %d", n, before)
	}
}

// TestReadDeadline: a wait that is bounded ends.
func TestReadDeadline(t *testing.T) {
	_, b := pair(t)
	if err := b.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestPeer(t *testing.T) {
	a, b := pair(t)
	for _, c := range []*Conn{a, b} {
		peer, err := c.Peer()
		if err != nil {
			t.Fatal(err)
		}
		if int(peer.Pid) != os.Getpid() || int(peer.Uid) != os.Getuid() {
			t.Errorf("peer %+v", peer)
		}
	}
}

func TestFromFileRefuses(t *testing.T) {
	before := descriptors(t)
	for _, path := range []string{os.DevNull, t.TempDir()} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := FromFile(f); err == nil {
			t.Errorf("%s was taken for a socket", path)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		defer l.Close()
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := FromFile(f); err == nil {
			t.Error("a TCP socket was taken for a Unix socket")
		}
		before++
	}
	if n := descriptors(t); n > before+1 { // and the poller's
		t.Errorf("%d descriptors, were %d", n, before)
	}
}

// FuzzDecode: no packet panics, or keeps a descriptor that it brought.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("garbage"), []byte(nil), false)
	f.Add(packet(f, Message{Version: 1, Ack: &Ack{Job: "id"}}), []byte(nil), true)
	f.Add(packet(f, Message{Version: 1, Start: &Start{Job: spec.Run{Args: []string{"\xff"}}}}), []byte("x"), true)
	f.Add(packet(f, Message{Version: 1, Ended: &spec.Exit{Job: "id", Stdout: []byte("x")}}), []byte(nil), false)
	f.Add(packet(f, Message{Version: 1, Start: &Start{Job: spec.Run{ID: "id"}, Socket: "/s", Claim: "/c", Last: true}}), []byte("x"), true)
	f.Add(packet(f, Message{Version: 1, Refused: &Refused{Job: "id"}}), []byte(nil), false)
	f.Add(packet(f, Message{Version: 1, Stop: &Stop{Job: "id", Kill: true, By: "root"}}), []byte(nil), false)
	f.Add(packet(f, Message{Version: 1, Started: &Started{Job: "id", PID: 7}}), []byte(nil), false)
	f.Add(packet(f, Message{Version: 1, Ack: &Ack{Job: "id"}, Refused: &Refused{Job: "id"}}), []byte(nil), false)
	body := encode(f, Message{Version: 1, Hello: &Hello{Job: "id"}})
	f.Add(encode(f, frame{InFile: int64(len(body))}), body, true)
	f.Add(encode(f, frame{InFile: maxMessage}), body, true)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, packet, content []byte, withFile bool) {
		modes, err := newModes()
		if err != nil {
			t.Fatal(err)
		}
		c := &Conn{modes: modes}
		var files []*os.File
		if withFile {
			path := filepath.Join(dir, "content")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			files = append(files, file)
		}
		m, rest, err := c.decode(packet, files)
		if err != nil {
			if !errors.Is(err, ErrMessage) || len(rest) > 0 {
				t.Errorf("error %v with %d files", err, len(rest))
			}
			return
		}
		if m.kinds() > 1 || m.Version < 1 || m.Version > Version {
			t.Errorf("decoded %+v", m)
		}
		if m.kinds() == 0 {
			return
		}
		again, err := modes.enc.Marshal(m)
		if err != nil {
			t.Fatalf("cannot encode %+v again: %v", m, err)
		}
		if _, _, err := c.decode(encode(t, frame{Message: again}), nil); err != nil {
			t.Errorf("cannot decode %+v again: %v", m, err)
		}
	})
}

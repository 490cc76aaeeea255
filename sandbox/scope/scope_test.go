package scope

import (
	"context"
	"errors"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// A process is not taken for one that has ended because of signals, which Go's runtime sends to its own threads.
func TestEndedAmongSignals(t *testing.T) {
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, tid := os.Getpid(), unix.Gettid()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Tgkill(pid, tid, unix.SIGURG)
			}
		}
	}()
	for range 200_000 {
		if over, err := ended(pidfd); over || err != nil {
			t.Errorf("%v, %v", over, err)
			break
		}
	}
	close(stop)
	<-done
}

func TestUnitPath(t *testing.T) {
	const want = "/org/freedesktop/systemd1/unit/rtask_2dbuild_2d17_2escope"
	if got := unitPath("rtask-build-17.scope"); string(got) != want || !got.IsValid() {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestProperties(t *testing.T) {
	memory, infinity := uint64(64<<20), uint64(math.MaxUint64)
	u := Unit{
		Name: "x.scope", Description: "what it is", Slice: "rtask.slice", TimeoutStop: 1500 * time.Millisecond, RuntimeMax: time.Hour,
		Resources: Resources{
			MemoryMax: &memory, MemoryHigh: &infinity, MemorySwapMax: &memory, CPUQuotaPerSecUSec: &infinity,
			CPUWeight: new(uint64), IOWeight: &memory, AllowedCPUs: []byte{5}, DevicePolicy: "closed",
		},
	}
	got := map[string]any{}
	for _, p := range u.properties(17) {
		if _, ok := got[p.Name]; ok {
			t.Errorf("%s is there twice", p.Name)
		}
		got[p.Name] = p.Value.Value()
	}
	want := map[string]any{
		"Description": "what it is", "Slice": "rtask.slice", "Delegate": true, "CollectMode": "inactive-or-failed", "OOMPolicy": "continue",
		"TimeoutStopUSec": uint64(1_500_000), "RuntimeMaxUSec": uint64(3_600_000_000),
		"MemoryMax": memory, "MemoryHigh": infinity, "MemorySwapMax": memory, "CPUQuotaPerSecUSec": infinity, "CPUWeight": uint64(0), "IOWeight": memory,
		"DevicePolicy": "closed",
	}
	for name, v := range want {
		if got[name] != v {
			t.Errorf("%s is %v, want %v", name, got[name], v)
		}
	}
	if pids, ok := got["PIDs"].([]uint32); !ok || !slices.Equal(pids, []uint32{17}) {
		t.Errorf("PIDs is %v", got["PIDs"])
	}
	if cpus, ok := got["AllowedCPUs"].([]byte); !ok || !slices.Equal(cpus, []byte{5}) {
		t.Errorf("AllowedCPUs is %v", got["AllowedCPUs"])
	}
	if len(got) != len(want)+2 {
		t.Errorf("properties %v", got)
	}
	for _, p := range (Unit{TimeoutStop: -1}).properties(1) {
		if p.Name == "RuntimeMaxUSec" || p.Name == "TasksMax" {
			t.Errorf("%s is set", p.Name)
		}
		if p.Name == "TimeoutStopUSec" && p.Value.Value() != infinity {
			t.Errorf("no end of the time is %v", p.Value)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "a\nb\x00c\x1b[0m": "a\ufffdb\ufffdc\ufffd[0m", "\xff\xfe": "\ufffd", "é": "é",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
	for _, long := range []string{strings.Repeat("x", 1<<20), strings.Repeat("é", 1000), "x" + strings.Repeat("é", 1000)} {
		if got := printable(long); !utf8.ValidString(got) || len(got) > maxDescription+8 {
			t.Errorf("%d bytes, valid %v", len(got), utf8.ValidString(got))
		}
	}
}

func TestAway(t *testing.T) {
	for name, want := range map[string]bool{
		"org.freedesktop.DBus.Error.NoReply": true, "org.freedesktop.DBus.Error.ServiceUnknown": true,
		"org.freedesktop.DBus.Error.Spawn.ChildExited": true, "org.freedesktop.DBus.Error.AccessDenied": false,
		"org.freedesktop.systemd1.UnitExists": false, "org.freedesktop.DBus.Error.InvalidArgs": false,
	} {
		if got := isAway(dbus.Error{Name: name}); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestSignals: results come to whoever waits for that unit, once, and the end of the connection to all.
func TestSignals(t *testing.T) {
	m := System()
	a, cancelA, err := m.wait("a.scope")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.wait("a.scope"); !errors.Is(err, ErrExists) {
		t.Errorf("a second wait: %v", err)
	}
	b, _, err := m.wait("b.scope")
	if err != nil {
		t.Fatal(err)
	}
	s := &signals{m, &incoming{}}
	removed := func(body ...any) {
		s.DeliverSignal(managerIface, "JobRemoved", &dbus.Signal{Body: body})
	}
	removed(uint32(1), dbus.ObjectPath("/x"), "other.scope", "done")
	removed(uint32(1), dbus.ObjectPath("/x"))
	removed(uint32(1), dbus.ObjectPath("/x"), 5, "done")
	removed(uint32(1), dbus.ObjectPath("/x"), "a.scope", "failed")
	removed(uint32(1), dbus.ObjectPath("/x"), "a.scope", "done") // nobody waits any more
	if r := <-a; r != "failed" {
		t.Errorf("a came to %q", r)
	}
	cancelA()
	s.Terminate()
	if r, ok := <-b; ok {
		t.Errorf("b came to %q", r)
	}
	c, cancelC, err := m.wait("b.scope")
	if err != nil {
		t.Fatal(err)
	}
	cancelC()
	removed(uint32(1), dbus.ObjectPath("/x"), "b.scope", "done")
	select {
	case r := <-c:
		t.Errorf("a wait that was cancelled came to %q", r)
	default:
	}
}

func TestClosed(t *testing.T) {
	m := System()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Version(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v", err)
	}
	if _, err := m.Start(t.Context(), Unit{Name: "x.scope"}, 1, -1); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v", err)
	}
}

// TestSilentBus: a systemd or a bus that takes the connection and says nothing holds nobody up for longer than their context.
func TestSilentBus(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, e := range []endpoint{{path, ""}, {"", "unix:path=" + path}} {
		m := newManager(func() (endpoint, error) { return e, nil })
		done := make(chan error)
		for range 4 {
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
				defer cancel()
				_, err := m.Version(ctx)
				done <- err
			}()
		}
		for range 4 {
			select {
			case err := <-done:
				if err == nil {
					t.Error("no error")
				}
			case <-time.After(5 * time.Second):
				t.Fatal("it hangs")
			}
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestNoBus: where there is none, that is said within moments.
func TestNoBus(t *testing.T) {
	m := newManager(func() (endpoint, error) { return endpoint{"/does/not/exist", "unix:path=/does/not/exist"}, nil })
	if _, err := m.Start(t.Context(), Unit{Name: "x.scope"}, 1, -1); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

//go:build testbed

// These tests run against the systemd of packaging/testbed, as root: they start and stop units and restart the bus.

package scope

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/cgroup"
)

func manager(t *testing.T) *Manager {
	t.Helper()
	return closed(t, System())
}

// eachWay runs a test with systemd's private socket, and with the bus.
func eachWay(t *testing.T, test func(t *testing.T, m *Manager)) {
	t.Run("private", func(t *testing.T) { test(t, manager(t)) })
	t.Run("bus", func(t *testing.T) { test(t, busManager(t)) })
}

// busManager is the system's manager where it has no private socket.
func busManager(t *testing.T) *Manager {
	t.Helper()
	e, err := systemEndpoint()
	if err != nil {
		t.Fatal(err)
	}
	e.private = "/does/not/exist"
	return closed(t, newManager(func() (endpoint, error) { return e, nil }))
}

func closed(t *testing.T, m *Manager) *Manager {
	t.Helper()
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// sleeper starts a process to put into a scope.
func sleeper(t *testing.T) (pid, pidfd int) {
	t.Helper()
	pidfd = -1
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &unix.SysProcAttr{PidFD: &pidfd}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = unix.Close(pidfd)
	})
	return cmd.Process.Pid, pidfd
}

func name(t *testing.T, i int) string {
	return fmt.Sprintf("rtask-test%s-%d-%d.scope", strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")), os.Getpid(), i)
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func unit(t *testing.T, i int) Unit {
	return Unit{Name: name(t, i), Description: "a test", Slice: "rtask.slice", TimeoutStop: 10 * time.Second}
}

func waitGone(t *testing.T, m *Manager, name string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		up, err := m.active(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if !up {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is left", name)
		}
	}
}

func TestVersion(t *testing.T) {
	m := manager(t)
	v, err := m.Version(t.Context())
	if err != nil || v.Number < 252 {
		t.Errorf("%+v, %v", v, err)
	}
	soft, err := m.DefaultNoFile(t.Context())
	if err != nil || soft < 256 {
		t.Errorf("%d, %v", soft, err)
	}
}

func TestStart(t *testing.T) {
	m := manager(t)
	pid, pidfd := sleeper(t)
	memory, tasks, quota := uint64(96<<20), uint64(math.MaxUint64), uint64(700_000)
	u := unit(t, 1)
	u.Description, u.RuntimeMax = "not \xff UTF-8\n"+strings.Repeat("x", 1<<20), time.Hour
	u.MemoryMax, u.TasksMax, u.CPUQuotaPerSecUSec = &memory, &tasks, &quota
	s, err := m.Start(t.Context(), u, pid, pidfd)
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != u.Name || !strings.HasSuffix(s.ControlGroup, "/rtask.slice/"+u.Name) {
		t.Errorf("scope %+v", s)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || cgroup.Of(b) != s.ControlGroup {
		t.Errorf("the process is in %q, %v", b, err)
	}
	if group, err := m.ControlGroup(t.Context(), u.Name); group != s.ControlGroup || err != nil {
		t.Errorf("ControlGroup: %q, %v", group, err)
	}
	if group, err := m.ControlGroup(t.Context(), "rtask-that-never-was.scope"); group != "" || err != nil {
		t.Errorf("ControlGroup of none: %q, %v", group, err)
	}
	shown := systemctl(t, "show", "-p", "ActiveState,Slice,Delegate,CollectMode,OOMPolicy,TimeoutStopUSec,RuntimeMaxUSec,MemoryMax,TasksMax,CPUQuotaPerSecUSec", u.Name)
	for _, want := range []string{
		"ActiveState=active", "Slice=rtask.slice", "Delegate=yes", "CollectMode=inactive-or-failed", "OOMPolicy=continue", "TimeoutStopUSec=10s",
		"RuntimeMaxUSec=1h", "MemoryMax=100663296", "TasksMax=infinity", "CPUQuotaPerSecUSec=700ms",
	} {
		if !strings.Contains(shown, want+"\n") {
			t.Errorf("%q lacks %q", shown, want)
		}
	}
}

func TestNameTaken(t *testing.T) {
	m := manager(t)
	pid, pidfd := sleeper(t)
	if _, err := m.Start(t.Context(), unit(t, 1), pid, pidfd); err != nil {
		t.Fatal(err)
	}
	pid, pidfd = sleeper(t)
	if _, err := m.Start(t.Context(), unit(t, 1), pid, pidfd); !errors.Is(err, ErrExists) {
		t.Errorf("error %v", err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || strings.Contains(string(b), "rtask") {
		t.Errorf("the second process is in %q, %v", b, err)
	}
}

func TestDeadProcess(t *testing.T) {
	m := manager(t)
	pidfd := -1
	cmd := exec.Command("true")
	cmd.SysProcAttr = &unix.SysProcAttr{PidFD: &pidfd}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 10_000); n != 1 || err != nil { // a zombie from here on
		t.Fatal(n, err)
	}
	_, err := m.Start(t.Context(), unit(t, 1), cmd.Process.Pid, pidfd)
	if err == nil {
		t.Error("a scope was started for a zombie")
	}
	t.Log(err)
	waitGone(t, m, name(t, 1))
	_ = cmd.Wait()
	if _, err = m.Start(t.Context(), unit(t, 2), cmd.Process.Pid, pidfd); err == nil {
		t.Error("a scope was started for nobody")
	}
	t.Log(err)
	waitGone(t, m, name(t, 2))
}

func TestBadUnit(t *testing.T) {
	m := manager(t)
	pid, pidfd := sleeper(t)
	for _, n := range []string{"no-suffix", "a/b.scope", "x.service"} {
		u := unit(t, 1)
		u.Name = n
		if _, err := m.Start(t.Context(), u, pid, pidfd); err == nil {
			t.Errorf("%s was started", n)
		}
	}
}

// startMany starts n scopes at once and returns the errors.
func startMany(t *testing.T, m *Manager, n int, meanwhile func()) {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	groups := map[string]bool{}
	for i := range n {
		pid, pidfd := sleeper(t)
		wg.Go(func() {
			s, err := m.Start(t.Context(), unit(t, i), pid, pidfd)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			groups[s.ControlGroup] = true
		})
	}
	meanwhile()
	wg.Wait()
	if len(groups) != n {
		t.Errorf("%d different groups, want %d", len(groups), n)
	}
	if len(m.waiters) != 0 {
		t.Errorf("%d waiters are left", len(m.waiters))
	}
}

func TestManyAtOnce(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Manager) { startMany(t, m, 100, func() {}) })
}

// TestBusRestarts: starts that are under way when the bus goes away come to an end, and later ones work.
func TestBusRestarts(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Manager) {
		startMany(t, m, 60, func() {
			time.Sleep(20 * time.Millisecond)
			systemctl(t, "restart", "dbus.service")
		})
		pid, pidfd := sleeper(t)
		if _, err := m.Start(t.Context(), unit(t, 1000), pid, pidfd); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestManagerReexecutes(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Manager) {
		startMany(t, m, 60, func() {
			for range 3 {
				time.Sleep(20 * time.Millisecond)
				systemctl(t, "daemon-reexec")
			}
		})
	})
}

func TestManagerReloads(t *testing.T) {
	eachWay(t, func(t *testing.T, m *Manager) {
		startMany(t, m, 60, func() {
			for range 5 {
				systemctl(t, "daemon-reload")
			}
		})
	})
}

// TestForged: what others send to the connection in the form of systemd's and the bus's signals changes nothing.
func TestForged(t *testing.T) {
	m := busManager(t)
	victim, err := m.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	forger, err := dbus.ConnectSystemBus()
	if err != nil {
		t.Fatal(err)
	}
	defer forger.Close()
	const n = 40
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			for _, m := range []*dbus.Message{
				forged(victim.Names()[0], busPath, managerIface, "JobRemoved", uint32(7), busPath, name(t, i%n), []string{"failed", "done"}[i%2]),
				forged(victim.Names()[0], "/org/freedesktop/DBus", busDriver, "NameOwnerChanged", busName, ":1.0", forger.Names()[0]),
			} {
				if call := forger.Send(m, nil); call.Err != nil {
					stopped <- call.Err
					return
				}
			}
		}
	}()
	startMany(t, m, n, func() {})
	close(stop)
	if err := <-stopped; err != nil {
		t.Errorf("the forger: %v", err)
	}
	if now, err := m.connect(t.Context()); now != victim || err != nil {
		t.Errorf("the connection did not last, %v", err)
	}
}

// forged is a signal to one connection alone.
func forged(to string, path dbus.ObjectPath, iface, member string, body ...any) *dbus.Message {
	return &dbus.Message{Type: dbus.TypeSignal, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldDestination: dbus.MakeVariant(to),
		dbus.FieldPath:        dbus.MakeVariant(path),
		dbus.FieldInterface:   dbus.MakeVariant(iface),
		dbus.FieldMember:      dbus.MakeVariant(member),
		dbus.FieldSignature:   dbus.MakeVariant(dbus.SignatureOf(body...)),
	}}
}

// TestCancelled: a start that nobody waits for any more ends at once.
func TestCancelled(t *testing.T) {
	m := manager(t)
	pid, pidfd := sleeper(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Start(ctx, unit(t, 1), pid, pidfd); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	pid, pidfd = sleeper(t)
	if _, err := m.Start(t.Context(), unit(t, 2), pid, pidfd); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

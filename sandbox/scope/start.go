package scope

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// Unit is a scope to be made. The names are those of the unit settings of systemd.unit(5), systemd.scope(5) and
// systemd.resource-control(5).
type Unit struct {
	// Name with its ".scope". It must never have been used before.
	Name        string
	Description string
	Slice       string
	// TimeoutStop is the time between SIGTERM and SIGKILL when systemd stops the unit.
	TimeoutStop time.Duration
	// RuntimeMax is when systemd stops the unit by itself; 0: never.
	RuntimeMax time.Duration
	// Limits in the kernel's units; nil: not set, math.MaxUint64: infinity.
	MemoryMax, TasksMax, CPUQuotaPerSecUSec *uint64
}

// properties are what StartTransientUnit takes.
func (u Unit) properties(pid uint32) []unitProperty {
	p := []unitProperty{
		{"Description", dbus.MakeVariant(u.Description)},
		{"Slice", dbus.MakeVariant(u.Slice)},
		{"PIDs", dbus.MakeVariant([]uint32{pid})},
		// The shim makes sub-cgroups and sets their limits.
		{"Delegate", dbus.MakeVariant(true)},
		// Nothing stays of a scope that ended, however it ended.
		{"CollectMode", dbus.MakeVariant("inactive-or-failed")},
		// An OOM kill in the job must not make systemd stop the unit: the shim tells it apart and reports it.
		{"OOMPolicy", dbus.MakeVariant("continue")},
		{"TimeoutStopUSec", dbus.MakeVariant(usec(u.TimeoutStop))},
	}
	if u.RuntimeMax > 0 {
		p = append(p, unitProperty{"RuntimeMaxUSec", dbus.MakeVariant(usec(u.RuntimeMax))})
	}
	for name, v := range map[string]*uint64{
		"MemoryMax": u.MemoryMax, "TasksMax": u.TasksMax, "CPUQuotaPerSecUSec": u.CPUQuotaPerSecUSec,
	} {
		if v != nil {
			p = append(p, unitProperty{name, dbus.MakeVariant(*v)})
		}
	}
	return p
}

// unitProperty is a(sv) as D-Bus wants it.
type unitProperty struct {
	Name  string
	Value dbus.Variant
}

type auxiliary struct {
	Name       string
	Properties []unitProperty
}

func usec(d time.Duration) uint64 {
	if d < 0 {
		return math.MaxUint64
	}
	return uint64(d / time.Microsecond)
}

// Scope is a scope that was started and verified.
type Scope struct {
	// Name of the unit.
	Name string
	// ControlGroup is its path below the cgroup v2 mount, as /proc/PID/cgroup shows it.
	ControlGroup string
}

// Start puts the process into a new scope u and returns once that is proven: systemd's job for it is done, the process
// that pidfd refers to is alive, and it sits in a control group of that unit's name. The process must not do anything of
// its own before Start has returned nil; when Start fails the caller ends it, and nothing of the scope is left.
func (m *Manager) Start(ctx context.Context, u Unit, pid, pidfd int) (Scope, error) {
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return Scope{}, fmt.Errorf("cannot start %s: %w", u.Name, context.Cause(ctx))
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	started, err := m.start(ctx, u, pid)
	if err != nil {
		return Scope{}, err
	}
	if !started {
		// The bus broke under the call, so what came of it is unknown. Look, and only then try again.
		active, err := m.active(ctx, u.Name)
		if err != nil {
			return Scope{}, err
		}
		if !active {
			if started, err = m.start(ctx, u, pid); err != nil {
				return Scope{}, err
			}
			if !started {
				return Scope{}, fmt.Errorf("cannot start %s: the connection to the bus broke twice", u.Name)
			}
		}
	}
	group, err := verify(u.Name, pid, pidfd)
	if err != nil {
		return Scope{}, fmt.Errorf("cannot start %s: %w", u.Name, err)
	}
	return Scope{Name: u.Name, ControlGroup: group}, nil
}

// start asks once. It returns false without an error when the connection broke and the outcome is unknown.
func (m *Manager) start(ctx context.Context, u Unit, pid int) (started bool, err error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return false, fmt.Errorf("cannot start %s: %w", u.Name, err)
	}
	result, cancel, err := m.wait(u.Name)
	if err != nil {
		return false, err
	}
	defer cancel()
	var job dbus.ObjectPath
	err = conn.Object(busName, busPath).CallWithContext(ctx, managerIface+".StartTransientUnit", 0,
		u.Name, "fail", u.properties(uint32(pid)), []auxiliary(nil)).Store(&job)
	var refused dbus.Error
	switch {
	case err == nil:
	case errors.As(err, &refused) && refused.Name == busName+".UnitExists":
		return false, fmt.Errorf("cannot start %s: %w", u.Name, ErrExists)
	case errors.As(err, &refused) && refused.Name != "org.freedesktop.DBus.Error.NoReply":
		return false, fmt.Errorf("cannot start %s: %w", u.Name, err)
	case ctx.Err() != nil:
		return false, fmt.Errorf("cannot start %s: systemd did not answer: %w", u.Name, context.Cause(ctx))
	default:
		return false, nil
	}
	select {
	case r, ok := <-result:
		if !ok {
			return false, nil
		}
		if r != "done" {
			return false, fmt.Errorf("cannot start %s: systemd's job ended with %q", u.Name, r)
		}
		return true, nil
	case <-ctx.Done():
		return false, fmt.Errorf("cannot start %s: systemd did not finish: %w", u.Name, context.Cause(ctx))
	}
}

// active reports whether a unit is loaded and active. An unknown unit answers property calls with defaults, so
// LoadState is what decides.
func (m *Manager) active(ctx context.Context, name string) (bool, error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return false, fmt.Errorf("cannot look for %s: %w", name, err)
	}
	var load, state string
	if err := property(ctx, conn, unitPath(name), unitIface, "LoadState", &load); err != nil {
		if isNoUnit(err) {
			return false, nil
		}
		return false, err
	}
	if load != "loaded" {
		return false, nil
	}
	if err := property(ctx, conn, unitPath(name), unitIface, "ActiveState", &state); err != nil {
		return false, err
	}
	return state == "active", nil
}

// verify returns the control group of the process if that is one of the unit. systemd answers "done" for a zombie, and
// some versions lost a scope's process on the way.
func verify(unit string, pid, pidfd int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotVerified, err)
	}
	// The PID is ours only as long as the pidfd says so: read first, ask then.
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil {
		return "", fmt.Errorf("%w: it has ended", ErrNotVerified)
	}
	group := Group(b)
	if group == "" || !strings.HasSuffix(group, "/"+unit) {
		return "", fmt.Errorf("%w: it is in %q", ErrNotVerified, group)
	}
	return group, nil
}

// Group returns the cgroup v2 path in the content of a /proc/PID/cgroup (cgroups(7)), or "" if there is none.
func Group(procCgroup []byte) string {
	for line := range strings.Lines(string(procCgroup)) {
		if group, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(group, "\n")
		}
	}
	return ""
}

// Stop asks systemd to stop a scope and returns when it has ended. A scope that is not there is no error.
func (m *Manager) Stop(ctx context.Context, name string) error {
	conn, err := m.connect(ctx)
	if err != nil {
		return fmt.Errorf("cannot stop %s: %w", name, err)
	}
	result, cancel, err := m.wait(name)
	if err != nil {
		return err
	}
	defer cancel()
	var job dbus.ObjectPath
	err = conn.Object(busName, busPath).CallWithContext(ctx, managerIface+".StopUnit", 0, name, "replace").Store(&job)
	if isNoUnit(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot stop %s: %w", name, err)
	}
	select {
	case <-result:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cannot stop %s: %w", name, context.Cause(ctx))
	}
}

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

	"github.com/rtask/rtask/sandbox/cgroup"
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
	Resources
}

// properties are what StartTransientUnit takes.
func (u Unit) properties(pid uint32) []unitProperty {
	p := []unitProperty{
		{"Description", dbus.MakeVariant(printable(u.Description))},
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
	return append(p, u.Resources.properties()...)
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
	case m.inFlight <- struct{}{}:
		defer func() { <-m.inFlight }()
	case <-ctx.Done():
		return Scope{}, fmt.Errorf("cannot start %s: %w", u.Name, context.Cause(ctx))
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	group := ""
	err := m.insist(ctx, u, pid)
	if err == nil {
		group, err = verify(u.Name, pid, pidfd)
	}
	if err == nil {
		return Scope{Name: u.Name, ControlGroup: group}, nil
	}
	if !errors.Is(err, ErrExists) { // otherwise it is another engine's
		m.Discard(ctx, u.Name)
	}
	return Scope{}, fmt.Errorf("cannot start %s: %w", u.Name, err)
}

// discardTime bounds the attempt to remove what a failed start left.
const discardTime = 5 * time.Second

// Discard stops a scope that was started for nothing. One that never held a process would stay for ever: systemd waits
// for its control group to become empty. It does not wait for the end of that.
func (m *Manager) Discard(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTime)
	defer cancel()
	conn, err := m.connect(ctx)
	if err != nil {
		return // the start's own error says more
	}
	// Mostly there is no such unit, and that is its answer.
	_ = conn.Object(busName, busPath).CallWithContext(ctx, managerIface+".StopUnit", 0, name, "replace").Err
}

// pauses are the times to wait for a bus or a manager that went away: both are mostly back within moments when they are
// started anew, but a manager of many units on a busy machine takes its time.
func pauses() []time.Duration {
	return []time.Duration{100 * time.Millisecond, 300 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}
}

// absentPause is the longest pause while there is no bus to connect to.
const absentPause = 2 * time.Second

// insist starts a unit. It tries again if the bus or the manager goes away.
func (m *Manager) insist(ctx context.Context, u Unit, pid int) error {
	asked := false // before, and what came of it is unknown
	for _, pause := range append(pauses(), 0) {
		started, err := m.start(ctx, u, pid)
		if err == nil && !started || asked && errors.Is(err, ErrExists) {
			// Look, and only then try again.
			asked = true
			started, err = m.active(ctx, u.Name)
		}
		switch {
		case started && err == nil:
			return nil
		case err != nil && !errors.As(err, new(awayError)):
			return err
		case err != nil && (pause == 0 || pause > absentPause && !Away(err)):
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
	return errors.New("the connection to systemd broke each time")
}

// start asks once. It returns false without an error when the connection broke and the outcome is unknown.
func (m *Manager) start(ctx context.Context, u Unit, pid int) (started bool, err error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return false, err
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
		return false, ErrExists
	case errors.As(err, &refused) && !isAway(refused):
		return false, err
	case ctx.Err() != nil:
		return false, fmt.Errorf("systemd did not answer: %w", context.Cause(ctx))
	default:
		return false, nil
	}
	return m.started(ctx, u.Name, result)
}

// lookAgain is how often a unit is looked at while systemd's word on it does not come: a manager that re-executes itself
// may forget to send it.
const lookAgain = time.Second

// started waits for systemd's job to be done. When systemd signals that, started looks at the unit: only the unit's state decides.
func (m *Manager) started(ctx context.Context, name string, result <-chan string) (bool, error) {
	look := time.NewTicker(lookAgain)
	defer look.Stop()
	for {
		select {
		case r, ok := <-result:
			if !ok || r == "done" {
				return ok, nil // Start looks where the process is
			}
			if up, err := m.active(ctx, name); !up || err != nil {
				return false, errors.Join(fmt.Errorf("systemd's job ended with %q", r), err)
			}
			return true, nil
		case <-look.C:
			if up, err := m.active(ctx, name); up && err == nil {
				return true, nil
			}
		case <-ctx.Done():
			return false, fmt.Errorf("systemd did not finish: %w", context.Cause(ctx))
		}
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
	over, err := ended(pidfd)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotVerified, err)
	}
	if over {
		return "", fmt.Errorf("%w: it has ended", ErrNotVerified)
	}
	group := cgroup.Of(b)
	if group == "" || !strings.HasSuffix(group, "/"+unit) {
		return "", fmt.Errorf("%w: it is in %q", ErrNotVerified, group)
	}
	return group, nil
}

// ended reports whether a process has ended: its pidfd is readable then, also while the process is a zombie (pidfd_open(2)). A signal
// interrupts even a call that does not wait, and Go's runtime sends itself some.
func ended(pidfd int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		if n, err := unix.Poll(fds, 0); !errors.Is(err, unix.EINTR) {
			return n != 0, err
		}
	}
}

// ControlGroup returns the control group of a scope below the cgroup v2 mount, or "" if there is no such scope.
func (m *Manager) ControlGroup(ctx context.Context, name string) (string, error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return "", fmt.Errorf("cannot look for %s: %w", name, err)
	}
	var group string
	if err := property(ctx, conn, unitPath(name), scopeIface, "ControlGroup", &group); err != nil && !isNoUnit(err) {
		return "", err
	}
	return group, nil
}

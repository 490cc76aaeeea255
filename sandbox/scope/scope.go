// Package scope makes transient scope units: it asks a systemd manager over D-Bus (org.freedesktop.systemd1(5)) to put
// a process that exists already into a new scope, and does not return before that is known to be so.
//
// It is not a general D-Bus or systemd client, and knows nothing of jobs. Only package sandbox may import it.
package scope

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

const (
	busName      = "org.freedesktop.systemd1"
	busPath      = dbus.ObjectPath("/org/freedesktop/systemd1")
	managerIface = busName + ".Manager"
	unitIface    = busName + ".Unit"
	scopeIface   = busName + ".Scope"
	socketIface  = busName + ".Socket"

	// callTimeout bounds one call, also where the caller's context does not. PID 1 is single-threaded: under load a
	// call waits behind others, but a manager that takes this long has a problem of its own.
	callTimeout = 30 * time.Second

	// maxInFlight is how many StartTransientUnit calls are in flight. PID 1 handles 600–700 scopes a second, one at a time: more
	// calls in flight add latency for other users of the bus, and no throughput.
	maxInFlight = 16
)

// Manager is a connection to a systemd manager. It is safe for concurrent use. A connection that breaks (systemd
// re-executed itself) is made anew by the next call.
type Manager struct {
	where    func() (endpoint, error)
	inFlight chan struct{}

	lock   chan struct{} // guards what follows; it holds one value while locked, so that a context can end the wait for it
	conn   *dbus.Conn    // nil before the first call and after a break
	closed bool

	waitMu  sync.Mutex
	waiters map[string]chan string // by unit name: the result of its start job
}

// Version is what a manager says of itself.
type Version struct {
	// Systemd is the version as systemd prints it, "252.39-1~deb12u1".
	Systemd string
	// Number is its leading number, 252.
	Number int
}

// System returns a Manager of the system's manager (PID 1). It connects at the first call.
func System() *Manager { return newManager(systemEndpoint) }

// User returns a Manager of the calling user's own manager (systemd --user).
func User() *Manager { return newManager(userEndpoint) }

func newManager(where func() (endpoint, error)) *Manager {
	return &Manager{
		where: where, inFlight: make(chan struct{}, maxInFlight), lock: make(chan struct{}, 1), waiters: map[string]chan string{},
	}
}

// Close ends the connection. Scopes stay as they are.
func (m *Manager) Close() error {
	m.lock <- struct{}{}
	defer func() { <-m.lock }()
	m.closed = true
	if m.conn == nil {
		return nil
	}
	err := m.conn.Close()
	m.conn = nil
	return err
}

// awayError is returned where the bus or the manager could not be reached: it is being started anew, or not there.
type awayError struct{ error }

func (e awayError) Unwrap() error { return e.error }

// connect returns a connection on which JobRemoved is subscribed to.
func (m *Manager) connect(ctx context.Context) (*dbus.Conn, error) {
	select {
	case m.lock <- struct{}{}:
		defer func() { <-m.lock }()
	case <-ctx.Done():
		return nil, awayError{fmt.Errorf("cannot connect to systemd: %w", context.Cause(ctx))}
	}
	if m.closed {
		return nil, ErrClosed
	}
	if m.conn != nil && m.conn.Connected() {
		return m.conn, nil
	}
	conn, err := m.open(ctx)
	if err != nil {
		return nil, awayError{err}
	}
	m.conn = conn
	return conn, nil
}

// open makes a connection. It returns after callTimeout if the other end accepts it and then does not answer.
func (m *Manager) open(ctx context.Context) (*dbus.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	e, err := m.where()
	if err != nil {
		return nil, fmt.Errorf("cannot connect to systemd: %w", err)
	}
	in, err := e.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to systemd: %w", err)
	}
	// The connection outlives this call, so it ends with the call's context only until it is made.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	keep := context.AfterFunc(ctx, end)
	conn, err := dbus.NewConn(in, dbus.WithContext(life), dbus.WithSignalHandler(&signals{m, in}))
	if err != nil {
		end()
		return nil, errors.Join(fmt.Errorf("cannot connect to systemd: %w", err), in.Close())
	}
	if err := introduce(ctx, conn, in); err != nil {
		end()
		_ = conn.Close() // the first error is the one that says something
		return nil, err
	}
	if !keep() {
		return nil, fmt.Errorf("cannot connect to systemd: %w", context.Cause(ctx))
	}
	return conn, nil
}

// introduce authenticates. On a bus it also registers the connection, subscribes to systemd's signals, and learns systemd's unique name.
// On its private socket, systemd sends all its signals to all connections.
func introduce(ctx context.Context, conn *dbus.Conn, in *incoming) error {
	if err := conn.Auth(nil); err != nil {
		return fmt.Errorf("cannot connect to systemd: %w", err)
	}
	if in.direct {
		return nil
	}
	if err := conn.Hello(); err != nil {
		return fmt.Errorf("cannot connect to systemd: %w", err)
	}
	// The match comes first, so that no change of the owner is missed.
	if err := conn.AddMatchSignalContext(ctx, dbus.WithMatchSender(busDriver), dbus.WithMatchInterface(busDriver),
		dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, busName)); err != nil {
		return fmt.Errorf("cannot match signals of the bus: %w", err)
	}
	var owner string
	if err := conn.BusObject().CallWithContext(ctx, busDriver+".GetNameOwner", 0, busName).Store(&owner); err != nil {
		return fmt.Errorf("cannot find systemd on the bus: %w", err)
	}
	in.owner.Store(&owner)
	return subscribe(ctx, conn)
}

// subscribe asks for JobRemoved, before any job is made on this connection.
func subscribe(ctx context.Context, conn *dbus.Conn) error {
	if err := conn.AddMatchSignalContext(ctx, dbus.WithMatchSender(busName), dbus.WithMatchObjectPath(busPath),
		dbus.WithMatchInterface(managerIface), dbus.WithMatchMember("JobRemoved")); err != nil {
		return fmt.Errorf("cannot match systemd's signals: %w", err)
	}
	if err := conn.Object(busName, busPath).CallWithContext(ctx, managerIface+".Subscribe", 0).Err; err != nil {
		return fmt.Errorf("cannot subscribe to systemd: %w", err)
	}
	return nil
}

// signals takes those that a connection lets through, in the goroutine that reads them: nothing is queued and nothing lost.
type signals struct {
	m  *Manager
	in *incoming
}

// DeliverSignal implements dbus.SignalHandler.
func (s *signals) DeliverSignal(iface, name string, signal *dbus.Signal) {
	switch {
	case iface == busDriver && name == "NameOwnerChanged":
		// The new owner of systemd's name gets a new connection, so that no message of the old owner is taken for its own.
		s.in.stale.Store(true)
	case iface == managerIface && name == "JobRemoved" && len(signal.Body) >= 4:
		unit, _ := signal.Body[2].(string)
		result, _ := signal.Body[3].(string)
		s.m.wake(unit, result)
	}
}

// wake passes on what systemd says of a job's end.
func (m *Manager) wake(unit, result string) {
	m.waitMu.Lock()
	defer m.waitMu.Unlock()
	if w, ok := m.waiters[unit]; ok {
		delete(m.waiters, unit)
		w <- result // has room for the one value it ever gets
	}
}

// Terminate implements dbus.Terminator: the connection is gone, and what its jobs came to must be found out.
func (s *signals) Terminate() {
	s.m.waitMu.Lock()
	defer s.m.waitMu.Unlock()
	for unit, w := range s.m.waiters {
		delete(s.m.waiters, unit)
		close(w)
	}
}

// wait registers for the result of the next job of a unit. Names are never used twice, so the name identifies the job,
// and a signal that comes before the reply to the call that made the job is not missed.
func (m *Manager) wait(unit string) (result <-chan string, cancel func(), err error) {
	m.waitMu.Lock()
	defer m.waitMu.Unlock()
	if _, ok := m.waiters[unit]; ok {
		return nil, nil, ErrExists
	}
	w := make(chan string, 1)
	m.waiters[unit] = w
	return w, func() {
		m.waitMu.Lock()
		defer m.waitMu.Unlock()
		if m.waiters[unit] == w {
			delete(m.waiters, unit)
		}
	}, nil
}

// Version asks the manager for its version. It is also the test of whether there is one.
func (m *Manager) Version(ctx context.Context) (Version, error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return Version{}, err
	}
	var text string
	if err := property(ctx, conn, busPath, managerIface, "Version", &text); err != nil {
		return Version{}, err
	}
	v := Version{Systemd: text}
	if _, err := fmt.Sscanf(text, "%d", &v.Number); err != nil {
		return Version{}, fmt.Errorf("cannot read systemd's version %q: %w", text, err)
	}
	return v, nil
}

// DefaultNoFile asks for DefaultLimitNOFILE= (systemd-system.conf(5)): the soft limit of open files of whatever the manager
// starts.
func (m *Manager) DefaultNoFile(ctx context.Context) (uint64, error) {
	return m.number(ctx, "DefaultLimitNOFILESoft")
}

// DefaultTasksMax asks for DefaultTasksMax= (systemd-system.conf(5)), which holds for a scope without TasksMax=.
func (m *Manager) DefaultTasksMax(ctx context.Context) (uint64, error) {
	return m.number(ctx, "DefaultTasksMax")
}

// ControlGroupRoot asks for the control group of the manager itself, below the cgroup v2 mount: what that has not, none of its
// units can have.
func (m *Manager) ControlGroupRoot(ctx context.Context) (string, error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return "", err
	}
	var group string
	err = property(ctx, conn, busPath, managerIface, "ControlGroup", &group)
	return group, err
}

// number asks for a property of the manager.
func (m *Manager) number(ctx context.Context, name string) (uint64, error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return 0, err
	}
	var v uint64
	err = property(ctx, conn, busPath, managerIface, name, &v)
	return v, err
}

// SystemState is the manager's state as `systemctl is-system-running` prints it.
func (m *Manager) SystemState(ctx context.Context) (string, error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return "", err
	}
	var state string
	err = property(ctx, conn, busPath, managerIface, "SystemState", &state)
	return state, err
}

// Describe sets Description= of a unit. It replaces characters that a terminal cannot show.
func (m *Manager) Describe(ctx context.Context, unit, text string) error {
	conn, err := m.connect(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = conn.Object(busName, busPath).CallWithContext(ctx, managerIface+".SetUnitProperties", 0, unit, true,
		[]unitProperty{{"Description", dbus.MakeVariant(printable(text))}}).Err
	if err != nil {
		return fmt.Errorf("cannot describe %s: %w", unit, err)
	}
	return nil
}

func property(ctx context.Context, conn *dbus.Conn, object dbus.ObjectPath, iface, name string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var v dbus.Variant
	err := conn.Object(busName, object).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, iface, name).Store(&v)
	var refused dbus.Error
	if err != nil && (!errors.As(err, &refused) || isAway(refused)) {
		err = awayError{err}
	}
	if err != nil {
		return fmt.Errorf("cannot read %s of systemd: %w", name, err)
	}
	if err := v.Store(into); err != nil {
		return fmt.Errorf("cannot read %s of systemd: %w", name, err)
	}
	return nil
}

// unitPath is the object path of a unit, also of one that is not loaded.
func unitPath(name string) dbus.ObjectPath {
	return dbus.ObjectPath(string(busPath) + "/unit/" + systemd.PathBusEscape(name))
}

// isNoUnit reports whether err says that there is no such unit.
func isNoUnit(err error) bool {
	var e dbus.Error
	return errors.As(err, &e) && (e.Name == busName+".NoSuchUnit" || strings.HasSuffix(e.Name, ".UnknownObject"))
}

// Package daemon is the engine's wiring: it opens what the engine works on, serves its sockets, reloads its
// configuration and stops it in order. What the engine does is in the packages below.
//
// Only cmd/rtaskd imports it.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/auth/provider"
	"github.com/rtask/rtask/daemon/auth/token"
	"github.com/rtask/rtask/daemon/companion"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/control"
	"github.com/rtask/rtask/daemon/deliveries"
	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/daemon/logging"
	"github.com/rtask/rtask/sandbox"
)

const (
	// stopTimeout bounds the wait for requests that are under way when the engine stops. Followers of a job are told to
	// come back at once, so it is short.
	stopTimeout = 3 * time.Second
	// flushInterval is how often the last use of keys is written down, and how many refusals were only counted.
	flushInterval = time.Minute
	// maxConnections is how many connections to the control socket a user may have, maxStreams how many calls at a time go
	// over one of them, and maxStrangers how many connections all have together who may not use rtask.
	maxConnections = 32
	maxStreams     = 64
	// maxRemoteStreams is how many calls of remote clients at a time go over one connection of the gateway's. Clients of HTTP/2 begin
	// with up to 100 before they know of a bound, and cannot repeat one with a body that is refused then.
	maxRemoteStreams = 256
	maxStrangers     = 128
	// maxGatewayConnections is how many connections to each of its sockets the gateway has: one for each request that is under way
	// there, of which its own bounds let in fewer.
	maxGatewayConnections = 20_000

	operatorGroup = "rtask"
	adminGroup    = "rtask-admin"
	gatewayUser   = "rtask-gateway"
)

// Options are where an engine finds and leaves things.
type Options struct {
	// ConfigFile is rtask.hcl, TasksDir is tasks.d.
	ConfigFile, TasksDir string
	// StateDir holds records and keys (0700), LogDir the jobs' output (0750), RuntimeDir sockets (0755).
	StateDir, LogDir, RuntimeDir string
	// CredentialsDir is the folder of the engine's credentials, CREDENTIALS_DIRECTORY of systemd.exec(5); "": there are none.
	CredentialsDir string
	// Shim is the path of rtask-shim.
	Shim string
	// NoSystemd runs jobs as plain processes even where there is a manager.
	NoSystemd bool
	// Gateway, if set, is started beside the engine: `rtaskd run`.
	Gateway *companion.Options
	Version string
	// Reload asks for the configuration to be read again.
	Reload <-chan struct{}
	Logger *slog.Logger
	// Ready, if set, is called once, when everything is served.
	Ready func()

	ticks <-chan time.Time // for tests: when the authority looks at what time has brought; nil: see tickEvery
}

// engine is a running one.
type engine struct {
	Options
	host     *sandbox.Host
	jobs     *job.Manager
	keys     *auth.Keys
	identify *auth.Identify
	settings *settings
	metrics  *metrics
	control  *control.Server // nil before serve
	started  time.Time

	deliveries   *deliveries.Store
	authority    *authority.Authority
	trusting     sync.Mutex                    // held while trust is made
	trust        atomic.Pointer[rtaskv1.Trust] // what the gateway is told of certificates
	rootsMissing atomic.Bool                   // a file of remote.authorities could not be used
	rootsProblem atomic.Pointer[string]        // what was wrong with those that could be read
	tokens       *token.Issuer
	providers    *provider.Set
	schedules    *schedules
}

// Run is the engine's life. It returns when ctx ends; jobs run on. An error in the configuration does not end it.
func Run(ctx context.Context, o Options) (err error) {
	e := &engine{Options: o, started: time.Now()}
	e.settings = newSettings(o, e.apply)
	e.schedules = e.newSchedules()
	e.metrics = newMetrics(o.Version, e.settings.buckets)
	if err := e.open(ctx); err != nil {
		return errors.Join(err, e.close())
	}
	defer func() { err = errors.Join(err, e.close()) }()
	listeners, err := e.listen()
	if err != nil {
		return err
	}
	return e.serve(ctx, listeners)
}

// ownFolder returns an error for a folder in which another user could put a link for the engine to follow.
func ownFolder(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("cannot look at the folder %s: %w", dir, err)
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("cannot use the folder %s: user %d must own it, and no other user may write to it", dir, os.Geteuid())
	}
	return nil
}

// credentialsRoot is the folder in which services of the system have the folders of their credentials (systemd.exec(5)). A job does not
// see the whole of it: each start of the engine mounts its own one anew, and the mount reaches the jobs that run.
const credentialsRoot = "/run/credentials"

// private are the files and folders in which the engine keeps what is not for jobs. All of the configuration's folder is, if it is
// rtask's own: secrets are there, too.
func (e *engine) private() []string {
	all := []string{e.ConfigFile, e.TasksDir, e.StateDir, e.LogDir}
	if os.Geteuid() == 0 {
		all = append(all, credentialsRoot)
	} else if e.CredentialsDir != "" {
		all = append(all, filepath.Dir(e.CredentialsDir))
	}
	if dir := filepath.Dir(e.ConfigFile); filepath.Base(dir) == "rtask" {
		all = append(all, dir)
	}
	return all
}

// open opens everything but the sockets.
func (e *engine) open(ctx context.Context) error {
	// In this order: the others may lie in the first, and would make it with a mode of their own.
	for _, dir := range []struct {
		path string
		mode os.FileMode
	}{{e.StateDir, 0o700}, {e.LogDir, 0o750}, {e.RuntimeDir, 0o755}} {
		if err := os.MkdirAll(dir.path, dir.mode); err != nil {
			return fmt.Errorf("cannot make a folder: %w", err)
		}
		if err := ownFolder(dir.path); err != nil {
			return err
		}
	}
	if err := e.settings.loadSwitches(filepath.Join(e.StateDir, switchesName)); err != nil {
		return err
	}
	e.settings.openKept(filepath.Join(e.StateDir, keptName))
	e.settings.load(false, nil)
	cfg := e.settings.orDefaults()
	var err error
	e.host, err = sandbox.Open(ctx, sandbox.Options{
		Shim: e.Shim, RuntimeDir: filepath.Join(e.RuntimeDir, "shim"), Hide: e.RuntimeDir, Private: e.private(), NoSystemd: e.NoSystemd, Logger: e.Logger,
	})
	if err != nil {
		return err
	}
	if all := e.host.Weaker(); len(all) == 1 {
		e.Logger.Warn(all[0])
	} else if len(all) > 1 {
		e.Logger.Warn(fmt.Sprintf("%s rtaskctl doctor lists %d more things that do not hold on this machine.", all[0], len(all)-1))
	}
	e.keys, err = auth.OpenKeys(auth.KeyOptions{
		Path:   e.keysFile(),
		Params: auth.Argon2Params{Memory: cfg.Argon2.MemoryKiB, Time: cfg.Argon2.Time, Threads: cfg.Argon2.Threads},
	})
	if e.keys == nil {
		return err
	}
	if err != nil {
		e.settings.note(e.keysFindings(err))
	}
	if e.Gateway != nil {
		e.Gateway.Avoid = func(uid uint32) bool { return cfg.DynamicUIDs.Has(uid) }
	}
	e.identify, err = auth.NewIdentify(e.accounts())
	if err != nil {
		return err
	}
	e.jobs, err = job.Open(ctx, job.Options{
		Host: e.host, StateDir: e.StateDir, LogDir: e.LogDir, MaxJobs: cfg.MaxJobs, Logger: e.Logger,
		UIDs: cfg.DynamicUIDs, Ended: e.metrics.ended,
		Retention: cfg.Retention,
	})
	if err != nil {
		return err
	}
	if e.deliveries, err = deliveries.Open(filepath.Join(e.StateDir, "deliveries"), e.Logger); err != nil {
		return err
	}
	e.configureDeliveries()
	e.metrics.observe(e.jobs, e.settings.snapshot)
	if err := e.openAuthority(); err != nil {
		return err
	}
	e.openTokens()
	e.openProviders()
	e.configureTokens(e.settings.orDefaults())
	e.configureProviders(e.settings.orDefaults())
	return nil
}

// accounts says who is who. Groups and the gateway's user mean something to the system's engine only.
func (e *engine) accounts() auth.Options {
	o := auth.Options{OwnUID: uint32(os.Geteuid()), Named: e.settings.named}
	if os.Geteuid() == 0 {
		o.AdminGroup, o.OperatorGroup, o.GatewayUser = adminGroup, operatorGroup, gatewayUser
		if e.Gateway != nil {
			uid, _, _ := e.Gateway.Credentials()
			o.GatewayUser, o.GatewayUID = "", &uid
		}
	}
	return o
}

// gatewayUID is the number of the gateway's user, nil where it has none of its own.
func (e *engine) gatewayUID() *uint32 {
	if os.Geteuid() != 0 {
		return nil
	}
	accounts := e.accounts()
	if accounts.GatewayUID != nil {
		return accounts.GatewayUID
	}
	u, err := job.LookupUser(accounts.GatewayUser)
	if err != nil {
		return nil
	}
	return &u.UID
}

// apply puts in force what of the configuration is not read from it at each request. Before open is through, there is
// nothing to put it in force on.
func (e *engine) apply(c *config.Config) {
	if e.jobs == nil {
		return
	}
	e.jobs.SetLimits(c.MaxJobs, c.DynamicUIDs)
	e.jobs.SetRetention(c.Retention)
	e.configureDeliveries()
	if e.control != nil {
		e.jobs.SetTasks(e.control.TaskSpecs())
		e.control.Changed()
	}
	if e.authority != nil {
		e.configureTokens(c)
		e.configureProviders(c)
		e.configureAuthority(c) // which rechecks calls under way, so that it comes last
	}
	// A key's record carries its own parameters; these are for new ones.
	if err := e.keys.SetParams(auth.Argon2Params{Memory: c.Argon2.MemoryKiB, Time: c.Argon2.Time, Threads: c.Argon2.Threads}); err != nil {
		e.Logger.Error("cannot use the argon2 parameters", "error", err)
	}
}

// configureDeliveries removes what the configuration in force does not keep. Without one, nothing is kept, and nothing removed.
func (e *engine) configureDeliveries() {
	c := e.settings.snapshot().Config
	if c == nil || e.deliveries == nil {
		return
	}
	if err := e.deliveries.Configure(control.Kept(c)); err != nil {
		e.Logger.Error("cannot keep deliveries as configured", "error", err)
	}
}

// close closes what open opened, in the opposite order.
func (e *engine) close() error {
	var err error
	if e.authority != nil {
		err = errors.Join(err, e.authority.Close())
	}
	if e.jobs != nil {
		err = errors.Join(err, e.jobs.Close())
	}
	if e.keys != nil {
		err = errors.Join(err, e.keys.Close())
	}
	if e.host != nil {
		err = errors.Join(err, e.host.Close())
	}
	return err
}

// serve serves the sockets until ctx ends or one of them fails.
func (e *engine) serve(ctx context.Context, l listeners) error {
	e.control = control.New(control.Options{
		Jobs: e.jobs, Keys: e.keys, Deliveries: e.deliveries, Identify: e.identify, Snapshot: e.settings.snapshot, Reload: e.reload, GatewayUID: e.gatewayUID(),
		SwitchTask: e.switchTask, Unscheduled: e.Options.unscheduled, NextRuns: e.nextRuns, StatusChanged: e.notify, Sockets: e.sockets, ReadSecret: e.settings.options.ReadSecret, Listening: e.listening(),
		APIAddress:   e.gatewayAddress(func(o *companion.Options) string { return o.APIAddress }),
		HTTPSAddress: e.gatewayAddress(func(o *companion.Options) string { return o.HTTPSAddress }),
		CheckLimits:  e.host.Check, Give: e.host.Give, Unlimited: e.host.Unlimited(), Metrics: e.metrics.registry, Rejected: e.metrics.rejected, Requested: e.metrics.requested, RefusedRemote: e.metrics.refusedRemote, Enrolled: e.metrics.enrolled, Logger: e.Logger,
		Authority: e.authority, Secrets: e.secrets(), Enroller: e.enroller(), Trust: e.trust.Load, RemoteURL: e.remoteURL, Certificates: e.authority,
		Tokens: provider.Tokens{Own: e.tokens, Providers: e.providers}, Issuer: e.oauth(), Providers: e.providers.States,
		Info: control.Info{Version: e.Version, Manager: e.host.Kind(), Started: e.started, Weaker: e.host.Weaker()},
	})
	e.jobs.SetTasks(e.control.TaskSpecs())
	e.jobs.StartTriggered(e.control.Triggered)
	// Streams and waits end with this context when the engine stops, so that they do not hold it up.
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	servers := []*http.Server{
		e.server(serving, e.control.Control(), maxStreams), e.server(serving, e.control.Gateway(), maxStreams),
		e.server(serving, e.control.Remote(), maxRemoteStreams),
	}
	failed := make(chan error, len(servers))
	var serves sync.WaitGroup
	for i, ln := range []net.Listener{
		perUser(l.control, e.slice(), maxConnections, maxStrangers, e.known),
		perUser(l.gateway, e.slice(), maxGatewayConnections, 0, everybody), perUser(l.remote, e.slice(), maxGatewayConnections, 0, everybody),
	} {
		serves.Go(func() { failed <- servers[i].Serve(ln) })
	}
	serves.Go(func() { e.tick(serving) })
	serves.Go(func() { e.schedules.run(serving) })
	gatewayDone, err := e.startGateway(l)
	if err == nil {
		e.notify()
		if e.Ready != nil {
			e.Ready()
		}
		err = e.loop(ctx, failed, gatewayDone)
	}
	e.tell(systemd.SdNotifyStopping)
	stopServing()
	if e.Gateway != nil {
		e.Gateway.Stop()
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for _, s := range servers {
		if s.Shutdown(bounded) != nil {
			_ = s.Close() // whoever is still there had its time
		}
	}
	serves.Wait()
	e.control.SumUp()
	return err
}

// gatewayAddress is where the gateway that this engine starts listens, as far as that is known.
func (e *engine) gatewayAddress(of func(*companion.Options) string) string {
	if e.Gateway == nil || strings.HasSuffix(of(e.Gateway), ":0") {
		return ""
	}
	return of(e.Gateway)
}

// listening returns control.Options.Listening. A gateway that this engine starts has no socket units.
func (e *engine) listening() func(context.Context, string) ([]string, error) {
	if e.Gateway != nil {
		return nil
	}
	return e.host.Listening()
}

// startGateway starts the gateway, where this engine is to have one beside it.
func (e *engine) startGateway(l listeners) (<-chan error, error) {
	if e.Gateway == nil {
		return nil, nil
	}
	return e.Gateway.Start(l.gateway.Addr().String())
}

// slice is where the processes of jobs are, "": that is not known here.
func (e *engine) slice() string {
	if e.host.Kind() == "none" {
		return ""
	}
	return sandbox.Slice
}

// known reports whether who connected to the control socket may use rtask for anything.
func (e *engine) known(c *counted) bool {
	p, err := c.Peer()
	return err == nil && e.identify.Control(p).Kind != auth.Nobody
}

// everybody is known on the gateway's sockets, which are the gateway's alone.
func everybody(*counted) bool { return true }

func (e *engine) server(ctx context.Context, h http.Handler, streams int) *http.Server {
	// gRPC clients speak HTTP/2 without TLS here, others HTTP/1.1.
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: h, Protocols: &p, ConnContext: auth.ConnContext(e.slice()), BaseContext: func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: streams},
		ErrorLog: logging.ForServer(e.Logger), // a handler's panic goes there, too
	}
}

// loop does what comes up while the servers serve.
func (e *engine) loop(ctx context.Context, failed, gatewayDone <-chan error) error {
	flush := time.NewTicker(flushInterval)
	defer flush.Stop()
	var watchdog <-chan time.Time
	if interval, err := systemd.SdWatchdogEnabled(false); err == nil && interval > 0 {
		t := time.NewTicker(interval / 2)
		defer t.Stop()
		watchdog = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("cannot serve: %w", err)
		case err := <-gatewayDone:
			return fmt.Errorf("the gateway has ended: %w", err)
		case <-e.Options.Reload:
			e.reload(false)
		case <-flush.C:
			if err := e.keys.Flush(); err != nil {
				e.Logger.Error("cannot write the keys file", "error", err)
			}
			e.control.SumUp()
		case <-watchdog:
			e.tell(systemd.SdNotifyWatchdog)
		}
	}
}

// reload reads the configuration again, and the keys with it. With an error in one of them both stay as they are.
func (e *engine) reload(checkOnly bool) (*config.Config, config.Diagnostics) {
	if !checkOnly {
		e.tell(systemd.SdNotifyReloading)
		defer e.notify()
	}
	cfg, diags := e.settings.load(checkOnly, e.keysFindings(e.keys.Check()))
	if !checkOnly && !diags.HasErrors() {
		if err := e.keys.Reload(); err != nil { // it was changed in this moment
			found := e.keysFindings(err)
			e.settings.note(found)
			diags = append(diags, found...)
		}
		e.schedules.changed()
	}
	return cfg, diags
}

// keysFindings puts an error of the keys file into the form of those of the configuration.
func (e *engine) keysFindings(err error) config.Diagnostics {
	if err == nil {
		return nil
	}
	d := config.Diagnostic{File: e.keysFile(), Summary: err.Error()}
	if at, ok := errors.AsType[*auth.FileError](err); ok {
		d.Summary, d.Line, d.Column = at.Err.Error(), at.Line, max(1, at.Column)
	}
	return config.Diagnostics{d}
}

func (e *engine) keysFile() string { return filepath.Join(e.StateDir, "keys.toml") }

// notify tells systemd that all is served, and what there is to see in `systemctl status`.
func (e *engine) notify() {
	s := e.settings.snapshot()
	status := "configuration has errors, no tasks"
	if s.Config != nil {
		status = fmt.Sprintf("%d tasks", len(s.Config.Tasks))
		if len(s.Config.Tasks) == 1 {
			status = "1 task"
		}
		if s.Diagnostics.HasErrors() {
			status += ", the configuration on disk has errors"
		}
	}
	if e.jobs.Draining() {
		status += ", draining: no new jobs are accepted"
	}
	e.tell(systemd.SdNotifyReady + "\nSTATUS=" + status)
}

func (e *engine) tell(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		e.Logger.Error("cannot notify systemd", "error", err)
	}
}

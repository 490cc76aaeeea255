package control

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/auth/provider"
	"github.com/rtask/rtask/daemon/auth/token"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/deliveries"
	"github.com/rtask/rtask/daemon/issuer"
	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/packaging/testkit"
	"github.com/rtask/rtask/sandbox"
	"github.com/rtask/rtask/sandbox/spec"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// The users of the tests. As root they are who their peers say. As an ordinary user, jobs can run as that user alone, so
// that what needs another one is skipped.
const (
	adaUID, benUID, opUID, strangerUID = 61001, 61002, 61003, 61004
	adminGID, operatorGID              = 62001, 62002
	gatewayUID                         = 61009
)

func peers() map[auth.Kind]auth.Peer {
	return map[auth.Kind]auth.Peer{
		auth.Nobody:   {UID: strangerUID, GID: strangerUID, CgroupKnown: true},
		auth.User:     {UID: adaUID, GID: adaUID, CgroupKnown: true},
		auth.Operator: {UID: opUID, GID: opUID, Groups: []uint32{operatorGID}, CgroupKnown: true},
		auth.Admin:    {UID: opUID, GID: opUID, Groups: []uint32{adminGID}, CgroupKnown: true},
		auth.Gateway:  {UID: gatewayUID, GID: gatewayUID, CgroupKnown: true},
	}
}

// fixture is an engine's handlers on two real sockets.
type fixture struct {
	*Server
	t       testing.TB
	logs    *testkit.Logs
	dir     string
	root    string            // rtask.hcl
	address map[string]string // by "control" and "gateway"

	mu       sync.Mutex           // guards what follows
	peers    map[string]auth.Peer // by the address that a client bound its end to
	snapshot Snapshot
	rejected []string
}

type testPeer struct{}

// newFixture serves the tasks in hcl.
func newFixture(t testing.TB, hcl string) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir(), logs: &testkit.Logs{}, address: map[string]string{}, peers: map[string]auth.Peer{}}
	logger := slog.New(slog.NewTextHandler(f.logs, nil))
	h, err := sandbox.Open(t.Context(), sandbox.Options{
		Shim: testkit.Shim(), RuntimeDir: filepath.Join(f.dir, "shim"), NoSystemd: true, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := job.Open(t.Context(), job.Options{
		Host: h, StateDir: f.dir, LogDir: filepath.Join(f.dir, "log"), UIDs: spec.UIDRange{First: 70000, Last: 70999}, MaxJobs: 100, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := auth.OpenKeys(auth.KeyOptions{Path: filepath.Join(f.dir, "keys.toml")})
	if err != nil {
		t.Fatal(err)
	}
	identify, err := auth.NewIdentify(auth.Options{
		AdminGroup: "admins", OperatorGroup: "operators", GatewayUser: "gateway", OwnUID: 1,
		Named: func(uid uint32, name string, groups []uint32) bool { return uid == adaUID || uid == benUID },
		Accounts: &auth.Accounts{
			GroupID: func(name string) (uint32, bool, error) {
				return map[string]uint32{"admins": adminGID, "operators": operatorGID}[name], true, nil
			},
			UserID:   func(string) (uint32, bool, error) { return gatewayUID, true, nil },
			UserName: func(uid uint32) string { return map[uint32]string{adaUID: "ada", benUID: "ben", opUID: "olga"}[uid] },
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.configure(hcl)
	own, err := authority.Open(f.dir, logger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close() })
	kept, err := deliveries.Open(filepath.Join(f.dir, "deliveries"), logger)
	if err != nil {
		t.Fatal(err)
	}
	gateway := uint32(gatewayUID)
	f.Server = New(Options{
		Jobs: jobs, Keys: keys, Deliveries: kept, Identify: identify, ReadSecret: config.SecretReader(os.Geteuid()), CheckLimits: h.Check, Give: h.Give, Unlimited: h.Unlimited(), Metrics: prometheus.NewRegistry(), Logger: logger, GatewayUID: &gateway, Authority: own,
		Snapshot: func() Snapshot {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.snapshot
		},
		SwitchTask: func(task string, to *TaskSwitch) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			all := maps.Clone(f.snapshot.Switches)
			if all == nil {
				all = map[string]TaskSwitch{}
			}
			if delete(all, task); to != nil {
				all[task] = *to
			}
			f.snapshot.Switches = all
			return nil
		},
		Reload: func(bool) (*config.Config, config.Diagnostics) { return f.load(hcl) },
		Rejected: func(task, kind string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.rejected = append(f.rejected, task+" "+kind)
		},
		Requested: func(string, string, string) {}, RefusedRemote: func(string, uint64) {}, Enrolled: func(string, string) {},
		Unscheduled: func() string { return "" }, NextRuns: func(context.Context, []*config.Task) map[string]time.Time { return nil },
		StatusChanged: func() {}, Sockets: func(context.Context) []SocketUnit { return nil },
		Enroller: &issuer.Enroller{Authority: own}, Certificates: own, Tokens: token.New(f.dir + "/tokens"), RemoteURL: func() string { return "" }, Trust: func() *rtaskv1.Trust { return nil },
		Issuer:    func(w http.ResponseWriter, r *http.Request, _ Shown) { http.NotFound(w, r) },
		Providers: func() []provider.State { return nil },
	})
	f.serve("control", f.door(f.handler(), f.asPeer(f.controlCaller)))
	f.serve("gateway", f.door(f.handler(), f.asPeer(f.Identify.Gateway)))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		running, err := jobs.List(job.Filter{})
		for _, j := range running {
			if _, err := jobs.Stop(ctx, j.ID, job.StopOptions{Kill: true}); err != nil {
				t.Error(err)
			}
		}
		if err != nil || jobs.Close() != nil {
			t.Error("cannot clean up")
		}
	})
	return f
}

// asPeer takes the peer that the test put into the connection's context for the one at the other end.
func (f *fixture) asPeer(of func(auth.Peer) (auth.Caller, error)) identify {
	return func(ctx context.Context) (auth.Caller, error) { return of(ctx.Value(testPeer{}).(auth.Peer)) }
}

func (f *fixture) serve(name string, h http.Handler) {
	f.t.Helper()
	path := filepath.Join(f.dir, name+".sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		f.t.Fatal(err)
	}
	f.address[name] = path
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: h, Protocols: &p, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		f.mu.Lock()
		defer f.mu.Unlock()
		return context.WithValue(ctx, testPeer{}, f.peers[c.RemoteAddr().String()])
	}}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	f.t.Cleanup(func() { s.Close(); <-done })
}

func (f *fixture) load(hcl string) (*config.Config, config.Diagnostics) {
	dir := filepath.Join(f.dir, "tasks.d")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tasks.hcl"), []byte(hcl), 0o600); err != nil {
		f.t.Fatal(err)
	}
	root := filepath.Join(f.dir, "rtask.hcl")
	if err := os.WriteFile(root, []byte(f.root), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return config.Load(config.Options{File: root, Dir: dir, OwnerUID: os.Geteuid(), ReadSecret: config.SecretReader(os.Geteuid())})
}

// configure puts a configuration in force, one with errors as at the engine's start.
func (f *fixture) configure(hcl string) {
	f.t.Helper()
	c, diags := f.load(hcl)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.snapshot = Snapshot{Config: c, Diagnostics: diags, ReadAt: time.Now(), MayBeTask: func(name string) bool {
		return strings.Contains(hcl, strconv.Quote(name))
	}}
}

// dial connects to a socket as a peer.
func (f *fixture) dial(socket string, p auth.Peer) (net.Conn, error) {
	f.mu.Lock()
	local := fmt.Sprintf("@rtask-test-%d-%s-%s-%d", os.Getpid(), filepath.Base(filepath.Dir(f.dir)), filepath.Base(f.dir), len(f.peers))
	f.peers[local] = p
	f.mu.Unlock()
	return net.DialUnix("unix", &net.UnixAddr{Name: local, Net: "unix"}, &net.UnixAddr{Name: f.address[socket], Net: "unix"})
}

// client connects to a socket anew for each call, as a peer.
func (f *fixture) client(socket string, p auth.Peer) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return f.dial(socket, p) },
	}}
}

func dialed(h *http.Client) *connect.Client {
	return connect.NewClient(connecthttp.NewTransport(h, "http://rtask"))
}

func (f *fixture) as(p auth.Peer) rtaskv1connect.JobServiceClient {
	return rtaskv1connect.NewJobServiceClient(dialed(f.client("control", p)))
}

// net is the gateway, on behalf of a client that presents a key for a task.
func (f *fixture) net(key []byte, task string) rtaskv1connect.GatewayServiceClient {
	h := f.client("gateway", peers()[auth.Gateway])
	presents := func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			return next(codec.Presented{Key: key, RemoteAddr: "192.0.2.7", Task: task}.Context(ctx), spec)
		}
	}
	return rtaskv1connect.NewGatewayServiceClient(connect.NewClient(connecthttp.NewTransport(h, "http://rtask"), presents))
}

// call sends a message of JSON and returns the status and the reply.
func (f *fixture) call(socket string, p auth.Peer, procedure, message string, head ...string) (int, string) {
	f.t.Helper()
	kind := "application/json"
	if streams(procedure) { // of which each message is an envelope, and the last one may be an error
		kind, message = "application/connect+json", string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))))+message
	}
	request, err := http.NewRequest("POST", "http://rtask"+procedure, strings.NewReader(message))
	if err != nil {
		f.t.Fatal(err)
	}
	request.Header.Set("Content-Type", kind)
	if strings.HasSuffix(procedure, "/Watch") { // which has no end of its own
		request.Header.Set("Connect-Timeout-Ms", "100")
	}
	for i := 0; i < len(head); i += 2 {
		request.Header.Set(head[i], head[i+1])
	}
	r, err := f.client(socket, p).Do(request)
	if err != nil {
		f.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	if streams(procedure) && r.StatusCode == http.StatusOK {
		for size := 0; len(b) >= 5; b = b[size:] {
			size = 5 + int(binary.BigEndian.Uint32(b[1:5]))
			var end struct{ Error json.RawMessage }
			if json.Unmarshal(b[5:size], &end) == nil && end.Error != nil {
				if code(string(end.Error)) == "permission_denied" {
					return http.StatusForbidden, string(end.Error)
				}
				return http.StatusBadRequest, string(end.Error)
			}
		}
	}
	return r.StatusCode, string(b)
}

// code is the "code" of a Connect error reply.
func code(reply string) string {
	var e struct{ Code string }
	_ = json.Unmarshal([]byte(reply), &e)
	return e.Code
}

func (f *fixture) key(name string) []byte {
	f.t.Helper()
	_, secret, err := f.Keys.Add(name, time.Time{})
	if err != nil {
		f.t.Fatal(err)
	}
	return secret
}

// self is a peer with the rights of an operator and the uid of this process, so that its commands run for everybody.
func self() auth.Peer {
	return auth.Peer{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Groups: []uint32{operatorGID}, CgroupKnown: true}
}

func must[T any](t testing.TB) func(r *T, err error) *T {
	return func(r *T, err error) *T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

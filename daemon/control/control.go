// Package control serves the API of daemon/api on the engine's Unix sockets: who calls is known from the socket and the
// credentials of the process behind it, what that caller may do from the one table in daemon/auth.
//
// Handlers turn messages into calls of daemon/job and back. They start nothing themselves and read no configuration
// file.
package control

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpcreflect/v2"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/rtask/rtask/daemon/api/codec"
	"github.com/rtask/rtask/daemon/api/grpc/health/v1/healthv1connect"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/auth/provider"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/deliveries"
	"github.com/rtask/rtask/daemon/issuer"
	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/sandbox/spec"
)

const (
	// maxRequest is the largest message of the methods that bring an input, in bytes.
	maxRequest = 2 * config.MaxInputBytes // so that an input fits in any encoding
	// maxSmallRequest is the largest message of all other methods.
	maxSmallRequest = 64 << 10
	// maxRest is how many bytes are dropped of a message that is longer.
	maxRest = 4 << 20
	// restTime is how long they may take to come.
	restTime = 5 * time.Second
)

// Snapshot is the configuration in force.
type Snapshot struct {
	// Config is nil when the engine started with a configuration that has errors, and there is no earlier one that was good.
	Config *config.Config
	// ReadAt is when Config was read, which may be before the engine started; zero: there is none.
	ReadAt time.Time
	// Diagnostics are of the configuration in force, and of the last reload if that failed.
	Diagnostics config.Diagnostics
	// MayBeTask reports, where there is no Config, whether a name may be that of a task all the same.
	MayBeTask func(name string) bool
	// Switches are what SwitchTask left, by task, also of those that are not configured.
	Switches map[string]TaskSwitch
}

// Info is what is known of the engine itself.
type Info struct {
	Version string
	Manager string
	Started time.Time
	Weaker  []string
}

// SocketUnit is a systemd unit through which rtask is reached; see rtask.proto.
type SocketUnit struct {
	Name      string
	Addresses []string
	// State is "listening", "off" or "failed".
	State          string
	Taken, Problem string
}

// Options are what the handlers work on.
type Options struct {
	Jobs     *job.Manager
	Keys     *auth.Keys
	Identify *auth.Identify
	// Snapshot returns the configuration in force.
	Snapshot func() Snapshot
	// Reload reads the configuration again and, unless checkOnly, puts it in force if it has no errors.
	Reload func(checkOnly bool) (*config.Config, config.Diagnostics)
	// SwitchTask records a switch, which then is in Snapshot, or removes the one that there is.
	SwitchTask func(task string, to *TaskSwitch) error
	// Unscheduled says why tasks cannot start by themselves, so that those that should are refused; "": they can.
	Unscheduled func() string
	// NextRuns says when tasks start by themselves next, as far as that is known.
	NextRuns func(context.Context, []*config.Task) map[string]time.Time
	// Sockets says how rtask's socket units are.
	Sockets func(context.Context) []SocketUnit
	// StatusChanged is called after Drain, to be told to systemd.
	StatusChanged func()
	// ReadSecret reads a secret of a webhook that was not there when the configuration was read (config.SecretReader).
	ReadSecret func(path string) (string, error)
	// APIAddress and HTTPSAddress are where the gateway listens, host:port; "": where Listening says.
	APIAddress, HTTPSAddress string
	// Listening returns the addresses, host:port or a path, at which a socket unit listens, nothing if it does not; nil: there are
	// no units.
	Listening func(ctx context.Context, unit string) ([]string, error)
	// GatewayUID is the gateway's user, whom no task may run as; nil: there is none.
	GatewayUID *uint32
	// CheckLimits returns an error for limits that this machine cannot enforce.
	CheckLimits func(spec.Limits) error
	// Give returns what a job gets of a sandbox here, and the names of the switches that it does without.
	Give func(spec.Sandbox) (spec.Sandbox, []string)
	// Unlimited are the limits of a job of which nothing is said, which a user who is not root may not raise. What is not in
	// them, nobody but root may have.
	Unlimited spec.Limits
	Info      Info
	// Authority makes certificates for clients on other machines, and Secrets keeps its keys. Enroller answers those of them that have
	// no certificate.
	Authority *authority.Authority
	Secrets   Secrets
	Enroller  *issuer.Enroller
	// Providers are the OpenID providers of the configuration, with what is known of their keys.
	Providers func() []provider.State
	// Trust says on which terms the gateway lets clients with certificates in. It is the same message for as long as nothing changes, and
	// when something does, Changed is called. It may return nil: there are none.
	Trust func() *rtaskv1.Trust
	// Deliveries are the requests to webhooks that are kept.
	Deliveries *deliveries.Store
	// Metrics are the engine's own.
	Metrics prometheus.Gatherer
	// Rejected counts a request that was refused, by task (if that is known to exist) and kind.
	Rejected func(task, kind string)
	// Certificates and Tokens say who remote clients are. RemoteURL is how they call this engine, and who issues its tokens. Issuer
	// serves the paths of the OAuth server to clients whose certificate is good.
	Certificates Certificates
	Tokens       Tokens
	RemoteURL    func() string
	Issuer       func(http.ResponseWriter, *http.Request, Shown)
	// RefusedRemote counts handshakes and calls of remote clients that were refused, by kind.
	RefusedRemote func(kind string, n uint64)
	// Enrolled counts a request for a client certificate, by what was shown and its result, "accepted" or a kind.
	Enrolled func(proof, result string)
	// Requested counts a request over HTTP to start a task, by the name of its key if that is good, and its result: "accepted" or
	// the kind of its refusal.
	Requested func(task, key, result string)
	Logger    *slog.Logger
}

// Server implements both services.
type Server struct {
	Options
	waits       waits
	news        news
	tallies     tallies
	scan        chan struct{}  // full while KeyJobs looks through the records
	evaluations chan struct{}  // full while maxEvaluations requests are evaluated
	replays     chan struct{}  // full while ReplayDelivery has a delivery in memory
	watches     shares         // calls that wait for a job or follow its output
	messages    shares         // bytes of requests
	noTrust     *rtaskv1.Trust // lets nobody in
	parsed      parsed
	revoking    atomic.Int32 // calls of Revoke that are at it
	errors      *connecthttp.ErrorWriter
	// mostOfGateway and mostOfUser are maxMessages and maxMessagesOfUser.
	mostOfGateway, mostOfUser int64
	messageTime               time.Duration // is messageTime
	guesses                   auth.Failures // at codes of devices
	initializing              sync.Mutex    // held while an authority is made, or its next certificate
}

// New returns a Server.
func New(o Options) *Server {
	return &Server{Options: o, errors: connecthttp.NewErrorWriter(), noTrust: &rtaskv1.Trust{}, scan: make(chan struct{}, 1), replays: make(chan struct{}, 1), evaluations: make(chan struct{}, maxEvaluations), mostOfGateway: maxMessages, mostOfUser: maxMessagesOfUser, messageTime: messageTime, waits: waits{most: maxCalls, byKey: map[string]map[*wait]struct{}{}}}
}

// Control returns the handler of the control socket.
func (s *Server) Control() http.Handler { return s.door(s.handler(), s.peer(s.controlCaller)) }

// Gateway returns the handler of the gateway's socket. It has the same methods: who may call them is known by the socket.
func (s *Server) Gateway() http.Handler { return s.door(s.handler(), s.peer(s.Identify.Gateway)) }

// handler returns the handler of both services, for callers that door has let in.
func (s *Server) handler() http.Handler {
	return s.services(func(server *connect.Server) {
		rtaskv1connect.RegisterJobServiceHandler(server, s)
		rtaskv1connect.RegisterGatewayServiceHandler(server, s)
		rtaskv1connect.RegisterAuthorityServiceHandler(server, authorityService{s})
	})
}

// remoteHandler returns the handler of what remote clients may call, for those that door has let in.
func (s *Server) remoteHandler() http.Handler {
	return s.services(func(server *connect.Server) {
		rtaskv1connect.RegisterJobServiceHandler(server, s)
		healthv1connect.RegisterHealthHandler(server, health{s})
		grpcreflect.Register(server)
	})
}

// services returns a handler of services, of which authorize holds each call against the table.
func (s *Server) services(register func(*connect.Server)) http.Handler {
	server := connect.NewServer(codec.ErrorTexts, s.authorize)
	register(server)
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server, append(codec.Options(), connecthttp.WithConditionalOptions(func(spec connect.Spec) []connecthttp.Option {
		return []connecthttp.Option{connecthttp.WithReadMaxBytes(maxOf(spec.Procedure))}
	}))...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := *callOf(r.Context())
		c.body = &rest{
			ReadCloser: r.Body, conn: http.NewResponseController(w), gateway: c.Kind == auth.Gateway,
			left: int64(maxOf(r.URL.Path)) + envelope + maxRest,
		}
		r = r.WithContext(c.with(r.Context()))
		r.Body = c.body
		mux.ServeHTTP(w, r)
	})
}

// envelope is how many bytes stand before a message that is one of a stream.
const envelope = 5

// maxOf is how large the message of a method may be, in bytes.
func maxOf(procedure string) int {
	switch procedure {
	case rtaskv1connect.JobServiceStartProcedure, rtaskv1connect.GatewayServiceRunProcedure, rtaskv1connect.GatewayServiceRunStreamProcedure,
		rtaskv1connect.GatewayServiceWebhookProcedure, rtaskv1connect.GatewayServiceWebhookStreamProcedure,
		rtaskv1connect.JobServiceImportKeysProcedure, rtaskv1connect.JobServiceTestWebhookProcedure:
		return maxRequest
	case rtaskv1connect.GatewayServiceEnrollProcedure:
		return 2 * maxSmallRequest // so that a body of that length fits in any encoding
	default:
		return maxSmallRequest
	}
}

// rest is a body of which what comes behind a message that is too long is read and dropped, up to maxRest and for restTime: most
// clients read no answer while they send. Of a call that is refused before its message is read, only what the gateway sends is.
type rest struct {
	io.ReadCloser
	conn           *http.ResponseController
	gateway, begun bool
	// long says that the message was too long, or too much beside others.
	long bool
	// left is how many bytes may still come of the message, whatever length it claims.
	left int64
}

// Read implements io.Reader.
func (r *rest) Read(b []byte) (int, error) {
	r.begun = true
	if r.left <= 0 {
		return 0, connect.NewError(connect.CodeResourceExhausted, "the message is too long")
	}
	n, err := r.ReadCloser.Read(b[:min(int64(len(b)), r.left)])
	r.left -= int64(n)
	return n, err
}

// Close implements io.Closer.
func (r *rest) Close() error {
	most := int64(maxRest)
	switch {
	case r.begun && !r.long:
		return r.ReadCloser.Close()
	case r.gateway:
		most = maxRequest
	case !r.begun:
		return nil // net/http closes it, behind the answer
	}
	if err := r.conn.SetReadDeadline(time.Now().Add(restTime)); err != nil {
		return err
	}
	_, _ = io.CopyN(io.Discard, r.ReadCloser, most) // an error is the client's end
	return r.ReadCloser.Close()
}

// coded makes an error with a code and the text of err.
func coded(code connect.Code, err error) *connect.Error {
	return connect.NewError(code, err.Error()).WithCause(err)
}

// fail makes an error with a stable kind.
func fail(code connect.Code, kind rtaskv1.Kind, err error, fill ...func(*rtaskv1.Error)) *connect.Error {
	d := &rtaskv1.Error{Kind: string(kind)}
	for _, f := range fill {
		f(d)
	}
	return coded(code, err).WithDetail(codec.Detail(d))
}

// retryIn has fail say when it may be worth to ask again.
func retryIn(d time.Duration) func(*rtaskv1.Error) {
	return func(e *rtaskv1.Error) { e.RetryAfter = durationpb.New(d) }
}

// Package control serves the API of daemon/api on the engine's Unix sockets: who calls is known from the socket and the
// credentials of the process behind it, what that caller may do from the one table in daemon/auth.
//
// Handlers turn messages into calls of daemon/job and back. They start nothing themselves and read no configuration
// file.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/sandbox/spec"
)

// maxRequest is the largest message that is read: a task's or command's input, arguments and environment.
const maxRequest = 64 << 20

// Snapshot is the configuration in force.
type Snapshot struct {
	// Config is nil when the engine started with a configuration that has errors.
	Config *config.Config
	// Diagnostics are of the configuration in force, and of the last reload if that failed.
	Diagnostics config.Diagnostics
}

// Info is what is known of the engine itself.
type Info struct {
	Version string
	Manager string
	Started time.Time
	Weaker  []string
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
	// CheckLimits returns an error for limits that this machine cannot enforce.
	CheckLimits func(spec.Limits) error
	Info        Info
	// Metrics are the engine's own.
	Metrics prometheus.Gatherer
	// Rejected counts a request that was refused, by task (if that is known to exist) and kind.
	Rejected func(task, kind string)
	Logger   *slog.Logger
}

// server implements both services.
type server struct {
	Options
}

// Control returns the handler of the control socket.
func Control(o Options) http.Handler {
	s := &server{o}
	mux := http.NewServeMux()
	mux.Handle(rtaskv1connect.NewJobServiceHandler(s, handlerOptions()...))
	return admit(mux, func(p auth.Peer) (auth.Caller, error) {
		c := o.Identify.Control(p)
		if c.Kind == auth.Nobody {
			return c, auth.ErrForbidden
		}
		return c, nil
	})
}

// Gateway returns the handler of the gateway's socket.
func Gateway(o Options) http.Handler {
	s := &server{o}
	mux := http.NewServeMux()
	mux.Handle(rtaskv1connect.NewGatewayServiceHandler(s, handlerOptions()...))
	return admit(mux, o.Identify.Gateway)
}

func handlerOptions() []connect.HandlerOption {
	return []connect.HandlerOption{
		connect.WithInterceptors(authorize{}),
		connect.WithReadMaxBytes(maxRequest),
		// A compressed message is read whole before anybody can look at it; on a local socket there is nothing to win.
		connect.WithCompression("gzip", nil, nil),
	}
}

type callerKey struct{}

// callerFrom returns who calls.
func callerFrom(ctx context.Context) auth.Caller {
	c, _ := ctx.Value(callerKey{}).(auth.Caller)
	return c // the zero Caller is nobody
}

// admit authenticates a request before a byte of its body is read.
func admit(next http.Handler, identify func(auth.Peer) (auth.Caller, error)) http.Handler {
	refuse := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, ok := auth.PeerFrom(r.Context())
		err := auth.PeerError(r.Context())
		var caller auth.Caller
		if ok {
			caller, err = identify(peer)
		}
		if err != nil {
			e := connect.NewError(connect.CodePermissionDenied, errors.New(strangerText))
			if !refuse.IsSupported(r) {
				http.Error(w, strangerText, http.StatusForbidden)
				return
			}
			_ = refuse.Write(w, r, e) // a stranger that does not read its answer is no loss
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller)))
	})
}

const strangerText = "permission denied: only root, members of the groups rtask and rtask-admin, and users that a task names may use rtask; a job may not"

// authorize holds every call against the table.
type authorize struct{}

func (authorize) check(ctx context.Context, procedure string) error {
	caller := callerFrom(ctx)
	if auth.Allowed(procedure, caller) {
		return nil
	}
	return connect.NewError(connect.CodePermissionDenied,
		fmt.Errorf("permission denied: %s asks for more than %s may do", procedure, caller.Name()))
}

// WrapUnary implements connect.Interceptor.
func (a authorize) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		if err := a.check(ctx, r.Spec().Procedure); err != nil {
			return nil, err
		}
		return next(ctx, r)
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (a authorize) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, c connect.StreamingHandlerConn) error {
		if err := a.check(ctx, c.Spec().Procedure); err != nil {
			return err
		}
		return next(ctx, c)
	}
}

// WrapStreamingClient implements connect.Interceptor; there are no clients here.
func (authorize) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// fail makes an error with a stable kind.
func fail(code connect.Code, kind string, err error, fill ...func(*rtaskv1.Error)) *connect.Error {
	e := connect.NewError(code, err)
	d := &rtaskv1.Error{Kind: kind}
	for _, f := range fill {
		f(d)
	}
	if detail, err := connect.NewErrorDetail(d); err == nil {
		e.AddDetail(detail)
	}
	return e
}

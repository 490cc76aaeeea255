package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"slices"

	"connectrpc.com/connect/v2"

	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
)

// call is one call of the API: who makes it, and on what it is decided. Nobody changes it once its message was let in.
type call struct {
	auth.Caller
	// identify says who calls, anew.
	identify  identify
	body      *rest
	procedure string
	// snapshot is the configuration in force when the head of the call came, and from then on when its message had come.
	snapshot Snapshot
	// named is the task that a client on the network named, and task is that one where the client's key may use it.
	named string
	task  *config.Task
	// roles are those of a remote client that allow it the method, and held all that it has.
	roles, held []*config.Role
}

type callKey struct{}

// callOf returns the call that a context belongs to. Without one it is nobody's.
func callOf(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{}
}

// with returns the context of a call.
func (c *call) with(ctx context.Context) context.Context { return context.WithValue(ctx, callKey{}, c) }

// identify says who sent a request.
type identify func(context.Context) (auth.Caller, error)

// peer makes an identify of the process at the other end of the connection.
func (s *Server) peer(of func(auth.Peer) (auth.Caller, error)) identify {
	return func(ctx context.Context) (auth.Caller, error) {
		p, ok := auth.PeerFrom(ctx)
		if !ok {
			return auth.Caller{}, auth.PeerError(ctx)
		}
		return of(p)
	}
}

func (s *Server) controlCaller(p auth.Peer) (auth.Caller, error) {
	c := s.Identify.Control(p)
	if c.Kind == auth.Nobody {
		return c, auth.ErrForbidden
	}
	return c, nil
}

// strangerText is what everybody is told who may nothing at all.
const strangerText = "permission denied: only root, members of the groups rtask and rtask-admin, and users that a task names may use rtask; a job may not"

// door lets in whom it knows, before a byte of a request's body is read, and says in its context who that is.
func (s *Server) door(next http.Handler, identify identify) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := identify(r.Context())
		if err == nil {
			s.counted(next, w, r.WithContext((&call{Caller: caller, identify: identify}).with(r.Context())), caller)
			return
		}
		s.turnAway(w, r, caller, err)
	})
}

// authorize holds every call against the table of package auth, before its message is read, and again when that has come. It is the
// one place that does.
func (s *Server) authorize(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		c := *callOf(ctx)
		c.procedure, c.snapshot = spec.Procedure, s.Snapshot()
		rule := auth.RuleOf(spec.Procedure)
		presented := codec.Presented{}
		if c.Kind == auth.Gateway {
			presented = codec.PresentedIn(ctx)
			c.Remote, c.named = presented.RemoteAddr, presented.Task
		}
		a := &arrival{ServerStream: stream, body: c.body, within: s.messageTime}
		if c.Kind == auth.Gateway && rule.Allows(auth.KeyHolder) {
			return s.keyed(ctx, &c, presented.Key, rule, a, func(ctx context.Context) error { return next(c.with(ctx), spec, a) })
		}
		if c.Kind == auth.Remote {
			return s.remoteCall(ctx, &c, rule, a, func(ctx context.Context) error { return next(c.with(ctx), spec, a) })
		}
		if err := s.allowed(&c, rule); err != nil {
			if info, ok := connect.CallInfoForServerContext(ctx); ok {
				info.ResponseHeader().Set("Connection", "close") // what may still come is not read
			}
			return err
		}
		a.decide = func() error {
			caller, err := c.identify(ctx)
			caller.Remote = c.Remote
			c.Caller, c.snapshot = caller, s.Snapshot()
			if err != nil {
				return s.unknown(c.procedure, c.Caller, err)
			}
			return s.allowed(&c, rule)
		}
		return next(c.with(ctx), spec, a)
	}
}

// allowed returns an error if a local caller may not call the method of a rule.
func (s *Server) allowed(c *call, rule auth.Rule) error {
	if rule.Allows(c.Kind) {
		return nil
	}
	s.auditStranger(c.procedure, c.Caller, true)
	return connect.Errorf(connect.CodePermissionDenied, "permission denied: this needs more than user %s may do", c.Name())
}

// keyed makes the gateway's call that of the holder of a key, and has next make it, if the key is good. The context of next ends
// with auth.ErrUnauthorized as its cause when the key is revoked. The message of the call is a.
func (s *Server) keyed(ctx context.Context, c *call, presented []byte, rule auth.Rule, a *arrival, next func(context.Context) error) error {
	key, err := s.Keys.Verify(ctx, c.Remote, presented)
	switch {
	case errors.Is(err, auth.ErrUnauthorized):
		return s.unauthorized(c)
	case errors.Is(err, auth.ErrBusy):
		return s.refuse(c, "", fail(connect.CodeUnavailable, rtaskv1.KindUnavailable, err, retryIn(retryAfter)))
	case err != nil:
		return waitError(err)
	}
	c.Kind, c.Key = auth.KeyHolder, key
	if err := s.forTask(c, rule); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := func() {}
	defer func() { done() }()
	a.decide = func() error {
		d, ok := s.waits.add(cancel, key.ID)
		if !ok {
			return s.refuse(c, "", fail(connect.CodeResourceExhausted, rtaskv1.KindConcurrency,
				fmt.Errorf("too many requests of this key are under way: %d", s.waits.most), retryIn(retryAfter)))
		}
		if done = d; !s.Keys.Still(key) { // now that a revocation finds this call
			return s.unauthorized(c)
		}
		c.snapshot = s.Snapshot()
		return s.forTask(c, rule)
	}
	err = next(ctx)
	switch {
	case err == nil, a.refused:
	case errors.Is(context.Cause(ctx), auth.ErrUnauthorized):
		return s.unauthorized(c)
	case actionOf(c.procedure) == actionRead && kindOf(err) != rtaskv1.KindUnavailable:
		s.decide(c.decision(), "", err)
	}
	return err
}

// forTask looks up the task that a key is presented for.
func (s *Server) forTask(c *call, rule auth.Rule) error {
	refuse := func(task string, err error) error {
		if actionOf(c.procedure) == actionStart {
			s.Requested("", c.Key.Name, string(kindOf(err)))
		}
		return s.refuse(c, task, err)
	}
	cfg := c.snapshot.Config
	switch {
	case cfg == nil:
		return refuse("", noTasks())
	case !rule.Task:
		return nil
	}
	t := cfg.Tasks[c.named]
	switch {
	case t != nil && c.may(t):
		c.task = t
		return nil
	case t != nil:
		return refuse(t.Name, errOtherTask())
	default:
		return refuse("", errOtherTask())
	}
}

// errOtherTask is the answer for tasks that a key may not use, and for unknown ones.
func errOtherTask() error {
	return fail(connect.CodePermissionDenied, rtaskv1.KindForbidden, errors.New("this key may not use a task of this name"))
}

// noTasks is the error of a configuration with errors. What is wrong with it is the administrator's to know: `rtaskctl config
// check` and the journal say so.
func noTasks() error {
	return fail(connect.CodeUnavailable, rtaskv1.KindConfiguration, errors.New("the configuration has errors, so there are no tasks"))
}

// unauthorized is the refusal of a key that is not good.
func (s *Server) unauthorized(c *call) error {
	return s.refuse(c, "", fail(connect.CodeUnauthenticated, rtaskv1.KindUnauthorized, auth.ErrUnauthorized))
}

// refuse counts and logs a refusal, and returns it. The task is one of the configuration, or "".
func (s *Server) refuse(c *call, task string, err error) error {
	return s.refuseFor(c, task, errorText(err), err)
}

// refuseFor is refuse with a reason for the log alone.
func (s *Server) refuseFor(c *call, task, reason string, err error) error {
	d := c.decision()
	d.decision, d.kind, d.reason = refused, kindOf(err), reason
	s.Rejected(task, string(d.kind))
	s.audit(d)
	return err
}

// decision is the decision about a call, as far as it is known before there is one.
func (c *call) decision() decision {
	d := decision{action: actionOf(c.procedure), task: cut(c.named, longestTask), webhook: c.Webhook, remote: c.Remote}
	if c.Client.Serial != "" {
		d.subject, d.serial, d.provider, d.role = c.Client.Subject, c.Client.Serial, c.Client.Provider, roleNames(c.held)
		if grant := auth.RuleOf(c.procedure).Remote; d.action == "" && (grant == auth.Read || grant == auth.Always) {
			d.action = actionRead
		}
	}
	switch c.Kind {
	case auth.KeyHolder:
		d.key, d.keyID = c.Key.Name, c.Key.ID
	case auth.Gateway:
		d.stranger = true
	case auth.User, auth.Operator, auth.Admin:
		d.user = c.Name()
	case auth.Remote:
		if d.role = roleNames(c.roles); d.role == "" {
			d.role = roleNames(c.held)
		}
	case auth.Nobody:
		d.stranger = c.Client.Serial == ""
	}
	return d
}

// may reports whether the caller may start a task, and know of it.
func (c *call) may(t *config.Task) bool {
	switch {
	case c.AllObjects():
		return true
	case c.Kind == auth.KeyHolder:
		return slices.Contains(t.APIKeys, c.Key.Name)
	case c.Kind == auth.Remote:
		return slices.ContainsFunc(c.roles, func(r *config.Role) bool { return r.Has(t.Name) })
	case c.Kind != auth.User:
		return false
	case c.UserName != "" && slices.Contains(t.AllowUsers, c.UserName), slices.Contains(t.AllowUsers, fmt.Sprint(c.Peer.UID)):
		return true
	}
	return slices.ContainsFunc(t.AllowGroups, func(name string) bool {
		gid, err := job.LookupGroup(name)
		return err == nil && c.Peer.In(gid)
	})
}

// sees reports whether the caller may see and stop a job.
func (c *call) sees(j job.Job) bool {
	switch c.Kind {
	case auth.KeyHolder:
		return j.Owner.Key == c.Key.ID && c.task != nil && j.Task == c.task.Name
	case auth.User:
		return j.Owner.Key == "" && j.Owner.Subject == "" && j.Owner.UID == c.Peer.UID
	case auth.Remote:
		return slices.ContainsFunc(c.roles, func(r *config.Role) bool { return shows(r, c.Client.Subject, j) })
	default:
		return c.AllObjects()
	}
}

// as returns the call as if it were of another method of JobService, or nil if the caller may not use that.
func (c *call) as(procedure string) *call {
	rule, other := auth.RuleOf(procedure), *c
	other.procedure = procedure
	if c.Kind != auth.Remote {
		if !rule.Allows(c.Kind) {
			return nil
		}
		return &other
	}
	if other.roles = allowing(c.held, rule, path.Base(procedure)); len(other.roles) == 0 {
		return nil
	}
	return &other
}

// visible is job.Filter.Visible of what the caller sees.
func (c *call) visible() func(job.Job) bool {
	if c.AllObjects() {
		return nil
	}
	return c.sees
}

// owner is who owns the jobs that the caller starts.
func (c *call) owner() job.Owner {
	switch c.Kind {
	case auth.KeyHolder:
		return job.Owner{Key: c.Key.ID, Name: c.Key.Name}
	case auth.Remote:
		o := job.RemoteOwner(c.Client.Subject)
		if c.Client.URI != o.Subject {
			o.Identity = c.Client.URI
		}
		return o
	case auth.Sender:
		return job.Owner{UID: uint32(os.Geteuid()), Name: c.Name()}
	default:
		return job.Owner{UID: c.Peer.UID, Name: c.Name()}
	}
}

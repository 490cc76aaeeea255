package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
)

// lastWords is how long a call that is ended has to send why.
const lastWords = time.Second

// ended is why a call of a remote client is over before its time: it is the cause of its context's end.
type ended struct{ told *connect.Error }

// Error returns what the client is told.
func (e *ended) Error() string { return e.told.Message() }

// remoteCall has next make the call of a remote client, if a role allows it. It is decided once when its head has come, so that what
// is refused is not read; again when its message has; and again whenever something has changed, see Recheck. The context of next ends
// with the token, the certificate, and what allows the call. The message of the call is a.
func (s *Server) remoteCall(ctx context.Context, c *call, rule auth.Rule, a *arrival, next func(context.Context) error) error {
	refuse := func(err error) error {
		if info, ok := connect.CallInfoForServerContext(ctx); ok {
			challenge(info.ResponseHeader(), err)
		}
		return s.refuseRemote(c, err)
	}
	if err := s.forRole(c, rule); err != nil {
		return refuse(err)
	}
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	until, over := endOf(c.Client)
	inner, stop := context.WithDeadlineCause(inner, until, over)
	defer stop()
	done := func() {}
	defer func() { done() }()
	// From the message on c is the handler's, so that again does not read it.
	head := *c
	again := func() (call, error) {
		now := head
		var err error
		if now.Caller, err = head.identify(ctx); err == nil && now.Client.Subject != head.Client.Subject {
			err = fail(connect.CodeUnauthenticated, rtaskv1.KindTokenInvalid, errors.New("the call is another client's now"))
		}
		if now.snapshot = s.Snapshot(); err == nil {
			err = s.forRole(&now, rule)
		}
		return now, err
	}
	held := false
	a.decide = func() error {
		if held { // a further message of a stream, whose handler has c
			if now, err := again(); err != nil {
				return s.refuseRemote(&now, err)
			}
			return nil
		}
		check := func() error {
			now, err := again()
			if connect.CodeOf(err) == connect.CodeUnavailable {
				// The certificate is good, and the engine cannot check the token now (see tokenError). The call goes on until the token
				// ends, with the roles that there are now.
				now.Caller = head.Caller
				err = s.forRole(&now, rule)
			}
			return err
		}
		d, ok := s.waits.addChecked(cancel, remoteCalls(c.Client.Identity(), c.Client.Serial), check)
		if !ok {
			return refuse(fail(connect.CodeResourceExhausted, rtaskv1.KindConcurrency, fmt.Errorf("too many calls with this certificate are under way: %d", s.waits.most),
				retryIn(retryAfter)))
		}
		done, held = d, true
		var err error
		if *c, err = again(); err != nil { // now that Recheck finds this call
			return refuse(err)
		}
		return nil
	}
	// A client that does not read holds no call that is over: what is sent then fails.
	broken := make(chan struct{})
	stopBreaking := context.AfterFunc(inner, func() {
		defer close(broken)
		_ = a.body.conn.SetWriteDeadline(time.Now().Add(lastWords)) // without deadlines the client's end remains
	})
	err := next(inner)
	if !stopBreaking() {
		<-broken
	}
	why, isOver := errors.AsType[*ended](context.Cause(inner))
	switch {
	case err == nil, a.refused:
		return err
	case isOver:
		if kindOf(why.told) == rtaskv1.KindTokenExpired { // with the next one the client goes on
			return why.told
		}
		return s.refuseRemote(c, why.told)
	case errors.Is(context.Cause(inner), auth.ErrUnauthorized): // by waits.end
		return s.refuseRemote(c, fail(connect.CodeUnauthenticated, rtaskv1.KindCertificate, errors.New("the certificate was revoked")))
	case c.decision().action == actionRead && kindOf(err) != rtaskv1.KindUnavailable:
		s.decide(c.decision(), "", err)
	}
	return err
}

// remoteCalls is what waits calls the calls of a certificate: two authorities may give the same serial to two clients.
func remoteCalls(identity, serial string) string { return "certificate " + serial + " " + identity }

// endOf is when what a client has shown ends, and what it is told then.
func endOf(c auth.Client) (time.Time, error) {
	if c.TokenUntil.Before(c.Until) {
		return c.TokenUntil, &ended{fail(connect.CodeUnauthenticated, rtaskv1.KindTokenExpired, errors.New("the token has expired"))}
	}
	return c.Until, &ended{fail(connect.CodeUnauthenticated, rtaskv1.KindCertificateExpired, errors.New("the certificate has expired"))}
}

// Recheck decides the calls of remote clients that are under way anew, and ends those that are not allowed any more. The engine calls it
// when the configuration, a certificate or a key of tokens has changed, and once a minute, since clocks are set.
// It returns when these are over, or had their time to be: then their clients know why.
func (s *Server) Recheck() {
	if s.revoking.Load() > 0 { // Revoke ends its calls itself, and counts them
		return
	}
	late := time.NewTimer(lastWords)
	defer late.Stop()
	for _, gone := range s.recheck() {
		select {
		case <-gone:
		case <-late.C:
			return // a call may be the one that this waits in
		}
	}
}

// recheck is Recheck. It returns what is closed when the calls that it has ended are over, one for each.
func (s *Server) recheck() (gone []<-chan struct{}) {
	for _, one := range s.waits.checked() {
		err := one.check()
		if err == nil {
			continue
		}
		why := fail(connect.CodeUnauthenticated, rtaskv1.KindCertificate, err)
		if e, ok := errors.AsType[*connect.Error](err); ok {
			switch kind := kindOf(err); kind {
			case rtaskv1.KindRole, rtaskv1.KindTokenExpired, rtaskv1.KindTokenInvalid, rtaskv1.KindTokenBinding, rtaskv1.KindConfiguration,
				rtaskv1.KindCertificateExpired: // with the next one, a machine goes on
				why = e
			default: // whatever is wrong with the certificate, another one is needed
				why = fail(connect.CodeUnauthenticated, rtaskv1.KindCertificate, errors.New(errorText(err)))
			}
		}
		one.cancel(&ended{why})
		gone = append(gone, one.gone)
	}
	return gone
}

// refuseRemote counts and logs the refusal of a remote client's call, and returns it.
func (s *Server) refuseRemote(c *call, err error) error {
	d := c.decision()
	d.decision, d.kind, d.reason = refused, kindOf(err), errorText(err)
	s.RefusedRemote(string(d.kind), 1)
	s.audit(d)
	return err
}

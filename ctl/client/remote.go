package client

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"sync"

	"connectrpc.com/connect/v2"
)

// Credentials are what a client shows to a server. Several calls use them at the same time.
type Credentials interface {
	// Certificate returns the client certificate, with Leaf set. This is the one place where a certificate is renewed, by way of e.
	Certificate(ctx context.Context, e *Endpoint) (*tls.Certificate, error)
	// Token returns a token that is bound to the certificate: the one that is kept, if it is fresh and is not the refused one, or
	// one from fetch, which is kept then.
	Token(ctx context.Context, cert *tls.Certificate, refused string, fetch func(context.Context) (Token, error)) (Token, error)
}

// DialTLS returns a client of an engine on another machine. Nothing is connected before the first call. Each call shows a certificate
// and a token, which are renewed here before they end, and once more when the server refuses the token. Errors beside those of the
// engine are *Refused, *Skewed, *Problem, and ErrUnreachable.
func DialTLS(s Server, credentials Credentials) (*Client, error) {
	e, err := NewEndpoint(s)
	if err != nil {
		return nil, err
	}
	t := &tokens{endpoint: e, credentials: credentials}
	c := newClient(e, e.URL(), t.intercept)
	c.remote, c.close = e, e.Close
	return c, nil
}

// tokens puts a token into each call.
type tokens struct {
	endpoint    *Endpoint
	credentials Credentials

	// mu guards refused: the last token that the server took no more.
	mu      sync.Mutex
	refused string
}

// fresh returns a certificate and a token for a call.
func (t *tokens) fresh(ctx context.Context) (*tls.Certificate, Token, error) {
	cert, err := t.credentials.Certificate(ctx, t.endpoint)
	if err != nil {
		return nil, Token{}, local(err)
	}
	if err := t.endpoint.check(ctx, cert); err != nil {
		return nil, Token{}, err
	}
	t.mu.Lock()
	refused := t.refused
	t.mu.Unlock()
	token, err := t.credentials.Token(ctx, cert, refused, func(ctx context.Context) (Token, error) { return t.endpoint.Token(ctx, cert) })
	return cert, token, local(err)
}

// local marks an error of credentials that no server had a part in.
func local(err error) error {
	if err == nil || errors.As(err, new(*cut)) || errors.As(err, new(*Problem)) || errors.As(err, new(*Refused)) {
		return err
	}
	return &unusable{err}
}

// refuse notes that the server takes a token no more.
func (t *tokens) refuse(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused = token
}

func (t *tokens) intercept(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		s := &authorized{tokens: t, next: func(ctx context.Context) (connect.ClientStream, error) { return next(ctx, spec) }, ctx: ctx}
		if err := s.open(); err != nil {
			return nil, err
		}
		return s, nil
	}
}

// authorized is a call that is made once more with another token if its first reply is that the token is not good.
type authorized struct {
	*tokens
	next func(context.Context) (connect.ClientStream, error)
	ctx  context.Context

	token string
	// sent is the request: no method of the API takes several.
	sent any
	// settled is set once the server has replied with something else, or a second token was refused.
	settled bool

	// mu guards stream, which Close may want while Receive changes it, and closed.
	mu     sync.Mutex
	stream connect.ClientStream
	closed bool
}

// errClosed is the cause of a call that was given up while its token was renewed.
var errClosed = errors.New("the call was closed")

// open begins the call.
func (s *authorized) open() error {
	cert, token, err := s.fresh(s.ctx)
	if err != nil {
		return err
	}
	if info, ok := connect.CallInfoForClientContext(s.ctx); ok {
		info.RequestHeader().Set("Authorization", "Bearer "+token.Text)
	}
	stream, err := s.next(context.WithValue(s.ctx, certificateKey{}, cert))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = stream.Close() // nothing was sent on it
		return errClosed
	}
	s.token, s.stream = token.Text, stream
	return nil
}

func (s *authorized) current() connect.ClientStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream
}

// SendHeaders implements connect.ClientStream.
func (s *authorized) SendHeaders() error { return s.current().SendHeaders() }

// Send implements connect.ClientStream.
func (s *authorized) Send(m any) error {
	s.sent = m
	return s.current().Send(m)
}

// CloseSend implements connect.ClientStream.
func (s *authorized) CloseSend() error { return s.current().CloseSend() }

// Receive implements connect.ClientStream.
func (s *authorized) Receive(m any) error {
	err := s.current().Receive(m)
	if err == nil || !staleToken(err) {
		s.settled = true
		return s.explain(err)
	}
	s.refuse(s.token)
	if s.settled {
		return s.explain(err)
	}
	s.settled = true
	if err := s.again(); err != nil {
		return s.explain(err)
	}
	if err = s.current().Receive(m); err != nil && staleToken(err) {
		err = &refusedTwice{err}
	}
	return s.explain(err)
}

// again makes the call with another token.
func (s *authorized) again() error {
	if err := s.current().Close(); err != nil {
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	if err := s.current().Send(s.sent); err != nil {
		return err
	}
	return s.current().CloseSend()
}

// explain puts a refusal into the words for a server elsewhere, and adds that the clocks differ.
func (s *authorized) explain(err error) error {
	d, _ := Detail(err)
	if !refusedCall(err) && d.GetKind() != kindProviderKeys {
		return err
	}
	if text := Message(err); worded(s.endpoint.Host(), d.GetKind(), text) != text {
		err = &told{err, worded(s.endpoint.Host(), d.GetKind(), text)}
	}
	return s.endpoint.clock(err)
}

// Close implements connect.ClientStream.
func (s *authorized) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.current().Close()
}

// staleToken reports whether a call was refused, or ended, because of its token or because the certificate of its connection has ended, so
// that another one may help.
func staleToken(err error) bool {
	if !Answered(err) || connect.CodeOf(err) != connect.CodeUnauthenticated {
		return false
	}
	d, _ := Detail(err)
	return slices.Contains([]string{"token-missing", "token-expired", "token-binding", "token-invalid", "certificate-expired"}, d.GetKind())
}

// refusedTwice is a refusal of a token that was fetched just now, so that another one helps no more.
type refusedTwice struct{ error }

// Unwrap returns the refusal.
func (r *refusedTwice) Unwrap() error { return r.error }

package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/rtask/rtask/sandbox/wording"
)

// ErrUnreachable is returned when no connection to a server on another machine can be made.
var ErrUnreachable = errors.New("cannot reach the server")

// Cause is why a connection over mutual TLS was not made.
type Cause int

// The causes. The first two are found here, before a certificate is shown; the others are the server's alerts (RFC 8446, section 6.2).
const (
	// CertificateExpired is of one's own certificate, by this machine's clock.
	CertificateExpired Cause = iota + 1
	// AuthorityChanged means that the server's certificate is not one of the authority that is known for it.
	AuthorityChanged
	// CertificateRequired is the answer to a client without one.
	CertificateRequired
	// CertificateUnknown is the answer to a certificate of an authority that the server does not take.
	CertificateUnknown
	// CertificateExpiredThere is the answer to one that has expired, by the server's clock.
	CertificateExpiredThere
	// CertificateRefused is the answer to one that was revoked, or is otherwise not good.
	CertificateRefused
)

// alerts are the texts of the alerts, as crypto/tls words them: the type is not within reach of errors.As.
func alerts() map[string]Cause {
	return map[string]Cause{
		"remote error: tls: certificate required":          CertificateRequired,
		"remote error: tls: unknown certificate authority": CertificateUnknown,
		"remote error: tls: expired certificate":           CertificateExpiredThere,
		"remote error: tls: bad certificate":               CertificateRefused,
	}
}

// Refused is returned when one side does not take the other's certificate. No call was made.
type Refused struct {
	Cause Cause
	// Host is the server's name, Name what the account there is called.
	Host, Name string
	// Ago is how long ago one's own certificate expired.
	Ago time.Duration
	// Authority issued one's own certificate.
	Authority string
	// Want and Got are fingerprints of the server's authority, as far as they are known.
	Want, Got string
	// Apart is how far the clocks are from each other, 0 if that is not known.
	Apart time.Duration
	err   error
}

// Error implements error.
func (r *Refused) Error() string {
	switch r.Cause {
	case CertificateExpired:
		return fmt.Sprintf("your certificate for %s expired %s ago", r.Name, wording.Span(r.Ago, 1))
	case AuthorityChanged:
		if r.Want == "" {
			return fmt.Sprintf("cannot verify the certificate of %s: %v", r.Host, r.err)
		}
		return fmt.Sprintf("the authority of %s has changed: %s was expected, %s came", r.Host, r.Want, r.Got)
	case CertificateRequired:
		return r.Host + " wants a client certificate"
	case CertificateUnknown:
		return fmt.Sprintf("%s does not know the authority %q of your certificate", r.Host, r.Authority)
	case CertificateExpiredThere:
		if r.Apart == 0 {
			return r.Host + " takes your certificate for expired"
		}
		return fmt.Sprintf("%s takes your certificate for expired: its clock and yours differ by %s", r.Host, wording.Span(r.Apart.Round(10*time.Second), 1))
	case CertificateRefused:
		return r.Host + " refused your certificate; it may have been revoked"
	}
	return fmt.Sprint(r.err)
}

// Unwrap returns the error of the connection.
func (r *Refused) Unwrap() error { return r.err }

// clockApart is how far two clocks may be from each other before somebody is told.
const clockApart = time.Minute

// Skewed is a refusal by a server whose clock is more than a minute from this machine's, which may be the reason.
type Skewed struct {
	error
	Host string
	// Ahead is by how much the server's clock is ahead of this machine's.
	Ahead time.Duration
}

// Unwrap returns the refusal.
func (s *Skewed) Unwrap() error { return s.error }

// Clock is the sentence about the clocks.
func (s *Skewed) Clock() string {
	if s.Ahead < 0 {
		return fmt.Sprintf("your clock is %s ahead of %s's", wording.Span((-s.Ahead).Round(10*time.Second), 1), s.Host)
	}
	return fmt.Sprintf("your clock is %s behind %s's", wording.Span(s.Ahead.Round(10*time.Second), 1), s.Host)
}

// clock adds to a refusal that the clocks differ, if the last reply showed that.
func (e *Endpoint) clock(err error) error {
	if d := e.Ahead(); err != nil && d.Abs() > clockApart {
		if _, ok := errors.AsType[*Skewed](err); !ok {
			return &Skewed{err, e.host, d}
		}
	}
	return err
}

// refuse adds what is known of both sides to a refusal before there is any reply: where there was a certificate to show, it asks the
// server for the time. Without one the refusal is of such a question itself.
func (e *Endpoint) refuse(ctx context.Context, cert *tls.Certificate, r *Refused) error {
	r.Host, r.Name = e.host, e.server.Name
	if cert != nil && r.Cause != AuthorityChanged {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout/2)
		defer cancel()
		_, _ = e.Authority(ctx) // for its Date; the refusal stands without it
	}
	if d := e.Ahead(); r.Cause == CertificateExpiredThere && d.Abs() > clockApart {
		r.Apart = d.Abs()
	}
	return e.clock(r)
}

// expired reports whether a certificate has.
func expired(cert *tls.Certificate, now time.Time) bool { return now.After(cert.Leaf.NotAfter) }

// check looks at one's own certificate before it is shown.
func (e *Endpoint) check(ctx context.Context, cert *tls.Certificate) error {
	if now := time.Now(); expired(cert, now) {
		return e.refuse(ctx, cert, &Refused{Cause: CertificateExpired, Ago: now.Sub(cert.Leaf.NotAfter)})
	}
	return nil
}

// explain says what a failed request was. Reached is whether there was an earlier reply to the same certificate.
func (e *Endpoint) explain(ctx context.Context, cert *tls.Certificate, reached bool, err error) error {
	if ctx.Err() != nil {
		return err
	}
	if v, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e.refuse(ctx, cert, e.unverified(v))
	}
	if r := refusal(cert, err); r != nil {
		return e.refuse(ctx, cert, r)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return &cut{"cannot reach " + e.address + ": " + dialCause(op), true, err}
	}
	// What a server says of a certificate comes with the first read after the handshake, and may be lost where the connection breaks
	// while a request is sent. So ask again, and send nothing.
	if cert != nil && !reached {
		if r := refusal(cert, e.probe(ctx, cert)); r != nil {
			return e.refuse(ctx, cert, r)
		}
	}
	return &cut{"the connection to " + e.address + " broke: " + err.Error(), false, err}
}

// cut is a connection that was not made, or broke.
type cut struct {
	text string
	// unmade is whether it was never made.
	unmade bool
	err    error
}

// Error implements error.
func (c *cut) Error() string { return c.text }

// Is makes one that was never made an ErrUnreachable.
func (c *cut) Is(target error) bool { return c.unmade && target == ErrUnreachable }

// Unwrap returns the error of the connection.
func (c *cut) Unwrap() error { return c.err }

// unusable is returned where there is no certificate or token to show, for a reason on this machine.
type unusable struct{ error }

// Unwrap returns the reason.
func (u *unusable) Unwrap() error { return u.error }

// told is an engine's refusal in a sentence that names the server.
type told struct {
	error
	text string
}

// Unwrap returns the refusal.
func (t *told) Unwrap() error { return t.error }

// dialCause is why a connection could not be made, without the addresses.
func dialCause(op *net.OpError) string {
	if dns, ok := errors.AsType[*net.DNSError](op.Err); ok {
		if dns.IsNotFound {
			return "no such host"
		}
		return dns.Err
	}
	if op.Timeout() {
		return "no answer within " + dialTimeout.String()
	}
	err := op.Err
	for u := errors.Unwrap(err); u != nil; u = errors.Unwrap(err) { // connect: connection refused
		err = u
	}
	return err.Error()
}

// refusal is what an alert of the server means, or nil.
func refusal(cert *tls.Certificate, err error) *Refused {
	if err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
		return nil
	}
	for text, cause := range alerts() {
		if strings.Contains(err.Error(), text) {
			r := &Refused{Cause: cause, err: err}
			if cert != nil && cert.Leaf != nil {
				r.Authority = cert.Leaf.Issuer.CommonName
			}
			return r
		}
	}
	return nil
}

// probe shows a certificate to the server, and returns what it says.
func (e *Endpoint) probe(ctx context.Context, cert *tls.Certificate) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout/2)
	defer cancel()
	c := e.tls(cert)
	c.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{Config: c}).DialContext(ctx, "tcp", e.address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if d, ok := ctx.Deadline(); ok {
		if err := conn.SetReadDeadline(d); err != nil {
			return err
		}
	}
	_, err = conn.Read(make([]byte, 1)) // its settings (RFC 9113, section 3.4), or an alert
	return err
}

// unverified says why the server's certificate was not taken.
func (e *Endpoint) unverified(v *tls.CertificateVerificationError) *Refused {
	r := &Refused{Cause: AuthorityChanged, err: v.Err}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](v.Err); !ok || len(e.server.Roots) == 0 {
		return r
	}
	for _, c := range e.server.Roots {
		r.Want = Fingerprint(c)
	}
	last := v.UnverifiedCertificates[len(v.UnverifiedCertificates)-1]
	r.Got = fmt.Sprintf("one named %q", last.Issuer.CommonName)
	if last.IsCA {
		r.Got = Fingerprint(last)
	}
	return r
}

// refusedCall reports whether the engine refused a call because of its caller.
func refusedCall(err error) bool {
	code := connect.CodeOf(err)
	return Answered(err) && (code == connect.CodeUnauthenticated || code == connect.CodePermissionDenied)
}

// kindProviderKeys is the kind of a refusal for want of the keys of an OpenID provider.
const kindProviderKeys = "provider-keys"

// worded is a refusal in a sentence that names the server.
func worded(host, kind, text string) string {
	switch {
	case strings.Contains(text, host):
	case kind == "token-invalid" && !strings.HasPrefix(text, "this is an API key"):
		return host + " does not take this token: " + text
	case kind == "role":
		return text + " on " + host
	case kind == kindProviderKeys && strings.HasPrefix(text, "cannot "):
		return host + " " + text
	}
	return text
}

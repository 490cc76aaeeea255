package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

const (
	// enrollProtocol is the protocol (RFC 7301) of clients that have no certificate yet, or none that is good any more. A client that
	// offers others beside it is asked for a certificate.
	enrollProtocol = "rtask-enroll/1"
	// lastWords is how long a connection is kept open whose certificate is not good any more. The engine ends what goes on with it,
	// and says why.
	lastWords = 500 * time.Millisecond
)

// mutual is the TLS of the port where both ends show certificates: TLS 1.3 alone (RFC 8446), no session is resumed, so that each
// connection is decided on by the newest terms, and those that are open are, too, when terms change. The engine decides on each
// call again: what is checked here keeps strangers from everything behind it.
type mutual struct {
	watch    *watch
	refusals *refusals
	logger   *slog.Logger

	mu     sync.Mutex // guards what follows, and the fields of shown
	own    identity
	terms  *terms // of the newest trust
	open   map[*connection]*shown
	logged string // the problem that was logged last; "": that it is served
}

// shown is what the client of a connection has shown.
type shown struct {
	certificates []*x509.Certificate
	chains       [][]*x509.Certificate
	pool         *x509.CertPool // by which they were verified
	head         codec.Certificates
	refused      *refusal // it is not good any more
	closing      *time.Timer
}

func newMutual(w *watch, r *refusals, l *slog.Logger) *mutual {
	m := &mutual{watch: w, refusals: r, logger: l, terms: &terms{problem: errOff}, open: map[*connection]*shown{}, logged: "-"}
	w.told = m.enforce
	return m
}

// config returns the TLS configuration of a gateway that has a key.
func (m *mutual) config(own identity) *tls.Config {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.own = own
	m.terms = newTerms(m.terms.trust, own, m.terms)
	return &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, GetConfigForClient: m.configFor}
}

// configFor is how it is spoken with a client. Without terms the handshake ends with the alert internal_error.
func (m *mutual) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	ctx, cancel := context.WithTimeout(hello.Context(), askTimeout)
	defer cancel()
	t, err := m.newest(ctx)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, Certificates: []tls.Certificate{t.server},
		NextProtos: []string{"h2", "http/1.1"}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: t.pool,
		VerifyConnection: func(s tls.ConnectionState) error { return m.admit(hello.Conn, t.pool, s) },
	}
	if slices.Equal(hello.SupportedProtos, []string{enrollProtocol}) {
		c.NextProtos, c.ClientAuth, c.ClientCAs = []string{enrollProtocol}, tls.NoClientCert, nil
		c.VerifyConnection = func(tls.ConnectionState) error { return m.need(hello.Conn) }
	}
	return c, nil
}

// newest returns the terms by the engine's newest word, which holds while the engine is away.
func (m *mutual) newest(ctx context.Context) (*terms, error) {
	if state, err := m.watch.last(ctx); state == nil {
		m.log(err)
		return nil, err
	}
	m.mu.Lock()
	t := m.terms // what has come on the stream is in force before anybody is told of it
	m.mu.Unlock()
	if t.problem != nil {
		m.log(t.problem)
		return nil, t.problem
	}
	m.log(untimely(t.server, credentialRemoteKey, time.Now()))
	return t, nil
}

// log says once that nobody can be served, and once that clients are again.
func (m *mutual) log(problem error) {
	text := ""
	if problem != nil {
		text = problem.Error()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case text == m.logged:
		return
	case problem != nil: // handshakes fail, by the gateway's alert or by the client's
		m.logger.Error("remote clients are not served", "error", problem)
	case m.logged != "-": // else that it is served was logged when it was opened
		m.logger.Info("remote clients are served")
	}
	m.logged = text
}

// enforce puts terms in force, and ends the connections of certificates that are not good by them.
func (m *mutual) enforce(trust *rtaskv1.Trust) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.terms = newTerms(trust, m.own, m.terms)
	for c, s := range m.open {
		if s.refused != nil {
			continue
		}
		if err := m.judge(s); err != nil {
			s.refused, _ = errors.AsType[*refusal](err)
			s.closing = time.AfterFunc(lastWords, func() { _ = c.Close() }) // net/http notices
		}
	}
}

// judge returns why a client is not let in by the terms in force. mu is held.
func (m *mutual) judge(s *shown) error {
	if m.terms.pool != s.pool {
		chains, err := m.terms.verify(s.certificates, time.Now())
		if err != nil {
			return err
		}
		s.chains, s.pool = chains, m.terms.pool
	}
	return m.terms.admit(s.chains)
}

// need lets in a client that needs no certificate.
func (m *mutual) need(raw net.Conn) error {
	s := strangerOf(raw)
	if s == nil {
		return errForeign
	}
	s.heard.Store(true)
	s.proven.Store(true)
	return nil
}

// errForeign is for connections that did not come from this port's listener, which there are none of.
var errForeign = errors.New("the connection is not one of this port")

// admit decides on a client in the handshake, after crypto/tls has found chains to authorities of a pool. That the client has the key,
// too, shows after it: until then nothing of it is believed.
func (m *mutual) admit(raw net.Conn, pool *x509.CertPool, state tls.ConnectionState) error {
	below := strangerOf(raw)
	if below == nil {
		return errForeign
	}
	below.heard.Store(true)
	if err := bounded(state.PeerCertificates); err != nil {
		return err
	}
	s := &shown{certificates: state.PeerCertificates, chains: state.VerifiedChains, pool: pool}
	s.head.Leaf = s.certificates[0].Raw
	for _, c := range s.certificates[1:] {
		s.head.Chain = append(s.head.Chain, c.Raw)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.judge(s); err != nil { // by the terms in force, which may be newer than those of the handshake
		return err
	}
	m.open[raw.(*connection)] = s
	below.proven.Store(true)
	return nil
}

// of returns what the client of a request has shown, or why that is not good any more.
func (m *mutual) of(r *http.Request) (codec.Certificates, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.open[connectionOf(r)]
	switch {
	case s == nil || r.TLS == nil || !r.TLS.HandshakeComplete:
		return codec.Certificates{}, refuse(rtaskv1.KindCertificateMissing, "there is no client certificate")
	case s.refused != nil:
		return codec.Certificates{}, s.refused
	default:
		return s.head, nil
	}
}

// changed is for http.Server.ConnState: it forgets connections that are closed, and counts those whose handshake was refused.
func (m *mutual) changed(c net.Conn, state http.ConnState) {
	t, ok := c.(*tls.Conn)
	if state != http.StateClosed || !ok {
		return
	}
	if own, ok := t.NetConn().(*connection); ok {
		m.mu.Lock()
		if s := m.open[own]; s != nil && s.closing != nil {
			s.closing.Stop()
		}
		delete(m.open, own)
		m.mu.Unlock()
	}
	// The handshake is over, or has failed. It is not made again: this only says how it ended.
	if r := refusalOf(t.Handshake()); r != nil {
		m.refusals.add(t.RemoteAddr(), r)
	}
}

// noCertificate is what crypto/tls says of a client without a certificate. It has no type for that.
const noCertificate = "tls: client didn't provide a certificate"

// refusalOf returns why a handshake was refused, nil if it was not: a client that goes away, or does not trust the server, was not.
func refusalOf(err error) *refusal {
	if err == nil {
		return nil
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &refusal{kind: kindOfVerify(e.Err), text: described(e.UnverifiedCertificates[0]) + ": " + e.Err.Error()}
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "local error" { // an alert that was sent
		return &refusal{kind: rtaskv1.KindTLS, text: e.Err.Error()}
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return nil // it went away, or took too long; alerts that it sent are such errors, too
	}
	switch text := err.Error(); {
	case text == noCertificate:
		return &refusal{kind: rtaskv1.KindCertificateMissing, text: "the client has shown no certificate"}
	case strings.HasPrefix(text, "tls: "):
		return &refusal{kind: rtaskv1.KindTLS, text: text}
	default:
		return nil
	}
}

package control

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/auth/provider"
	"github.com/rtask/rtask/daemon/auth/token"
	"github.com/rtask/rtask/daemon/issuer"
)

// Certificates says whose a client certificate is. Its error is an *authority.Refusal.
type Certificates interface {
	Verify(leaf *x509.Certificate, chain []*x509.Certificate) (authority.Identity, error)
}

// Tokens says what a token is good for that came with a certificate. Its error is a *token.Refusal, or something is missing here.
type Tokens interface {
	Verify(raw []byte, leaf *x509.Certificate) (token.Claims, error)
}

// Shown is what a remote client has shown of itself.
type Shown struct {
	// Leaf is its certificate, and Chain what it sent beside that.
	Leaf  *x509.Certificate
	Chain []*x509.Certificate
	// Identity is whose the certificate is. It was good when the request came.
	Identity authority.Identity
	// Address is from where it calls, as the gateway says.
	Address string

	authorization []string // the headers of this name
}

// Remote returns the handler of the socket on which the gateway passes on what clients on other machines ask: the API, for those with a
// certificate and a token, and what the issuer serves, for those with a certificate.
func (s *Server) Remote() http.Handler { return s.remote(s.peer(s.Identify.Gateway)) }

// remote is Remote for a peer that peer identifies. It reads nothing of a request's body before it knows who asks.
func (s *Server) remote(peer identify) http.Handler {
	api := s.door(s.remoteHandler(), s.remoteCaller(peer))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown := &Shown{Address: codec.RemoteAddrIn(r.Header), authorization: r.Header.Values("Authorization")}
		r = r.WithContext(context.WithValue(r.Context(), shownKey{}, shown))
		caller, err := peer(r.Context())
		if err == nil {
			shown.Leaf, shown.Chain, err = s.parsed.certificates(r.Header)
			caller.Remote = shown.Address
		}
		if err != nil {
			s.turnAway(w, r, caller, err)
			return
		}
		if !isIssuers(r.URL.Path) {
			api.ServeHTTP(w, r)
			return
		}
		if caller, shown.Identity, err = s.certified(caller, shown); err != nil {
			s.turnAway(w, r, caller, err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxSmallRequest)
		s.Issuer(w, r, *shown)
	})
}

// isIssuers reports whether a path is one of the issuer's (RFC 8414, RFC 6749, RFC 7517, RFC 5280), for which a certificate is enough.
func isIssuers(path string) bool {
	switch path {
	case issuer.PathMetadata, issuer.PathJWKS, issuer.PathToken, issuer.PathCRL, issuer.PathRenew, issuer.PathRevoke:
		return true
	default:
		return false
	}
}

type shownKey struct{}

// remoteCaller says which client a call is of: one for which the gateway speaks, by its certificate and then by its token, as both are
// at that moment. The Caller of an error is as much as is known.
func (s *Server) remoteCaller(peer identify) identify {
	return func(ctx context.Context) (auth.Caller, error) {
		c, err := peer(ctx)
		shown, ok := ctx.Value(shownKey{}).(*Shown)
		if err == nil && (!ok || shown.Leaf == nil) {
			err = auth.ErrForbidden
		}
		if err != nil {
			return c, err
		}
		c.Remote = shown.Address
		if c, _, err = s.certified(c, shown); err != nil {
			return c, err
		}
		raw, err := token.Bearer(shown.authorization)
		if err != nil {
			return c, tokenError(err)
		}
		claims, err := s.Tokens.Verify(raw, shown.Leaf)
		if err != nil {
			return c, tokenError(err)
		}
		c.Kind = auth.Remote
		c.Client.Subject = claims.Subject
		c.Client.Groups = append(c.Client.Groups[:len(c.Client.Groups):len(c.Client.Groups)], claims.Groups...)
		c.Client.TokenID, c.Client.TokenFrom, c.Client.TokenUntil = claims.ID, claims.IssuedAt, claims.Expires
		c.Client.TokenRoles, c.Client.AnyRole = claims.Roles, claims.AnyRole
		return c, nil
	}
}

// certified adds to a caller whose certificate it has shown. Who only has that may call nothing.
func (s *Server) certified(c auth.Caller, shown *Shown) (auth.Caller, authority.Identity, error) {
	c.Kind = auth.Nobody
	id, err := s.Certificates.Verify(shown.Leaf, shown.Chain)
	if err != nil {
		kind := rtaskv1.KindCertificateUnknown
		if r, ok := errors.AsType[*authority.Refusal](err); ok {
			kind = rtaskv1.Kind(r.Kind)
		}
		return c, id, fail(connect.CodeUnauthenticated, kind, err)
	}
	c.Client = clientOf(id)
	return c, id, nil
}

// clientOf is a client as far as its certificate says who it is.
func clientOf(id authority.Identity) auth.Client {
	c := auth.Client{
		Subject: id.Name(), URI: id.URI, DN: id.Subject, Serial: id.Serial, Until: id.Until, Provider: id.Provider, ProviderSubject: id.ProviderSubject,
		Machine: id.Machine, Given: id.Roles,
	}
	if id.Provider != "" {
		c.Groups = []string{id.Provider}
		for _, g := range id.Groups {
			c.Groups = append(c.Groups, id.Provider+":"+g)
		}
	}
	return c
}

// keysRetryAfter is what a client is told whose provider has new keys that are being fetched.
const keysRetryAfter = 2 * time.Second

// tokenError is the refusal of a token.
func tokenError(err error) error {
	if r, ok := errors.AsType[*token.Refusal](err); ok {
		return fail(connect.CodeUnauthenticated, rtaskv1.Kind(r.Kind), err)
	}
	if r, ok := errors.AsType[*provider.Refusal](err); ok && r.Kind == provider.KindKeys {
		return fail(connect.CodeUnavailable, rtaskv1.KindProviderKeys, err, retryIn(keysRetryAfter))
	}
	return fail(connect.CodeUnavailable, rtaskv1.KindUnavailable, err)
}

// turnAway answers a request that is refused before its body is read.
func (s *Server) turnAway(w http.ResponseWriter, r *http.Request, c auth.Caller, err error) {
	err = s.unknown(r.URL.Path, c, err)
	if r.ProtoMajor == 1 { // of HTTP/2 it would end the gateway's connection, with the calls of others
		w.Header().Set("Connection", "close") // otherwise net/http reads on, to use the connection again
	}
	challenge(w.Header(), err)
	if !s.errors.IsSupported(r) {
		status := http.StatusForbidden
		if connect.CodeOf(err) != connect.CodePermissionDenied {
			status = kindOf(err).HTTPStatus()
		}
		http.Error(w, errorText(err), status)
		return
	}
	// Somebody who does not read the answer is no loss.
	_ = s.errors.Write(w, r, err)
}

// challenge says in the head of an answer what a client has to show.
func challenge(h interface{ Set(name, value string) }, err error) {
	if value := challengeOf(err); value != "" {
		h.Set("WWW-Authenticate", value)
	}
}

// challengeOf is what a client has to show that was refused (RFC 6750, section 3); "": nothing would help.
func challengeOf(err error) string {
	if connect.CodeOf(err) != connect.CodeUnauthenticated {
		return ""
	}
	value := "Bearer"
	if kind := kindOf(err); strings.HasPrefix(string(kind), "token-") && kind != token.Missing {
		value += fmt.Sprintf(` error="invalid_token", error_description="%s"`, strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' || r == '"' || r == '\\' {
				return '?'
			}
			return r
		}, errorText(err)))
	}
	return value
}

// unknown writes of a call whose caller is not let in, and returns what it is told.
func (s *Server) unknown(procedure string, c auth.Caller, err error) error {
	if e, ok := errors.AsType[*connect.Error](err); ok {
		return s.refuseRemote(&call{Caller: c, procedure: procedure}, e)
	}
	s.auditStranger(procedure, c, errors.Is(err, auth.ErrForbidden)) // else it could not be told who calls
	return connect.NewError(connect.CodePermissionDenied, strangerText)
}

// maxParsed is how many certificates are remembered as they were parsed, for the calls that come next.
const maxParsed = 128

// parsed are certificates by the headers in which they came. Only the gateway sends some, and it has verified them.
type parsed struct {
	mu sync.Mutex // guards of
	of map[string][]*x509.Certificate
}

// certificates returns what a client has shown, as the gateway says.
func (p *parsed) certificates(h http.Header) (leaf *x509.Certificate, chain []*x509.Certificate, err error) {
	key := strings.Join(h.Values("Client-Cert"), "\n") + "\n\n" + strings.Join(h.Values("Client-Cert-Chain"), "\n")
	p.mu.Lock()
	all := p.of[key]
	p.mu.Unlock()
	if all == nil {
		if all, err = parseCertificates(h); err != nil {
			return nil, nil, err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.of == nil || len(p.of) >= maxParsed {
			p.of = map[string][]*x509.Certificate{}
		}
		p.of[key] = all
	}
	return all[0], all[1:], nil
}

func parseCertificates(h http.Header) ([]*x509.Certificate, error) {
	refuse := func(kind rtaskv1.Kind, err error) ([]*x509.Certificate, error) {
		return nil, fail(connect.CodeUnauthenticated, kind, err)
	}
	c, err := codec.CertificatesIn(h)
	switch {
	case err != nil && h.Get("Client-Cert") == "":
		return refuse(rtaskv1.KindCertificateMissing, errors.New("the call came without a client certificate"))
	case err != nil:
		return refuse(rtaskv1.KindCertificateBad, err)
	}
	var all []*x509.Certificate
	for _, der := range append([][]byte{c.Leaf}, c.Chain...) {
		one, err := x509.ParseCertificate(der)
		if err != nil {
			return refuse(rtaskv1.KindCertificateBad, errors.New("what came as a client certificate is none"))
		}
		all = append(all, one)
	}
	return all, nil
}

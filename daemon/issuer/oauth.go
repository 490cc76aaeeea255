package issuer

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/auth/provider"
	"github.com/rtask/rtask/daemon/auth/token"
)

// The paths of the issuer. They need a client certificate, and no token.
const (
	PathMetadata = "/.well-known/oauth-authorization-server"
	PathJWKS     = "/jwks"
	PathToken    = "/token"
	PathCRL      = "/crl"
	PathRevoke   = "/revoke"
)

// The errors of RFC 6749, section 5.2, RFC 8707, section 2, and RFC 6749, section 4.1.2.1.
const (
	kindRequest     = "invalid_request"
	kindClient      = "invalid_client"
	kindGrantType   = "unsupported_grant_type"
	kindScope       = "invalid_scope"
	kindTarget      = "invalid_target"
	kindUnavailable = "temporarily_unavailable"
)

const (
	grantClient   = "client_credentials"
	grantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeAccess    = "urn:ietf:params:oauth:token-type:access_token"
	typeID        = "urn:ietf:params:oauth:token-type:id_token"
	typeJWT       = "urn:ietf:params:oauth:token-type:jwt"
)

// Client is who calls, as its certificate says, which was verified for this request.
type Client struct {
	Identity authority.Identity
	// Leaf is the certificate that the token is bound to.
	Leaf *x509.Certificate
	// Remote is the client's address, for the audit trail.
	Remote string
}

type clientKey struct{}

// WithClient returns a context for requests of a client whose certificate is good.
func WithClient(ctx context.Context, c Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// OAuth answers clients that have a certificate: it makes tokens for it, renews and revokes it. It is safe for concurrent use.
type OAuth struct {
	Authority *authority.Authority
	Tokens    *token.Issuer
	Providers *provider.Set
	// Roles are the names of the roles that the configuration gives to an identity that has groups beside its own: "PROVIDER" and
	// "PROVIDER:GROUP".
	Roles func(id authority.Identity, groups []string) []string
	// Ended ends what is under way for certificates that were revoked, and returns when it has ended.
	Ended func(context.Context, authority.Revocation)
	// TokenRevoked ends what is under way with tokens that are no longer good.
	TokenRevoked func()
	// Audit is told what became of a request that makes or ends something.
	Audit func(Client, Reply)
}

// token answers a request for a token (RFC 6749, section 3.2). The client is known by its certificate (RFC 8705, section 2.1).
func (o *OAuth) token(c Client, form form) Reply {
	if r, ok := checkClient(c, form); !ok {
		return r
	}
	switch grant := form.get("grant_type"); grant {
	case grantClient:
		return o.grant(c, form, provider.Login{})
	case grantExchange:
		return o.exchange(c, form)
	case "":
		return refusal("token", http.StatusBadRequest, kindRequest, "the request has no grant_type")
	default:
		return refusal("token", http.StatusBadRequest, kindGrantType, "grant_type must be "+grantClient+" or "+grantExchange)
	}
}

// checkClient checks that a request is for nobody but the client whose certificate it came with, and for no other server.
func checkClient(c Client, form form) (Reply, bool) {
	for _, secret := range []string{"client_secret", "client_assertion", "client_assertion_type"} {
		if form.has(secret) {
			return refusal("token", http.StatusUnauthorized, kindClient, "the certificate is what proves who the client is: leave out "+secret), false
		}
	}
	if form.has("client_id") && form.get("client_id") != c.Identity.Name() {
		return refusal("token", http.StatusUnauthorized, kindClient, "client_id is not the identity of the certificate, "+c.Identity.Name()), false
	}
	return Reply{}, true
}

// exchange is token exchange (RFC 8693): an outside provider's ID token is the subject, the certificate's owner the client.
func (o *OAuth) exchange(c Client, form form) Reply {
	bad := func(text string) Reply { return refusal("exchange", http.StatusBadRequest, kindRequest, text) }
	subject, kind := form.get("subject_token"), form.get("subject_token_type")
	switch {
	case subject == "":
		return bad("the request has no subject_token")
	case kind != typeID && kind != typeJWT:
		return bad("subject_token_type must be " + typeID)
	case form.has("actor_token") || form.has("actor_token_type"):
		return bad("an actor_token is not accepted: the certificate says who acts")
	case form.has("requested_token_type") && form.get("requested_token_type") != typeAccess:
		return bad("requested_token_type must be " + typeAccess)
	}
	l, err := o.Providers.UseOf([]byte(subject), c.Leaf.RawSubjectPublicKeyInfo)
	if err != nil {
		return loginFailure("exchange", err)
	}
	return o.grant(c, form, l)
}

// loginFailure is the answer where a provider's token is not taken.
func loginFailure(proof string, err error) Reply {
	r, ok := errors.AsType[*provider.Refusal](err)
	if !ok {
		reply := refusal(proof, http.StatusServiceUnavailable, kindUnavailable, "the engine cannot check logins at the moment")
		reply.Err = err
		return reply
	}
	text := r.Text
	if r.Kind == provider.KindToken && r.Provider != "" {
		text = r.Provider + ": " + text // for the audit trail, where there may be several
	}
	return refusal(proof, statusOf(r.Kind), r.Kind, text)
}

// grant makes a token that is bound to the client's certificate (RFC 8705, section 3). scope can narrow it to some of the roles.
func (o *OAuth) grant(c Client, form form, l provider.Login) Reply {
	proof := "token"
	claims := token.Claims{
		Subject: c.Identity.Name(), ClientID: c.Identity.Name(), Thumbprint: sha256.Sum256(c.Leaf.Raw), IssuedAt: time.Now(), Expires: c.Identity.Until,
	}
	if l.Provider != "" {
		proof = "exchange"
		claims.Subject, claims.Groups = l.Provider+":"+l.Subject, l.Names()
		if end := claims.IssuedAt.Add(l.Session); l.Session > 0 && end.Before(claims.Expires) {
			claims.Expires = end
		}
	}
	url, ttl := o.Tokens.Life()
	for _, name := range []string{"resource", "audience"} {
		if form.has(name) && form.get(name) != url {
			return refusal(proof, http.StatusBadRequest, kindTarget, name+" must be "+url)
		}
	}
	claims.Roles = o.Roles(c.Identity, claims.Groups)
	for scope := range strings.FieldsSeq(form.get("scope")) {
		if !slices.Contains(claims.Roles, scope) {
			return refusal(proof, http.StatusBadRequest, kindScope, "scope has something that is no role of "+c.Identity.Name())
		}
	}
	if form.has("scope") {
		claims.Roles = slices.DeleteFunc(claims.Roles, func(r string) bool { return !slices.Contains(strings.Fields(form.get("scope")), r) })
	}
	if end := claims.IssuedAt.Add(ttl); claims.Expires.After(end) {
		claims.Expires = end
	}
	_, ed := c.Leaf.PublicKey.(ed25519.PublicKey)
	claims.P256 = !ed // who has no such key may not be able to verify the signature of one, either
	text, err := o.Tokens.Make(claims)
	if errors.Is(err, token.ErrTooLong) {
		return refusal(proof, http.StatusBadRequest, kindRequest, fmt.Sprintf("%v (%d roles, %d groups)", err, len(claims.Roles), len(claims.Groups)))
	}
	if err != nil {
		r := refusal(proof, http.StatusServiceUnavailable, kindUnavailable, "no tokens can be made here at the moment")
		r.Err = err
		return r
	}
	answer := map[string]any{
		"access_token": text, "token_type": "Bearer", "expires_in": int64(claims.Expires.Sub(claims.IssuedAt) / time.Second), "scope": strings.Join(claims.Roles, " "),
	}
	if proof == "exchange" {
		answer["issued_token_type"] = typeAccess
	}
	return Reply{Status: http.StatusOK, Body: encode(answer), Proof: proof, Identity: &c.Identity}
}

// renew makes a machine's next certificate, for the key of a new request.
func (o *OAuth) renew(c Client, csr string) Reply {
	issued, err := o.Authority.Renew(c.Identity, []byte(csr), c.Remote)
	return certificate("renewal", issued, err)
}

// revokeToken makes one token useless (RFC 7009). One that is not good is no error (section 2.2).
func (o *OAuth) revokeToken(c Client, text string) Reply {
	claims, err := o.Tokens.Verify([]byte(text), c.Leaf)
	if err == nil {
		if err = o.Tokens.Revoke(claims); err == nil {
			o.TokenRevoked()
		}
	}
	if _, refused := errors.AsType[*token.Refusal](err); err != nil && !refused {
		r := refusal("revoke token", http.StatusServiceUnavailable, kindUnavailable, "no tokens can be revoked here at the moment")
		r.Err = err
		return r
	}
	return Reply{Status: http.StatusOK, Body: encode(struct{}{}), Proof: "revoke token", Identity: &c.Identity}
}

// revoke makes the certificate of the connection useless.
func (o *OAuth) revoke(ctx context.Context, c Client) Reply {
	revoked, err := o.Authority.RevokeOwn(c.Identity, c.Identity.Name())
	switch {
	case errors.Is(err, authority.ErrNoSuch):
		return refusal("revoke", http.StatusBadRequest, kindRequest, "another authority made this certificate: revoke it there")
	case err != nil:
		return failure("revoke", err)
	}
	o.Ended(ctx, revoked)
	return Reply{Status: http.StatusOK, Body: encode(struct{}{}), Proof: "revoke", Identity: &c.Identity}
}

// metadata is the authorization server's (RFC 8414, section 2; RFC 8705, sections 3.3 and 5). Every endpoint is behind mutual TLS, so
// each is its own alias.
func (o *OAuth) metadata() Reply {
	url, _ := o.Tokens.Life()
	if url == "" {
		return refusal("", http.StatusServiceUnavailable, kindUnavailable, "remote access is not configured")
	}
	endpoints := map[string]any{"token_endpoint": url + PathToken, "revocation_endpoint": url + PathRevoke}
	answer := map[string]any{
		"issuer": url, "jwks_uri": url + PathJWKS, "response_types_supported": []string{}, "grant_types_supported": []string{grantClient, grantExchange},
		"token_endpoint_auth_methods_supported": []string{"tls_client_auth"}, "revocation_endpoint_auth_methods_supported": []string{"tls_client_auth"},
		"tls_client_certificate_bound_access_tokens": true, "mtls_endpoint_aliases": endpoints,
	}
	for name, at := range endpoints {
		answer[name] = at
	}
	return Reply{Status: http.StatusOK, Body: encode(answer)}
}

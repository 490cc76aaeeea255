// Package login turns what somebody has at first into a proof for which a server issues a certificate: an ID token of an OpenID
// provider, by browser or device code; that of a CI platform; or the approval of an administrator. It reads no file, starts nothing, and
// shows texts by functions that it is given.
//
// Only package ctl imports it.
package login

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/rtask/rtask/ctl/client"
)

const (
	// requestTimeout is how long one request to a provider may take.
	requestTimeout = 30 * time.Second
	// personTimeout is how long a person may take in a browser.
	personTimeout = 10 * time.Minute
	// callback is the path of the redirect URI; the port is any (RFC 8252, section 7.3).
	callback = "/callback"
	// replyMax is the largest reply of a CI platform, in bytes.
	replyMax = 64 << 10
)

// Error is what went wrong with a login, in one sentence.
type Error struct {
	text string
	err  error
}

// Error implements error.
func (e *Error) Error() string { return e.text }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.err }

func failed(err error, format string, args ...any) error {
	return &Error{fmt.Sprintf(format, args...), err}
}

// Nonce binds an ID token of a browser to the key of a certificate request.
func Nonce(public crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(spki)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// provider is an OpenID provider that was found.
type provider struct {
	client.Provider
	conf oauth2.Config
	http *http.Client
}

// find asks a provider where its endpoints are.
func find(ctx context.Context, p client.Provider) (*provider, error) {
	if err := secure(p.Issuer); err != nil {
		return nil, failed(err, "the issuer of provider %s is %v", p.Name, err)
	}
	f := &provider{Provider: p, http: &http.Client{Timeout: requestTimeout}}
	found, err := oidc.NewProvider(oidc.ClientContext(ctx, f.http), p.Issuer)
	if err != nil {
		return nil, failed(err, "cannot reach provider %s: %v", p.Name, cause(err))
	}
	endpoint := found.Endpoint()
	// A client without a secret says its client_id in the form. Trying the other way first would spoil a device flow, whose first answer
	// is an error.
	endpoint.AuthStyle = oauth2.AuthStyleInParams
	if p.DeviceURL != "" {
		endpoint.DeviceAuthURL = p.DeviceURL
	}
	for _, u := range []string{endpoint.AuthURL, endpoint.TokenURL, endpoint.DeviceAuthURL} {
		if u == "" {
			continue
		}
		if err := secure(u); err != nil {
			return nil, failed(err, "an endpoint of provider %s is %v", p.Name, err)
		}
	}
	scopes := p.Scopes
	if !slices.Contains(scopes, oidc.ScopeOpenID) {
		scopes = append([]string{oidc.ScopeOpenID}, scopes...)
	}
	f.conf = oauth2.Config{ClientID: p.ClientID, Endpoint: endpoint, Scopes: scopes}
	return f, nil
}

// secure refuses URLs by which others could read what is sent. Those of this machine are good enough without TLS.
func secure(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return fmt.Errorf("%q, which is no URL", text)
	}
	if u.Scheme == "https" {
		return nil
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && ip.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%q, which does not begin with https://", text)
}

// cause is what kept a request from its server, without the request.
func cause(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		if u.Timeout() {
			return errors.New("it does not answer in time")
		}
		return u.Err
	}
	return err
}

func (p *provider) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, p.http)
}

// idToken takes the ID token out of a provider's reply.
func (p *provider) idToken(t *oauth2.Token, err error) (string, error) {
	if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		switch e.ErrorCode {
		case "access_denied":
			return "", failed(err, "the login at provider %s was denied", p.Name)
		case "expired_token":
			return "", failed(err, "the code of provider %s has expired", p.Name)
		case "":
			return "", failed(err, "provider %s answers with HTTP status %d", p.Name, e.Response.StatusCode)
		}
		return "", failed(err, "provider %s refuses: %s", p.Name, strings.TrimSuffix(e.ErrorCode+": "+e.ErrorDescription, ": "))
	}
	if err != nil {
		return "", failed(err, "the login at provider %s failed: %v", p.Name, cause(err))
	}
	id, ok := t.Extra("id_token").(string)
	if !ok || id == "" {
		return "", failed(nil, "provider %s sends no ID token", p.Name)
	}
	return id, nil
}

// Device logs in with a code that a person types anywhere (RFC 8628). Show tells them where.
func Device(ctx context.Context, of client.Provider, show func(url, code string)) (idToken string, err error) {
	p, err := find(ctx, of)
	if err != nil {
		return "", err
	}
	if p.conf.Endpoint.DeviceAuthURL == "" {
		return "", failed(nil, "provider %s has no login by device code; its device_authorization_url can be configured", p.Name)
	}
	verifier := oauth2.GenerateVerifier() // some providers want it here, too
	code, err := p.conf.DeviceAuth(p.context(ctx), oauth2.S256ChallengeOption(verifier))
	if err != nil {
		_, err = p.idToken(nil, err)
		return "", err
	}
	where := code.VerificationURIComplete
	if where == "" {
		where = code.VerificationURI
	}
	show(where, code.UserCode)
	t, err := p.conf.DeviceAccessToken(p.context(ctx), code, oauth2.VerifierOption(verifier))
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return "", failed(err, "the code of provider %s has expired", p.Name)
	}
	return p.idToken(t, err)
}

// Browser logs in with a browser of this machine, by the authorization code with PKCE (RFC 8252, 7636). Show tells a person what to open.
func Browser(ctx context.Context, of client.Provider, nonce string, show func(url string)) (idToken string, err error) {
	p, err := find(ctx, of)
	if err != nil {
		return "", err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("cannot wait for the browser: %w", err)
	}
	p.conf.RedirectURL = "http://" + l.Addr().String() + callback
	state, verifier := rand.Text(), oauth2.GenerateVerifier()
	back := make(chan url.Values, 1)
	server := &http.Server{
		ReadTimeout: requestTimeout, WriteTimeout: requestTimeout, MaxHeaderBytes: 32 << 10,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			q := r.URL.Query()
			if r.Method != http.MethodGet || r.URL.Path != callback || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) != 1 {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			w.Header().Set("Connection", "close")
			text := "This page has done its part. The terminal says how it goes on; you can close this window.\n"
			_, _ = io.WriteString(w, text) // the browser may be gone
			select {
			case back <- q:
			default: // it was opened again
			}
		}),
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(stop) != nil { // the answer may still be on its way
			_ = server.Close()
		}
		<-served
	}()
	show(p.conf.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier), oidc.Nonce(nonce)))
	wait, cancel := context.WithTimeout(ctx, personTimeout)
	defer cancel()
	select {
	case <-wait.Done():
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", failed(wait.Err(), "nobody has logged in within %s", "10 min")
	case q := <-back:
		if code := q.Get("error"); code != "" {
			return p.idToken(nil, &oauth2.RetrieveError{ErrorCode: code, ErrorDescription: q.Get("error_description")})
		}
		return p.idToken(p.conf.Exchange(p.context(ctx), q.Get("code"), oauth2.VerifierOption(verifier)))
	}
}

// The variables by which GitHub Actions lets a job get an ID token, if its permissions have id-token: write.
const (
	GitHubURL   = "ACTIONS_ID_TOKEN_REQUEST_URL"
	githubToken = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
)

// GitHub gets an ID token of the workflow that this process is part of. Lookup returns variables of the environment.
func GitHub(ctx context.Context, lookup func(string) string, audience string) (idToken string, err error) {
	u, err := url.Parse(lookup(GitHubURL))
	if err != nil {
		return "", failed(err, "%s is no URL", GitHubURL)
	}
	if err := secure(u.String()); err != nil {
		return "", failed(err, "%s is %v", GitHubURL, err)
	}
	q := u.Query()
	q.Set("audience", audience)
	u.RawQuery = q.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return "", err
	}
	r.Header.Set("Authorization", "Bearer "+lookup(githubToken))
	r.Header.Set("Accept", "application/json")
	response, err := (&http.Client{Timeout: requestTimeout}).Do(r)
	if err != nil {
		return "", failed(err, "cannot reach GitHub for an ID token: %v", cause(err))
	}
	defer func() { _ = response.Body.Close() }()
	var reply struct {
		Value string `json:"value"`
	}
	err = json.NewDecoder(io.LimitReader(response.Body, replyMax)).Decode(&reply)
	if response.StatusCode != http.StatusOK || err != nil || reply.Value == "" {
		return "", failed(err, "GitHub gives no ID token (HTTP status %d): the workflow needs permissions: id-token: write", response.StatusCode)
	}
	return reply.Value, nil
}

const (
	// keysPause is between two tries while the server gets a new key of a provider, and keysTries how many there are.
	keysPause = 2 * time.Second
	keysTries = 5
)

// Enroll gets a certificate for a provider's ID token. A server that does not know the key of the token yet, since the provider has a
// new one, fetches it; it is asked again for a while.
func Enroll(ctx context.Context, e *client.Endpoint, csr string, p client.Proof) (client.Enrolled, error) {
	for try := 1; ; try++ {
		got, err := e.Enroll(ctx, csr, p)
		if try == keysTries || !client.IsProblem(err, "provider-keys") {
			return got, err
		}
		t := time.NewTimer(keysPause)
		select {
		case <-ctx.Done():
			t.Stop()
			return got, context.Cause(ctx)
		case <-t.C:
		}
	}
}

// Approval gets a certificate for a request once an administrator of the server approves it. Show tells a person the code.
func Approval(ctx context.Context, e *client.Endpoint, csr, name string, show func(code string)) (client.Enrolled, error) {
	code, err := e.AskDevice(ctx, csr, name)
	if err != nil {
		return client.Enrolled{}, err
	}
	show(code.UserCode)
	const slower = 5 * time.Second // RFC 8628, section 3.5
	interval := time.Duration(max(code.Interval, 1)) * time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(code.ExpiresIn)*time.Second, failed(nil, "nobody at %s has approved the code in time", e.Host()))
	defer cancel()
	for {
		t := time.NewTimer(interval)
		select {
		case <-ctx.Done():
			t.Stop()
			return client.Enrolled{}, context.Cause(ctx)
		case <-t.C:
		}
		got, err := e.PollDevice(ctx, code.DeviceCode)
		switch {
		case err == nil:
			return got, nil
		case ctx.Err() != nil:
			return client.Enrolled{}, context.Cause(ctx)
		case client.IsProblem(err, "authorization_pending"):
		case client.IsProblem(err, "slow_down"):
			interval += slower
		case client.IsProblem(err, "access_denied"):
			return got, failed(err, "an administrator of %s has denied the login", e.Host())
		case client.IsProblem(err, "expired_token"):
			return got, failed(err, "nobody at %s has approved the code in time", e.Host())
		case errors.Is(err, client.ErrUnreachable) || client.Broken(err): // the code is still good when the server is back
		default:
			return got, err
		}
	}
}

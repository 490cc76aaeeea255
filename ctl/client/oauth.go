package client

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/url"
	"sync"
	"time"
)

// A token is renewed when this is left of it, or a fifth of its life if that is less.
const tokenLeft = 5 * time.Minute

// Token is an access token that is bound to a client certificate (RFC 8705, section 3).
type Token struct {
	// Text is the token itself. It is never shown.
	Text string
	// Until is when it ends, and Since when it was fetched, both by this machine's clock.
	Since, Until time.Time
}

// Fresh reports whether a token is good for a while.
func (t Token) Fresh(now time.Time) bool {
	return t.Text != "" && t.Until.Sub(now) >= min(tokenLeft, t.Until.Sub(t.Since)/5)
}

// Token fetches a token for a client certificate (RFC 6749, section 4.4, with the client authentication of RFC 8705, section 2.1).
func (e *Endpoint) Token(ctx context.Context, cert *tls.Certificate) (Token, error) {
	now := time.Now()
	var reply struct {
		Token     string `json:"access_token"`
		ExpiresIn int64  `json:"expires_in"`
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	err := e.post(ctx, cert, "/token", "application/x-www-form-urlencoded", []byte(form.Encode()), &reply)
	if err != nil {
		return Token{}, err
	}
	if reply.Token == "" || reply.ExpiresIn <= 0 {
		return Token{}, errors.New(e.host + " answers /token without a token")
	}
	return Token{Text: reply.Token, Since: now, Until: now.Add(time.Duration(min(reply.ExpiresIn, 1<<31)) * time.Second)}, nil
}

// Revoke makes the server refuse the certificate from now on.
func (e *Endpoint) Revoke(ctx context.Context, cert *tls.Certificate) error {
	return e.post(ctx, cert, "/revoke", "application/json", []byte("{}"), nil)
}

// Renew gets a certificate for another key. The proof is the old certificate: shown in the handshake, or, where it has expired, by a
// signature of its key over the request.
func (e *Endpoint) Renew(ctx context.Context, old *tls.Certificate, csr string) (Enrolled, error) {
	if expired(old, time.Now()) {
		return e.renewExpired(ctx, old, csr)
	}
	body, err := json.Marshal(map[string]string{"csr": csr})
	if err != nil {
		return Enrolled{}, err
	}
	var reply Enrolled
	err = e.post(ctx, old, "/renew", "application/json", body, &reply)
	return reply, err
}

// Tokens keeps the token of one process in memory. The zero value is ready.
type Tokens struct {
	mu   sync.Mutex
	of   string
	kept Token
}

// Token returns the kept token if it is fresh, of this certificate, and not the one that was refused; else one from fetch. Calls at
// the same time fetch once.
func (t *Tokens) Token(ctx context.Context, cert *tls.Certificate, refused string, fetch func(context.Context) (Token, error)) (Token, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if of := string(cert.Certificate[0]); t.of != of {
		t.of, t.kept = of, Token{}
	}
	if t.kept.Fresh(time.Now()) && t.kept.Text != refused {
		return t.kept, nil
	}
	token, err := fetch(ctx)
	if err != nil {
		return Token{}, err
	}
	t.kept = token
	return token, nil
}

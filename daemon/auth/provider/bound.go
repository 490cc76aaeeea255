package provider

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/rtask/rtask/daemon/auth/token"
)

// Tokens verifies the access tokens of calls: rtask's own, and those of providers that bind theirs to a certificate.
type Tokens struct {
	Own       *token.Issuer
	Providers *Set
}

// Verify is token.Issuer.Verify, also for tokens of providers with Bound. The groups of such a token are in Groups. The error is a
// *token.Refusal, a *Refusal with KindKeys, or another one if the engine cannot do its part.
func (t Tokens) Verify(raw []byte, leaf *x509.Certificate) (token.Claims, error) {
	var refused error
	for p, signed := range t.Providers.of(raw, func(p *provider) bool { return p.Bound }) {
		c, err := t.Providers.verifyBound(p, signed, leaf)
		if err == nil || !refuses(err) { // as in UseOf
			return c, err
		}
		refused = orKeys(refused, err)
	}
	if refused != nil {
		return token.Claims{}, refused
	}
	return t.Own.Verify(raw, leaf)
}

// verifyBound makes the checks of token.Issuer.Verify with the provider's keys, issuer and audience.
func (s *Set) verifyBound(p *provider, signed *token.Signed, leaf *x509.Certificate) (token.Claims, error) {
	now := time.Now()
	if refusal := token.CheckType(signed.Type); refusal != nil {
		return token.Claims{}, refusal
	}
	claims, err := s.verify(p, signed, now)
	if err != nil {
		return token.Claims{}, p.asToken(err)
	}
	c, err := token.Check(claims, token.Rules{Issuer: p.Issuer, Audience: p.Audience, MaxLife: p.Session, Late: late}, sha256.Sum256(leaf.Raw), now)
	if err != nil {
		return token.Claims{}, err
	}
	if err := p.checkRequire(claims); err != nil {
		return token.Claims{}, p.asToken(err)
	}
	l, err := p.login(claims)
	if err != nil {
		return token.Claims{}, p.asToken(err)
	}
	c.Subject, c.Groups, c.AnyRole = fmt.Sprintf("%s:%s", p.Name, l.Subject), l.Names(), true
	return c, nil
}

// asToken makes a refusal of a token one of package token, which every caller knows.
func (p *provider) asToken(err error) error {
	if r, ok := errors.AsType[*Refusal](err); ok && r.Kind == KindToken {
		return &token.Refusal{Kind: token.Invalid, Claim: r.Claim, Text: r.Text}
	}
	return err
}

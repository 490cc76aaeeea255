package provider

import (
	"errors"
	"fmt"

	"github.com/rtask/rtask/daemon/auth/token"
)

// The kinds of a Refusal. They are part of the API.
const (
	// KindToken: the token is not taken.
	KindToken = "provider-token"
	// KindKeys: rtask does not have the provider's keys at the moment, so the same token may be good later.
	KindKeys = "provider-keys"
)

// Refusal says why a provider's token is not taken.
type Refusal struct {
	// Kind is KindToken or KindKeys.
	Kind string
	// Provider is the name of the provider, empty if there is none. Claim is what the refusal is about, such as "aud", or empty.
	Provider, Claim string
	// Text is a part of a sentence, of printable characters.
	Text string
}

// Error returns the text.
func (r *Refusal) Error() string { return r.Text }

// refuses reports whether an error is about a token. Any other is about the engine.
func refuses(err error) bool {
	_, ours := errors.AsType[*Refusal](err)
	_, tokens := errors.AsType[*token.Refusal](err)
	return ours || tokens
}

func (p *provider) refuse(claim, format string, args ...any) error {
	return &Refusal{Kind: KindToken, Provider: p.Name, Claim: claim, Text: fmt.Sprintf(format, args...)}
}

// from makes a Refusal of one of package token.
func (p *provider) from(r *token.Refusal) error {
	return &Refusal{Kind: KindToken, Provider: p.Name, Claim: r.Claim, Text: r.Text}
}

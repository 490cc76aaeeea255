package token

import (
	"errors"
	"fmt"
	"strconv"
)

// The kinds of a Refusal. They are part of the API: clients tell by them what to do.
const (
	// Missing: the call has no token.
	Missing = "token-missing"
	// Expired: the token was good once. A new one helps.
	Expired = "token-expired"
	// Binding: the token was made for another certificate. A new one helps.
	Binding = "token-binding"
	// Invalid: everything else.
	Invalid = "token-invalid"
)

// Refusal says why a token is not taken.
type Refusal struct {
	// Kind is Missing, Expired, Binding or Invalid.
	Kind string
	// Claim is the claim or the member of the header that the refusal is about, such as "aud"; empty if it is about the whole.
	Claim string
	// Text is a part of a sentence: what is wrong, and what would be right. It has nothing of the token but printable text.
	Text string
}

// Error returns the text.
func (r *Refusal) Error() string { return r.Text }

// ErrLocked is returned while the secret that the signing keys are encrypted with is not known, so nothing can be made or verified.
var ErrLocked = errors.New("the signing keys cannot be read yet: rtaskctl ca init makes the secret that they are encrypted with")

// ErrKeysLost is returned when the signing keys are encrypted with another secret or damaged. New ones replace them.
var ErrKeysLost = errors.New("the signing keys cannot be decrypted: new ones replace them, so clients have to get new tokens")

// ErrTooLong is returned by Make for a client with so many roles or groups that nobody would take its token.
var ErrTooLong = errors.New("the client has too many roles or groups for one token")

// ErrNotConfigured is returned while there is no URL that tokens could be made for.
var ErrNotConfigured = errors.New("remote access is not configured")

func invalid(claim, format string, args ...any) *Refusal {
	return &Refusal{Kind: Invalid, Claim: claim, Text: fmt.Sprintf(format, args...)}
}

// shown returns a text of a stranger's as it may stand in an error: printable, and not longer than 200 bytes.
func shown(s string) string {
	const most = 200
	cut := ""
	if len(s) > most {
		s, cut = s[:most], "…"
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return strconv.QuoteToASCII(s) + cut
		}
	}
	if s == "" {
		return `""`
	}
	return s + cut
}

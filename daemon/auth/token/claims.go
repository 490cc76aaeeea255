package token

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"slices"
	"strings"
	"time"
)

// Claims are what an access token says.
type Claims struct {
	// Subject is the identity that the token speaks for, and ClientID the one it was made for. They are the same, but in a token of an
	// outside provider.
	Subject, ClientID string
	// ID tells the token from all others.
	ID string
	// IssuedAt and Expires count in whole seconds.
	IssuedAt, Expires time.Time
	// Thumbprint is the SHA-256 of the certificate that the token is bound to (RFC 8705, section 3.1).
	Thumbprint [sha256.Size]byte
	// Roles are the names of roles that the token may use, as far as the configuration still grants them.
	Roles []string
	// AnyRole says that the token is of an outside provider, which knows nothing of roles: it may use all.
	AnyRole bool

	// Groups are names of groups that the subject belongs to where it logged in, "PROVIDER" and "PROVIDER:GROUP", for tokens that an
	// outside provider vouches for.
	Groups []string

	// P256 asks Make for a signature of ES256, for those that cannot verify Ed25519.
	P256 bool
}

// Rules are what Check asks of the claims of an access token.
type Rules struct {
	Issuer, Audience string
	// MaxLife is the longest time between iat and exp. 0: any.
	MaxLife time.Duration
	// Late is how long before nbf a token is taken, for issuers with a clock of their own.
	Late time.Duration
}

// clockStep is how far iat may lie in the future: the clock may have been set back since.
const clockStep = time.Minute

// Check checks the claims of an access token whose signature is good (RFC 9068, section 4, and RFC 8705, section 3.1), in this order:
// iss, aud, that the others are there, the times, and that the token is bound to the certificate with a thumbprint. Every error is a
// *Refusal.
func Check(all map[string]any, r Rules, thumbprint [sha256.Size]byte, now time.Time) (Claims, error) {
	var c Claims
	if refusal := checkIssuer(all, r.Issuer); refusal != nil {
		return Claims{}, refusal
	}
	if refusal := CheckAudience(all, r.Audience); refusal != nil {
		return Claims{}, refusal
	}
	var refusal *Refusal
	if c.Expires, refusal = Time(all, "exp"); refusal != nil {
		return Claims{}, refusal
	}
	if c.IssuedAt, refusal = Time(all, "iat"); refusal != nil {
		return Claims{}, refusal
	}
	for _, text := range []struct {
		name string
		to   *string
	}{{"sub", &c.Subject}, {"client_id", &c.ClientID}, {"jti", &c.ID}} {
		if *text.to, refusal = Text(all, text.name); refusal != nil {
			return Claims{}, refusal
		}
	}
	if refusal := checkTimes(all, &c, r, now); refusal != nil {
		return Claims{}, refusal
	}
	if c.Thumbprint, refusal = confirmation(all); refusal != nil {
		return Claims{}, refusal
	}
	if subtle.ConstantTimeCompare(c.Thumbprint[:], thumbprint[:]) != 1 {
		return Claims{}, &Refusal{Kind: Binding, Claim: "cnf", Text: "the token is bound to another certificate"}
	}
	return c, nil
}

func checkIssuer(all map[string]any, want string) *Refusal {
	got, refusal := Text(all, "iss")
	if refusal != nil {
		return refusal
	}
	if got != want || want == "" {
		return invalid("iss", "issuer is %s, and must be %s", shown(got), want)
	}
	return nil
}

// CheckAudience checks that a token is for one audience and no other. aud is a text, or a list with this one text in it (RFC 7519,
// section 4.1.3).
func CheckAudience(all map[string]any, want string) *Refusal {
	v, ok := all["aud"]
	if !ok {
		return missing("aud")
	}
	list, isList := v.([]any)
	if !isList {
		list = []any{v}
	}
	if len(list) > 1 {
		return invalid("aud", "the token has %d audiences, and must have one: %s", len(list), want)
	}
	if len(list) == 0 {
		return missing("aud")
	}
	got, ok := list[0].(string)
	if !ok {
		return invalid("aud", "audience is not a text")
	}
	if got != want || want == "" {
		return invalid("aud", "audience is %s, and must be %s", shown(got), want)
	}
	return nil
}

func checkTimes(all map[string]any, c *Claims, r Rules, now time.Time) *Refusal {
	if !now.Before(c.Expires) {
		return expired(c.Expires)
	}
	if c.IssuedAt.After(now.Add(clockStep)) {
		return invalid("iat", "the token was issued in the future (iat)")
	}
	if _, ok := all["nbf"]; ok {
		from, refusal := Time(all, "nbf")
		if refusal != nil {
			return refusal
		}
		if from.After(now.Add(r.Late)) {
			return invalid("nbf", "the token is not good yet (nbf)")
		}
	}
	life := c.Expires.Sub(c.IssuedAt)
	if life <= 0 {
		return invalid("exp", "the token expires before it was issued (exp)")
	}
	if r.MaxLife > 0 && life > r.MaxLife {
		return invalid("exp", "the token is good for %v, and may be for %v at most (exp)", life, r.MaxLife)
	}
	return nil
}

// confirmation returns the thumbprint that a token is bound to. x5t#S256 must be the only member of cnf: another one would be a
// proof that rtask cannot ask for (RFC 7800, section 3.1).
func confirmation(all map[string]any) (sum [sha256.Size]byte, refusal *Refusal) {
	v, ok := all["cnf"]
	if !ok {
		return sum, missing("cnf")
	}
	members, ok := v.(map[string]any)
	if !ok {
		return sum, invalid("cnf", "cnf is no object")
	}
	text, ok := members["x5t#S256"].(string)
	if !ok || len(members) != 1 {
		return sum, invalid("cnf", "cnf must have x5t#S256 and nothing else")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != sha256.Size || strings.ContainsAny(text, "\r\n") {
		return sum, invalid("cnf", "x5t#S256 in cnf is no SHA-256 in 43 characters of base64url")
	}
	return [sha256.Size]byte(b), nil
}

// texts returns a claim that is a list of texts, if it is there.
func texts(all map[string]any, claim string) ([]string, *Refusal) {
	v, ok := all[claim]
	if !ok {
		return nil, nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, invalid(claim, "%s is no list", claim)
	}
	var names []string
	for _, v := range list {
		name, ok := v.(string)
		if !ok {
			return nil, invalid(claim, "%s has something that is not a text", claim)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// CheckType checks the typ of an access token (RFC 9068, section 4), with or without the prefix that RFC 7515 lets one leave out.
func CheckType(typ string) *Refusal {
	if typ = strings.ToLower(typ); typ != tokenType && typ != "application/"+tokenType {
		return invalid("typ", "type is %s, and must be %s", shown(typ), tokenType)
	}
	return nil
}

func expired(at time.Time) *Refusal {
	return &Refusal{Kind: Expired, Claim: "exp", Text: "the token expired at " + at.UTC().Format(time.RFC3339)}
}

func missing(claim string) *Refusal { return invalid(claim, "the token has no %s", claim) }

// Text returns a claim that has to be there and to be a text that is not empty.
func Text(all map[string]any, claim string) (string, *Refusal) {
	v, ok := all[claim]
	if !ok {
		return "", missing(claim)
	}
	text, ok := v.(string)
	if !ok || text == "" {
		return "", invalid(claim, "%s is not a text", claim)
	}
	return text, nil
}

// Time returns a claim that has to be there and to be a time (NumericDate of RFC 7519, section 2), in whole seconds.
func Time(all map[string]any, claim string) (time.Time, *Refusal) {
	const lastSecond = 253402300799 // of the year 9999
	v, ok := all[claim]
	if !ok {
		return time.Time{}, missing(claim)
	}
	seconds, ok := v.(float64)
	if !ok || seconds < 0 || seconds > lastSecond {
		return time.Time{}, invalid(claim, "%s is no time: it must be a number of seconds since 1970", claim)
	}
	return time.Unix(int64(seconds), 0), nil
}

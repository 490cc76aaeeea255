package token

import (
	"encoding/base64"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

// MaxLen is the most bytes that an access token may have.
const MaxLen = 8 << 10

// Signed is a JWS in compact serialization (RFC 7515, section 3.1), taken apart. Its signature is not verified yet.
type Signed struct {
	// Algorithm is one of those that Parse was given.
	Algorithm jose.SignatureAlgorithm
	// KeyID and Type are the header's kid and typ, or empty. Parameters has the names of all members of the header.
	KeyID, Type string
	Parameters  []string

	jws *jose.JSONWebSignature
}

// Parse takes a JWS apart that is not longer than most bytes. It takes the compact serialization only, and refuses what a header can
// do beyond naming an algorithm and a key: crit, keys and certificates in the header, and addresses of them. Every error is a *Refusal.
func Parse(raw []byte, most int, algorithms []jose.SignatureAlgorithm) (*Signed, error) {
	if len(raw) > most {
		return nil, invalid("", "the token is longer than %d bytes", most)
	}
	parts := strings.Split(string(raw), ".")
	if len(parts) != 3 || slices.Contains(parts, "") {
		return nil, invalid("", "the token is not a signed JWT: it must have three parts with dots between them")
	}
	for _, p := range parts {
		if _, err := base64.RawURLEncoding.Strict().DecodeString(p); err != nil || strings.ContainsAny(p, "\r\n") {
			return nil, invalid("", "the token is not a signed JWT: a part of it is not base64url")
		}
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		return nil, invalid("", "the token's header is not base64url")
	}
	header, refusal := object(text, "header")
	if refusal != nil {
		return nil, refusal
	}
	for _, name := range []string{"crit", "b64", "jwk", "jku", "x5u", "x5c"} {
		if _, ok := header[name]; ok {
			return nil, invalid(name, "%s in the token's header is not accepted", name)
		}
	}
	s := &Signed{}
	alg, _ := header["alg"].(string)
	if s.Algorithm = jose.SignatureAlgorithm(alg); !slices.Contains(algorithms, s.Algorithm) {
		return nil, invalid("alg", "algorithm is %s, and must be %s", shown(alg), names(algorithms))
	}
	for name, to := range map[string]*string{"kid": &s.KeyID, "typ": &s.Type} {
		if v, there := header[name]; there {
			if text, ok := v.(string); !ok || text == "" {
				return nil, invalid(name, "%s in the token's header is not a text", name)
			} else {
				*to = text
			}
		}
	}
	for name := range header {
		s.Parameters = append(s.Parameters, name)
	}
	slices.Sort(s.Parameters)
	if s.jws, err = jose.ParseSignedCompact(string(raw), algorithms); err != nil || len(s.jws.Signatures) != 1 {
		return nil, invalid("", "the token is not a signed JWT")
	}
	return s, nil
}

// Claims verifies the signature by a public key and returns the claims. The caller has checked that the algorithm is the key's.
// A name that occurs twice in an object, at any depth, is refused. Every error is a *Refusal.
func (s *Signed) Claims(key any) (map[string]any, error) {
	payload, err := s.jws.Verify(key)
	if err != nil {
		return nil, invalid("", "the token's signature is wrong")
	}
	claims, refusal := object(payload, "claims")
	if refusal != nil {
		return nil, refusal
	}
	return claims, nil
}

// Peek returns a text claim of a token that nobody has verified. It only helps to find out who could have made it.
func (s *Signed) Peek(claim string) string {
	claims, refusal := object(s.jws.UnsafePayloadWithoutVerification(), "claims")
	if refusal != nil {
		return ""
	}
	text, _ := claims[claim].(string)
	return text
}

// object reads a JSON object (RFC 8259) in which no name occurs twice. Unlike encoding/json, package json of go-jose takes neither
// repeated names nor names in other letters.
func object(text []byte, what string) (map[string]any, *Refusal) {
	var v any
	if err := json.Unmarshal(text, &v); err != nil || !utf8.Valid(text) {
		if err != nil && strings.Contains(err.Error(), "duplicate key") {
			return nil, invalid("", "a name occurs twice in the token's %s", what)
		}
		return nil, invalid("", "the token's %s are no JSON object", what)
	}
	o, ok := v.(map[string]any)
	if !ok {
		return nil, invalid("", "the token's %s are no JSON object", what)
	}
	return o, nil
}

func names(algorithms []jose.SignatureAlgorithm) string {
	var all []string
	for _, a := range algorithms {
		all = append(all, string(a))
	}
	return strings.Join(all, " or ")
}

package token

import "strings"

// keyPrefix begins every API key.
const keyPrefix = "rtk_"

// Bearer returns the token of a call's Authorization headers (RFC 6750, section 2.1). There must be exactly one, and its scheme must
// be Bearer, in any case (RFC 9110, section 11.1). Every error is a *Refusal.
func Bearer(headers []string) ([]byte, error) {
	switch len(headers) {
	case 0:
		return nil, &Refusal{Kind: Missing, Text: "the call has no token: send Authorization: Bearer TOKEN"}
	case 1:
	default:
		return nil, invalid("", "the call has %d Authorization headers instead of one", len(headers))
	}
	scheme, raw, ok := strings.Cut(headers[0], " ")
	switch {
	case !strings.EqualFold(scheme, "Bearer"):
		return nil, invalid("", "the Authorization header does not begin with Bearer")
	case !ok || raw == "":
		return nil, &Refusal{Kind: Missing, Text: "the Authorization header has no token behind Bearer"}
	case strings.HasPrefix(raw, keyPrefix):
		return nil, invalid("", "this is an API key; they are for HTTPS on 8443")
	}
	return []byte(raw), nil
}

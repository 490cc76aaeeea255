package deliveries

import (
	"net/url"
	"slices"
	"strings"

	"github.com/rtask/rtask/daemon/auth/webhook"
)

// secretWords are in the names of headers and fields of a query that carry secrets: Authorization, Cookie, X-Gitlab-Token,
// X-Hub-Signature-256, PRIVATE-TOKEN, X-Api-Key, …
func secretWords() []string {
	return []string{"auth", "cookie", "token", "secret", "signature", "password", "passwd", "credential", "api-key", "apikey", "api_key", "hmac", "session"}
}

// secretParts are short words that are part of other ones, so they count where they stand alone: sig=…, X-Sig, Jwt, user_pwd.
func secretParts() []string { return []string{"sig", "pwd", "pass", "jwt", "bearer"} }

// isSecret reports whether what has a name may be a secret.
func isSecret(name string) bool {
	// X-Author tells who wrote something.
	name = strings.NewReplacer("authoriz", "secret", "author", "").Replace(strings.ToLower(name))
	part := func(word string) bool { return slices.Contains(secretParts(), word) }
	return name == "key" || slices.ContainsFunc(strings.FieldsFunc(name, func(r rune) bool { return r < 'a' || r > 'z' }), part) ||
		slices.ContainsFunc(secretWords(), func(word string) bool { return strings.Contains(name, word) })
}

// WithoutSecrets returns what of a request is kept: not its URL, whose last part may be a token, and none of the headers and fields of
// the query that have names of secrets, or that secret returns true for. A replay verifies no signature, so it needs none of them.
// Headers that are needed, whatever their case, stay, unless secret returns true for them.
func WithoutSecrets(r *webhook.Request, needed []string, secret func(name, value string) bool) webhook.Request {
	keeps := func(name, value string) bool {
		return !secret(name, value) && (!isSecret(name) || slices.ContainsFunc(needed, func(n string) bool { return strings.EqualFold(n, name) }))
	}
	kept := webhook.Request{Method: r.Method, Remote: r.Remote, Body: r.Body}
	for _, h := range r.Headers {
		if keeps(h.Name, h.Value) {
			kept.Headers = append(kept.Headers, h)
		}
	}
	var fields []string
	for field := range strings.SplitSeq(r.Query, "&") {
		name, value, _ := strings.Cut(field, "=")
		if name, value = unescaped(name), unescaped(value); !isSecret(name) && !secret(name, value) {
			fields = append(fields, field)
		}
	}
	kept.Query = strings.Join(fields, "&")
	return kept
}

// unescaped is a part of a query as it reads; one that is wrong, as it is.
func unescaped(s string) string {
	if text, err := url.QueryUnescape(s); err == nil {
		return text
	}
	return s
}

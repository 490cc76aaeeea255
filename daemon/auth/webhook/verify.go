package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	// Tolerance is how far a signed time may be from now, before and after: the value that Standard Webhooks, Slack and Stripe
	// name.
	Tolerance = 300 * time.Second

	// standardPrefix begins the secrets of Standard Webhooks; what follows is base64.
	standardPrefix = "whsec_"

	sha256Prefix = "sha256="
)

// prefixes are what senders write before an HMAC-SHA256 in a header.
func prefixes() []string { return []string{sha256Prefix, "sha-256=", "hmac-sha256=", "v1=", "v0="} }

// CheckSecret returns an error around ErrSecret unless secret can verify requests of a kind. The secret is not in the error.
func CheckSecret(k Kind, secret string) error {
	if secret == "" {
		return fmt.Errorf("%w: it is empty", ErrSecret)
	}
	if k != Standard && !(k == GitLab && strings.HasPrefix(secret, standardPrefix)) {
		return nil
	}
	key, err := standardKey(secret)
	switch {
	case err != nil:
		return fmt.Errorf("%w: it must be %s and base64 behind it", ErrSecret, standardPrefix)
	case len(key) == 0:
		return fmt.Errorf("%w: it is empty", ErrSecret)
	}
	return nil
}

// standardKey is the key that a secret of Standard Webhooks stands for.
func standardKey(secret string) ([]byte, error) {
	text := strings.TrimRight(strings.TrimPrefix(secret, standardPrefix), "=")
	return base64.RawStdEncoding.DecodeString(text)
}

// Verify checks a request against every secret, in a time that tells nothing of them. All errors are around ErrSignature. A
// request of the kind Token has nothing to check: whoever calls Verify found it by the token.
func Verify(s Scheme, secrets []string, r *Request, now time.Time) (Proof, error) {
	h, body := r.Headers, r.Body
	switch s.Kind {
	case Token:
		return bodyProof(body), nil
	case GitHub:
		return verifyBody(h, body, secrets, Hex, "X-Hub-Signature-256")
	case Gitea:
		return verifyBody(h, body, secrets, Hex, "X-Gitea-Signature", "X-Forgejo-Signature")
	case Forgejo:
		return verifyBody(h, body, secrets, Hex, "X-Forgejo-Signature", "X-Gitea-Signature")
	case HMACSHA256:
		return verifyBody(h, body, secrets, s.Encoding, s.Header)
	case GitLab:
		return verifyGitLab(h, body, secrets, now)
	case Standard:
		return verifyStandard(h, body, secrets, now)
	case Slack:
		return verifySlack(h, body, secrets, now)
	case Stripe:
		return verifyStripe(h, body, secrets, now)
	default:
		return Proof{}, refusal("there is no such kind of webhook as %q", s.Kind)
	}
}

func refusal(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSignature, fmt.Sprintf(format, args...))
}

// only returns the value of a header that must be there exactly once.
func only(h Headers, name string) (string, error) {
	switch values := h.Values(name); len(values) {
	case 0:
		return "", refusal("there is no header %s", name)
	case 1:
		return values[0], nil
	default:
		return "", refusal("the header %s is there %d times", name, len(values))
	}
}

// present returns the first of names that is in h, else the first.
func present(h Headers, names []string) string {
	for _, n := range names {
		if h.has(n) {
			return n
		}
	}
	return names[0]
}

func sum(key []byte, parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, key)
	for _, p := range parts {
		mac.Write(p)
	}
	return mac.Sum(nil)
}

// keys are the secrets as bytes.
func keys(secrets []string) [][]byte {
	var all [][]byte
	for _, s := range secrets {
		if s != "" { // a configuration with such a one is an error
			all = append(all, []byte(s))
		}
	}
	return all
}

// matches reports whether any of signatures is the HMAC of parts under any of keys. It looks at all of them.
func matches(keys, signatures [][]byte, parts ...[]byte) bool {
	found := 0
	for _, k := range keys {
		want := sum(k, parts...)
		for _, got := range signatures {
			found |= subtle.ConstantTimeCompare(want, got)
		}
	}
	return found == 1
}

// verifyBody is for an HMAC of the body in the first of the named headers that is there.
func verifyBody(h Headers, body []byte, secrets []string, e Encoding, names ...string) (Proof, error) {
	name := present(h, names)
	text, err := only(h, name)
	if err != nil {
		return Proof{}, err
	}
	got := signatures(text, e, prefixes()...)
	if len(got) == 0 {
		return Proof{}, refusal("the header %s is not %s", name, e)
	}
	if !matches(keys(secrets), got, body) {
		return Proof{}, refusal("the header %s is not that of this body under any of the secrets", name)
	}
	return bodyProof(body), nil
}

// signatures reads all HMACs of a header: while a secret is changed, a sender signs with the old and the new one. Each may have one
// of the prefixes.
func signatures(text string, e Encoding, prefixes ...string) [][]byte {
	var all [][]byte
	for one := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		for _, p := range prefixes {
			if len(one) >= len(p) && strings.EqualFold(one[:len(p)], p) {
				one = one[len(p):]
				break
			}
		}
		if got, err := decode(e, one); err == nil {
			all = append(all, got)
		}
	}
	return all
}

// decode reads an HMAC. Base64 may be that of RFC 4648's section 4 or 5, padded or not.
func decode(e Encoding, text string) ([]byte, error) {
	if e != Base64 {
		return hex.DecodeString(text)
	}
	return base64.RawStdEncoding.DecodeString(strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "=")))
}

// verifyGitLab takes a signature where there is one and a secret for it, else the secret itself.
func verifyGitLab(h Headers, body []byte, secrets []string, now time.Time) (Proof, error) {
	var tokens, signing []string
	for _, s := range secrets {
		if strings.HasPrefix(s, standardPrefix) {
			signing = append(signing, s)
		} else if s != "" {
			tokens = append(tokens, s)
		}
	}
	const header = "X-Gitlab-Token"
	if len(signing) > 0 && (len(tokens) == 0 || !h.has(header)) {
		return verifyStandard(h, body, signing, now)
	}
	text, err := only(h, header)
	if err != nil {
		return Proof{}, err
	}
	if !IsToken(text, Digests(tokens)) {
		if len(signing) > 0 { // GitLab sends both where both are set
			return verifyStandard(h, body, signing, now)
		}
		return Proof{}, refusal("the header %s is none of the secrets", header)
	}
	return bodyProof(body), nil
}

// Digests are the SHA-256 of tokens, as IsToken compares them.
func Digests(tokens []string) [][sha256.Size]byte {
	all := make([][sha256.Size]byte, len(tokens))
	for i, t := range tokens {
		all[i] = sha256.Sum256([]byte(t))
	}
	return all
}

// IsToken reports whether the SHA-256 of presented is one of digests, of which it looks at all.
func IsToken(presented string, digests [][sha256.Size]byte) bool {
	got := sha256.Sum256([]byte(presented))
	found := 0
	for _, want := range digests {
		found |= subtle.ConstantTimeCompare(got[:], want[:])
	}
	return found == 1
}

// verifyStandard is for Standard Webhooks, also with the headers that it had when it was Svix's.
func verifyStandard(h Headers, body []byte, secrets []string, now time.Time) (Proof, error) {
	prefix := "webhook-"
	if !h.has("webhook-id", "webhook-timestamp", "webhook-signature") && h.has("svix-signature") {
		prefix = "svix-"
	}
	id, err := only(h, prefix+"id")
	if err != nil {
		return Proof{}, err
	}
	stamp, err := only(h, prefix+"timestamp")
	if err != nil {
		return Proof{}, err
	}
	list, err := only(h, prefix+"signature")
	if err != nil {
		return Proof{}, err
	}
	if id == "" {
		return Proof{}, refusal("the header %sid is empty", prefix)
	}
	var keys [][]byte
	for _, s := range secrets {
		if key, err := standardKey(s); err == nil && len(key) > 0 {
			keys = append(keys, key)
		}
	}
	var signatures [][]byte
	for _, one := range strings.Fields(list) {
		// "v1a" is a signature with a public key, of which no secret is known here.
		version, text, _ := strings.Cut(one, ",")
		if got, err := base64.StdEncoding.DecodeString(text); version == "v1" && err == nil {
			signatures = append(signatures, got)
		}
	}
	if len(signatures) == 0 {
		return Proof{}, refusal("the header %ssignature has no v1,BASE64 in it", prefix)
	}
	if !matches(keys, signatures, []byte(id+"."+stamp+"."), body) {
		return Proof{}, refusal("the header %ssignature is not that of this request under any of the secrets", prefix)
	}
	if _, err := recent(stamp, now); err != nil {
		return Proof{}, err
	}
	// The sender tries again under the same id, with a time of its own.
	return Proof{Fresh: true, Key: key("id", []byte(id))}, nil
}

// verifySlack is for Slack's v0.
func verifySlack(h Headers, body []byte, secrets []string, now time.Time) (Proof, error) {
	stamp, err := only(h, "X-Slack-Request-Timestamp")
	if err != nil {
		return Proof{}, err
	}
	text, err := only(h, "X-Slack-Signature")
	if err != nil {
		return Proof{}, err
	}
	var got [][]byte
	if strings.HasPrefix(text, "v0=") {
		got = signatures(text, Hex, "v0=")
	}
	if len(got) == 0 {
		return Proof{}, refusal("the header X-Slack-Signature is not v0=HEX")
	}
	head := []byte("v0:" + stamp + ":")
	if !matches(keys(secrets), got, head, body) {
		return Proof{}, refusal("the header X-Slack-Signature is not that of this request under any of the secrets")
	}
	return timed(stamp, head, body, now)
}

// verifyStripe is for Stripe's v1.
func verifyStripe(h Headers, body []byte, secrets []string, now time.Time) (Proof, error) {
	text, err := only(h, "Stripe-Signature")
	if err != nil {
		return Proof{}, err
	}
	stamp := ""
	var signatures [][]byte
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "t":
			if stamp != "" {
				return Proof{}, refusal("the header Stripe-Signature has two times")
			}
			stamp = value
		case "v1":
			if got, err := hex.DecodeString(value); err == nil {
				signatures = append(signatures, got)
			}
		}
	}
	if stamp == "" || len(signatures) == 0 {
		return Proof{}, refusal("the header Stripe-Signature is not t=TIME,v1=HEX")
	}
	head := []byte(stamp + ".")
	if !matches(keys(secrets), signatures, head, body) {
		return Proof{}, refusal("the header Stripe-Signature is not that of this request under any of the secrets")
	}
	return timed(stamp, head, body, now)
}

// timed is the proof of a request whose time is signed.
func timed(stamp string, head, body []byte, now time.Time) (Proof, error) {
	at, err := recent(stamp, now)
	if err != nil {
		return Proof{}, err
	}
	return Proof{Fresh: true, Key: key("signed", head, body), Until: at.Add(Tolerance)}, nil
}

// recent returns a signed time, in seconds since 1970, if it is near enough to now.
func recent(stamp string, now time.Time) (time.Time, error) {
	const digits = 11 // enough for the year 5138
	if len(stamp) > digits || strings.Trim(stamp, "0123456789") != "" {
		return time.Time{}, refusal("its time is no number of seconds")
	}
	n, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return time.Time{}, refusal("its time is no number of seconds")
	}
	at := time.Unix(n, 0)
	if d := now.Sub(at); d > Tolerance || d < -Tolerance {
		return time.Time{}, refusal("its time is %.0f s away from now, and may be %.0f s", max(d, -d).Seconds(), Tolerance.Seconds())
	}
	return at, nil
}

func bodyProof(body []byte) Proof { return Proof{Key: key("body", body)} }

// key is a Proof's Key.
func key(kind string, parts ...[]byte) string {
	h := sha256.New()
	h.Write([]byte(kind + "\x00"))
	for _, p := range parts {
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

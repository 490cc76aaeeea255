package webhook

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
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
)

// CheckSecret returns an error around ErrSecret unless secret can verify requests of a kind. The secret is not in the error.
func CheckSecret(k Kind, secret string) error {
	if secret == "" {
		return fmt.Errorf("%w: it is empty", ErrSecret)
	}
	row := rowOf(k)
	if row != nil && row.Signature != nil && row.Signature.Ed25519 {
		if key, err := hex.DecodeString(secret); err != nil || len(key) != ed25519.PublicKeySize {
			return fmt.Errorf("%w: it must be the public key, %d digits of hex", ErrSecret, 2*ed25519.PublicKeySize)
		} else if signsForAll(key) {
			return fmt.Errorf("%w: under this public key anybody can sign", ErrSecret)
		}
		return nil
	}
	if row == nil || row.Signature == nil || row.Signature.KeyPrefix == "" {
		return nil
	}
	prefix := row.Signature.KeyPrefix
	if row.Secret != "" && !strings.HasPrefix(secret, prefix) {
		return nil // it is sent, and not a key
	}
	key, err := prefixedKey(prefix, secret)
	switch {
	case err != nil:
		return fmt.Errorf("%w: it must be %s and base64 behind it", ErrSecret, prefix)
	case len(key) == 0:
		return fmt.Errorf("%w: it is empty", ErrSecret)
	}
	return nil
}

// smallOrder are the points of Ed25519 under which anybody can sign, without the sign of x: those whose order divides 8, also as they
// are written with a number beyond the field's (RFC 8032, section 5.1).
var smallOrder = [...]string{
	"0000000000000000000000000000000000000000000000000000000000000000", "0100000000000000000000000000000000000000000000000000000000000000",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

// signsForAll reports whether a public key is a point of small order: a signature that is none is good under it for at least each
// eighth message.
func signsForAll(key ed25519.PublicKey) bool {
	y := slices.Clone(key)
	y[len(y)-1] &= 0x7f
	return slices.Contains(smallOrder[:], hex.EncodeToString(y))
}

// prefixedKey is the key that a secret stands for whose key is base64 behind a prefix.
func prefixedKey(prefix, secret string) ([]byte, error) {
	text := strings.TrimRight(strings.TrimPrefix(secret, prefix), "=")
	return base64.RawStdEncoding.DecodeString(text)
}

// Verify checks a request against every secret, in a time that tells nothing of them. All errors are around ErrSignature. A
// request of a kind that signs nothing has nothing to check: whoever calls Verify found it by the token in its URL.
func Verify(s Scheme, secrets []string, r *Request, now time.Time) (Proof, error) {
	row := s.sender()
	switch {
	case row == nil:
		return Proof{}, refusal("there is no such kind of webhook as %q", s.Kind)
	case !s.Kind.Signed():
		return bodyProof(r.Body), nil
	case r.Method == "GET" || r.Method == "HEAD":
		return Proof{}, refusal("what has no body is not signed")
	case row.Secret == "":
		return row.verifySignature(secrets, r, now)
	case row.Signature == nil:
		return row.verifySecret(secrets, r)
	}
	signing, tokens := row.signing(secrets)
	if len(signing) > 0 && (len(tokens) == 0 || !r.Headers.has(row.Secret)) {
		return row.verifySignature(signing, r, now)
	}
	p, err := row.verifySecret(tokens, r)
	if err != nil && len(signing) > 0 { // GitLab sends both where both are set
		return row.verifySignature(signing, r, now)
	}
	return p, err
}

// signing sorts secrets of a sender that either signs or has the secret in a header: secrets that sign, and those that are sent.
func (s *Sender) signing(secrets []string) (signing, tokens []string) {
	if s.Signature.KeyPrefix == "" {
		return secrets, secrets
	}
	for _, secret := range secrets {
		if strings.HasPrefix(secret, s.Signature.KeyPrefix) {
			signing = append(signing, secret)
		} else if secret != "" {
			tokens = append(tokens, secret)
		}
	}
	return signing, tokens
}

// verifySecret is for a sender that has the secret itself in a header.
func (s *Sender) verifySecret(secrets []string, r *Request) (Proof, error) {
	text, err := only(r.Headers, s.Secret)
	if err != nil {
		return Proof{}, err
	}
	if s.Secret == authorization {
		if text, err = credentials(text); err != nil {
			return Proof{}, err
		}
	}
	if !IsToken(text, Digests(nonempty(secrets))) {
		return Proof{}, refusal("the header %s is none of the secrets", s.Secret)
	}
	return bodyProof(r.Body), nil
}

// nonempty are the secrets that are some. A configuration with one that is none is an error.
func nonempty(secrets []string) []string {
	return slices.DeleteFunc(slices.Clone(secrets), func(s string) bool { return s == "" })
}

// authorization is the header of RFC 9110, section 11.6.2.
const authorization = "Authorization"

// credentials are the password of Basic, whose user is anybody, or the token of Bearer.
func credentials(text string) (string, error) {
	scheme, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimLeft(rest, " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		return rest, nil
	case !strings.EqualFold(scheme, "Basic"):
		return "", refusal("the header %s is neither Basic nor Bearer", authorization)
	}
	pair, err := base64.StdEncoding.DecodeString(rest)
	_, password, ok := strings.Cut(string(pair), ":")
	if err != nil || !ok {
		return "", refusal("the header %s is not Basic and base64 of USER:PASSWORD", authorization)
	}
	return password, nil
}

// verifySignature is for a sender that signs.
func (s *Sender) verifySignature(secrets []string, r *Request, now time.Time) (Proof, error) {
	own := *r // whose URL is tried in several forms
	v := signedRequest{Request: &own, sender: s}
	v.variant = s.variant(r.Headers)
	if err := v.read(); err != nil {
		return Proof{}, err
	}
	what := "request"
	if s.Signature.Signed == "{body}" {
		what = "body"
	}
	keys, good := s.Signature.keys(secrets), false
	for _, url := range slices.Backward(v.urls()) {
		v.URL = url
		good = s.Signature.matches(keys, v.signatures, v.signed()...) || good
	}
	parts := v.signed() // with the first URL: whoever repeats a request may write its host in another way
	if !good {
		return Proof{}, refusal("%s is not that of this %s under any of the secrets", v.where, what)
	}
	at := time.Time{}
	if !s.Time.IsZero() {
		var err error
		if at, err = recent(v.stamp, s.Time.Unit, now); err != nil {
			return Proof{}, err
		}
	}
	switch {
	case s.signs("{id}"):
		// The sender tries again under the same id, with a time of its own.
		return Proof{Fresh: true, Key: key("id", []byte(v.id))}, nil
	case !at.IsZero():
		return Proof{Fresh: true, Key: key("signed", parts...), Until: at.Add(Tolerance)}, nil
	default:
		return Proof{Key: key("body", parts...), signsBody: true}, nil
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

// sum is an HMAC. One with SHA-1 is as good as others: nobody can make one without the key (RFC 6194, section 3.3).
func (h Hash) sum(key []byte, parts ...[]byte) []byte {
	make := sha256.New
	switch h {
	case SHA1:
		make = sha1.New
	case SHA512:
		make = sha512.New
	}
	mac := hmac.New(make, key)
	for _, p := range parts {
		mac.Write(p)
	}
	return mac.Sum(nil)
}

// matches reports whether any of signatures is the HMAC of parts under any of keys. It looks at all of them.
func (s *Signature) matches(keys, signatures [][]byte, parts ...[]byte) bool {
	if s.Ed25519 {
		return matchesPublic(keys, signatures, slices.Concat(parts...))
	}
	found := 0
	for _, k := range keys {
		want := s.Hash.sum(k, parts...)
		for _, got := range signatures {
			found |= subtle.ConstantTimeCompare(want, got)
		}
	}
	return found == 1
}

// matchesPublic reports whether any of signatures is one of a message under any of public keys. There is no secret here.
func matchesPublic(keys, signatures [][]byte, message []byte) bool {
	for _, k := range keys {
		for _, got := range signatures {
			if len(k) == ed25519.PublicKeySize && ed25519.Verify(k, message, got) {
				return true
			}
		}
	}
	return false
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

// recent returns a signed time, a number since 1970, if it is near enough to now. A number that begins with a zero is none, so that
// digits of what stands beside it cannot be taken for its own: with one more or one less, it is another age.
func recent(stamp string, unit Unit, now time.Time) (time.Time, error) {
	const digits = 11 // enough for the year 5138
	what, most := "seconds", digits
	if unit != Seconds {
		what, most = "milliseconds", digits+3
	}
	if len(stamp) > most || strings.Trim(stamp, "0123456789") != "" || strings.HasPrefix(stamp, "0") {
		return time.Time{}, refusal("its time is no number of %s", what)
	}
	n, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return time.Time{}, refusal("its time is no number of %s", what)
	}
	at := time.Unix(n, 0)
	if unit == Milliseconds || unit == SecondsOrMilliseconds && len(stamp) > digits {
		at = time.UnixMilli(n)
	}
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

package webhook

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Sign adds to a request what proves it, as its sender does: what Verify takes at that time. The id is for senders that sign one that
// is not in the event. Where a secret is a public key, Sign has the private one, see SampleKeys.
func Sign(s Scheme, secret string, r *Request, id string, now time.Time) {
	row := s.sender()
	switch {
	case row == nil || !s.Kind.Signed():
	case row.Signature == nil, row.Secret != "" && row.Signature.KeyPrefix != "" && !strings.HasPrefix(secret, row.Signature.KeyPrefix):
		value := secret
		if row.Secret == authorization {
			value = "Basic " + base64.StdEncoding.EncodeToString([]byte("rtask:"+secret))
		}
		r.Headers = append(r.Headers, Header{row.Secret, value})
	default:
		row.sign(secret, r, id, now)
	}
}

// SampleKeys returns a secret to sign a sample with, and the one that it is verified by, for a kind whose secrets only verify.
func SampleKeys(k Kind) (signing, verifying string, ok bool) {
	row := rowOf(k)
	if row == nil || row.Signature == nil || !row.Signature.Ed25519 {
		return "", "", false
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err) // it reads the system's random numbers, which never fail
	}
	return hex.EncodeToString(private.Seed()), hex.EncodeToString(public), true
}

// sign adds a signature to a request, and the time and the id that it covers.
func (s *Sender) sign(secret string, r *Request, id string, now time.Time) {
	keys := s.Signature.keys([]string{secret})
	if len(keys) == 0 {
		return // CheckSecret says so
	}
	v := signedRequest{Request: r, sender: s, id: id, stamp: strconv.FormatInt(now.Unix(), 10)}
	if s.Time.Unit == Milliseconds {
		v.stamp = strconv.FormatInt(now.UnixMilli(), 10)
	}
	if s.signs("{id}") {
		v.put(s.ID[0], id, jsonText(id))
	}
	stamped := ""
	switch {
	case s.Time.IsZero():
	case s.Time.Field != "":
		stamped = s.Time.Field + "=" + v.stamp + ","
	case s.signs("{timestamp}"):
		v.put(s.Time.Place, v.stamp, jsonText(v.stamp))
	default: // a number in the body
		v.put(s.Time.Place, v.stamp, []byte(v.stamp))
	}
	if s.signs("{form}") {
		v.form, _ = signedForm(r) // of what is none, Verify says so
	}
	text := stamped + s.Signature.encode(s.Signature.sum(keys[0], v.signed()...))
	v.put(s.Signature.Place, text, jsonText(text))
}

// jsonText is a string in JSON.
func jsonText(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always can be
	}
	return b
}

// put sets what stands at a place: a text in a header, or a value in the body.
func (v *signedRequest) put(p Place, text string, value []byte) {
	if len(p.Body) > 0 {
		v.Body = setMember(v.Body, p.Body, value)
		return
	}
	v.Headers = append(v.Headers, Header{p.Header[0], text})
}

// sum is a signature.
func (s *Signature) sum(key []byte, parts ...[]byte) []byte {
	if s.Ed25519 && len(key) == ed25519.SeedSize {
		return ed25519.Sign(ed25519.NewKeyFromSeed(key), slices.Concat(parts...))
	}
	return s.Hash.sum(key, parts...)
}

// encode writes a signature as the sender does.
func (s *Signature) encode(signature []byte) string {
	text := hex.EncodeToString(signature)
	if s.Encoding == Base64 {
		text = base64.StdEncoding.EncodeToString(signature)
	}
	return s.Prefix + text
}

package webhook

import (
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// Sign adds to a request what proves it, as its sender does: what Verify takes at that time. The id is for senders that sign one in
// a header.
func Sign(s Scheme, secret string, r *Request, id string, now time.Time) {
	row := s.sender()
	switch {
	case row == nil || !s.Kind.Signed():
	case row.Signature == nil, row.Secret != "" && !strings.HasPrefix(secret, row.Signature.KeyPrefix):
		r.Headers = append(r.Headers, Header{row.Secret, secret})
	default:
		row.sign(secret, r, id, now)
	}
}

// sign adds a signature to a request, and the time and the id that it covers.
func (s *Sender) sign(secret string, r *Request, id string, now time.Time) {
	keys := s.Signature.keys([]string{secret})
	if len(keys) == 0 {
		return // CheckSecret says so
	}
	v := signedRequest{Request: r, sender: s, id: id, stamp: strconv.FormatInt(now.Unix(), 10)}
	if s.signs("{id}") {
		r.Headers = append(r.Headers, Header{s.ID[0].Header[0], id})
	}
	name, stamped := s.Signature.Place.Header[0], ""
	switch {
	case s.Time.IsZero():
	case s.Time.Field != "":
		stamped = s.Time.Field + "=" + v.stamp + ","
	default:
		r.Headers = append(r.Headers, Header{s.Time.Header[0], v.stamp})
	}
	text := s.Signature.encode(s.Signature.Hash.sum(keys[0], v.parts()...))
	r.Headers = append(r.Headers, Header{name, stamped + text})
}

// encode writes a signature as the sender does.
func (s *Signature) encode(signature []byte) string {
	text := hex.EncodeToString(signature)
	if s.Encoding == Base64 {
		text = base64.StdEncoding.EncodeToString(signature)
	}
	return s.Prefix + text
}

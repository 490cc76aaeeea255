package codec

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
)

// The head of a call of a remote client, in which the gateway says which certificates the client has shown (RFC 9440): its own, and
// those that it sent with it. Both are in DER, as byte sequences of RFC 8941, section 3.3.5.
const (
	headerCertificate = "Client-Cert"
	headerChain       = "Client-Cert-Chain"
)

const (
	// MaxChain is how many certificates a client may send beside its own.
	MaxChain = 4
	// MaxCertificates is how many bytes all of them may have, in DER.
	MaxCertificates = 16 << 10
)

// Certificates are what a remote client has shown.
type Certificates struct {
	// Leaf is the client's own, and Chain what it sent with that, in the order in which it was sent, both in DER.
	Leaf  []byte
	Chain [][]byte
}

var (
	errNoCertificate    = errors.New("there must be exactly one header Client-Cert, with one byte sequence in colons (RFC 9440)")
	errChain            = errors.New("the header Client-Cert-Chain must be a list of byte sequences in colons (RFC 9440)")
	errManyCertificates = errors.New("the certificates are too many or too long")
)

// Put writes the certificates into the head of a call, in place of those that are there.
func (c Certificates) Put(h http.Header) {
	h.Set(headerCertificate, sequence(c.Leaf))
	h.Del(headerChain)
	if len(c.Chain) == 0 {
		return
	}
	all := make([]string, len(c.Chain))
	for i, der := range c.Chain {
		all[i] = sequence(der)
	}
	h.Set(headerChain, strings.Join(all, ", "))
}

// CertificatesIn reads the certificates from the head of a call. Whether they are any, and whose, is for others to find out.
func CertificatesIn(h http.Header) (Certificates, error) {
	leaf := h.Values(headerCertificate)
	if len(leaf) != 1 {
		return Certificates{}, errNoCertificate
	}
	if len(leaf[0]) > base64.StdEncoding.EncodedLen(MaxCertificates)+len("::") {
		return Certificates{}, errManyCertificates
	}
	der, ok := unsequence(leaf[0])
	if !ok {
		return Certificates{}, errNoCertificate
	}
	c := Certificates{Leaf: der}
	left := MaxCertificates - len(der)
	chain := h.Values(headerChain)
	switch {
	case len(chain) == 0:
		return c, nil
	case len(chain) > 1:
		return Certificates{}, errChain
	}
	for text := range strings.SplitSeq(chain[0], ",") {
		if len(c.Chain) == MaxChain || base64.StdEncoding.DecodedLen(len(text)) > left+8 {
			return Certificates{}, errManyCertificates
		}
		der, ok := unsequence(strings.Trim(text, " \t"))
		if !ok {
			return Certificates{}, errChain
		}
		if left -= len(der); left < 0 {
			return Certificates{}, errManyCertificates
		}
		c.Chain = append(c.Chain, der)
	}
	return c, nil
}

// sequence writes bytes as a byte sequence of RFC 8941.
func sequence(b []byte) string { return ":" + base64.StdEncoding.EncodeToString(b) + ":" }

// unsequence reads a byte sequence. It takes none that sequence would not write, and no empty one.
func unsequence(text string) ([]byte, bool) {
	inner, ok := strings.CutPrefix(text, ":")
	if !ok {
		return nil, false
	}
	if inner, ok = strings.CutSuffix(inner, ":"); !ok || strings.ContainsAny(inner, "\r\n") { // which the decoder passes over
		return nil, false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(inner)
	return b, err == nil && len(b) > 0
}

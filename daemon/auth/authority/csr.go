package authority

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
)

// maxCSR is how many bytes a certificate signing request has at most. One with an Ed25519 key has 200.
const maxCSR = 16 << 10

// Request is a certificate signing request (RFC 2986) whose sender has shown that it has the key. Nothing else of it counts: the engine
// decides what the certificate says.
type Request struct {
	// Key is the public key (SubjectPublicKeyInfo).
	Key    []byte
	public crypto.PublicKey
}

// ParseRequest reads a request, PEM or DER. It refuses, with KindBadRequest, keys other than ECDSA over P-256 and Ed25519, and requests
// that their key has not signed.
func ParseRequest(csr []byte) (Request, error) {
	if len(csr) > maxCSR {
		return Request{}, refuse(KindBadRequest, "the certificate signing request is longer than %d bytes", maxCSR)
	}
	der := csr
	if block, rest := pem.Decode(csr); block != nil {
		if block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" || len(bytes.TrimSpace(rest)) > 0 {
			return Request{}, refuse(KindBadRequest, "the PEM is not one block CERTIFICATE REQUEST")
		}
		der = block.Bytes
	}
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return Request{}, refuse(KindBadRequest, "this is not a certificate signing request in PEM or DER")
	}
	if err := checkKey(r.PublicKey); err != nil {
		return Request{}, err
	}
	if err := r.CheckSignature(); err != nil {
		return Request{}, refuse(KindBadRequest, "the certificate signing request is not signed by its key")
	}
	// As the library encodes it: one key has one encoding.
	key, err := x509.MarshalPKIXPublicKey(r.PublicKey)
	if err != nil {
		return Request{}, refuse(KindBadRequest, "the key of the certificate signing request cannot be used")
	}
	return Request{Key: key, public: r.PublicKey}, nil
}

// checkKey refuses what is not a key that a certificate of this authority may have.
func checkKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return nil
		}
	}
	return refuse(KindBadRequest, "the key is neither ECDSA over P-256 nor Ed25519")
}

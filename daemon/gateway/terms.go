package gateway

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// leastRSA is how long the modulus of an RSA key must be, in bits.
const leastRSA = 2048

// refusal is why a TLS handshake, or what comes after it, is refused.
type refusal struct {
	kind rtaskv1.Kind
	text string
}

// Error implements error.
func (r *refusal) Error() string { return r.text }

func refuse(kind rtaskv1.Kind, format string, args ...any) error {
	return &refusal{kind: kind, text: fmt.Sprintf(format, args...)}
}

// terms are on which clients with certificates are let in, as the engine told them last.
type terms struct {
	trust   *rtaskv1.Trust
	pool    *x509.CertPool // the authorities
	server  tls.Certificate
	revoked map[string]map[string]struct{} // serial numbers by the SHA-256 of the issuer's key
	// problem is why nobody is let in; nil: clients are.
	problem error
}

// identity is what the gateway shows.
type identity struct {
	key   crypto.Signer
	chain [][]byte // in DER, of another authority's certificate; nil: the engine says it
}

var (
	errOff         = errors.New("there is no authority whose certificates are good: rtaskctl ca init makes one, and remote.authorities names others")
	errNoAuthority = errors.New("the certificates of the authorities cannot be read")
)

// newTerms reads what the engine says. What is the same as before is taken over.
func newTerms(trust *rtaskv1.Trust, own identity, before *terms) *terms {
	t := &terms{trust: trust}
	if !trust.GetOn() || own.key == nil {
		t.problem = errOff
		return t
	}
	if before.pool != nil && slices.EqualFunc(before.trust.GetAuthorities(), trust.Authorities, bytes.Equal) {
		t.pool = before.pool // so that nobody's chain is verified again
	} else {
		t.pool = poolOf(trust.Authorities)
	}
	t.revoked = make(map[string]map[string]struct{}, len(trust.Revoked))
	for _, r := range trust.Revoked {
		serials := t.revoked[string(r.Issuer)]
		if serials == nil {
			serials = make(map[string]struct{}, len(r.Serials))
			t.revoked[string(r.Issuer)] = serials
		}
		for _, s := range r.Serials {
			serials[string(bytes.TrimLeft(s, "\x00"))] = struct{}{}
		}
	}
	chain := own.chain
	if chain == nil {
		chain = trust.ServerChain
	}
	t.server, t.problem = serverCertificate(own.key, chain)
	if t.pool == nil {
		t.problem = errors.Join(errNoAuthority, t.problem)
	}
	return t
}

// poolOf is of all authorities, nil where one cannot be read: what the engine means is not known then.
func poolOf(authorities [][]byte) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, der := range authorities {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil
		}
		pool.AddCert(c)
	}
	return pool
}

// serverCertificate is what the gateway shows.
func serverCertificate(key crypto.Signer, chain [][]byte) (tls.Certificate, error) {
	if len(chain) == 0 {
		return tls.Certificate{}, fmt.Errorf("the authority has issued no certificate for the key (%s): rtaskctl ca rotate --gateway", credentialRemoteKey)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("cannot read the server's certificate: %w", err)
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(leaf.PublicKey) {
		return tls.Certificate{}, fmt.Errorf("the server's certificate is not one of the key (%s): restart rtask-gateway.service if that key is new", credentialRemoteKey)
	}
	return tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}, nil
}

// bounded refuses certificates that are too many or too long.
func bounded(shown []*x509.Certificate) error {
	n := 0
	for _, c := range shown {
		n += len(c.Raw)
	}
	if len(shown) > 1+codec.MaxChain || n > codec.MaxCertificates {
		return refuse(rtaskv1.KindCertificateBad, "%d certificates of %d bytes: %d of %d bytes are the most", len(shown), n, 1+codec.MaxChain, codec.MaxCertificates)
	}
	return nil
}

// verify looks for chains from a client's certificate to an authority (RFC 5280, section 6), as crypto/tls does in the handshake.
func (t *terms) verify(shown []*x509.Certificate, now time.Time) ([][]*x509.Certificate, error) {
	if t.pool == nil {
		return nil, refuse(rtaskv1.KindCertificateUnknown, "there is no authority any more")
	}
	o := x509.VerifyOptions{Roots: t.pool, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range shown[1:] {
		o.Intermediates.AddCert(c)
	}
	chains, err := shown[0].Verify(o)
	if err != nil {
		return nil, &refusal{kind: kindOfVerify(err), text: err.Error()}
	}
	return chains, nil
}

// kindOfVerify is the kind of a refusal by crypto/x509.
func kindOfVerify(err error) rtaskv1.Kind {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return rtaskv1.KindCertificateUnknown
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
		return rtaskv1.KindCertificateExpired
	}
	return rtaskv1.KindCertificateBad
}

// admit refuses a client whose chains to an authority are none that is good enough: a certificate in each is revoked, or weak, or the
// client's is one of an authority's own. One good chain is enough.
func (t *terms) admit(chains [][]*x509.Certificate) error {
	err := refuse(rtaskv1.KindCertificateUnknown, "there is no chain to an authority")
	for _, chain := range chains {
		if err = t.admitChain(chain); err == nil {
			return nil
		}
	}
	return err
}

func (t *terms) admitChain(chain []*x509.Certificate) error {
	if chain[0].IsCA {
		return refuse(rtaskv1.KindCertificateBad, "%s: it is the certificate of an authority, not of a client", described(chain[0]))
	}
	for i, c := range chain {
		if weak := weakness(c.PublicKey); weak != "" {
			return refuse(rtaskv1.KindCertificateBad, "%s: its key is %s", described(c), weak)
		}
		issuer := c // of a root
		if i+1 < len(chain) {
			issuer = chain[i+1]
		}
		if t.isRevoked(issuer, c) {
			return refuse(rtaskv1.KindCertificateRevoked, "%s: it was revoked", described(c))
		}
	}
	return nil
}

func (t *terms) isRevoked(issuer, c *x509.Certificate) bool {
	if len(t.revoked) == 0 {
		return false
	}
	key := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	_, ok := t.revoked[string(key[:])][string(c.SerialNumber.Bytes())]
	return ok
}

// weakness says what is wrong with a public key, "" if nothing is.
func weakness(key crypto.PublicKey) string {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return ""
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() || k.Curve == elliptic.P521() {
			return ""
		}
		return "of a curve that is not P-256, P-384 or P-521"
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < leastRSA {
			return fmt.Sprintf("RSA of %d bits, and %d are the least", n, leastRSA)
		}
		return ""
	default:
		return "of an unknown kind"
	}
}

// longestName is how many bytes of a certificate's subject a reason has: it is a stranger's word.
const longestName = 100

// described names a certificate in a reason.
func described(c *x509.Certificate) string {
	name := c.Subject.String()
	if len(c.URIs) > 0 {
		name = c.URIs[0].String()
	}
	return fmt.Sprintf("%.*q, serial %.40x", longestName, name, c.SerialNumber)
}

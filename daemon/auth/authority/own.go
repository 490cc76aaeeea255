package authority

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"path/filepath"
	"time"
)

// ownLife is how long a certificate of the authority itself is good.
const ownLife = 10 * 365 * 24 * time.Hour

// maxOwn is how many of the authority's own certificates are good at a time.
const maxOwn = 4

// generation is one of the authority's own certificates, with its key where the engine has that. Rotate makes the next one.
type generation struct {
	cert   *x509.Certificate
	issuer [32]byte // see Revoked
	record ownRecord
	signer *ecdsa.PrivateKey // nil: locked
	crl    []byte            // DER; nil: none was made yet
	crlAt  time.Time
}

func newGeneration(cert *x509.Certificate, r ownRecord) *generation {
	return &generation{cert: cert, issuer: issuerOf(cert), record: r}
}

// issuerOf names an authority by its key.
func issuerOf(cert *x509.Certificate) [32]byte { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// NewKey makes a key for an authority, or for a gateway's certificate: ECDSA over P-256, PKCS #8 in PEM.
func NewKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// NewRequest makes a certificate signing request for a key that NewKey made, in PEM. It has no names: they would not count.
func NewRequest(key []byte) ([]byte, error) {
	signer, err := parseKey(key)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, signer)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// CheckKey returns ErrBadKey for what NewKey does not make.
func CheckKey(text []byte) error {
	_, err := parseKey(text)
	return err
}

// parseKey reads what NewKey makes. Its error says nothing of what it read.
func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, ErrBadKey
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, ErrBadKey
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, ErrBadKey
	}
	return ec, nil
}

// Init makes the authority, which has the name of a trust domain (see CheckDomain), with a key that NewKey made. It returns ErrExists if
// there is one.
func (a *Authority) Init(name string, key []byte) error {
	signer, err := parseKey(key)
	if err == nil {
		err = CheckDomain(name)
	}
	if err != nil {
		return err
	}
	a.change.Lock()
	defer a.change.Unlock()
	if exists, _ := a.Exists(); exists {
		return ErrExists
	}
	g, err := makeOwn(name, 1, signer)
	if err != nil {
		return err
	}
	if a.db == nil {
		db, err := openDatabase(filepath.Join(a.dir, databaseName))
		if err != nil {
			return err
		}
		a.mu.Lock()
		a.db = db
		a.mu.Unlock()
	}
	if err := a.db.commit(g.put()); err != nil {
		return err
	}
	a.mu.Lock()
	a.name, a.own = name, []*generation{g}
	a.mu.Unlock()
	a.makeLists(true)
	a.renewServer()
	a.tell()
	return nil
}

// makeOwn makes a certificate for an authority. Order is that of its record.
func makeOwn(name string, order int64, signer *ecdsa.PrivateKey) (*generation, error) {
	spki, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(spki)
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: newSerial(),
		// Two of one name would be the same issuer to programs that look for names alone.
		Subject:   pkix.Name{CommonName: name, SerialNumber: hex.EncodeToString(sum[:4])},
		NotBefore: now.Add(-skew).UTC(), NotAfter: now.Add(ownLife).UTC(),
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
		KeyUsage:     x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId: sum[:20],
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("cannot make the authority's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	g := newGeneration(cert, ownRecord{Certificate: der, Order: order})
	g.signer = signer
	return g, nil
}

// newSerial makes a serial number: 127 random bits, of which the first is set, so that each has as many digits (RFC 5280, section
// 4.1.2.2).
func newSerial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}

// Unlock gives the authority its key, so that it can issue. It returns ErrNone without an authority, and ErrOtherKey.
func (a *Authority) Unlock(key []byte) error {
	signer, err := parseKey(key)
	if err != nil {
		return err
	}
	a.change.Lock()
	defer a.change.Unlock()
	a.mu.Lock()
	err = unlock(a.own, signer)
	a.mu.Unlock()
	if err != nil {
		return err
	}
	a.makeLists(true)
	a.renewServer()
	a.tell()
	return nil
}

// unlock gives the newest of the generations its key, and the others theirs, which is sealed with that of the next newer one.
func unlock(own []*generation, signer *ecdsa.PrivateKey) error {
	if len(own) == 0 {
		return ErrNone
	}
	for _, g := range own {
		if g != own[0] {
			var err error
			if signer, err = unseal(g, signer); err != nil {
				return err
			}
		}
		if public, ok := g.cert.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(signer.Public()) {
			return ErrOtherKey
		}
		g.signer = signer
	}
	return nil
}

// Rotate makes the next certificate of the authority, with a key that NewKey made, which is the one to be kept from now on. The ones
// before stay good until their last client certificate is over, or, with distrust, for nothing from now on.
func (a *Authority) Rotate(key []byte, distrust bool) error {
	signer, err := parseKey(key)
	if err != nil {
		return err
	}
	a.change.Lock()
	err = a.rotate(signer, distrust)
	a.change.Unlock()
	if err == nil {
		a.tell()
	}
	return err
}

// rotate is Rotate. a.change is held.
func (a *Authority) rotate(signer *ecdsa.PrivateKey, distrust bool) error {
	a.mu.RLock()
	own, name := a.own, a.name
	a.mu.RUnlock()
	switch {
	case len(own) == 0:
		return ErrNone
	case own[0].signer == nil && !distrust:
		return ErrLocked
	case own[0].cert.PublicKey.(*ecdsa.PublicKey).Equal(signer.Public()):
		return fmt.Errorf("%w, another one than it has now", ErrBadKey)
	}
	next, err := makeOwn(name, own[0].record.Order+1, signer)
	if err != nil {
		return err
	}
	puts, all, gone := []put{next.put()}, []*generation{next}, map[[32]byte]bool{}
	for i, g := range own {
		if distrust || len(all) == maxOwn {
			puts, gone[g.issuer] = append(puts, put{bucketOwn, g.cert.SerialNumber.Bytes(), nil}), true
			continue
		}
		kept := *g
		if i == 0 {
			if kept.record.Sealed, err = seal(g, signer); err != nil {
				return err
			}
			puts = append(puts, kept.put())
		}
		all = append(all, &kept)
	}
	// What is not trusted any more must not be renewed either, so it is revoked.
	now := time.Now().UTC()
	var revoked []*Enrolment
	a.mu.RLock()
	for _, e := range a.records {
		if !gone[e.Issuer] || !e.Revoked.IsZero() {
			continue
		}
		next := *e
		next.Revoked, next.RevokedBy = now, "ca rotate"
		revoked = append(revoked, &next)
	}
	a.mu.RUnlock()
	if err := a.replace(revoked, puts...); err != nil {
		return err
	}
	a.mu.Lock()
	a.own = all
	a.mu.Unlock()
	a.makeLists(true)
	a.renewServer()
	return nil
}

// sealer encrypts a generation's key under that of the next one, for this one certificate.
func sealer(g *generation, next *ecdsa.PrivateKey) (cipher.AEAD, error) {
	secret, err := next.Bytes()
	if err != nil {
		return nil, err
	}
	key, err := hkdf.Key(sha256.New, secret, g.issuer[:], "rtask authority, previous key", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func seal(g *generation, next *ecdsa.PrivateKey) ([]byte, error) {
	aead, err := sealer(g, next)
	if err != nil {
		return nil, err
	}
	secret, err := g.signer.Bytes()
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, secret, nil), nil
}

func unseal(g *generation, next *ecdsa.PrivateKey) (*ecdsa.PrivateKey, error) {
	aead, err := sealer(g, next)
	if err != nil {
		return nil, err
	}
	secret, err := aead.Open(nil, nil, g.record.Sealed, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot open the previous key of the authority: %w", err)
	}
	return ecdsa.ParseRawPrivateKey(elliptic.P256(), secret)
}

// Certificates returns the authority's own certificates, the newest first.
func (a *Authority) Certificates() []*x509.Certificate {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var all []*x509.Certificate
	for _, g := range a.own {
		all = append(all, g.cert)
	}
	return all
}

// PEM returns the authority's own certificates in PEM, the newest first.
func (a *Authority) PEM() []byte {
	var all [][]byte
	for _, c := range a.Certificates() {
		all = append(all, c.Raw)
	}
	return inPEM(all...)
}

// newest returns the newest generation, if it can sign.
func (a *Authority) newest() (*generation, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	switch {
	case len(a.own) == 0:
		return nil, ErrNone
	case a.own[0].signer == nil:
		return nil, ErrLocked
	}
	return a.own[0], nil
}

// inPEM returns certificates in PEM.
func inPEM(all ...[]byte) []byte {
	var b bytes.Buffer
	for _, der := range all {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a Buffer takes all
	}
	return b.Bytes()
}

package client

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"time"
)

// enrollProtocol is the only protocol (ALPN, RFC 7301) of connections without a client certificate.
const enrollProtocol = "rtask-enroll/1"

// Provider is an OpenID provider whose users the server takes.
type Provider struct {
	Name     string   `json:"name"`
	Issuer   string   `json:"issuer"`
	ClientID string   `json:"client_id"`
	Audience string   `json:"audience"`
	Scopes   []string `json:"scopes"`
	// Login has "browser" and "device".
	Login []string `json:"login"`
	// DeviceURL is set where the provider does not tell its own (RFC 8628, section 4).
	DeviceURL string `json:"device_authorization_url"`
}

// Authority is what a server tells everybody: whom it trusts, and how one gets a certificate. There is no secret in it.
type Authority struct {
	Name string `json:"name"`
	// URL is the audience of tokens.
	URL string `json:"url"`
	// Certificates are the authorities' own, in PEM.
	Certificates []string   `json:"certificates"`
	Providers    []Provider `json:"providers"`
}

// Enrolled is a certificate that was issued.
type Enrolled struct {
	// Certificate is the chain in PEM, the client's own first.
	Certificate string `json:"certificate"`
	// Authorities are whom to trust for the server's certificate, in PEM.
	Authorities []string  `json:"authorities"`
	Identity    string    `json:"identity"`
	ExpiresAt   time.Time `json:"expires_at"`
}

// Proof is what a certificate is issued for: a join token, or an ID token of a provider.
type Proof struct {
	JoinToken string `json:"join_token,omitempty"`
	Provider  string `json:"provider,omitempty"`
	IDToken   string `json:"id_token,omitempty"`
}

// DeviceCode is a request for a certificate that an administrator of the server decides on (the words are those of RFC 8628).
type DeviceCode struct {
	DeviceCode string `json:"device_code"`
	UserCode   string `json:"user_code"`
	// ExpiresIn and Interval are seconds.
	ExpiresIn int64 `json:"expires_in"`
	Interval  int64 `json:"interval"`
}

// Authority asks who the server is.
func (e *Endpoint) Authority(ctx context.Context) (Authority, error) {
	var a Authority
	err := e.enrol(ctx, http.MethodGet, "/ca", nil, &a)
	return a, err
}

// Enroll gets a certificate for the key that has signed the request csr, in PEM.
func (e *Endpoint) Enroll(ctx context.Context, csr string, p Proof) (Enrolled, error) {
	var reply Enrolled
	err := e.enrol(ctx, http.MethodPost, "/enroll", struct {
		CSR string `json:"csr"`
		Proof
	}{csr, p}, &reply)
	return reply, err
}

// AskDevice asks for a certificate as name, which an administrator decides on.
func (e *Endpoint) AskDevice(ctx context.Context, csr, name string) (DeviceCode, error) {
	var reply DeviceCode
	err := e.enrol(ctx, http.MethodPost, "/device_authorization", map[string]string{"csr": csr, "name": name}, &reply)
	return reply, err
}

// PollDevice gets the certificate once it was approved. Until then the error is a Problem authorization_pending or slow_down.
func (e *Endpoint) PollDevice(ctx context.Context, code string) (Enrolled, error) {
	var reply Enrolled
	err := e.enrol(ctx, http.MethodPost, "/device_token", map[string]string{"device_code": code}, &reply)
	return reply, err
}

// renewExpired renews a certificate that can no longer be shown: the old key signs the request (RFC 7515), with its chain in x5c.
func (e *Endpoint) renewExpired(ctx context.Context, old *tls.Certificate, csr string) (Enrolled, error) {
	block, _ := pem.Decode([]byte(csr))
	if block == nil {
		return Enrolled{}, errors.New("the certificate request is not PEM")
	}
	jws, err := sign(old, block.Bytes)
	if err != nil {
		return Enrolled{}, err
	}
	var reply Enrolled
	err = e.enrol(ctx, http.MethodPost, "/renew", map[string]string{"jws": jws}, &reply)
	return reply, err
}

// sign returns a payload as a compact JWS by the key of a certificate (RFC 7515, 8037).
func sign(cert *tls.Certificate, payload []byte) (string, error) {
	signer, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		return "", errors.New("the key of the certificate cannot sign")
	}
	header := struct {
		Algorithm string   `json:"alg"`
		Chain     [][]byte `json:"x5c"` // in base64 with padding, section 4.1.6
	}{Chain: cert.Certificate}
	ed := false
	switch signer.Public().(type) {
	case ed25519.PublicKey:
		header.Algorithm, ed = "EdDSA", true
	case *ecdsa.PublicKey:
		header.Algorithm = "ES256"
	default:
		return "", fmt.Errorf("a key of the kind %T cannot sign the request", signer.Public())
	}
	h, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	b64 := base64.RawURLEncoding
	text := b64.EncodeToString(h) + "." + b64.EncodeToString(payload)
	if ed {
		s, err := crypto.SignMessage(signer, rand.Reader, []byte(text), crypto.Hash(0))
		if err != nil {
			return "", err
		}
		return text + "." + b64.EncodeToString(s), nil
	}
	der, err := crypto.SignMessage(signer, rand.Reader, []byte(text), crypto.SHA256)
	if err != nil {
		return "", err
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		return "", err
	}
	const half = 32 // P-256, RFC 7518, section 3.4
	s := make([]byte, 2*half)
	rs.R.FillBytes(s[:half])
	rs.S.FillBytes(s[half:])
	return text + "." + b64.EncodeToString(s), nil
}

// enrol makes a request without a client certificate.
func (e *Endpoint) enrol(ctx context.Context, method, path string, request, reply any) error {
	var body []byte
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, e.server.URL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/json")
	if request != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	t := e.enrolTransport(e.tls(nil))
	defer t.CloseIdleConnections()
	response, err := t.RoundTrip(r)
	if err != nil {
		return e.explain(ctx, nil, false, err)
	}
	e.look(response)
	return e.read(response, path, reply)
}

// enrolTransport speaks HTTP/1.1 on connections of the enrolment protocol.
func (e *Endpoint) enrolTransport(c *tls.Config) *http.Transport {
	c.NextProtos = []string{enrollProtocol}
	d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: c}
	return &http.Transport{
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
			defer cancel()
			return d.DialContext(ctx, network, address)
		},
		DisableKeepAlives: true, DisableCompression: true, ResponseHeaderTimeout: 6 * dialTimeout,
	}
}

// Meet asks a server that is not known for its authority. Nothing is sent to it but the question. It returns the one of the authorities
// it names that has issued its certificate, for its name. Nothing else of it is proven: whoever believes this authority has to ask again
// with it as the only root.
func (e *Endpoint) Meet(ctx context.Context) (*x509.Certificate, error) {
	var chain []*x509.Certificate
	c := e.tls(nil)
	c.InsecureSkipVerify = true // what comes is checked below and by people, and nothing is told to the server
	c.VerifyConnection = func(s tls.ConnectionState) error { chain = s.PeerCertificates; return nil }
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, e.server.URL+"/ca", http.NoBody)
	if err != nil {
		return nil, err
	}
	t := e.enrolTransport(c)
	defer t.CloseIdleConnections()
	response, err := t.RoundTrip(r)
	if err != nil {
		return nil, e.explain(ctx, nil, false, err)
	}
	e.look(response)
	var said Authority
	if err := e.read(response, "/ca", &said); err != nil {
		return nil, err
	}
	all, err := ParseCertificates(said.Certificates...)
	if err != nil {
		return nil, err
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	for _, c := range all {
		roots := x509.NewCertPool()
		roots.AddCert(c)
		if _, err = chain[0].Verify(x509.VerifyOptions{DNSName: e.host, Roots: roots, Intermediates: between}); err == nil {
			return c, nil
		}
	}
	if err == nil {
		err = errors.New("it names none")
	}
	return nil, e.clock(fmt.Errorf("the certificate of %s is not one of its own authority: %w", e.host, err))
}

// ParseCertificates reads certificates in PEM.
func ParseCertificates(texts ...string) (all []*x509.Certificate, err error) {
	for _, text := range texts {
		for rest := []byte(text); ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if block.Type != "CERTIFICATE" {
				continue
			}
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("cannot read a certificate: %w", err)
			}
			all = append(all, c)
		}
	}
	return all, nil
}

// Fingerprint is how the key of an authority is shown and compared: SHA-256 of its SubjectPublicKeyInfo.
func Fingerprint(c *x509.Certificate) string {
	return KeyFingerprint(c.RawSubjectPublicKeyInfo)
}

// KeyFingerprint returns the fingerprint of a public key (SubjectPublicKeyInfo in DER). The engine shows the same text to the administrator
// who approves a device.
func KeyFingerprint(spki []byte) string {
	sum := sha256.Sum256(spki)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

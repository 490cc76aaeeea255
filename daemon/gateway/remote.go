package gateway

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

// The credentials of the port for remote clients: the private key, and the certificate of one's own authority with those between it and
// the root, both in PEM. Without the latter, the certificate is issued by rtask's authority, and the engine tells it.
const (
	credentialRemoteKey  = "remote.key"
	credentialRemoteCert = "remote.cert"
)

// remote is the port for clients with certificates, and for those that want one.
type remote struct {
	options  Options
	refusals *refusals
	mutual   *mutual
	proxy    *proxy
	enroller *enroller
	// open reads the credentials, and returns how TLS is spoken.
	open func() *tls.Config
}

func newRemote(engine rtaskv1connect.GatewayServiceClient, a *api, o Options) *remote {
	r := &remote{options: o, refusals: newRefusals(engine, o.Logger), enroller: &enroller{engine: engine, bodies: a.strangers, logger: o.Logger}}
	r.mutual = newMutual(a.watch, r.refusals, o.Logger)
	r.proxy = newProxy(r.mutual, o)
	r.open = sync.OnceValue(r.config)
	return r
}

// close ends what is left when no more is served.
func (r *remote) close() {
	r.refusals.close()
	r.proxy.transport.CloseIdleConnections()
}

// config is how TLS is spoken. Without a key that can be used, each handshake ends with the alert internal_error (RFC 8446, section
// 6.2), so that who connects to a socket of systemd's does not wait for ever.
func (r *remote) config() *tls.Config {
	own, err := r.options.identity()
	if err != nil {
		r.options.Logger.Error("remote clients are not served", "error", err)
		return &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, err }}
	}
	return r.mutual.config(own)
}

// configure is what the server has otherwise than others.
func (r *remote) configure(s *http.Server) {
	s.Handler = counted(r.proxy, r.proxy.busy)
	s.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){enrollProtocol: r.enroller.serve}
	r.proxy.configure(s)
}

// busy refuses a request that is one too many.
func (p *proxy) busy(w http.ResponseWriter, r *http.Request, why problem) {
	p.write(w, r, why.Kind.HTTPStatus(), connect.CodeUnavailable, &rtaskv1.Error{Kind: string(why.Kind), RetryAfter: durationpb.New(why.retryAfter)}, why.Detail)
}

// identity reads what the port is served with.
func (o Options) identity() (identity, error) {
	text, err := o.remoteCredentials()
	if err != nil {
		return identity{}, err
	}
	var own identity
	own.key, err = privateKey(text)
	if err != nil {
		return identity{}, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			own.chain = append(own.chain, block.Bytes)
		}
	}
	if own.chain == nil {
		return own, nil
	}
	_, err = serverCertificate(own.key, own.chain)
	return own, err
}

// remoteCredentials are the certificate, if there is one, and the key in PEM, one behind the other.
func (o Options) remoteCredentials() ([]byte, error) {
	if o.RemoteKey != nil {
		text, err := io.ReadAll(o.RemoteKey)
		if err != nil {
			return nil, fmt.Errorf("cannot read the key: %w", err)
		}
		if len(text) == 0 {
			return nil, errors.New("there is no key: rtaskctl ca init makes one, for the next start")
		}
		return text, nil
	}
	if o.CredentialsDir == "" {
		return nil, fmt.Errorf("there are no credentials, %s is needed", credentialRemoteKey)
	}
	key, err := os.ReadFile(filepath.Join(o.CredentialsDir, credentialRemoteKey))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no credential %s", credentialRemoteKey)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the credential %s: %w", credentialRemoteKey, err)
	}
	cert, err := os.ReadFile(filepath.Join(o.CredentialsDir, credentialRemoteCert))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the credential %s: %w", credentialRemoteCert, err)
	}
	return append(append(cert, '\n'), key...), nil
}

var errKey = fmt.Errorf("the credential %s has no private key in PEM that can be used", credentialRemoteKey)

// privateKey reads the private key in a text of PEM blocks: PKCS #8 (RFC 5958), or SEC 1 (RFC 5915).
func privateKey(text []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		var key any
		var err error
		if block.Type == "EC PRIVATE KEY" {
			key, err = x509.ParseECPrivateKey(block.Bytes)
		} else {
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		}
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok || weakness(signer.Public()) != "" { // the error might quote it
			return nil, errKey
		}
		return signer, nil
	}
	return nil, errKey
}

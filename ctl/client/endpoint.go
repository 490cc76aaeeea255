package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultPort is the port of the remote API.
const DefaultPort = "8843"

const (
	// dialTimeout is how long it may take to connect and to shake hands, each.
	dialTimeout = 10 * time.Second
	// sendPing and pingTimeout find a link that was cut: a connection on which nothing came for the first is pinged, and given up
	// after the second.
	sendPing    = 15 * time.Second
	pingTimeout = 10 * time.Second
	// remoteIdle is below the gateway's own timeout of idle connections (60 s).
	remoteIdle = 50 * time.Second
	// replyMax is the most that a reply of the paths beside the API can have, in bytes. They have a few certificates.
	replyMax = 256 << 10
	// sentenceMax is the longest refusal in plain text that is shown.
	sentenceMax = 500
)

// Server is an engine on another machine.
type Server struct {
	// URL is as ParseURL returns it.
	URL string
	// Name is what errors call the caller's account there, such as a context's name; "": the host's name.
	Name string
	// Roots are the authorities one of which must have issued the server's certificate; nil: those of the system.
	Roots []*x509.Certificate
}

// ParseURL returns the URL of the server that a person means: HOST, HOST:PORT, or https://HOST[:PORT].
func ParseURL(text string) (string, error) {
	wrong := fmt.Errorf("%q is not a server such as build.example.org:%s or https://build.example.org:%s", text, DefaultPort, DefaultPort)
	bare := text
	if scheme, rest, ok := strings.Cut(text, "://"); ok {
		if scheme != "https" {
			return "", wrong
		}
		bare = rest
	}
	if strings.Count(bare, ":") > 1 && !strings.HasPrefix(bare, "[") { // an IPv6 address without the brackets
		bare = "[" + bare + "]"
	}
	u, err := url.Parse("https://" + strings.TrimSuffix(bare, "/"))
	if err != nil || u.Hostname() == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || strings.HasSuffix(u.Host, ":") {
		return "", wrong
	}
	port := u.Port()
	if port == "" {
		port = DefaultPort
	}
	return "https://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port), nil
}

// Endpoint is a server with the connections to it. It is safe for concurrent use.
type Endpoint struct {
	server Server
	// host is the server's name alone, address its name and port.
	host, address string
	pool          *x509.CertPool

	// mu guards mutual, of the certificate that was used last.
	mu     sync.Mutex
	mutual *mutual
	// ahead is by how much the server's clock was ahead of this machine's in its last reply, in nanoseconds; it is exact to a second.
	ahead atomic.Int64
}

// mutual are connections with one client certificate.
type mutual struct {
	leaf      []byte
	transport *http.Transport
	// reached is whether a reply has come on one of them.
	reached atomic.Bool
}

// NewEndpoint returns an endpoint. Nothing is connected yet.
func NewEndpoint(s Server) (*Endpoint, error) {
	canonical, err := ParseURL(s.URL)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(canonical)
	if err != nil {
		return nil, err
	}
	s.URL = canonical
	e := &Endpoint{server: s, host: u.Hostname(), address: u.Host}
	if e.server.Name == "" {
		e.server.Name = e.host
	}
	if s.Roots != nil {
		e.pool = x509.NewCertPool()
		for _, c := range s.Roots {
			e.pool.AddCert(c)
		}
	}
	return e, nil
}

// URL returns the server's URL in its one form.
func (e *Endpoint) URL() string { return e.server.URL }

// Host returns the server's name without the port.
func (e *Endpoint) Host() string { return e.host }

// Ahead is by how much the server's clock was ahead of this machine's when it last replied; 0 before that.
func (e *Endpoint) Ahead() time.Duration { return time.Duration(e.ahead.Load()) }

// Close closes the connections that no call is using.
func (e *Endpoint) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mutual != nil {
		e.mutual.transport.CloseIdleConnections()
	}
}

// with returns the connections for a client certificate. Those of an earlier one go when nothing uses them any more: a token is
// bound to the certificate of its connection.
func (e *Endpoint) with(cert *tls.Certificate) *mutual {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mutual != nil {
		if bytes.Equal(e.mutual.leaf, cert.Certificate[0]) {
			return e.mutual
		}
		e.mutual.transport.CloseIdleConnections()
	}
	http2 := new(http.Protocols)
	http2.SetHTTP2(true)
	e.mutual = &mutual{leaf: cert.Certificate[0], transport: &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:     e.tls(cert),
		TLSHandshakeTimeout: dialTimeout,
		DisableCompression:  true,
		Protocols:           http2,
		IdleConnTimeout:     remoteIdle,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: sendPing, PingTimeout: pingTimeout},
	}}
	return e.mutual
}

// tls is the configuration of connections with a client certificate; nil: without.
func (e *Endpoint) tls(cert *tls.Certificate) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: e.host, RootCAs: e.pool}
	if cert != nil {
		// Without this a certificate whose authority the server does not name is not sent at all, and nobody is told which one it was.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return c
}

// certificateKey is under which a request's context has the client certificate to show.
type certificateKey struct{}

// RoundTrip makes a request of the API with the certificate of its context.
func (e *Endpoint) RoundTrip(r *http.Request) (*http.Response, error) {
	cert, ok := r.Context().Value(certificateKey{}).(*tls.Certificate)
	if !ok {
		return nil, errors.New("the call has no client certificate")
	}
	return e.show(cert, r)
}

// show makes a request with a client certificate and explains why it failed.
func (e *Endpoint) show(cert *tls.Certificate, r *http.Request) (*http.Response, error) {
	m := e.with(cert)
	response, err := m.transport.RoundTrip(r)
	if err != nil {
		return nil, e.explain(r.Context(), cert, m.reached.Load(), err)
	}
	m.reached.Store(true)
	e.look(response)
	return response, nil
}

// look takes down what a reply says of the server's clock.
func (e *Endpoint) look(r *http.Response) {
	if t, err := http.ParseTime(r.Header.Get("Date")); err == nil {
		e.ahead.Store(int64(time.Until(t)))
	}
}

// post makes a request to one of the OAuth paths with a client certificate, and reads its JSON.
func (e *Endpoint) post(ctx context.Context, cert *tls.Certificate, path, contentType string, body []byte, reply any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.server.URL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("Accept", "application/json")
	response, err := e.show(cert, r)
	if err != nil {
		return err
	}
	return e.read(response, path, reply)
}

// read reads a reply's JSON, or the Problem that it is, and closes it.
func (e *Endpoint) read(response *http.Response, path string, reply any) error {
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(response.Body, replyMax+1))
	switch {
	case err != nil:
		return fmt.Errorf("cannot read the reply of %s to %s: %w", e.host, path, err)
	case len(data) > replyMax:
		return fmt.Errorf("the reply of %s to %s has more than %d bytes", e.host, path, replyMax)
	case response.StatusCode != http.StatusOK:
		p := &Problem{Host: e.host, Path: path, Status: response.StatusCode}
		if json.Unmarshal(data, p) != nil {
			p.Kind, p.Description, p.Message = "", "", ""
			if text := strings.TrimSpace(string(data)); strings.HasPrefix(response.Header.Get("Content-Type"), "text/plain") && len(text) <= sentenceMax {
				p.Description = text // of the engine, about a certificate
			}
		}
		return e.clock(p)
	}
	if reply == nil {
		return nil
	}
	if err := json.Unmarshal(data, reply); err != nil {
		return fmt.Errorf("%s does not answer %s as rtask does: %w", e.host, path, err)
	}
	return nil
}

// Problem is a refusal of the enrolment and OAuth paths, in the form of RFC 6749, section 5.2.
type Problem struct {
	Host   string `json:"-"`
	Path   string `json:"-"`
	Status int    `json:"-"`
	// Kind is such as "join-used" or "authorization_pending"; "" where the reply was none of rtask's.
	Kind string `json:"error"`
	// Description is one sentence.
	Description string `json:"error_description"`
	// Message is that of the gateway where there is no engine to answer.
	Message string `json:"message"`
}

// Error implements error.
func (p *Problem) Error() string {
	switch {
	case p.Description != "":
		return worded(p.Host, p.Kind, p.Description)
	case p.Message != "" && len(p.Message) <= sentenceMax:
		return p.Message
	case p.Kind != "":
		return fmt.Sprintf("%s refuses %s: %s", p.Host, p.Path, p.Kind)
	}
	return fmt.Sprintf("%s answers %s with HTTP status %d", p.Host, p.Path, p.Status)
}

// IsProblem reports whether an error is a Problem of one of these kinds.
func IsProblem(err error, kinds ...string) bool {
	p, ok := errors.AsType[*Problem](err)
	return ok && slices.Contains(kinds, p.Kind)
}

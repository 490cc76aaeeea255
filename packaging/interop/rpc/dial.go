package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// What is between here and the end of the file is in docs/remote-clients.md, word for word (TestClientsDocument).

// dial connects to the remote API of rtask at a host and port, with a certificate and a key from files.
func dial(host, cert, key, ca string) (*grpc.ClientConn, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("there is no certificate in %s", ca)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: roots}
	return grpc.NewClient(host,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 15 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithPerRPCCredentials(&tokens{
			url:    "https://" + host + "/token",
			client: &http.Client{Transport: &http.Transport{TLSClientConfig: config.Clone()}, Timeout: 10 * time.Second},
		}))
}

// tokens are credentials.PerRPCCredentials: each call has a token that is bound to the certificate of its connection. A new one
// is asked for a minute before the last one ends.
type tokens struct {
	url    string
	client *http.Client
	mu     sync.Mutex
	token  string
	until  time.Time
}

func (t *tokens) RequireTransportSecurity() bool { return true }

func (t *tokens) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Until(t.until) < time.Minute {
		if err := t.renew(); err != nil {
			return nil, err
		}
	}
	return map[string]string{"authorization": "Bearer " + t.token}, nil
}

func (t *tokens) renew() error {
	resp, err := t.client.PostForm(t.url, url.Values{"grant_type": {"client_credentials"}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var reply struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
		Error       string `json:"error_description"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil {
		return err
	}
	if reply.AccessToken == "" {
		return errors.New(resp.Status + ": " + reply.Error)
	}
	t.token, t.until = reply.AccessToken, time.Now().Add(time.Duration(reply.ExpiresIn)*time.Second)
	return nil
}

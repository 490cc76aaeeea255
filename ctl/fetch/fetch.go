// Package fetch fetches the public keys of the OpenID providers that the engine wants, and leaves them where it reads them. The engine
// has no network, and the gateway reaches nobody, so `rtaskctl provider fetch` does this, in a unit of its own.
//
// It verifies nothing but who the provider's host is: what the keys are good for is decided in daemon/auth/provider. Only ctl imports
// it.
package fetch

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/rtask/rtask/daemon/auth/provider/handover"
	"github.com/rtask/rtask/sandbox/durable"
)

const (
	// patience is how long one provider may take, and together how many are asked at a time.
	patience, together = 15 * time.Second, 4
	// maxReply is the most bytes of a reply, maxRedirects how many redirections are followed.
	maxReply, maxRedirects = handover.MaxKeys - 4<<10, 5
	// maxCAFile is the most bytes of a file with authorities.
	maxCAFile = 1 << 20
)

// Result is what became of one provider. Err is nil if its keys were written.
type Result struct {
	Name string
	Keys int
	Err  error
}

// Run fetches the keys of all providers that a file of the engine's names, and writes each into a file of its own in a folder. It
// removes the files of other providers there. The keys of a provider that cannot be reached stay as they are. The results are in the
// order of the names.
//
// If the engine asks while Run fetches, it fetches once more: a path unit (systemd.path(5)) does not see what changes while its service
// runs.
func Run(ctx context.Context, wanted, folder string) ([]Result, error) {
	begun := asked(wanted)
	results, err := all(ctx, wanted, folder)
	if now := asked(wanted); err == nil && now != begun && now.wanted != (time.Time{}) {
		return all(ctx, wanted, folder)
	}
	return results, err
}

// request is when the engine wrote its two files; zero if a file is not there.
type request struct{ wanted, again time.Time }

func asked(wanted string) (r request) {
	if info, err := os.Stat(wanted); err == nil {
		r.wanted = info.ModTime()
	}
	if info, err := os.Stat(filepath.Join(filepath.Dir(wanted), handover.AgainName)); err == nil {
		r.again = info.ModTime()
	}
	return r
}

// all does what Run does, once.
func all(ctx context.Context, wanted, folder string) ([]Result, error) {
	text, err := readAtMost(wanted, handover.MaxWanted)
	if err != nil {
		return nil, fmt.Errorf("cannot read which providers there are: %w", err)
	}
	w, err := handover.ParseWanted(text)
	if err != nil {
		return nil, fmt.Errorf("cannot read which providers there are: %s: %w", wanted, err)
	}
	if err := forget(folder, w.Providers); err != nil {
		return nil, err
	}
	results := make([]Result, len(w.Providers))
	slots := make(chan struct{}, together)
	var fetches sync.WaitGroup
	for i, p := range w.Providers {
		fetches.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			n, err := one(ctx, p, folder)
			results[i] = Result{Name: p.Name, Keys: n, Err: err}
		})
	}
	fetches.Wait()
	slices.SortFunc(results, func(a, b Result) int { return cmp.Compare(a.Name, b.Name) })
	return results, nil
}

// forget removes the keys of providers that are no longer wanted.
func forget(folder string, wanted []handover.Provider) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("cannot look at the folder of the keys: %w", err)
	}
	for _, e := range entries {
		keep := slices.ContainsFunc(wanted, func(p handover.Provider) bool { return handover.KeysName(p.Name) == e.Name() })
		if !keep && strings.HasSuffix(e.Name(), handover.KeysName("")) {
			if err := os.Remove(filepath.Join(folder, e.Name())); err != nil {
				return fmt.Errorf("cannot remove the keys of another provider: %w", err)
			}
		}
	}
	return nil
}

// one fetches the keys of one provider: its discovery document (OpenID Connect Discovery 1.0, section 4) says where they are.
func one(ctx context.Context, p handover.Provider, folder string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := newClient(p.CAFile)
	if err != nil {
		return 0, err
	}
	defer client.CloseIdleConnections()
	discovered, err := oidc.NewProvider(oidc.ClientContext(ctx, client), p.Issuer)
	if err != nil {
		return 0, fmt.Errorf("cannot read its discovery document: %w", readable(err))
	}
	var where struct {
		JWKS string `json:"jwks_uri"`
	}
	if err := discovered.Claims(&where); err != nil || where.JWKS == "" {
		return 0, errors.New("its discovery document does not say where its keys are (jwks_uri)")
	}
	jwks, err := get(ctx, client, where.JWKS)
	if err != nil {
		return 0, fmt.Errorf("cannot read its keys: %w", readable(err))
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(jwks, &set); err != nil || len(set.Keys) == 0 {
		return 0, fmt.Errorf("%s is not a JSON Web Key Set with a key", where.JWKS)
	}
	text, err := json.Marshal(handover.Keys{Issuer: p.Issuer, Fetched: time.Now().UTC().Truncate(time.Second), JWKS: jwks})
	if err != nil {
		return 0, err
	}
	if len(text) > handover.MaxKeys {
		return 0, fmt.Errorf("its keys are longer than %d bytes", handover.MaxKeys)
	}
	path := filepath.Join(folder, handover.KeysName(p.Name))
	return len(set.Keys), durable.Replace(path, path+".new", text, 0o644)
}

// readable shortens an error that could have a whole page of a website in it.
func readable(err error) error {
	const most = 300
	if text := err.Error(); len(text) > most {
		return errors.New(strings.ToValidUTF8(text[:most], "") + "…")
	}
	return err
}

func get(ctx context.Context, client *http.Client, from string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, http.NoBody)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json, application/jwk-set+json")
	reply, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", from, reply.Status)
	}
	return io.ReadAll(reply.Body)
}

// newClient returns a client that speaks HTTPS only, with hosts for which one of the authorities in a file vouches; empty: one that the
// machine trusts. A proxy is used if the environment names one.
func newClient(caFile string) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		text, err := readAtMost(caFile, maxCAFile)
		if err != nil {
			return nil, fmt.Errorf("cannot read its ca_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("its ca_file, %s, has no certificate in PEM", caFile)
		}
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10, TLSHandshakeTimeout: patience,
	}
	return &http.Client{
		Transport: bounded{transport},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("it redirects more than %d times", maxRedirects)
			}
			return nil // bounded looks at each request
		},
	}, nil
}

// bounded makes requests over HTTPS only, and reads no more than maxReply of a reply.
type bounded struct{ next *http.Transport }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s is not https", redacted(r.URL))
	}
	reply, err := b.next.RoundTrip(r)
	if err == nil {
		reply.Body = struct {
			io.Reader
			io.Closer
		}{&limited{reply.Body, maxReply}, reply.Body}
	}
	return reply, err
}

// CloseIdleConnections implements what http.Client looks for.
func (b bounded) CloseIdleConnections() { b.next.CloseIdleConnections() }

func redacted(u *url.URL) string { return u.Scheme + "://" + u.Host + u.Path }

// limited is a reader that fails where io.LimitReader would end: half a document must not be taken for a whole one.
type limited struct {
	r    io.Reader
	left int64
}

func (l *limited) Read(b []byte) (int, error) {
	if l.left < 0 {
		return 0, fmt.Errorf("the reply is longer than %d bytes", maxReply)
	}
	if int64(len(b)) > l.left+1 {
		b = b[:l.left+1]
	}
	n, err := l.r.Read(b)
	if l.left -= int64(n); l.left < 0 {
		return 0, fmt.Errorf("the reply is longer than %d bytes", maxReply)
	}
	return n, err
}

func readAtMost(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%s is longer than %d bytes", path, most)
	}
	return text, err
}

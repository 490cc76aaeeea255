package contexts

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/ctl/keystore"
	"github.com/rtask/rtask/sandbox/durable"
	"github.com/rtask/rtask/sandbox/wording"
)

// Credentials are what a context shows to its server. They implement client.Credentials.
type Credentials struct {
	folder  Folder
	context Context
	keys    keystore.Store
	// enroll gets a certificate for a key in memory; see Fleeting.
	enroll func(ctx context.Context, e *client.Endpoint) (*tls.Certificate, error)
	warn   func(string)

	// mu guards what follows.
	mu    sync.Mutex
	cert  *tls.Certificate
	place keystore.Place
	// stamp is of the files that cert is from.
	stamp [2]time.Time
	token client.Tokens
}

// Credentials returns those of a context. Warn is called with a sentence about a renewal that fails, once a day.
func (f Folder) Credentials(c Context, keys keystore.Store, warn func(string)) *Credentials {
	return &Credentials{folder: f, context: c, keys: keys, warn: warn}
}

// Fleeting returns credentials of a context with a key in memory, and a certificate that is got from enroll when it is needed.
func (f Folder) Fleeting(c Context, enroll func(ctx context.Context, e *client.Endpoint) (*tls.Certificate, error)) *Credentials {
	return &Credentials{folder: f, context: c, enroll: enroll}
}

// Files returns credentials of somebody's own files, which are read again when they change. Nothing is saved.
func Files(c Context, keys keystore.Store) *Credentials { return &Credentials{context: c, keys: keys} }

// Server is where the context's server is, and whom to trust there.
func (c *Credentials) Server() (client.Server, error) {
	s := client.Server{URL: c.context.URL, Name: c.context.Name}
	file := c.context.CAFile
	if file == "" && c.saved() {
		file = filepath.Join(c.dir(), caFile)
	}
	if file == "" {
		return s, nil
	}
	text, err := readFile(file)
	if errors.Is(err, fs.ErrNotExist) && c.context.CAFile == "" {
		return s, nil // the system's
	}
	if err != nil {
		return s, err
	}
	if s.Roots, err = client.ParseCertificates(string(text)); err == nil && len(s.Roots) == 0 {
		err = fmt.Errorf("%s has no certificate in PEM", file)
	}
	return s, err
}

// saved reports whether the context is one of the folder's.
func (c *Credentials) saved() bool { return c.folder.Path != "" }

func (c *Credentials) dir() string { return c.folder.Dir(c.context.Name) }

// Certificate implements client.Credentials. The certificate of a machine is renewed here: from two thirds of its life on, and after
// its end for as long as the server allows.
func (c *Credentials) Certificate(ctx context.Context, e *client.Endpoint) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.enroll != nil:
		if c.cert != nil && time.Until(c.cert.Leaf.NotAfter) > life(c.cert.Leaf)/5 {
			return c.cert, nil
		}
		cert, err := c.enroll(ctx, e)
		if err != nil {
			return nil, err
		}
		c.cert, c.place = cert, keystore.Memory
		return cert, nil
	case c.context.CertFile != "":
		if err := c.reload(ctx); err != nil {
			return nil, err
		}
		return c.cert, nil
	}
	if c.cert == nil || due(c.cert.Leaf, time.Now()) {
		if err := c.load(ctx); err != nil {
			return nil, err
		}
	}
	if !due(c.cert.Leaf, time.Now()) {
		return c.cert, nil
	}
	if err := c.renew(ctx, e); err != nil {
		if time.Now().After(c.cert.Leaf.NotAfter) {
			if errors.As(err, new(*client.Problem)) {
				return nil, &Ended{Name: c.context.Name, Until: c.cert.Leaf.NotAfter, err: err}
			}
			return nil, err
		}
		c.late(err)
	}
	return c.cert, nil
}

// Kept returns the certificate that the context has now, with its key unless it has ended. It is not renewed.
func (c *Credentials) Kept(ctx context.Context) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.load(ctx); err != nil {
		return nil, err
	}
	return c.cert, nil
}

// Ended is returned for the certificate of a machine that ended too long ago to be renewed.
type Ended struct {
	Name  string
	Until time.Time
	err   error
}

// Error implements error.
func (e *Ended) Error() string {
	return fmt.Sprintf("your certificate for %s expired %s ago, and cannot be renewed: %v", e.Name, wording.Span(time.Since(e.Until), 1), e.err)
}

// Unwrap returns what the server said.
func (e *Ended) Unwrap() error { return e.err }

// Have gives the credentials of a context that was just saved their certificate, with the key that was just made: nobody is asked for it.
func (c *Credentials) Have(cert *tls.Certificate, place keystore.Place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cert, c.place = cert, place
}

// Place returns where the key is, once there was a certificate.
func (c *Credentials) Place() keystore.Place {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.place
}

// reload reads somebody's own files if they have changed. c.mu is held.
func (c *Credentials) reload(ctx context.Context) error {
	var stamp [2]time.Time
	for i, file := range []string{c.context.CertFile, c.context.KeyFile} {
		if file == "" {
			continue
		}
		fi, err := os.Stat(file)
		if err != nil {
			return err
		}
		stamp[i] = fi.ModTime()
	}
	if c.cert != nil && stamp == c.stamp {
		return nil
	}
	cert, err := ReadCertificate(c.context.CertFile)
	if err != nil {
		return err
	}
	if c.context.KeyFile == "" {
		if cert.PrivateKey, err = c.keys.InAgent(ctx, cert.Leaf.PublicKey); err != nil {
			return err
		}
		c.place = keystore.Agent
	} else {
		text, err := readFile(c.context.KeyFile)
		if err != nil {
			return err
		}
		key, err := keystore.Parse(text)
		if err != nil {
			return fmt.Errorf("cannot read %s: %w", c.context.KeyFile, err)
		}
		if !samePublic(key.Public(), cert.Leaf.PublicKey) {
			return fmt.Errorf("%s is not the key of %s", c.context.KeyFile, c.context.CertFile)
		}
		cert.PrivateKey, c.place = key, keystore.Plain
	}
	c.cert, c.stamp = cert, stamp
	return nil
}

// load reads the certificate of the context's folder and finds its key. c.mu is held.
func (c *Credentials) load(ctx context.Context) error {
	cert, err := c.folder.Certificate(c.context.Name)
	if err != nil {
		return loggedOut(err, c.context.Name)
	}
	// One that has ended is of use for a renewal only, and then nobody is asked for its key.
	if ended := time.Now().After(cert.Leaf.NotAfter); ended && !due(cert.Leaf, time.Now()) {
		c.cert = cert
		return nil
	}
	key, place, err := c.keys.Find(ctx, c.dir(), c.context.Name, cert.Leaf.PublicKey, KeyUntil(cert.Leaf))
	if err != nil {
		return &KeyError{Name: c.context.Name, err: err}
	}
	cert.PrivateKey = key
	c.cert, c.place = cert, place
	return nil
}

// lock takes the lock of the context's folder.
func (c *Credentials) lock(ctx context.Context) (unlock func(), err error) {
	unlock, err = lock(ctx, c.dir())
	return unlock, loggedOut(err, c.context.Name)
}

// KeyError is returned when the key of a context cannot be used.
type KeyError struct {
	Name string
	err  error
}

// Error implements error.
func (k *KeyError) Error() string {
	if errors.Is(k.err, keystore.ErrGone) || errors.Is(k.err, keystore.ErrNoAgent) {
		return "the key of context " + k.Name + " was in ssh-agent and is gone (restarted?)"
	}
	return "cannot use the key of context " + k.Name + ": " + k.err.Error()
}

// Unwrap returns the reason.
func (k *KeyError) Unwrap() error { return k.err }

// Certificate returns the certificate of a context, without its key.
func (f Folder) Certificate(name string) (*tls.Certificate, error) {
	dir := f.Dir(name)
	if err := check(dir); err != nil {
		return nil, err
	}
	return ReadCertificate(filepath.Join(dir, certFile))
}

// IsLoggedOut reports whether Certificate failed because the context has no certificate.
func IsLoggedOut(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// loggedOut returns ErrLoggedOut for the error of a context that has no certificate.
func loggedOut(err error, name string) error {
	if IsLoggedOut(err) {
		return fmt.Errorf("%w to %s", ErrLoggedOut, name)
	}
	return err
}

// Logout calls revoke, then deletes the certificate of a context, its token and its key, unless ctx has ended: somebody has interrupted it,
// and the certificate may be good still. Meanwhile no process renews it. It returns the certificate, and what the key was removed from.
func (f Folder) Logout(ctx context.Context, name string, keys keystore.Store, revoke func()) (old *tls.Certificate, where keystore.Place, err error) {
	dir := f.Dir(name)
	unlock, err := lock(ctx, dir)
	if err != nil {
		return nil, "", loggedOut(err, name)
	}
	defer unlock()
	if old, err = f.Certificate(name); err != nil {
		return nil, "", loggedOut(err, name)
	}
	revoke()
	if ctx.Err() != nil {
		return nil, "", context.Cause(ctx)
	}
	where, err = keys.Remove(dir, old.Leaf.PublicKey)
	for _, file := range []string{tokenFile, certFile} {
		if failed := os.Remove(filepath.Join(dir, file)); !errors.Is(failed, fs.ErrNotExist) {
			err = errors.Join(err, failed)
		}
	}
	if err != nil {
		err = fmt.Errorf("cannot delete the key and the certificate: %w", err)
	}
	return old, where, err
}

// renew gets another certificate, with another key at the same place. Another process may have done so. c.mu is held.
func (c *Credentials) renew(ctx context.Context, e *client.Endpoint) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.load(ctx); err != nil {
		return err
	}
	if !due(c.cert.Leaf, time.Now()) {
		return nil
	}
	return c.another(ctx, e)
}

// Renew gets another certificate now, whether it is due or not, and returns it. The context must be a saved one.
func (c *Credentials) Renew(ctx context.Context) (*tls.Certificate, error) {
	switch {
	case c.enroll != nil:
		return nil, errors.New("there is nothing to renew: each process of a workflow gets a certificate of its own")
	case !c.saved() || c.context.CertFile != "":
		return nil, errors.New("this certificate is in files of your own: its authority renews it")
	}
	server, err := c.Server()
	if err != nil {
		return nil, err
	}
	e, err := client.NewEndpoint(server)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	unlock, err := c.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := c.load(ctx); err != nil {
		return nil, err
	}
	if c.cert.PrivateKey == nil { // see load
		return nil, &Ended{Name: c.context.Name, Until: c.cert.Leaf.NotAfter, err: errors.New("a person's certificate is not renewed")}
	}
	if err := c.another(ctx, e); err != nil {
		return nil, err
	}
	return c.cert, nil
}

// another gets another certificate, with another key at the same place. The folder is locked, and c.mu is held.
func (c *Credentials) another(ctx context.Context, e *client.Endpoint) error {
	var key crypto.Signer
	var err error
	var made *keystore.New
	if c.place == keystore.Passphrase {
		key, _ = c.cert.PrivateKey.(crypto.Signer) // it stays: nobody is asked for another passphrase
	} else {
		if made, err = c.keys.Make(ctx, c.place); err != nil {
			return err
		}
		key = made.Signer
	}
	csr, err := Request(key)
	if err != nil {
		return err
	}
	got, err := e.Renew(ctx, c.cert, csr)
	if err != nil {
		return err
	}
	cert, err := WithKey(got.Certificate, key)
	if err != nil {
		return err
	}
	content := Content{Certificate: got.Certificate}
	if ca, err := readFile(filepath.Join(c.dir(), caFile)); err == nil { // else the system's authorities are believed
		content.CA = string(ca)
		if len(got.Authorities) > 0 {
			content.CA = strings.Join(got.Authorities, "\n")
		}
	}
	var keep func(string) error
	if made != nil {
		keep = func(dir string) error { return made.Keep(dir, c.context.Name, KeyUntil(cert.Leaf)) }
	}
	old := c.cert
	if err := c.folder.replace(c.context.Name, content, keep); err != nil {
		return err
	}
	if c.place == keystore.Agent {
		c.keys.Forget(old.Leaf.PublicKey)
	}
	c.cert = cert
	return nil
}

// late warns that a renewal fails, once a day when less than a fifth of the certificate's life is left. c.mu is held.
func (c *Credentials) late(err error) {
	left := time.Until(c.cert.Leaf.NotAfter)
	if c.warn == nil || left > life(c.cert.Leaf)/5 {
		return
	}
	mark := filepath.Join(c.dir(), warnedFile)
	if fi, err := os.Stat(mark); err == nil && time.Since(fi.ModTime()).Abs() < 24*time.Hour {
		return
	}
	_ = os.WriteFile(mark, nil, 0o600) // else it is said again
	_ = os.Chtimes(mark, time.Time{}, time.Now())
	c.warn(fmt.Sprintf("the certificate for %s ends in %s and cannot be renewed: %s", c.context.Name, wording.Span(left, 2), client.Message(err)))
}

// kept is the file of a token.
type kept struct {
	// Certificate is the SHA-256 of the certificate that it is bound to.
	Certificate string    `json:"certificate"`
	Token       string    `json:"token"`
	Since       time.Time `json:"since"`
	Until       time.Time `json:"until"`
}

// Token implements client.Credentials: the token is in memory and in the context's folder, where two processes that need another one
// fetch it once.
func (c *Credentials) Token(ctx context.Context, cert *tls.Certificate, refused string, fetch func(context.Context) (client.Token, error)) (client.Token, error) {
	if !c.saved() || c.enroll != nil {
		return c.token.Token(ctx, cert, refused, fetch)
	}
	return c.token.Token(ctx, cert, refused, func(ctx context.Context) (client.Token, error) {
		if t, ok := c.keptToken(cert, refused); ok {
			return t, nil
		}
		unlock, err := c.lock(ctx)
		if err != nil {
			return client.Token{}, err
		}
		defer unlock()
		if t, ok := c.keptToken(cert, refused); ok {
			return t, nil
		}
		t, err := fetch(ctx)
		if err == nil {
			c.keepToken(cert, t)
		}
		return t, err
	})
}

func (c *Credentials) keptToken(cert *tls.Certificate, refused string) (client.Token, bool) {
	text, err := readFile(filepath.Join(c.dir(), tokenFile))
	if err != nil {
		return client.Token{}, false
	}
	var k kept
	if json.NewDecoder(bytes.NewReader(text)).Decode(&k) != nil || k.Certificate != fingerprint(cert) {
		return client.Token{}, false
	}
	t := client.Token{Text: k.Token, Since: k.Since, Until: k.Until}
	now := time.Now()
	return t, t.Fresh(now) && !now.Before(k.Since) && k.Token != refused // not before: the clock was moved
}

// keepToken writes a token down. Where that cannot be, the next process fetches its own.
func (c *Credentials) keepToken(cert *tls.Certificate, t client.Token) {
	text, err := json.Marshal(kept{Certificate: fingerprint(cert), Token: t.Text, Since: t.Since, Until: t.Until})
	if err != nil {
		return
	}
	path := filepath.Join(c.dir(), tokenFile)
	_ = durable.Replace(path, path+".new", text, 0o600)
}

package provider

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/daemon/auth/provider/handover"
)

const (
	// lookEvery is how long keys are used before their file is looked at again, and lookSoon the same where a key is missing.
	lookEvery, lookSoon = 10 * time.Second, time.Second
	// patience is how long a file system may take to answer. One whose server is gone never does.
	patience = 2 * time.Second
	// fetchEvery is the least time between two requests for keys to be fetched before their time.
	fetchEvery = time.Minute
	// maxKeys is how many keys of a provider are used.
	maxKeys = 64
	// minRSA is the least size of an RSA key in bits (RFC 7518, section 3.3).
	minRSA = 2048
)

// keySet is what a file had.
type keySet struct {
	keys    []jose.JSONWebKey
	fetched time.Time // zero: of a file that nobody fetches
}

// source is the file with the keys of one provider.
type source struct {
	read    func() ([]byte, error)
	parse   func([]byte) (keySet, error)
	fetched bool // not a file of the administrator's

	mu      sync.Mutex // guards what follows
	content []byte
	set     *keySet // nil: there was never one
	err     error   // of the last look
	looked  time.Time
	pending chan result // of a read that has not ended
}

type result struct {
	content []byte
	err     error
}

func (s *source) init(o Options, p Settings) {
	if p.JWKSFile != "" {
		s.read = func() ([]byte, error) { return o.Read(p.JWKSFile) }
		s.parse = parseJWKS
		return
	}
	s.fetched = true
	s.read = func() ([]byte, error) { return readFetched(filepath.Join(o.Fetched, handover.KeysName(p.Name))) }
	s.parse = func(text []byte) (keySet, error) {
		k, err := handover.ParseKeys(text)
		if err != nil {
			return keySet{}, err
		}
		if k.Issuer != p.Issuer {
			return keySet{}, fmt.Errorf("its keys are of another issuer, %.200q", k.Issuer)
		}
		set, err := parseJWKS(k.JWKS)
		set.fetched = k.Fetched
		return set, err
	}
}

// take takes over what another source of the same file has read.
func (s *source) take(other *source) {
	other.mu.Lock()
	defer other.mu.Unlock()
	s.content, s.set = other.content, other.set
}

// keys returns the keys as they are in the file now, or those that could be read last. It looks at the file if it did not within a
// time. The error is why there are none.
func (s *source) keys(now time.Time, within time.Duration) (keySet, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.looked.IsZero() || now.Sub(s.looked) >= within || now.Before(s.looked) {
		s.look()
		s.looked = now
	}
	if s.set == nil {
		return keySet{}, s.err
	}
	return *s.set, nil
}

// look reads the file. It waits for patience at most; the next call then waits for the same read, so only one runs at a time. source.mu is
// held.
func (s *source) look() {
	if s.pending == nil {
		s.pending = make(chan result, 1)
		go func(to chan<- result) { // which ends with the answer of the file system
			content, err := s.read()
			to <- result{content, err}
		}(s.pending)
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case got := <-s.pending:
		s.pending = nil
		s.have(got)
	case <-late.C:
		s.err = fmt.Errorf("the file system of its keys has not answered within %v", patience)
	}
}

// have puts in force what was read, if it can be used. source.mu is held.
func (s *source) have(got result) {
	if s.err = got.err; s.err != nil || s.set != nil && bytes.Equal(s.content, got.content) {
		return
	}
	set, err := s.parse(got.content)
	if s.err = err; err == nil {
		s.content, s.set = got.content, &set
	}
}

// readFetched reads a file that the fetcher wrote. Its folder is the fetcher's, so what is there may be anything.
func readFetched(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	content, err := io.ReadAll(io.LimitReader(f, handover.MaxKeys+1))
	if err == nil && len(content) > handover.MaxKeys {
		err = fmt.Errorf("%s is longer than %d bytes", path, handover.MaxKeys)
	}
	return content, err
}

// parseJWKS reads a JWK set (RFC 7517, section 5). Keys that cannot verify a signature, or are of an unknown kind, are passed over;
// a set without any other is an error.
func parseJWKS(text []byte) (keySet, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if len(text) > handover.MaxKeys {
		return keySet{}, fmt.Errorf("the key set is longer than %d bytes", handover.MaxKeys)
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return keySet{}, errors.New("it is not a JSON Web Key Set")
	}
	var all []jose.JSONWebKey
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if len(all) < maxKeys && k.UnmarshalJSON(raw) == nil && usable(&k) {
			all = append(all, jose.JSONWebKey{Key: k.Key, KeyID: k.KeyID, Algorithm: k.Algorithm})
		}
	}
	if len(all) == 0 {
		return keySet{}, errors.New("the JSON Web Key Set has no public key for signatures")
	}
	return keySet{keys: all}, nil
}

func usable(k *jose.JSONWebKey) bool {
	if rsaKey, ok := k.Key.(*rsa.PublicKey); ok && rsaKey.N.BitLen() < minRSA {
		return false
	}
	return k.Valid() && k.IsPublic() && (k.Use == "" || k.Use == "sig")
}

// suits reports whether a key may verify an algorithm's signatures (RFC 8725, section 3.1).
func suits(k *jose.JSONWebKey, a jose.SignatureAlgorithm) bool {
	if k.Algorithm != "" && k.Algorithm != string(a) && !(k.Algorithm == "Ed25519" && a == jose.EdDSA) {
		return false
	}
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(string(a), "RS") || strings.HasPrefix(string(a), "PS")
	case *ecdsa.PublicKey:
		return a == jose.ES256 && key.Curve == elliptic.P256() || a == jose.ES384 && key.Curve == elliptic.P384()
	case ed25519.PublicKey:
		return a == jose.EdDSA
	}
	return false
}

// find returns the keys that can have signed a token: the one that it names, or all of its algorithm if it names none.
func (s keySet) find(kid string, a jose.SignatureAlgorithm) (all []jose.JSONWebKey) {
	for _, k := range s.keys {
		if suits(&k, a) && (kid == "" || k.KeyID == kid) {
			all = append(all, k)
		}
	}
	return all
}

// again asks for keys to be fetched before their time.
type again struct {
	path string

	mu    sync.Mutex // guards asked
	asked time.Time
}

// ask changes the file that rtask-provider.path watches, once in fetchEvery at most.
func (a *again) ask(now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.asked.IsZero() && now.Sub(a.asked) < fetchEvery && !now.Before(a.asked) {
		return nil
	}
	a.asked = now
	return os.WriteFile(a.path, []byte(now.UTC().Format(time.RFC3339)+"\n"), 0o644)
}

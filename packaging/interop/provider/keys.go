package main

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"sync"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// keys are a provider's: it signs with the last one, and publishes that and the one before. Their names are the same in each provider, so
// that one which claims to be another is found out by its signatures alone.
type keys struct {
	mu   sync.Mutex // guards what follows
	last []private
	made int
}

// rotate makes the next key.
func (k *keys) rotate() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.made++
	k.last = append(k.last, private{fmt.Sprint("key-", k.made), key})
	k.last = k.last[max(0, len(k.last)-2):]
	return nil
}

func (k *keys) signing() private {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last[len(k.last)-1]
}

func (k *keys) published() []op.Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []op.Key
	for _, p := range k.last {
		all = append(all, public(p))
	}
	return all
}

// private is an op.SigningKey, and public what others see of it: an op.Key.
type (
	private struct {
		id  string
		key *rsa.PrivateKey
	}
	public private
)

func (p private) ID() string                                  { return p.id }
func (p private) Key() any                                    { return p.key }
func (p private) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }

func (p public) ID() string                         { return p.id }
func (p public) Key() any                           { return &p.key.PublicKey }
func (p public) Use() string                        { return "sig" }
func (p public) Algorithm() jose.SignatureAlgorithm { return jose.RS256 }

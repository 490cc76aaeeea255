// Package keystore keeps the private keys of client certificates: in ssh-agent, else in a file under a passphrase, and in a plain file
// only where somebody asks for that. It knows neither servers nor certificates, opens no connection but that to the agent, and
// asks people by way of a function that it is given.
//
// Package ctl and those below it import it.
package keystore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"github.com/rtask/rtask/sandbox/durable"
)

// Place is where a key is kept.
type Place string

// The places.
const (
	// Agent is ssh-agent: the key is on no disk, and gone when its time there is over.
	Agent Place = "agent"
	// Passphrase is the file key.age, encrypted with a passphrase (https://age-encryption.org/v1, scrypt). ssh-agent has the key, too,
	// once somebody has typed that.
	Passphrase Place = "passphrase"
	// Plain is the file key.pem, 0600.
	Plain Place = "plain"
	// Memory is nowhere: the key ends with the process.
	Memory Place = "memory"
)

// String says it in words that go on from "the key is ".
func (p Place) String() string {
	switch p {
	case Agent:
		return "in ssh-agent"
	case Passphrase:
		return "in a file under a passphrase"
	case Plain:
		return "in a plain file"
	case Memory:
		return "in memory only"
	}
	return "in " + string(p)
}

const (
	ageFile   = "key.age"
	plainFile = "key.pem"
	// tries is how often somebody may type a passphrase.
	tries = 3
	// keyMax is the largest file of a key, in bytes.
	keyMax = 64 << 10
)

// Files are the names of the files that a folder of a context may have of this package's.
func Files() []string { return []string{ageFile, plainFile} }

var (
	// ErrNoAgent is returned when no agent answers.
	ErrNoAgent = errors.New("there is no ssh-agent")
	// ErrLocked is returned when an agent answers and takes or gives no keys: it is locked, as by ssh-add -x.
	ErrLocked = errors.New("ssh-agent is locked, or takes no keys")
	// ErrGone is returned when an agent does not have the key.
	ErrGone = errors.New("the key was in ssh-agent and is gone (restarted?)")
	// ErrNobody is returned when a passphrase is needed and there is no terminal to ask for it.
	ErrNobody = errors.New("there is no terminal to ask for a passphrase")
	// ErrPassphrase is returned when what was typed was wrong each time.
	ErrPassphrase = errors.New("the passphrase is wrong")
)

// Store has what finding and making keys needs.
type Store struct {
	// Socket is the agent's (SSH_AUTH_SOCK); "": there is none.
	Socket string
	// Ask asks for a passphrase on the terminal. nil: there is no terminal.
	Ask func(ctx context.Context, prompt string) ([]byte, error)
	// Work is how much it costs to try a passphrase of a new key: the logarithm, to the base of 2, of scrypt's N. 0 is 18, about a second.
	Work int
}

// New is a key that was made and is not kept yet.
type New struct {
	crypto.Signer
	// Where it is going to be kept.
	Where Place

	store      Store
	passphrase []byte
}

// Make makes a key. Where it goes is decided, and asked for, before anything is: with place "", into ssh-agent if that takes it, else
// under a passphrase. It is Ed25519, or P-256 for an agent that takes no other.
func (s Store) Make(ctx context.Context, place Place) (*New, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	n := &New{Signer: key, Where: place, store: s}
	var refused error
	if place == "" || place == Agent {
		if n.Signer, refused = s.takes(ctx, key); refused == nil {
			n.Where = Agent
			return n, nil
		}
		if place == Agent {
			return nil, refused
		}
		n.Signer, n.Where = key, Passphrase
	}
	if n.Where == Passphrase {
		if s.Ask == nil {
			if refused != nil && !errors.Is(refused, ErrNoAgent) {
				return nil, fmt.Errorf("%w, and %w", refused, ErrNobody)
			}
			return nil, ErrNobody
		}
		if n.passphrase, err = s.choose(ctx); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// takes returns a key that the agent takes. It tries, and takes the key away again, since only an agent itself knows.
func (s Store) takes(ctx context.Context, key crypto.Signer) (crypto.Signer, error) {
	if s.Socket == "" {
		return nil, ErrNoAgent
	}
	try := func(k crypto.Signer) error {
		if err := s.add(k, "rtask", time.Minute); err != nil {
			return err
		}
		return s.remove(k.Public())
	}
	both := func() (crypto.Signer, error) {
		err := try(key)
		if err == nil || errors.Is(err, ErrNoAgent) {
			return key, err
		}
		p256, e := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if e != nil {
			return nil, e
		}
		return p256, try(p256)
	}
	k, err := both()
	if err != nil && !errors.Is(err, ErrNoAgent) && s.unlock(ctx) == nil {
		k, err = both()
	}
	switch {
	case errors.Is(err, ErrNoAgent):
		return nil, err
	case err != nil:
		return nil, ErrLocked
	}
	return k, nil
}

// unlock asks for the passphrase of a locked agent.
func (s Store) unlock(ctx context.Context) error {
	if s.Ask == nil {
		return ErrNobody
	}
	for range tries {
		typed, err := s.Ask(ctx, "ssh-agent is locked. Its passphrase (none: leave it locked): ")
		if err != nil {
			return err
		}
		if len(typed) == 0 {
			return ErrLocked
		}
		err = s.do(func(a client) error { return a.Unlock(typed) })
		clear(typed)
		if err == nil {
			return nil
		}
	}
	return ErrLocked
}

// choose asks for a new passphrase, twice.
func (s Store) choose(ctx context.Context) ([]byte, error) {
	for range tries {
		one, err := s.Ask(ctx, "Passphrase for the new key: ")
		if err != nil {
			return nil, err
		}
		two, err := s.Ask(ctx, "The same passphrase again: ")
		if err != nil {
			return nil, err
		}
		if len(one) > 0 && bytes.Equal(one, two) {
			return one, nil
		}
	}
	return nil, errors.New("no passphrase was typed twice in the same way")
}

// Keep keeps a new key: in a new folder that only its owner can look into, or in the agent until it is of no use any more. Name is what
// the agent shows.
func (n *New) Keep(dir, name string, until time.Time) error {
	switch n.Where {
	case Memory:
		return nil
	case Agent:
		return n.store.add(n.Signer, "rtask "+name, time.Until(until))
	}
	der, err := x509.MarshalPKCS8PrivateKey(n.Signer)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	defer clear(text)
	if n.Where == Plain {
		return durable.Create(filepath.Join(dir, plainFile), text, 0o600)
	}
	locked, err := lock(text, n.passphrase, n.store.Work)
	if err != nil {
		return err
	}
	if err := durable.Create(filepath.Join(dir, ageFile), locked, 0o600); err != nil {
		return err
	}
	n.store.remember(n.Signer, name, until)
	return nil
}

// remember puts a key that is in a file into the agent, too, if there is one that takes it.
func (s Store) remember(key crypto.Signer, name string, until time.Time) {
	if s.Socket != "" {
		_ = s.add(key, "rtask "+name, time.Until(until)) // its passphrase will be asked for again
	}
}

// Find returns the key of a public key, which is kept in a folder or in the agent. Name is what people call it, until is
// how long the agent keeps it after its passphrase was typed.
func (s Store) Find(ctx context.Context, dir, name string, public crypto.PublicKey, until time.Time) (crypto.Signer, Place, error) {
	switch text, err := read(filepath.Join(dir, plainFile)); {
	case err == nil:
		key, err := parse(text, public)
		return key, Plain, err
	case !errors.Is(err, fs.ErrNotExist):
		return nil, Plain, err
	}
	locked, err := read(filepath.Join(dir, ageFile))
	if errors.Is(err, fs.ErrNotExist) {
		key, err := s.InAgent(ctx, public)
		return key, Agent, err
	}
	if err != nil {
		return nil, Passphrase, err
	}
	if key, err := s.inAgent(public); err == nil {
		return key, Passphrase, nil
	}
	key, err := s.open(ctx, locked, name, public)
	if err == nil {
		s.remember(key, name, until)
	}
	return key, Passphrase, err
}

// InAgent returns the key of a public key that the agent has. It asks for the passphrase of a locked agent.
func (s Store) InAgent(ctx context.Context, public crypto.PublicKey) (crypto.Signer, error) {
	key, err := s.inAgent(public)
	if errors.Is(err, ErrLocked) && s.unlock(ctx) == nil {
		key, err = s.inAgent(public)
	}
	if err != nil {
		return nil, err
	}
	return key, nil
}

// open asks for the passphrase of a key.
func (s Store) open(ctx context.Context, locked []byte, name string, public crypto.PublicKey) (crypto.Signer, error) {
	if s.Ask == nil {
		return nil, ErrNobody
	}
	for range tries {
		typed, err := s.Ask(ctx, "Passphrase of the key of "+name+": ")
		if err != nil {
			return nil, err
		}
		text, err := unlock(locked, typed)
		clear(typed)
		if errors.Is(err, ErrPassphrase) {
			continue
		}
		if err != nil {
			return nil, err
		}
		key, err := parse(text, public)
		clear(text)
		return key, err
	}
	return nil, ErrPassphrase
}

// Forget takes a key out of the agent, if that has it. One that stays ends with its time.
func (s Store) Forget(public crypto.PublicKey) {
	if s.Socket != "" {
		_ = s.remove(public)
	}
}

// Remove takes a key out of the agent and deletes its files in a folder. Where says what it was removed from, nothing if it was nowhere.
func (s Store) Remove(dir string, public crypto.PublicKey) (where Place, err error) {
	var failed error
	for file, place := range map[string]Place{ageFile: Passphrase, plainFile: Plain} {
		switch err := os.Remove(filepath.Join(dir, file)); {
		case err == nil:
			where = place
		case !errors.Is(err, fs.ErrNotExist):
			failed = errors.Join(failed, err)
		}
	}
	if s.Socket != "" && public != nil && s.remove(public) == nil && where == "" {
		where = Agent
	}
	return where, failed
}

// Parse reads a private key of somebody's own in PEM: PKCS #8, SEC 1 or PKCS #1, not encrypted.
func Parse(text []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, errors.New("there is no private key in PEM")
		}
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("the key is encrypted: decrypt it with openssl pkey")
		default:
			continue // parameters of a curve, a certificate
		}
		if err != nil {
			return nil, err
		}
		if signer, ok := key.(crypto.Signer); ok {
			return signer, nil
		}
		return nil, fmt.Errorf("a key of the kind %T cannot sign", key)
	}
}

// parse reads a key and checks that it is the one of a public key.
func parse(text []byte, public crypto.PublicKey) (crypto.Signer, error) {
	key, err := Parse(text)
	if err != nil {
		return nil, err
	}
	if same, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(public) {
		return nil, errors.New("the key is not that of the certificate")
	}
	return key, nil
}

// lock encrypts a text with a passphrase.
func lock(text, passphrase []byte, work int) ([]byte, error) {
	r, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return nil, err
	}
	if work > 0 {
		r.SetWorkFactor(work)
	}
	var b bytes.Buffer
	w, err := age.Encrypt(&b, r)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// unlock decrypts what lock encrypted.
func unlock(locked, passphrase []byte) ([]byte, error) {
	id, err := age.NewScryptIdentity(string(passphrase))
	if err != nil {
		return nil, ErrPassphrase // it is empty
	}
	r, err := age.Decrypt(bytes.NewReader(locked), id)
	if errors.As(err, new(*age.NoIdentityMatchError)) {
		return nil, ErrPassphrase
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", ageFile, err)
	}
	return io.ReadAll(io.LimitReader(r, keyMax))
}

// read reads a file of a key and refuses one that others can read.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read or changed by others (mode %04o): chmod 600 it, and get another key if somebody may have", path, fi.Mode().Perm())
	}
	return io.ReadAll(io.LimitReader(f, keyMax))
}

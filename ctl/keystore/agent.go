package keystore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"net"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// patience is how long an agent may take. It may ask its user for a confirmation.
const patience = time.Minute

// client is a connection to an agent (draft-ietf-sshm-ssh-agent).
type client = agent.ExtendedAgent

// do calls the agent. An agent that does not answer is ErrNoAgent.
func (s Store) do(call func(client) error) error {
	c, err := net.DialTimeout("unix", s.Socket, patience)
	if err != nil {
		return fmt.Errorf("%w (cannot connect to %s)", ErrNoAgent, s.Socket)
	}
	defer func() { _ = c.Close() }() // each call has its answer by then
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	err = call(agent.NewClient(c))
	if op, ok := errors.AsType[*net.OpError](err); ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		if op != nil && op.Timeout() {
			return fmt.Errorf("%w that answers within %s", ErrNoAgent, patience)
		}
		return fmt.Errorf("%w (the connection to %s broke)", ErrNoAgent, s.Socket)
	}
	return err
}

// add gives the agent a key for a time.
func (s Store) add(key crypto.Signer, comment string, life time.Duration) error {
	if life <= 0 {
		return errors.New("the time of the key is over")
	}
	seconds := uint32(min(int64(life/time.Second)+1, math.MaxUint32/2))
	var private any = key
	if ed, ok := key.(ed25519.PrivateKey); ok {
		private = &ed
	}
	return s.do(func(a client) error {
		return a.Add(agent.AddedKey{PrivateKey: private, Comment: comment, LifetimeSecs: seconds})
	})
}

func (s Store) remove(public crypto.PublicKey) error {
	p, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	return s.do(func(a client) error { return a.Remove(p) })
}

// inAgent returns the key of a public key that the agent has.
func (s Store) inAgent(public crypto.PublicKey) (crypto.Signer, error) {
	if s.Socket == "" {
		return nil, ErrNoAgent
	}
	p, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	switch public.(type) {
	case ed25519.PublicKey, *ecdsa.PublicKey:
	default: // agents sign with PKCS #1 v1.5, and TLS 1.3 wants PSS
		return nil, fmt.Errorf("a key of the kind %s in ssh-agent cannot be used for TLS 1.3", p.Type())
	}
	var keys []*agent.Key
	if err := s.do(func(a client) (err error) { keys, err = a.List(); return err }); err != nil {
		return nil, err
	}
	wire := p.Marshal()
	if slices.ContainsFunc(keys, func(k *agent.Key) bool { return string(k.Blob) == string(wire) }) {
		return &signer{store: s, public: public, key: p}, nil
	}
	if len(keys) == 0 && s.locked() {
		return nil, ErrLocked
	}
	return nil, ErrGone
}

// locked reports whether the agent takes no keys. A locked one lists none either, and says nothing of it, so one is tried.
func (s Store) locked() bool {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return false
	}
	if s.add(key, "rtask", time.Second) != nil {
		return true
	}
	return s.remove(key.Public()) != nil
}

// signer is a key in the agent. TLS 1.3 has it sign the message itself (crypto.MessageSigner): agents hash it on their own.
type signer struct {
	store  Store
	public crypto.PublicKey
	key    ssh.PublicKey
}

var _ crypto.MessageSigner = (*signer)(nil)

// Public implements crypto.Signer.
func (s *signer) Public() crypto.PublicKey { return s.public }

// Sign implements crypto.Signer, as far as an agent can: for a message that is not hashed.
func (s *signer) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != 0 {
		return nil, errors.New("ssh-agent signs messages, not their hashes")
	}
	return s.SignMessage(r, digest, opts)
}

// SignMessage implements crypto.MessageSigner.
func (s *signer) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	want := crypto.Hash(0) // Ed25519
	if k, ok := s.public.(*ecdsa.PublicKey); ok {
		// RFC 5656, section 6.2.1
		switch size := k.Curve.Params().BitSize; {
		case size <= 256:
			want = crypto.SHA256
		case size <= 384:
			want = crypto.SHA384
		default:
			want = crypto.SHA512
		}
	}
	if opts.HashFunc() != want {
		return nil, fmt.Errorf("ssh-agent cannot sign with %s and this key", opts.HashFunc())
	}
	var signature *ssh.Signature
	err := s.store.do(func(a client) (err error) { signature, err = a.Sign(s.key, message); return err })
	if errors.Is(err, ErrNoAgent) {
		return nil, err
	}
	if err != nil {
		if _, gone := s.store.inAgent(s.public); gone != nil {
			return nil, gone
		}
		return nil, fmt.Errorf("ssh-agent does not sign: %w", err)
	}
	if want == 0 {
		return signature.Blob, nil
	}
	var rs struct{ R, S *big.Int }
	if err := ssh.Unmarshal(signature.Blob, &rs); err != nil {
		return nil, fmt.Errorf("ssh-agent returned no signature: %w", err)
	}
	return asn1.Marshal(rs)
}

package token

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/durable"
)

const (
	// SecretLen is the length of the secret that the signing keys are encrypted with, in bytes.
	SecretLen = chacha20poly1305.KeySize
	// maxKeysFile is far more than three generations and all revoked tokens take, in bytes.
	maxKeysFile = 1 << 20
	// keysFileHead begins the file. It is authenticated with the rest, so a file of another format is never taken for one of this.
	keysFileHead = "rtask token keys 1\n"
)

// keysFile is what is encrypted: head, nonce, and this as JSON under XChaCha20-Poly1305.
type keysFile struct {
	Generations []struct {
		From time.Time `json:"from"`
		Keys [][]byte  `json:"keys"` // PKCS #8
	} `json:"generations"`
	Revoked map[string]revokedToken `json:"revoked,omitempty"`
	Clients map[string]time.Time    `json:"clients,omitempty"`
	All     time.Time               `json:"all,omitzero"`
}

// saved is what the file keeps of an Issuer.
type saved struct {
	generations []generation
	revoked     revoked
}

// readKeysFile returns ErrKeysLost if the file is there and cannot be decrypted.
func readKeysFile(path string, secret []byte) (saved, error) {
	// O_NONBLOCK: opening a FIFO must not wait.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return saved{}, nil
	}
	if err != nil {
		return saved{}, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxKeysFile+1))
	if err != nil {
		return saved{}, err
	}
	return openKeys(content, secret)
}

func openKeys(content, secret []byte) (saved, error) {
	sealer, err := chacha20poly1305.NewX(secret)
	if err != nil {
		return saved{}, err
	}
	sealed, ok := bytes.CutPrefix(content, []byte(keysFileHead))
	if !ok || len(sealed) < sealer.NonceSize() || len(content) > maxKeysFile {
		return saved{}, ErrKeysLost
	}
	text, err := sealer.Open(nil, sealed[:sealer.NonceSize()], sealed[sealer.NonceSize():], []byte(keysFileHead))
	if err != nil {
		return saved{}, ErrKeysLost
	}
	var file keysFile
	if err := json.Unmarshal(text, &file); err != nil {
		return saved{}, ErrKeysLost
	}
	s := saved{revoked: revoked{ids: file.Revoked, clients: file.Clients, all: file.All}}
	for _, stored := range file.Generations {
		g := generation{from: stored.From}
		for _, der := range stored.Keys {
			private, err := x509.ParsePKCS8PrivateKey(der)
			if err != nil {
				return saved{}, ErrKeysLost
			}
			signer, ok := private.(crypto.Signer)
			if !ok {
				return saved{}, ErrKeysLost
			}
			k, err := newSigningKey(signer)
			if err != nil {
				return saved{}, ErrKeysLost
			}
			g.keys = append(g.keys, k)
		}
		s.generations = append(s.generations, g)
	}
	return s, nil
}

// writeKeysFile replaces the file: after a crash there is the old one or the new one.
func writeKeysFile(path string, secret []byte, s saved) error {
	content, err := sealKeys(secret, s)
	if err != nil {
		return err
	}
	if err := durable.Replace(path, path+".new", content, 0o600); err != nil {
		return fmt.Errorf("cannot write the signing keys: %w", err)
	}
	return nil
}

func sealKeys(secret []byte, s saved) ([]byte, error) {
	file := keysFile{Revoked: s.revoked.ids, Clients: s.revoked.clients, All: s.revoked.all}
	for _, g := range s.generations {
		var keys [][]byte
		for _, k := range g.keys {
			der, err := x509.MarshalPKCS8PrivateKey(k.private)
			if err != nil {
				return nil, err
			}
			keys = append(keys, der)
		}
		file.Generations = append(file.Generations, struct {
			From time.Time `json:"from"`
			Keys [][]byte  `json:"keys"`
		}{g.from, keys})
	}
	text, err := json.Marshal(file)
	if err != nil {
		return nil, err
	}
	sealer, err := chacha20poly1305.NewX(secret)
	if err != nil {
		return nil, err
	}
	content := append(make([]byte, 0, len(text)+128), keysFileHead...)
	nonce := make([]byte, sealer.NonceSize())
	rand.Read(nonce)
	content = append(content, nonce...)
	return sealer.Seal(content, nonce, text, []byte(keysFileHead)), nil
}

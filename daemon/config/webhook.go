package config

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/sandbox/wording"
)

// Webhook is a URL at which others start a task, as they sign their requests. What a field means in full is said at its row in
// webhookScope.
type Webhook struct {
	// Task and Name are its names; Pos is where it stands.
	Task, Name string
	Pos        Pos
	// Scheme is how requests are verified.
	Scheme webhook.Scheme
	// Wanted is what it is for.
	webhook.Wanted
	// Values are what it reads of a request.
	Values
	// Methods are the methods of HTTP that it takes, besides HEAD.
	Methods []string
	// Reply is what is answered to what is accepted.
	Reply
	// RefuseRepeats refuses a body that there was before, also where neither time nor id are signed.
	RefuseRepeats bool
	// MaxInputBytes is the largest body.
	MaxInputBytes int64
	// KeepDeliveries is how many requests are kept, to run again; 0: none.
	KeepDeliveries int
	// VerifyToken is what Meta sends with a challenge; "": no challenge is answered.
	VerifyToken string
	// secrets are known, those in missing were not there when the file was read.
	secrets []string
	missing []SecretFile
	// digest is the SHA-256 of a token, and shown what of it is the last part of the URL. Without a token, of the missing file,
	// both are empty.
	digest *[sha256.Size]byte
	shown  string
}

// SecretFile is a file with a secret in it.
type SecretFile struct {
	// Name is how it is called in the configuration: a path or the name of a credential.
	Name string
	// Path is where it is; "" for a credential of an engine that has none.
	Path string
}

const (
	// maxSignedInput is the most that GitHub sends (docs.github.com/en/webhooks/webhook-events-and-payloads, "Payload cap").
	maxSignedInput = 25 << 20
	maxTokenInput  = 1 << 20
	// maxKeepDeliveries is how many requests a webhook may keep.
	maxKeepDeliveries = 1000
	// shortToken is the length below which somebody may guess a token, in characters.
	shortToken = 16

	// replayRefuse and replayRun are the values of replay.
	replayRefuse = "refuse"
	replayRun    = "run"

	hashPrefix = "sha256:"
)

// ErrMissing is returned by Secrets for a secret that is not there yet.
var ErrMissing = errors.New("it is not there")

// Secrets returns all secrets of a signed webhook. A file that was not there when the configuration was read is looked for
// again; one that still is not, is an error around ErrMissing, unless there is another secret.
func (w *Webhook) Secrets(read func(path string) (string, error)) ([]string, error) {
	all := w.secrets
	var errs []error
	for _, f := range w.missing {
		secret, err := f.read(w.Scheme.Kind, read)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all[:len(all):len(all)], secret)
	}
	if len(all) == 0 {
		return nil, errors.Join(errs...)
	}
	return all, nil
}

func (f SecretFile) read(k webhook.Kind, read func(path string) (string, error)) (string, error) {
	if f.Path == "" {
		return "", fmt.Errorf("credential %q: %w", f.Name, ErrMissing)
	}
	secret, err := read(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrMissing
	}
	if err == nil && !k.Signed() {
		err = checkToken(secret)
	} else if err == nil {
		err = webhook.CheckSecret(k, secret)
	}
	if err != nil {
		return "", fmt.Errorf("secret file %s: %w", f.Name, err)
	}
	return secret, nil
}

// token returns the digest of a token.
func (w *Webhook) token(read func(path string) (string, error)) (*[sha256.Size]byte, string) {
	if w.digest != nil || len(w.missing) == 0 {
		return w.digest, w.shown
	}
	token, err := w.missing[0].read(w.Scheme.Kind, read)
	if err != nil {
		return nil, ""
	}
	sum := sha256.Sum256([]byte(token))
	return &sum, token
}

// Hash returns the last part of the webhook's URL: a token or its configured hash, or, where requests are signed, what follows
// from the names and stays the same whatever becomes of the secrets. It is "" for a token that is not there yet.
func (w *Webhook) Hash(read func(path string) (string, error)) string {
	if !w.Scheme.Kind.Signed() {
		_, shown := w.token(read)
		return shown
	}
	return signedHash(w.Task, w.Name)
}

func signedHash(task, name string) string {
	sum := sha256.Sum256([]byte("rtask webhook\x00" + task + "\x00" + name))
	const length = 26 // 130 bits
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:length]
}

// Webhook returns the task and the webhook that the last part of a URL is of, or nil. The time it takes tells nothing of any
// token.
func (c *Config) Webhook(hash string, read func(path string) (string, error)) (*Task, *Webhook) {
	sum := sha256.Sum256([]byte(hash))
	var task *Task
	var found *Webhook
	for _, t := range c.Tasks {
		for _, w := range t.Webhooks {
			is := 0
			if w.Scheme.Kind.Signed() {
				is = subtle.ConstantTimeCompare([]byte(signedHash(t.Name, w.Name)), []byte(hash))
			} else if digest, _ := w.token(read); digest != nil {
				is = subtle.ConstantTimeCompare(digest[:], sum[:])
			}
			if is == 1 {
				task, found = t, w
			}
		}
	}
	return task, found
}

// SecretReader returns a function that reads a secret from a file of owner or root that nobody else can write. It is one line;
// its end is no part of it, and neither is what no editor shows: blanks around it, and a byte order mark.
func SecretReader(owner int) func(path string) (string, error) {
	return func(path string) (string, error) {
		b, err := ReadTrusted(path, owner)
		if err != nil {
			return "", err
		}
		if bytes.HasPrefix(b, []byte("\xff\xfe")) || bytes.HasPrefix(b, []byte("\xfe\xff")) {
			return "", fmt.Errorf("%w: it is in UTF-16: save it as UTF-8, or plain text", webhook.ErrSecret)
		}
		text := strings.TrimRight(strings.TrimPrefix(string(b), "\ufeff"), "\r\n")
		if trimmed := strings.TrimSpace(text); wording.IsPrintable(trimmed) {
			text = trimmed // in any bytes a blank is a byte like others
		}
		switch {
		case text == "":
			return "", fmt.Errorf("%w: it is empty", webhook.ErrSecret)
		case strings.ContainsAny(text, "\r\n\x00"):
			return "", fmt.Errorf("%w: a file has one secret, on one line", webhook.ErrSecret)
		}
		return text, nil
	}
}

// checkToken returns an error for what cannot be the last part of a URL, of which the gateway takes no escapes.
func checkToken(s string) error {
	if s == "" {
		return errors.New("a token is empty")
	}
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:@!$&'()*+,;=") != "" || s == "." || s == ".." {
		return errors.New("a token is part of a URL: letters, digits and -._~:@!$&'()*+,;= only")
	}
	return nil
}

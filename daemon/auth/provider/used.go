package provider

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/rtask/rtask/sandbox/durable"
)

const (
	// maxUsed is how many used ID tokens are remembered.
	maxUsed = 10_000
	// maxUsedFile is more than that takes, in bytes.
	maxUsedFile = 1 << 20
)

// used remembers the ID tokens that were used, by their hashes, until they expire: each is good for one enrolment.
type used struct {
	path string

	mu     sync.Mutex // guards what follows, and is held over a write
	tokens map[string]int64
	// since: what was used before is not known, so tokens that were issued before are taken for used.
	since time.Time
}

// load reads the file of the last engine. With an error, all ID tokens that were issued until now count as used.
func (u *used) load(now time.Time) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.tokens = map[string]int64{}
	content, err := os.ReadFile(u.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && (len(content) > maxUsedFile || json.Unmarshal(content, &u.tokens) != nil || u.tokens == nil) {
		err = fmt.Errorf("%s is damaged", u.path)
	}
	if err != nil {
		u.tokens, u.since = map[string]int64{}, now.Add(late)
		return fmt.Errorf("cannot read which ID tokens were used, so those issued until now are refused: %w", err)
	}
	return nil
}

// errUsed is returned for a token that was used before, or may have been.
var errUsed = errors.New("the ID token was used before: log in again")

// use notes that a token is used now. Once it returns nil, that is on disk.
func (u *used) use(raw []byte, issued, expires, now time.Time) error {
	// Without the signature: of one of ECDSA, anybody can make another that is good.
	sum := sha256.Sum256(raw[:max(bytes.LastIndexByte(raw, '.'), 0)])
	id := base64.RawURLEncoding.EncodeToString(sum[:])
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.tokens[id]; ok || issued.Before(u.since) {
		return errUsed
	}
	next := maps.Clone(u.tokens)
	maps.DeleteFunc(next, func(_ string, until int64) bool { return until <= now.Unix() })
	if len(next) >= maxUsed {
		return fmt.Errorf("%d ID tokens were used that have not expired: log in again later", maxUsed)
	}
	next[id] = expires.Unix()
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := durable.Replace(u.path, u.path+".new", text, 0o600); err != nil {
		return fmt.Errorf("cannot note that the ID token is used: %w", err)
	}
	u.tokens = next
	return nil
}

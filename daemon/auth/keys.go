package auth

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// verifiedIdle and verifiedMax are how long a verified key needs no Argon2id: after its last use, and in all.
	verifiedIdle = time.Minute
	verifiedMax  = 5 * time.Minute

	// flushEvery is the least time between two writes of times of last use.
	flushEvery = time.Minute

	defaultMemoryBudget = 128 << 20
)

// KeyOptions are what a store of keys needs.
type KeyOptions struct {
	// Path is the keys file. Its folder has to be there; the file need not be. A folder that others can write to lets
	// them take keys away.
	Path string
	// Params are for new keys. Each key is verified with those it was made with.
	Params Argon2Params
	// MemoryBudget bounds, in bytes, what verifications take at one time; default 128 MiB. One verification always
	// goes on, whatever its key takes.
	MemoryBudget uint64
	// Now is the time. nil: time.Now.
	Now func() time.Time
}

// KeyInfo is what is known of a key. A zero time: never.
type KeyInfo struct {
	Name, ID                   string
	Created, Expires, LastUsed time.Time
}

// Keys are the API keys of a keys file. Many goroutines may use them.
type Keys struct {
	path   string
	now    func() time.Time
	budget *budget  // of memory, in MiB
	hash   hashFunc // argon2id
	macKey []byte   // for the HMAC of verified keys; made at start and never written anywhere
	dummy  []byte   // the salt for keys that are unknown

	// change is held while the file is looked at and written, and orders those who change records. It guards stamp and
	// flushed, and is taken before mu.
	change  sync.Mutex
	stamp   fileStamp // of the file as it was last read or written
	flushed time.Time // when times of last use were last written

	// mu guards what follows and what is in the records. It is never held over a hash or a disk.
	mu      sync.Mutex
	params  Argon2Params
	records map[keyID]*keyRecord
	dirty   bool // something in the records is not in the file
	// hashing has the texts that are being hashed, by their HMAC, with what is closed when that is done.
	hashing map[[sha256.Size]byte]chan struct{}
}

// keyRecord is a key as it is kept. Its name, id, times of creation and expiry and hash never change: reading the file
// again makes new records.
type keyRecord struct {
	keyEntry
	// revoked keys stay only until they are out of the file.
	revoked bool
	// verified is the HMAC of the key's text once that has passed: a key has one text, so there is one to remember.
	verified [sha256.Size]byte
	// passed is when it passed Argon2id, and seen when it was last presented. Zero: never.
	passed, seen time.Time
}

func (r *keyRecord) info() KeyInfo {
	return KeyInfo{
		Name: r.Name, ID: r.ID.String(),
		Created: r.Created, Expires: r.Expires, LastUsed: r.LastUsed,
	}
}

func (r *keyRecord) good(now time.Time) bool {
	return !r.revoked && (r.Expires.IsZero() || now.Before(r.Expires))
}

// OpenKeys reads a keys file. The errors are those of Reload, and ErrBadParams.
func OpenKeys(opts KeyOptions) (*Keys, error) {
	k := &Keys{
		path:   opts.Path,
		now:    opts.Now,
		hash:   argon2id,
		macKey: random(sha256.Size),
		dummy:  random(saltLen),

		hashing: map[[sha256.Size]byte]chan struct{}{},
	}
	if k.now == nil {
		k.now = time.Now
	}
	k.budget = newBudget(uint32(max(1, min(cmp.Or(opts.MemoryBudget, defaultMemoryBudget)>>20, 1<<16))))
	if err := k.SetParams(opts.Params); err != nil {
		return nil, err
	}
	if err := k.Reload(); err != nil {
		return nil, err
	}
	return k, nil
}

// random returns n bytes of crypto/rand, which does not fail.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// SetParams sets the parameters for keys made from now on. It returns ErrBadParams if they are out of bounds.
func (k *Keys) SetParams(p Argon2Params) error {
	p = p.WithDefaults()
	if err := p.Check(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.params = p
	return nil
}

// Reload reads the file again, after an edit or a restored copy. With an error nothing changes: a *FileError says what
// is wrong in the file, or, around ErrUnsafeFile, about it.
func (k *Keys) Reload() error {
	k.change.Lock()
	defer k.change.Unlock()
	return k.load()
}

// load is Reload for who holds change.
func (k *Keys) load() error {
	entries, stamp, err := readKeysFile(k.path)
	if err != nil {
		return fmt.Errorf("cannot read the keys: %w", err)
	}
	records := make(map[keyID]*keyRecord, len(entries))
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range entries {
		r := &keyRecord{keyEntry: e}
		if old := k.records[e.ID]; old != nil {
			r.revoked = old.revoked
			if old.LastUsed.After(r.LastUsed) {
				r.LastUsed = old.LastUsed
			}
		}
		records[e.ID] = r
	}
	k.records, k.stamp = records, stamp
	return nil
}

// sync reads the file if it is not the one that was last read or written, so that a write undoes nobody's edit. It is
// for who holds change.
func (k *Keys) sync() error {
	stamp, err := stampAt(k.path)
	if err != nil {
		return fmt.Errorf("cannot read the keys: %w", err)
	}
	if stamp == k.stamp {
		return nil
	}
	return k.load()
}

// save writes the file with one more entry if add is not nil, and forgets the revoked keys. It is for who holds change.
func (k *Keys) save(add *keyEntry) error {
	k.mu.Lock()
	entries := make([]keyEntry, 0, len(k.records)+1)
	for _, r := range k.records {
		if !r.revoked {
			entries = append(entries, r.keyEntry)
		}
	}
	k.dirty = false // What is used from here on is for the next time.
	k.mu.Unlock()
	if add != nil {
		entries = append(entries, *add)
	}
	slices.SortFunc(entries, func(a, b keyEntry) int { return cmp.Compare(a.Name, b.Name) })

	stamp, err := writeKeysFile(k.path, entries)
	if stamp != (fileStamp{}) {
		k.stamp = stamp
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.dirty = true
		return fmt.Errorf("cannot write the keys: %w", err)
	}
	for id, r := range k.records {
		if r.revoked {
			delete(k.records, id)
		}
	}
	k.flushed = k.now()
	return nil
}

// Add makes a key and returns its text, which is kept nowhere. A zero expires: it is good until it is revoked;
// otherwise it counts in whole seconds. It returns ErrBadName, ErrBadExpiry, ErrKeyExists, and the errors of Reload if
// the file was edited. Once it returns, the key is on disk.
func (k *Keys) Add(name string, expires time.Time) (KeyInfo, []byte, error) {
	if !validKeyName(name) {
		return KeyInfo{}, nil, ErrBadName
	}
	now := k.now()
	if !expires.IsZero() {
		expires = expires.UTC().Truncate(time.Second)
		if !expires.After(now) || expires.Year() > maxYear {
			return KeyInfo{}, nil, ErrBadExpiry
		}
	}
	k.change.Lock()
	defer k.change.Unlock()
	if err := k.sync(); err != nil {
		return KeyInfo{}, nil, err
	}
	var key Key
	copy(key.secret[:], random(keySecretLen))
	for key.id == (keyID{}) || k.find(key.ID()) != nil {
		copy(key.id[:], random(keyIDLen))
	}
	if k.find(name) != nil {
		return KeyInfo{}, nil, ErrKeyExists
	}
	k.mu.Lock()
	p := k.params
	k.mu.Unlock()

	// This hash is not under the memory budget: strangers' keys must not keep an administrator waiting. There is one at
	// a time, under change.
	salt := random(saltLen)
	entry := keyEntry{
		Name:    name,
		ID:      key.id,
		Created: now.UTC().Truncate(time.Second),
		Expires: expires,
		Hash: hashRecord{
			Version: hashVersion,
			Memory:  p.Memory, Time: p.Time, Threads: p.Threads,
			Salt: salt,
			Sum:  k.hash(key.secret[:], salt, p),
		},
	}
	if err := k.save(&entry); err != nil {
		return KeyInfo{}, nil, err
	}
	r := &keyRecord{keyEntry: entry}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.records[key.id] = r
	return r.info(), key.text(), nil
}

// find returns the key that is not revoked and has a name or an id, or nil. What does not change of a record may be
// read; it is for who holds change, so that it is still there.
func (k *Keys) find(nameOrID string) *keyRecord {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.records {
		if !r.revoked && (r.Name == nameOrID || r.ID.String() == nameOrID) {
			return r
		}
	}
	return nil
}

// List returns all keys, by name, expired ones too.
func (k *Keys) List() []KeyInfo {
	k.mu.Lock()
	defer k.mu.Unlock()
	infos := make([]KeyInfo, 0, len(k.records))
	for _, r := range k.records {
		if !r.revoked {
			infos = append(infos, r.info())
		}
	}
	slices.SortFunc(infos, func(a, b KeyInfo) int { return cmp.Compare(a.Name, b.Name) })
	return infos
}

// Revoke makes a key useless and removes it from the file. It returns ErrNoKey, and the errors of Reload if the file
// was edited. If the file cannot be written, the key is useless all the same until the engine ends; it returns the
// key and the error, and the next write of the file will be without it.
func (k *Keys) Revoke(nameOrID string) (KeyInfo, error) {
	k.change.Lock()
	defer k.change.Unlock()
	syncErr := k.sync() // A file that an edit broke must not keep a key alive.
	r := k.find(nameOrID)
	if r == nil {
		return KeyInfo{}, cmp.Or(syncErr, ErrNoKey)
	}
	k.mu.Lock()
	r.revoked = true
	k.dirty = true
	info := r.info()
	k.mu.Unlock()
	if syncErr != nil {
		return info, syncErr
	}
	return info, k.save(nil)
}

// Verify returns the key whose text was presented. It returns ErrUnauthorized whatever is wrong with it, and the
// context's error if that ends while it waits for memory to hash in.
//
// A malformed text costs nothing, since everybody can tell that it is one. Everything else costs one Argon2id, known
// id or not, but for a key that has passed lately: so who has a good key is not held up by who tries bad ones.
func (k *Keys) Verify(ctx context.Context, presented []byte) (KeyInfo, error) {
	key, err := ParseKey(presented)
	if err != nil {
		return KeyInfo{}, ErrUnauthorized
	}
	if err := ctx.Err(); err != nil {
		return KeyInfo{}, err
	}
	mac := hmac.New(sha256.New, k.macKey)
	mac.Write(presented)
	verified := [sha256.Size]byte(mac.Sum(nil))

	k.mu.Lock()
	info, ok := k.recall(key.id, verified)
	k.mu.Unlock()
	if ok {
		return info, nil
	}
	// An engine that was started anew is asked by all who waited for it at once, mostly with one key.
	done, err := k.turn(ctx, verified)
	if err != nil {
		return KeyInfo{}, err
	}
	defer done()
	k.mu.Lock()
	info, ok = k.recall(key.id, verified)
	stored := hashRecord{Memory: k.params.Memory, Time: k.params.Time, Threads: k.params.Threads, Salt: k.dummy}
	if r := k.records[key.id]; r != nil {
		stored = r.Hash
	}
	k.mu.Unlock()
	if ok {
		return info, nil
	}

	release, err := k.budget.take(ctx, (stored.Memory+1023)/1024)
	if err != nil {
		return KeyInfo{}, err
	}
	defer release()
	sum := k.hash(key.secret[:], stored.Salt, stored.params())
	if subtle.ConstantTimeCompare(sum, stored.Sum) != 1 { // Never equal for an unknown key: that has no sum.
		return KeyInfo{}, ErrUnauthorized
	}

	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	r := k.records[key.id] // Perhaps another than before: the file may have been read again meanwhile.
	if r == nil || !r.Hash.equal(stored) || !r.good(now) {
		return KeyInfo{}, ErrUnauthorized
	}
	r.verified, r.passed = verified, now
	return k.use(r, now), nil
}

// turn waits until nobody else hashes the same text, and returns what ends the turn.
func (k *Keys) turn(ctx context.Context, text [sha256.Size]byte) (done func(), err error) {
	for {
		k.mu.Lock()
		other, mine := k.hashing[text], make(chan struct{})
		if other == nil {
			k.hashing[text] = mine
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				defer k.mu.Unlock()
				delete(k.hashing, text)
				close(mine)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// recall is the answer without Argon2id: this very text has passed lately, and the key is still good. It is for who
// holds mu.
func (k *Keys) recall(id keyID, verified [sha256.Size]byte) (KeyInfo, bool) {
	r := k.records[id]
	if r == nil || r.passed.IsZero() || !hmac.Equal(verified[:], r.verified[:]) {
		return KeyInfo{}, false
	}
	now := k.now()
	if !r.good(now) || now.Sub(r.passed) >= verifiedMax || now.Sub(r.seen) >= verifiedIdle {
		return KeyInfo{}, false
	}
	return k.use(r, now), true
}

// use notes that a key was used. It is for who holds mu.
func (k *Keys) use(r *keyRecord, now time.Time) KeyInfo {
	r.seen = now
	if last := now.UTC().Truncate(time.Second); last.After(r.LastUsed) {
		r.LastUsed = last
		k.dirty = true
	}
	return r.info()
}

// Flush writes what is not in the file yet, times of last use above all, at most once a minute; the engine calls it
// now and then. It returns the errors of Reload if the file was edited.
func (k *Keys) Flush() error { return k.flush(flushEvery) }

// Close writes what is not in the file yet. The keys can still be used.
func (k *Keys) Close() error { return k.flush(0) }

func (k *Keys) flush(every time.Duration) error {
	k.change.Lock()
	defer k.change.Unlock()
	k.mu.Lock()
	dirty := k.dirty
	k.mu.Unlock()
	if !dirty || k.now().Sub(k.flushed) < every {
		return nil
	}
	if err := k.sync(); err != nil {
		return err
	}
	return k.save(nil)
}

package auth

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
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

	// salt is of the hash that the text passed which Verify had. It tells one text of a key from the next.
	salt string
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
	unread  bool // the file could not be read yet
	// failures are the bad keys of late, and slow has each lane at a key that somebody guesses at.
	failures failures
	slow     map[lane]*queue
	// guesses is how many texts with unknown ids wait for a hash, or are hashed.
	guesses int
	// hashing has the texts that are being hashed, by their HMAC, with what is closed when that is done.
	hashing map[[sha256.Size]byte]chan struct{}
}

// keyRecord is a key as it is kept. Its name, id, times of creation and expiry and hash never change: reading the file
// again makes new records.
type keyRecord struct {
	keyEntry
	// revoked keys stay only until they are out of the file.
	revoked bool
	// proofs are of the key's text and of the one before the last rotation.
	proofs [2]proof
}

// proof is that a text has passed.
type proof struct {
	// verified is the HMAC of the text, and stays when the proof is too old: no guess has the same.
	verified [sha256.Size]byte
	// passed is when it passed Argon2id, and seen when it was last presented. Zero: never.
	passed, seen time.Time
}

// hashes are those that a text of the key may have now.
func (r *keyRecord) hashes(now time.Time) []hashRecord {
	all := []hashRecord{r.Hash}
	if r.Previous.Version != 0 && now.Before(r.PreviousExpires) {
		all = append(all, r.Previous)
	}
	return all
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

// OpenKeys reads a keys file. The errors are those of Reload, and ErrBadParams. With a *FileError it returns Keys all the same,
// which know no key until a Reload succeeds: Verify returns ErrKeysUnread, and what would write the file is refused.
func OpenKeys(opts KeyOptions) (*Keys, error) {
	k := &Keys{
		path:   opts.Path,
		now:    opts.Now,
		hash:   argon2id,
		macKey: random(sha256.Size),
		dummy:  random(saltLen),

		hashing:  map[[sha256.Size]byte]chan struct{}{},
		failures: failures{until: map[string]time.Time{}},
		slow:     map[lane]*queue{},
	}
	if k.now == nil {
		k.now = time.Now
	}
	k.budget = newBudget(uint32(max(1, min(cmp.Or(opts.MemoryBudget, defaultMemoryBudget)>>20, 1<<16))))
	if err := k.SetParams(opts.Params); err != nil {
		return nil, err
	}
	err := k.Reload()
	if _, wrong := errors.AsType[*FileError](err); wrong {
		k.unread = true
		return k, err
	}
	if err != nil {
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

// Unread reports whether the file has had an error since OpenKeys, so that no key is known.
func (k *Keys) Unread() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.unread
}

// Check returns what Reload would return, and changes nothing.
func (k *Keys) Check() error {
	if _, _, err := readKeysFile(k.path); err != nil {
		return fmt.Errorf("cannot read the keys: %w", err)
	}
	return nil
}

// load is Reload. Keys.change is held.
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
			for i := range r.proofs {
				r.proofs[i].verified = old.proofs[i].verified
			}
		}
		records[e.ID] = r
	}
	k.records, k.stamp, k.unread = records, stamp, false
	return nil
}

// sync reads the file if it is not the one that was last read or written, so that a write undoes nobody's edit.
// Keys.change is held.
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

// save writes the file with more entries, in place of those with their ids, and forgets the revoked keys. Keys.change is
// held.
func (k *Keys) save(add ...keyEntry) error {
	k.mu.Lock()
	entries := make([]keyEntry, 0, len(k.records)+len(add))
	for _, r := range k.records {
		if !r.revoked && !slices.ContainsFunc(add, func(e keyEntry) bool { return e.ID == r.ID }) {
			entries = append(entries, r.keyEntry)
		}
	}
	k.dirty = false // What is used from here on is for the next time.
	k.mu.Unlock()
	entries = append(entries, add...)
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
	if err := k.save(entry); err != nil {
		return KeyInfo{}, nil, err
	}
	r := &keyRecord{keyEntry: entry}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.records[key.id] = r
	return r.info(), key.text(), nil
}

// find returns the key that is not revoked and has a name or an id, or nil. Keys.change is held. So the record
// stays, and the caller may read what never changes in it.
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
	return info, k.save()
}

// Still reports whether the text that Verify has returned a key for is good now, too.
func (k *Keys) Still(info KeyInfo) bool {
	var id keyID
	if id.UnmarshalText([]byte(info.ID)) != nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	r, now := k.records[id], k.now()
	return r != nil && r.good(now) && slices.ContainsFunc(r.hashes(now), func(h hashRecord) bool { return string(h.Salt) == info.salt })
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
	return k.save()
}

// lane is where texts wait to be verified one at a time: those for one key, from addresses with failures or without.
type lane struct {
	id    keyID
	clean bool
}

// queue is a lane with its texts.
type queue struct {
	taken   chan struct{} // full while one of them is verified
	waiting int           // how many wait for that; Keys.mu guards it
}

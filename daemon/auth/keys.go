package auth

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
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
	// maxGuesses is how many texts with unknown ids wait for a hash at a time. One more is refused without a hash.
	maxGuesses = 16
	// maxWaiting is how many texts wait in one lane of a key that is guessed at.
	maxWaiting = 64
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

// Verify returns the key whose text was presented. It returns ErrUnauthorized whatever is wrong with it, and the
// context's error if that ends while it waits for memory to hash in.
//
// A malformed text costs nothing, since everybody can tell that it is one. Everything else costs one Argon2id, known
// id or not, but for a key that has passed lately: so who has a good key is not held up by who tries bad ones.
//
// When there were many failures lately, from one address (of IPv6 the /64; "": not known) or at one key id, unknown ids are
// refused without a hash, and known ones are verified one at a time for each key: so made-up keys cost nothing for long. The
// holder of a key does not wait behind those who guess at it: a text that has passed before waits for none of them, and addresses
// without failures have a lane of their own. Verify returns ErrBusy only for a text that has not passed since the engine's start, and
// only while 64 texts for the same key wait in its lane.
func (k *Keys) Verify(ctx context.Context, remote string, presented []byte) (KeyInfo, error) {
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
	unread := k.unread
	k.mu.Unlock()
	if unread {
		return KeyInfo{}, ErrKeysUnread
	}
	if ok {
		return info, nil
	}
	from, at := Address(remote), key.id.String()
	guessed, ok := k.guess(key.id, from, around(remote))
	if !ok {
		return KeyInfo{}, ErrUnauthorized
	}
	defer guessed()
	// An engine that was started anew is asked by all who waited for it at once, mostly with one key.
	done, err := k.turn(ctx, verified)
	if err != nil {
		return KeyInfo{}, err
	}
	defer done()
	k.mu.Lock()
	info, ok = k.recall(key.id, verified)
	candidates := []hashRecord{{Memory: k.params.Memory, Time: k.params.Time, Threads: k.params.Threads, Salt: k.dummy}}
	r, now := k.records[key.id], k.now()
	if r != nil {
		candidates = r.hashes(now)
	}
	of := unknownID
	switch {
	case r != nil && r.hasPassed(verified):
		of = passedBefore
	case r != nil:
		of = knownID
	}
	over := k.failures.over(from, now) || k.failures.over(at, now)
	clean := !k.failures.any(from, now) && !k.failures.over(around(remote), now)
	k.mu.Unlock()
	switch {
	case ok:
		return info, nil
	case over && r == nil:
		return KeyInfo{}, ErrUnauthorized
	case over && of < passedBefore:
		done, err := k.slowly(ctx, lane{key.id, clean})
		if err != nil {
			return KeyInfo{}, err
		}
		defer done()
	}
	for _, stored := range candidates {
		good, err := k.matches(ctx, &key, stored, of, func() bool { return r == nil && k.failedOften(from, at) })
		if err != nil {
			return KeyInfo{}, err
		}
		if good {
			return k.pass(key.id, stored, verified)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failures.add(from, now)
	k.failures.add(around(remote), now)
	if r != nil { // else anybody could fill the memory with ids
		k.failures.add(at, now)
	}
	return KeyInfo{}, ErrUnauthorized
}

// guess counts a text if its id is unknown, until the function is called. It reports whether the text is to be verified: where
// enough others wait, it is a failure like any other, without a hash.
func (k *Keys) guess(id keyID, from, network string) (done func(), ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.records[id] != nil {
		return func() {}, true
	}
	if k.guesses >= maxGuesses {
		k.failures.add(from, k.now())
		k.failures.add(network, k.now())
		return nil, false
	}
	k.guesses++
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.guesses--
	}, true
}

// failedOften reports whether an address or a key id is over its budget.
func (k *Keys) failedOften(from, at string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	return k.failures.over(from, now) || k.failures.over(at, now)
}

// matches computes one hash, unless there is no need any more once it has waited for its turn: many may come at once.
func (k *Keys) matches(ctx context.Context, key *Key, stored hashRecord, of rank, needless func() bool) (bool, error) {
	release, err := k.budget.take(ctx, (stored.Memory+1023)/1024, of)
	if err != nil {
		return false, err
	}
	defer release()
	if needless() {
		return false, nil
	}
	sum := k.hash(key.secret[:], stored.Salt, stored.params())
	return subtle.ConstantTimeCompare(sum, stored.Sum) == 1, nil // Never equal for an unknown key: that has no sum.
}

// pass lets a text in whose hash is right, if it still is one of the key's.
func (k *Keys) pass(id keyID, stored hashRecord, verified [sha256.Size]byte) (KeyInfo, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	r := k.records[id] // Perhaps another than before: the file may have been read again meanwhile.
	if r == nil || !r.good(now) {
		return KeyInfo{}, ErrUnauthorized
	}
	i := slices.IndexFunc(r.hashes(now), stored.equal)
	if i < 0 {
		return KeyInfo{}, ErrUnauthorized
	}
	r.proofs[i] = proof{verified: verified, passed: now}
	return k.use(r, i, now), nil
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

// slowly waits for a text's turn in a lane, and returns what ends the turn. It returns ErrBusy where maxWaiting wait.
func (k *Keys) slowly(ctx context.Context, in lane) (done func(), err error) {
	k.mu.Lock()
	turn := k.slow[in]
	if turn == nil {
		turn = &queue{taken: make(chan struct{}, 1)}
		k.slow[in] = turn // two for each key, and no more
	}
	if turn.waiting >= maxWaiting {
		k.mu.Unlock()
		return nil, ErrBusy
	}
	turn.waiting++
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		turn.waiting--
	}()
	select {
	case turn.taken <- struct{}{}:
		return func() { <-turn.taken }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
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

// hasPassed reports whether a text has passed at any time since the engine's start. Keys.mu is held.
func (r *keyRecord) hasPassed(verified [sha256.Size]byte) bool {
	for i := range r.proofs {
		if p := &r.proofs[i]; p.verified != [sha256.Size]byte{} && hmac.Equal(verified[:], p.verified[:]) {
			return true
		}
	}
	return false
}

// recall is the answer without Argon2id: this very text has passed lately, and the key is still good. Keys.mu is held.
func (k *Keys) recall(id keyID, verified [sha256.Size]byte) (KeyInfo, bool) {
	r := k.records[id]
	if r == nil {
		return KeyInfo{}, false
	}
	now := k.now()
	for i := range r.hashes(now) {
		p := &r.proofs[i]
		if p.passed.IsZero() || !hmac.Equal(verified[:], p.verified[:]) {
			continue
		}
		if !r.good(now) || now.Sub(p.passed) >= verifiedMax || now.Sub(p.seen) >= verifiedIdle {
			return KeyInfo{}, false
		}
		return k.use(r, i, now), true
	}
	return KeyInfo{}, false
}

// use notes that a key was used, with the text of the proof at i. Keys.mu is held.
func (k *Keys) use(r *keyRecord, i int, now time.Time) KeyInfo {
	r.proofs[i].seen = now
	if last := now.UTC().Truncate(time.Second); last.After(r.LastUsed) {
		r.LastUsed = last
		k.dirty = true
	}
	info := r.info()
	info.salt = string(r.hashes(now)[i].Salt)
	return info
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

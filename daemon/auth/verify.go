package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"time"
)

const (
	// verifiedIdle and verifiedMax are how long a verified key needs no Argon2id: after its last use, and in all.
	verifiedIdle = time.Minute
	verifiedMax  = 5 * time.Minute

	// maxGuesses is how many texts with unknown ids wait for a hash at a time. One more is refused without a hash.
	maxGuesses = 16
	// maxWaiting is how many texts wait in one lane of a key that is guessed at.
	maxWaiting = 64
)

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

package auth

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Rotate gives a key another secret and returns its new text. The old one is good for overlap more, in whole seconds, and no
// longer than it was; 0: not any more. A zero expires leaves the time that the key expires. It returns ErrNoKey, ErrBadExpiry,
// and the errors of Reload if the file was edited. Once it returns, the new text is on disk.
func (k *Keys) Rotate(nameOrID string, overlap time.Duration, expires time.Time) (KeyInfo, []byte, error) {
	now := k.now()
	k.change.Lock()
	defer k.change.Unlock()
	if err := k.sync(); err != nil {
		return KeyInfo{}, nil, err
	}
	old := k.find(nameOrID)
	if old == nil {
		return KeyInfo{}, nil, ErrNoKey
	}
	k.mu.Lock()
	entry, p := old.keyEntry, k.params
	k.mu.Unlock()
	if !expires.IsZero() {
		entry.Expires = expires.UTC().Truncate(time.Second)
	}
	if !entry.Expires.IsZero() && (!entry.Expires.After(now) || entry.Expires.Year() > maxYear) || overlap < 0 {
		return KeyInfo{}, nil, ErrBadExpiry
	}
	entry.Previous, entry.PreviousExpires = hashRecord{}, time.Time{}
	if overlap > 0 && old.good(now) {
		until := now.Add(overlap)
		if !old.Expires.IsZero() && old.Expires.Before(until) {
			until = old.Expires
		}
		if until.Year() > maxYear {
			return KeyInfo{}, nil, ErrBadExpiry
		}
		entry.Previous, entry.PreviousExpires = old.Hash, until.UTC().Truncate(time.Second)
	}
	key := Key{id: old.ID}
	copy(key.secret[:], random(keySecretLen))
	salt := random(saltLen)
	entry.Hash = hashRecord{
		Version: hashVersion, Memory: p.Memory, Time: p.Time, Threads: p.Threads, Salt: salt, Sum: k.hash(key.secret[:], salt, p),
	}
	if err := k.save(entry); err != nil {
		return KeyInfo{}, nil, err
	}
	return k.replace([]keyEntry{entry})[0], key.text(), nil
}

// replace puts entries that are on disk in force.
func (k *Keys) replace(entries []keyEntry) []KeyInfo {
	k.mu.Lock()
	defer k.mu.Unlock()
	var infos []KeyInfo
	for _, e := range entries {
		r := &keyRecord{keyEntry: e}
		k.records[e.ID] = r
		infos = append(infos, r.info())
	}
	return infos
}

// Import adds the keys of a keys file of another machine. A key that is there already, by its id, becomes what it is there.
// All of them are added, or none: it returns a *FileError, ErrKeyExists for a name that another key has, and the errors of
// Reload if the file was edited.
func (k *Keys) Import(name string, content []byte) ([]KeyInfo, error) {
	if len(content) > maxKeysFile {
		return nil, &FileError{File: name, Err: fmt.Errorf("it is larger than %d bytes", maxKeysFile)}
	}
	entries, err := parseKeysFile(name, content)
	if err != nil {
		return nil, err
	}
	k.change.Lock()
	defer k.change.Unlock()
	if err := k.sync(); err != nil {
		return nil, err
	}
	k.mu.Lock()
	for i := range entries {
		e := &entries[i]
		for _, r := range k.records {
			if !r.revoked && r.ID != e.ID && (r.Name == e.Name || r.Name == e.ID.String() || r.ID.String() == e.Name) {
				k.mu.Unlock()
				return nil, fmt.Errorf("%w: %s", ErrKeyExists, e.Name)
			}
			if r.ID == e.ID && r.LastUsed.After(e.LastUsed) {
				e.LastUsed = r.LastUsed
			}
		}
	}
	k.mu.Unlock()
	if err := k.save(entries...); err != nil {
		return nil, err
	}
	infos := k.replace(entries)
	slices.SortFunc(infos, func(a, b KeyInfo) int { return cmp.Compare(a.Name, b.Name) })
	return infos, nil
}

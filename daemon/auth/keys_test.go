package auth

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// cheap makes Argon2id take no time.
var cheap = Argon2Params{Memory: 8, Time: 1, Threads: 1}

// store is a Keys whose hashes are counted.
type store struct {
	*Keys
	hashes atomic.Int64
	// costs are the parameters of the last hash.
	costs atomic.Pointer[Argon2Params]
}

func openStore(t testing.TB, path string, opts KeyOptions) *store {
	t.Helper()
	opts.Path = path
	if opts.Params == (Argon2Params{}) {
		opts.Params = cheap
	}
	k, err := OpenKeys(opts)
	if err != nil {
		t.Fatal(err)
	}
	s := &store{Keys: k}
	k.hash = func(secret, salt []byte, p Argon2Params) []byte {
		s.hashes.Add(1)
		s.costs.Store(&p)
		return argon2id(secret, salt, p)
	}
	return s
}

func newStore(t testing.TB) *store {
	t.Helper()
	return openStore(t, filepath.Join(t.TempDir(), "keys.toml"), KeyOptions{})
}

func (s *store) add(t testing.TB, name string, expires time.Time) (KeyInfo, []byte) {
	t.Helper()
	info, key, err := s.Add(name, expires)
	if err != nil {
		t.Fatal(err)
	}
	return info, key
}

// verify checks an answer, and how many hashes it took.
func (s *store) verify(t testing.TB, key []byte, want error, hashes int64) KeyInfo {
	t.Helper()
	before := s.hashes.Load()
	info, err := s.Verify(context.Background(), "", key)
	if err != want {
		t.Errorf("error %v, want %v", err, want)
	}
	if err != nil && info != (KeyInfo{}) {
		t.Errorf("a refused key is said to be %+v", info)
	}
	if got := s.hashes.Load() - before; got != hashes {
		t.Errorf("it took %d hashes, want %d", got, hashes)
	}
	return info
}

// with returns a key of another secret or id.
func with(t testing.TB, key []byte, change func(k *Key)) []byte {
	t.Helper()
	k, err := ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	change(&k)
	return k.text()
}

func wrongSecret(k *Key) { k.secret[31] ^= 1 }
func wrongID(k *Key)     { k.id[0] ^= 1 }

func TestAddAndVerify(t *testing.T) {
	s := newStore(t)
	info, key := s.add(t, "ci", time.Time{})
	if info.Name != "ci" || len(info.ID) != 13 || info.Created.IsZero() || !info.Expires.IsZero() || !info.LastUsed.IsZero() {
		t.Errorf("a new key is %+v", info)
	}
	got := s.verify(t, key, nil, 1)
	if got.Name != "ci" || got.ID != info.ID || got.LastUsed.IsZero() {
		t.Errorf("verified it is %+v", got)
	}
	_, other := s.add(t, "other", time.Time{})
	if string(other) == string(key) {
		t.Error("two keys are the same")
	}
	if got := s.verify(t, other, nil, 1); got.Name != "other" {
		t.Errorf("verified the other is %+v", got)
	}
	names := func() (names []string) {
		for _, i := range s.List() {
			names = append(names, i.Name)
		}
		return names
	}
	if got := names(); !slices.Equal(got, []string{"ci", "other"}) {
		t.Errorf("listed are %q", got)
	}

	// All of it is in the file, and no secret.
	content, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(content), string(key[20:30])) {
		t.Error("the file holds the key")
	}
	st, err := os.Stat(s.path)
	if err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	again := openStore(t, s.path, KeyOptions{})
	again.verify(t, key, nil, 1)
	again.verify(t, other, nil, 1)
	left, err := os.ReadDir(filepath.Dir(s.path))
	if err != nil || len(left) != 1 {
		t.Errorf("beside the file there are %v, %v", left, err)
	}
}

func TestAddRefuses(t *testing.T) {
	s := newStore(t)
	info, _ := s.add(t, "ci", time.Time{})
	for _, name := range []string{
		"", "-a", "_a", "A", "a b", "a.b", "a/b", "ä", "a\n", `a"`, strings.Repeat("a", 64), "a\x00",
	} {
		if _, key, err := s.Add(name, time.Time{}); err != ErrBadName || key != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"ci", info.ID} {
		if _, key, err := s.Add(name, time.Time{}); err != ErrKeyExists || key != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, expires := range []time.Time{time.Now(), time.Unix(1, 0), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if _, key, err := s.Add("late", expires); err != ErrBadExpiry || key != nil {
			t.Errorf("%v: %v", expires, err)
		}
	}
	if got := len(s.List()); got != 1 {
		t.Errorf("%d keys", got)
	}
	s.add(t, "0", time.Time{})
	s.add(t, strings.Repeat("z", 63), time.Now().Add(time.Hour))
}

// Whatever is wrong with a key, the answer is the same, and so is the way to it: one Argon2id with the cost of a key.
func TestVerifyRefusesAlike(t *testing.T) {
	s := newStore(t)
	_, key := s.add(t, "ci", time.Time{})
	_, revoked := s.add(t, "revoked", time.Time{})
	if _, err := s.Revoke("revoked"); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"unknown id":                  with(t, key, wrongID),
		"wrong secret":                with(t, key, wrongSecret),
		"another key's secret":        with(t, revoked, func(k *Key) { k.id, _ = mustID(t, key) }),
		"revoked":                     revoked,
		"unknown id and wrong secret": with(t, key, func(k *Key) { wrongID(k); wrongSecret(k) }),
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // Failures are not remembered.
				s.verify(t, bad, ErrUnauthorized, 1)
				if got := *s.costs.Load(); got != cheap {
					t.Errorf("the hash cost %+v", got)
				}
			}
		})
	}
	s.verify(t, key, nil, 1)
	// Nor does a remembered success help a wrong secret.
	s.verify(t, with(t, key, wrongSecret), ErrUnauthorized, 1)
	s.verify(t, key, nil, 0)
	for name, bad := range map[string][]byte{
		"nothing":      nil,
		"cut":          key[:len(key)-1],
		"bad checksum": append(slices.Clone(key[:len(key)-1]), key[len(key)-1]^1),
	} {
		t.Run(name, func(t *testing.T) { s.verify(t, bad, ErrUnauthorized, 0) })
	}
}

func mustID(t testing.TB, key []byte) (keyID, bool) {
	t.Helper()
	k, err := ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return k.id, true
}

// A sum of no bytes must not make every unknown key equal to it.
func TestUnknownKeyIsNotEqualToNothing(t *testing.T) {
	s := newStore(t)
	s.Keys.hash = func([]byte, []byte, Argon2Params) []byte { return nil }
	_, err := s.Verify(t.Context(), "", testKey(t).text())
	if err != ErrUnauthorized {
		t.Errorf("error %v", err)
	}
}

func TestVerifiedKeysAreRememberedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		_, key := s.add(t, "ci", time.Time{})
		s.verify(t, key, nil, 1)
		s.verify(t, key, nil, 0)

		time.Sleep(verifiedIdle - 1)
		s.verify(t, key, nil, 0)
		time.Sleep(verifiedIdle)
		s.verify(t, key, nil, 1) // idle for too long

		for since := time.Duration(0); since+30*time.Second < verifiedMax; since += 30 * time.Second {
			time.Sleep(30 * time.Second)
			s.verify(t, key, nil, 0)
		}
		time.Sleep(30 * time.Second)
		s.verify(t, key, nil, 1) // never idle, but long ago
	})
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		info, key := s.add(t, "ci", time.Now().Add(30*time.Second))
		if want := time.Now().Add(30 * time.Second).Truncate(time.Second); !info.Expires.Equal(want) {
			t.Errorf("expires %v, want %v", info.Expires, want)
		}
		s.verify(t, key, nil, 1)
		time.Sleep(30*time.Second - 1)
		s.verify(t, key, nil, 0)
		time.Sleep(time.Nanosecond)
		s.verify(t, key, ErrUnauthorized, 1) // remembered, and expired all the same
		s.verify(t, with(t, key, wrongSecret), ErrUnauthorized, 1)
		if got := s.List(); len(got) != 1 || !got[0].Expires.Equal(info.Expires) {
			t.Errorf("listed are %+v", got)
		}
		if _, _, err := s.Add("ci", time.Time{}); err != ErrKeyExists {
			t.Errorf("its name: %v", err)
		}
		openStore(t, s.path, KeyOptions{}).verify(t, key, ErrUnauthorized, 1)
	})
}

func TestRevoke(t *testing.T) {
	s := newStore(t)
	info, key := s.add(t, "ci", time.Time{})
	_, other := s.add(t, "other", time.Time{})
	s.verify(t, key, nil, 1)
	got, err := s.Revoke(info.ID)
	if err != nil || got.Name != "ci" || got.ID != info.ID {
		t.Errorf("%+v, %v", got, err)
	}
	s.verify(t, key, ErrUnauthorized, 1)
	for _, name := range []string{"ci", info.ID, "", "nobody"} {
		if _, err := s.Revoke(name); err != ErrNoKey {
			t.Errorf("%q: %v", name, err)
		}
	}
	content, err := os.ReadFile(s.path)
	if err != nil || strings.Contains(string(content), info.ID) {
		t.Errorf("the file still has it: %v", err)
	}
	openStore(t, s.path, KeyOptions{}).verify(t, key, ErrUnauthorized, 1)

	// The name is free again, and the old key is not the new one's.
	_, newKey := s.add(t, "ci", time.Time{})
	s.verify(t, newKey, nil, 1)
	s.verify(t, key, ErrUnauthorized, 1)
	if _, err := s.Revoke("other"); err != nil {
		t.Fatal(err)
	}
	s.verify(t, other, ErrUnauthorized, 1)
}

// A key that cannot be taken out of the file is useless all the same, also after the file was read again.
func TestRevokeWithoutADisk(t *testing.T) {
	s := newStore(t)
	_, key := s.add(t, "ci", time.Time{})
	blocker := s.path + ".new"
	if err := os.MkdirAll(filepath.Join(blocker, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	info, err := s.Revoke("ci")
	if err == nil || info.Name != "ci" {
		t.Errorf("%+v, %v", info, err)
	}
	s.verify(t, key, ErrUnauthorized, 1)
	if _, _, err := s.Add("more", time.Time{}); err == nil || len(s.List()) != 0 {
		t.Errorf("Add: %v, and listed are %+v", err, s.List())
	}
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	s.verify(t, key, ErrUnauthorized, 1)
	if err := os.RemoveAll(blocker); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	openStore(t, s.path, KeyOptions{}).verify(t, key, ErrUnauthorized, 1)
}

func TestRevokeWithABrokenFile(t *testing.T) {
	s := newStore(t)
	_, key := s.add(t, "ci", time.Time{})
	write(t, s.path, "what?")
	if _, ok := errors.AsType[*FileError](second(s.Revoke("nobody"))); !ok {
		t.Error("a broken file is not spoken of")
	}
	if _, ok := errors.AsType[*FileError](second(s.Revoke("ci"))); !ok {
		t.Error("a broken file is not spoken of")
	}
	s.verify(t, key, ErrUnauthorized, 1)
	if content, err := os.ReadFile(s.path); err != nil || string(content) != "what?" {
		t.Errorf("the file is now %q, %v", content, err)
	}
}

func second[T any](_ T, err error) error { return err }

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLastUsedIsWrittenOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		_, key := s.add(t, "ci", time.Time{})
		onDisk := func() time.Time {
			t.Helper()
			return openStore(t, s.path, KeyOptions{}).List()[0].LastUsed
		}
		flush := func() {
			t.Helper()
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		first := s.verify(t, key, nil, 1).LastUsed
		flush()
		if got := onDisk(); !got.IsZero() {
			t.Errorf("written at once: %v", got)
		}
		time.Sleep(flushEvery)
		flush()
		if got := onDisk(); !got.Equal(first) || got.IsZero() {
			t.Errorf("on disk %v, want %v", got, first)
		}
		before := stamp(t, s.path)
		time.Sleep(time.Hour)
		flush()
		if stamp(t, s.path) != before {
			t.Error("written though nothing was used")
		}
		last := s.verify(t, key, nil, 1).LastUsed
		flush()
		last2 := s.verify(t, key, nil, 0).LastUsed
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if got := onDisk(); !got.Equal(last) || !got.Equal(last2) {
			t.Errorf("on disk %v, want %v", got, last)
		}
	})
}

func stamp(t testing.TB, path string) fileStamp {
	t.Helper()
	s, err := stampAt(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Old keys are verified with what they were made with; an unknown one costs what a new key does.
func TestParamsChange(t *testing.T) {
	s := newStore(t)
	_, old := s.add(t, "old", time.Time{})
	dear := Argon2Params{Memory: 64, Time: 2, Threads: 2}
	if err := s.SetParams(dear); err != nil {
		t.Fatal(err)
	}
	_, young := s.add(t, "young", time.Time{})
	if got := *s.costs.Load(); got != dear {
		t.Errorf("a new key was made with %+v", got)
	}
	again := openStore(t, s.path, KeyOptions{Params: dear})
	for _, test := range []struct {
		key  []byte
		err  error
		cost Argon2Params
	}{
		{old, nil, cheap}, {young, nil, dear}, {with(t, old, wrongID), ErrUnauthorized, dear},
		{with(t, old, wrongSecret), ErrUnauthorized, cheap},
	} {
		again.verify(t, test.key, test.err, 1)
		if got := *again.costs.Load(); got != test.cost {
			t.Errorf("it cost %+v, want %+v", got, test.cost)
		}
	}
	for _, bad := range []Argon2Params{
		{Memory: 7}, {Memory: 8, Threads: 2}, {Memory: 1<<20 + 1}, {Time: 65}, {Threads: 65},
	} {
		if err := s.SetParams(bad); !errors.Is(err, ErrBadParams) {
			t.Errorf("%+v: %v", bad, err)
		}
		if _, err := OpenKeys(KeyOptions{Path: s.path, Params: bad}); !errors.Is(err, ErrBadParams) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if got, want := (Argon2Params{}).WithDefaults(), (Argon2Params{Memory: 19456, Time: 2, Threads: 1}); got != want {
		t.Errorf("the defaults are %+v", got)
	}
}

func TestReload(t *testing.T) {
	s := newStore(t)
	_, a := s.add(t, "a", time.Time{})
	backup, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	_, b := s.add(t, "b", time.Time{})
	used := s.verify(t, a, nil, 1).LastUsed
	s.verify(t, b, nil, 1)

	write(t, s.path, string(backup))
	s.verify(t, b, nil, 0) // not yet
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	s.verify(t, b, ErrUnauthorized, 1)
	if got := s.List(); len(got) != 1 || !got[0].LastUsed.Equal(used) {
		t.Errorf("listed are %+v", got)
	}
	s.verify(t, a, nil, 1)

	write(t, s.path, string(backup)+"[[key]]\nname = 'x'\n")
	err = s.Reload()
	wrong, ok := errors.AsType[*FileError](err)
	if !ok || wrong.Line != 1+strings.Count(string(backup), "\n") || wrong.File != s.path {
		t.Errorf("error %v", err)
	}
	s.verify(t, a, nil, 0) // With an error nothing changes.

	if err := os.Remove(s.path); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	s.verify(t, a, ErrUnauthorized, 1)
}

// What somebody did to the file is never written over.
func TestEditsAreKept(t *testing.T) {
	s := newStore(t)
	_, a := s.add(t, "a", time.Time{})
	other := openStore(t, s.path, KeyOptions{})
	_, b := other.add(t, "b", time.Time{})
	s.verify(t, b, ErrUnauthorized, 1)
	_, c := s.add(t, "c", time.Time{})
	for _, key := range [][]byte{a, b, c} {
		s.verify(t, key, nil, 1)
	}

	write(t, s.path, "") // somebody takes all keys away
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, key := range [][]byte{a, b, c} {
		s.verify(t, key, ErrUnauthorized, 1)
	}
	if got := openStore(t, s.path, KeyOptions{}).List(); len(got) != 0 {
		t.Errorf("in the file are %+v", got)
	}

	_, d := s.add(t, "d", time.Time{})
	write(t, s.path, "oops")
	s.verify(t, d, nil, 1)
	for name, err := range map[string]error{
		"Add": func() error { _, _, err := s.Add("e", time.Time{}); return err }(), "Close": s.Close(),
	} {
		if _, ok := errors.AsType[*FileError](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if content, err := os.ReadFile(s.path); err != nil || string(content) != "oops" {
		t.Errorf("the file is now %q, %v", content, err)
	}
}

// A reload in the middle of a verification refuses no good key, and lets none in that it took away.
func TestReloadDuringVerify(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(t *testing.T, s *store)
		want error
	}{
		"the same":   {func(*testing.T, *store) {}, nil},
		"taken away": {func(t *testing.T, s *store) { write(t, s.path, "") }, ErrUnauthorized},
		"another secret under the same id": {func(t *testing.T, s *store) {
			entry := s.records[onlyID(s)].keyEntry
			entry.Hash.Sum = random(sumLen)
			content, err := formatKeysFile([]keyEntry{entry})
			if err != nil {
				t.Fatal(err)
			}
			write(t, s.path, string(content))
		}, ErrUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			_, key := s.add(t, "ci", time.Time{})
			s.Keys.hash = func(secret, salt []byte, p Argon2Params) []byte {
				test.edit(t, s)
				if err := s.Reload(); err != nil {
					t.Error(err)
				}
				return argon2id(secret, salt, p)
			}
			if _, err := s.Verify(t.Context(), "", key); err != test.want {
				t.Errorf("error %v, want %v", err, test.want)
			}
		})
	}
}

// onlyID returns the id of a store's only key.
func onlyID(s *store) (only keyID) {
	for id := range s.records {
		only = id
	}
	return only
}

func TestRevokeDuringVerify(t *testing.T) {
	s := newStore(t)
	_, key := s.add(t, "ci", time.Time{})
	s.Keys.hash = func(secret, salt []byte, p Argon2Params) []byte {
		if _, err := s.Revoke("ci"); err != nil {
			t.Error(err)
		}
		return argon2id(secret, salt, p)
	}
	if _, err := s.Verify(t.Context(), "", key); err != ErrUnauthorized {
		t.Errorf("error %v", err)
	}
}

func TestManyAtOnce(t *testing.T) {
	s := newStore(t)
	const keys, rounds = 8, 30
	var texts [keys][]byte
	for i := range texts {
		_, texts[i] = s.add(t, fmt.Sprintf("key-%d", i), time.Time{})
	}
	var revoked [keys]atomic.Bool
	var wg sync.WaitGroup
	for i := range keys {
		for range 3 {
			wg.Go(func() {
				for range rounds {
					wasRevoked := revoked[i].Load()
					info, err := s.Verify(t.Context(), "", texts[i])
					switch {
					case err == nil && wasRevoked:
						t.Errorf("key %d passed after its revocation", i)
					case err == nil && info.Name != fmt.Sprintf("key-%d", i):
						t.Errorf("key %d is %+v", i, info)
					case err != nil && (err != ErrUnauthorized || i%2 != 0):
						t.Errorf("key %d: %v", i, err)
					}
					if _, err := s.Verify(t.Context(), "", with(t, texts[i], wrongSecret)); err != ErrUnauthorized {
						t.Errorf("a wrong secret: %v", err)
					}
				}
			})
		}
		if i%2 == 0 {
			wg.Go(func() {
				if _, err := s.Revoke(fmt.Sprintf("key-%d", i)); err != nil {
					t.Error(err)
				}
				revoked[i].Store(true)
			})
		}
	}
	wg.Go(func() {
		for i := range rounds {
			if _, _, err := s.Add(fmt.Sprintf("new-%d", i), time.Time{}); err != nil {
				t.Error(err)
			}
			if err := s.Reload(); err != nil {
				t.Error(err)
			}
			s.List()
			if err := s.Flush(); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if got := len(s.List()); got != keys/2+rounds {
		t.Errorf("%d keys are left", got)
	}
}

// Hashes wait for memory.
func TestMemoryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "keys.toml")
		s := openStore(t, path, KeyOptions{MemoryBudget: 3 << 20})
		keys := make([][]byte, 20)
		for i := range keys {
			_, keys[i] = s.add(t, fmt.Sprint("ci-", i), time.Time{})
		}
		_, other := s.add(t, "other", time.Time{})
		key := keys[0]
		var running, most, hashes atomic.Int64
		s.Keys.hash = func(secret, salt []byte, p Argon2Params) []byte {
			hashes.Add(1)
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(time.Second)
			running.Add(-1)
			return argon2id(secret, salt, p)
		}
		var wg sync.WaitGroup
		for _, key := range keys {
			wg.Go(func() {
				if _, err := s.Verify(t.Context(), "", key); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if most.Load() != 3 || hashes.Load() != 20 {
			t.Errorf("%d hashes, %d at once; want 20 and 3", hashes.Load(), most.Load())
		}

		// A context that ends while others have the memory; a key that is remembered waits for nobody.
		for _, key := range keys[:3] {
			wg.Go(func() { s.Verify(t.Context(), "", with(t, key, wrongSecret)) })
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := s.Verify(ctx, "", key); err != nil {
			t.Errorf("a remembered key: %v", err)
		}
		if _, err := s.Verify(ctx, "", other); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if _, err := s.Verify(ctx, "", key); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a context that has ended: %v", err)
		}
		wg.Wait()
		// Nothing of the budget was lost.
		if _, err := s.Verify(t.Context(), "", other); err != nil {
			t.Error(err)
		}
		if len(s.budget.units) != 0 || len(s.budget.turn) != 0 || len(s.budget.lines[knownID]) != 0 {
			t.Errorf("%d units are out", len(s.budget.units))
		}
	})
}

// TestGuessesDoNotPile: texts with unknown ids wait in a small number, so that they do not hold the connections that they came on.
func TestGuessesDoNotPile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		_, key := s.add(t, "ci", time.Time{})
		s.Keys.hash = func(secret, salt []byte, p Argon2Params) []byte {
			time.Sleep(time.Second)
			return argon2id(secret, salt, p)
		}
		const all = 300
		var refused atomic.Int64
		var wg sync.WaitGroup
		for i := range all {
			wg.Go(func() {
				remote := fmt.Sprintf("2001:db8:%x::1", i)
				text := with(t, key, func(k *Key) {
					wrongID(k)
					k.secret[0] = byte(i % 200) // some of them are the same
				})
				if _, err := s.Verify(t.Context(), remote, text); err == ErrUnauthorized {
					refused.Add(1)
				}
			})
		}
		synctest.Wait()
		if got := refused.Load(); got != all-maxGuesses {
			t.Errorf("%d of %d were refused at once", got, all)
		}
		if _, err := s.Verify(t.Context(), "192.0.2.1", key); err != nil {
			t.Errorf("a good key: %v", err)
		}
		wg.Wait()
		if refused.Load() != all || s.guesses != 0 {
			t.Errorf("%d were refused, %d guesses are left", refused.Load(), s.guesses)
		}
	})
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(4)
		releaseA, err := b.take(t.Context(), 3, knownID)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.take(ctx, 2, knownID); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("more than is left: %v", err)
		}
		var order []int
		var wg sync.WaitGroup
		for i, n := range []uint32{100, 1} { // more than there are; and one that has to wait behind it
			wg.Go(func() {
				release, err := b.take(t.Context(), n, knownID)
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, i)
				time.Sleep(time.Second)
				release()
			})
			synctest.Wait()
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.take(short, 1, knownID); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("out of turn: %v", err)
		}
		releaseA()
		wg.Wait()
		if !slices.Equal(order, []int{0, 1}) || len(b.units) != 0 {
			t.Errorf("order %v, %d units out", order, len(b.units))
		}
	})
}

func TestUnsafeFiles(t *testing.T) {
	good := filepath.Join(t.TempDir(), "keys.toml")
	openStore(t, good, KeyOptions{}).add(t, "ci", time.Time{})
	tests := map[string]func(path string) error{
		"readable by the group": func(p string) error { return os.Chmod(p, 0o640) },
		"readable by others":    func(p string) error { return os.Chmod(p, 0o604) },
		"writable by others":    func(p string) error { return os.Chmod(p, 0o602) },
		"a symbolic link": func(p string) error {
			return errors.Join(os.Remove(p), os.Symlink(good, p))
		},
		"a folder": func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) },
	}
	if os.Geteuid() == 0 {
		tests["somebody else's"] = func(p string) error { return os.Chown(p, 54321, 0) }
	} else {
		t.Log("skipped: somebody else's file, which needs root to make")
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			_, key := s.add(t, "ci", time.Time{})
			if err := spoil(s.path); err != nil {
				t.Fatal(err)
			}
			if _, err := OpenKeys(KeyOptions{Path: s.path}); !errors.Is(err, ErrUnsafeFile) {
				t.Errorf("OpenKeys: %v", err)
			}
			if err := s.Reload(); !errors.Is(err, ErrUnsafeFile) {
				t.Errorf("Reload: %v", err)
			}
			s.verify(t, key, nil, 1)
		})
	}
}

func TestNoFolder(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "none", "keys.toml"), KeyOptions{})
	if _, _, err := s.Add("ci", time.Time{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

// What a crash left behind is in nobody's way.
func TestLeftovers(t *testing.T) {
	s := newStore(t)
	if err := os.WriteFile(s.path+".new", []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.add(t, "ci", time.Time{})
	if info, err := os.Stat(s.path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := os.Stat(s.path + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func BenchmarkVerify(b *testing.B) {
	s := newStore(b)
	_, key := s.add(b, "ci", time.Time{})
	for b.Loop() {
		if _, err := s.Verify(b.Context(), "", key); err != nil {
			b.Fatal(err)
		}
	}
}

// Requests that come with one key at the same time cost one hash, also where there is memory for all: after a restart of the
// engine that is the rule.
func TestVerifyTogether(t *testing.T) {
	s := newStore(t)
	_, text := s.add(t, "ci", time.Time{})
	before, hash := s.hashes.Load(), s.Keys.hash
	s.Keys.hash = func(secret, salt []byte, p Argon2Params) []byte {
		time.Sleep(10 * time.Millisecond) // for the others to come
		return hash(secret, salt, p)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := s.Verify(t.Context(), "", text); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := s.hashes.Load() - before; n != 1 {
		t.Errorf("%d hashes", n)
	}
}

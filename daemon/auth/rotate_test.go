package auth

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// For the overlap both texts are good, and after it the new one alone; a reopened store knows as much.
func TestRotate(t *testing.T) {
	now := time.Now().UTC()
	path := filepath.Join(t.TempDir(), "keys.toml")
	open := func() *store { return openStore(t, path, KeyOptions{Now: func() time.Time { return now }}) }
	s := open()
	info, first := s.add(t, "a", time.Time{})
	s.verify(t, first, nil, 1)
	again, second, err := s.Rotate("a", time.Hour, time.Time{})
	if err != nil || again.ID != info.ID || again.Name != "a" || string(second) == string(first) {
		t.Fatalf("%+v, %v", again, err)
	}
	for range 2 {
		s.verify(t, second, nil, 1)
		s.verify(t, first, nil, 2)
		// Both are remembered, each by itself.
		s.verify(t, second, nil, 0)
		s.verify(t, first, nil, 0)
		s = open()
	}
	now = now.Add(time.Hour)
	s.verify(t, first, ErrUnauthorized, 1)
	s.verify(t, second, nil, 1)
	// Without an overlap the old one ends at once, remembered or not; a second rotation ends the first one's overlap.
	_, third, err := s.Rotate(info.ID, time.Hour, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	_, fourth, err := s.Rotate(info.ID, 0, now.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	for _, old := range [][]byte{second, third} {
		s.verify(t, old, ErrUnauthorized, 1)
	}
	if got := s.verify(t, fourth, nil, 1); !got.Expires.Equal(now.Add(time.Minute).Truncate(time.Second)) {
		t.Errorf("expires %v", got.Expires)
	}
	// An overlap does not make the old one good for longer than it was to be.
	_, fifth, err := s.Rotate("a", time.Hour, now.Add(2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	s.verify(t, fourth, ErrUnauthorized, 1)
	s.verify(t, fifth, nil, 1)
	now = now.Add(3 * time.Hour)
	if _, _, err := s.Rotate("a", 0, time.Time{}); !errors.Is(err, ErrBadExpiry) {
		t.Errorf("an expired one: %v", err)
	}
	if _, _, err := s.Rotate("b", 0, time.Time{}); !errors.Is(err, ErrNoKey) {
		t.Errorf("another one: %v", err)
	}
}

// The same texts are good where the file was imported, all or none of them.
func TestImport(t *testing.T) {
	from, to := newStore(t), newStore(t)
	_, a := from.add(t, "a", time.Time{})
	_, old := from.add(t, "b", time.Now().Add(time.Hour))
	_, b, err := from.Rotate("b", time.Hour, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	to.add(t, "c", time.Time{})
	file, err := os.ReadFile(from.path)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // once more changes nothing
		if infos, err := to.Import("x", file); err != nil || len(infos) != 2 || infos[1].Name != "b" {
			t.Fatalf("%+v, %v", infos, err)
		}
	}
	if n := len(to.List()); n != 3 {
		t.Errorf("%d keys", n)
	}
	for _, key := range [][]byte{a, b, old} {
		if _, err := to.Verify(t.Context(), "", key); err != nil {
			t.Error(err)
		}
	}
	other := newStore(t)
	_, mine := other.add(t, "b", time.Time{})
	if _, err := other.Import("x", file); !errors.Is(err, ErrKeyExists) || len(other.List()) != 1 {
		t.Errorf("a name that is taken: %v, %v", err, other.List())
	}
	other.verify(t, mine, nil, 1)
	var wrong *FileError
	if _, err := other.Import("x", []byte(strings.Replace(string(file), "hash", "hush", 1))); !errors.As(err, &wrong) || wrong.Line == 0 {
		t.Errorf("a broken file: %v", err)
	}
}

// Made-up keys cost a few hashes and then none, and a good key is verified all the same, from anywhere.
func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		_, good := s.add(t, "a", time.Time{})
		for i := range 100 {
			if _, err := s.Verify(t.Context(), fmt.Sprintf("2001:db8::%x", i), with(t, good, wrongID)); !errors.Is(err, ErrUnauthorized) {
				t.Fatal(err)
			}
		}
		if n := s.hashes.Load(); n != 1+failureBurst {
			t.Errorf("100 made-up keys of one /64 took %d hashes", n)
		}
		if _, err := s.Verify(t.Context(), "2001:db8::1", good); err != nil {
			t.Errorf("a good key from there: %v", err)
		}
		before := s.hashes.Load()
		if _, err := s.Verify(t.Context(), "2001:db8:0:1::1", with(t, good, wrongID)); err != ErrUnauthorized || s.hashes.Load() != before+1 {
			t.Errorf("from elsewhere: %v, %d hashes", err, s.hashes.Load()-before)
		}
		time.Sleep(failureEvery)
		before = s.hashes.Load()
		for range 5 {
			_, _ = s.Verify(t.Context(), "2001:db8::1", with(t, good, wrongID))
		}
		if n := s.hashes.Load() - before; n != 1 {
			t.Errorf("a moment later: %d hashes", n)
		}

		// Somebody guesses at a key whose id is known, from many addresses at once: one at a time from those that failed before, one
		// from others.
		time.Sleep(verifiedMax)
		slow := slowHash(s)
		for range 2 * failureBurst { // which takes its time, in which some are forgiven
			_, _ = s.Verify(t.Context(), "", with(t, good, wrongSecret))
		}
		slow.most = 0
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() { guess(t, s, fmt.Sprintf("192.0.2.%d", i), good, i) })
		}
		wg.Wait()
		if slow.most > 2 {
			t.Errorf("%d at a time", slow.most)
		}
	})
}

// slowed counts the hashes that are computed at a time.
type slowed struct {
	mu         sync.Mutex
	busy, most int
}

// hashTime is how long a hash takes, of a clock that only tests have.
const hashTime = time.Second

// slowHash has each hash take hashTime.
func slowHash(s *store) *slowed {
	var c slowed
	inner := s.hash
	s.hash = func(secret, salt []byte, p Argon2Params) []byte {
		c.mu.Lock()
		c.busy++
		c.most = max(c.most, c.busy)
		c.mu.Unlock()
		time.Sleep(hashTime)
		c.mu.Lock()
		c.busy--
		c.mu.Unlock()
		return inner(secret, salt, p)
	}
	return &c
}

// guess presents a wrong secret, another one for each i, with a good id.
func guess(t *testing.T, s *store, from string, good []byte, i int) {
	_, _ = s.Verify(t.Context(), from, with(t, good, func(k *Key) { k.secret[0] ^= byte(i%255 + 1); k.secret[1] ^= byte(i / 255) }))
}

// However many guess at a key, from however many addresses, its holder does not wait behind them: neither with a text that has
// passed before, from wherever, nor, after a start of the engine, from an address without failures.
func TestHolderIsNotBehindGuesses(t *testing.T) {
	for name, c := range map[string]struct {
		before bool   // it has passed before
		from   string // of the holder
		guess  string // where guesses come from
		most   time.Duration
	}{
		"passed, from the same address":         {true, "192.0.2.1", "192.0.2.1", 3 * hashTime},
		"passed, from an unknown one":           {true, "", "", 3 * hashTime},
		"passed, guesses from everywhere":       {true, "192.0.2.1", "2001:db8:%x::1", 3 * hashTime},
		"new, from an address without failures": {false, "198.51.100.1", "192.0.2.1", 4 * hashTime},
		"new, guesses from many of one network": {false, "198.51.100.1", "2001:db8:1:%x::1", 4 * hashTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, filepath.Join(t.TempDir(), "keys.toml"), KeyOptions{MemoryBudget: 2 << 20})
				_, good := s.add(t, "a", time.Time{})
				if c.before {
					if _, err := s.Verify(t.Context(), c.from, good); err != nil {
						t.Fatal(err)
					}
					if err := s.Reload(); err != nil { // changes nothing in that
						t.Fatal(err)
					}
					time.Sleep(2 * verifiedMax)
				}
				slowHash(s)
				from := func(i int) string {
					if strings.Contains(c.guess, "%") {
						return fmt.Sprintf(c.guess, i)
					}
					return c.guess
				}
				for i := range 2 * failureBurst {
					guess(t, s, from(i), good, i)
				}
				// Strangers with unknown ids, too, from any address.
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for i := range 1000 {
					wg.Go(func() {
						_, _ = s.Verify(ctx, from(i), with(t, good, func(k *Key) { k.secret[0] ^= byte(i%255 + 1); k.secret[1] ^= byte(i / 255) }))
					})
					wg.Go(func() {
						_, _ = s.Verify(ctx, fmt.Sprintf("2001:db9:%x::1", i), with(t, good, func(k *Key) { k.id[0] ^= 1; k.secret[0], k.secret[1] = byte(i), byte(i>>8) }))
					})
				}
				synctest.Wait()
				began := time.Now()
				if _, err := s.Verify(t.Context(), c.from, good); err != nil {
					t.Error(err)
				}
				if d := time.Since(began); d > c.most {
					t.Errorf("the holder waited for %v", d)
				}
				cancel()
				wg.Wait()
			})
		})
	}
}

func TestAddress(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8:1:2:3::4": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
		"": "", "@": "", "localhost": "",
	} {
		if got := Address(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// However many there are, not more are remembered than should be.
func TestFailuresAreBounded(t *testing.T) {
	f := failures{until: map[string]time.Time{}}
	now := time.Unix(1000, 0)
	for i := range 3 * maxFailures {
		f.add(fmt.Sprint(i), now)
	}
	if n := len(f.until); n > maxFailures {
		t.Errorf("%d", n)
	}
}

// However many guess at a key, so many of them wait for a hash at a time, and the others are told to come again.
func TestGuessesAtAKeyAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, filepath.Join(t.TempDir(), "keys.toml"), KeyOptions{MemoryBudget: 2 << 20})
		_, good := s.add(t, "a", time.Time{})
		slowHash(s)
		for i := range 2 * failureBurst {
			guess(t, s, "192.0.2.1", good, i)
		}
		const all = 1000
		var busy, bad atomic.Int64
		var wg sync.WaitGroup
		for i := range all {
			wg.Go(func() {
				_, err := s.Verify(t.Context(), "192.0.2.1", with(t, good, func(k *Key) { k.secret[0] ^= byte(i%255 + 1); k.secret[1] ^= byte(i / 255) }))
				switch {
				case errors.Is(err, ErrBusy):
					busy.Add(1)
				case errors.Is(err, ErrUnauthorized):
					bad.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		// One of them has its turn, and maxWaiting wait for it.
		if got := busy.Load(); got != all-maxWaiting-1 {
			t.Errorf("%d of %d do not wait", got, all)
		}
		if _, err := s.Verify(t.Context(), "198.51.100.1", good); err != nil {
			t.Errorf("the key itself, from an address without failures: %v", err)
		}
		wg.Wait()
		if got := bad.Load(); got != maxWaiting+1 {
			t.Errorf("%d were looked at", got)
		}
	})
}

// A key that was verified is one until it is revoked, expires, or the text is no longer one of its two.
func TestStill(t *testing.T) {
	s := newStore(t)
	_, text := s.add(t, "a", time.Time{})
	verified := func(text []byte) KeyInfo {
		t.Helper()
		info, err := s.Verify(t.Context(), "", text)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	first := verified(text)
	_, next, err := s.Rotate("a", time.Hour, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	second := verified(next)
	if !s.Still(first) || !s.Still(second) || !s.Still(verified(text)) {
		t.Error("within the overlap one of the two is not good")
	}
	if _, _, err := s.Rotate("a", 0, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if s.Still(first) || s.Still(second) {
		t.Error("a text from before a rotation is good")
	}
	if s.Still(KeyInfo{}) {
		t.Error("no key is good")
	}
	_, other := s.add(t, "b", time.Time{})
	third := verified(other)
	if _, err := s.Revoke("b"); err != nil || s.Still(third) {
		t.Errorf("a revoked key is good: %v", err)
	}
}

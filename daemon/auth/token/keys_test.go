package token

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// kidsOf returns the key ids of a JWK set, all of them public keys.
func kidsOf(t *testing.T, text []byte) []string {
	t.Helper()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(text, &set); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, k := range set.Keys {
		if !k.IsPublic() || k.Use != "sig" || k.Algorithm == "" || k.KeyID == "" {
			t.Errorf("the set has %+v", k)
		}
		ids = append(ids, k.KeyID)
	}
	return ids
}

func kidOf(t *testing.T, raw string) string {
	t.Helper()
	s, err := Parse([]byte(raw), MaxLen, Algorithms())
	if err != nil {
		t.Fatal(err)
	}
	return s.KeyID
}

// TestRotation goes through two changes of the keys: at each moment every token that has not expired is good, and its key has been
// published for two lives of a token before its first use.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, leaf := newIssuer(t), newLeaf(t)
		if ids := kidsOf(t, i.JWKS()); len(ids) != 0 {
			t.Errorf("there are keys before the first use: %v", ids)
		}
		made := func() string {
			t.Helper()
			raw, err := i.Make(Claims{Subject: "s", ClientID: "s", Thumbprint: sha256.Sum256(leaf.Raw)})
			if err != nil {
				t.Fatal(err)
			}
			return raw
		}
		first := kidOf(t, made())
		published := map[string]time.Time{}
		for _, id := range kidsOf(t, i.JWKS()) {
			published[id] = time.Time{} // the first ones need no time before
		}
		used := map[string]bool{}
		var last []string
		var retired string
		for start := time.Now(); time.Since(start) < 62*24*time.Hour; {
			if age := time.Since(start) % keyLife; age < 10*time.Hour || age > keyLife-20*time.Hour {
				time.Sleep(29 * time.Minute)
			} else {
				time.Sleep(12 * time.Hour)
			}
			raw := made()
			used[kidOf(t, raw)] = true
			if since, ok := published[kidOf(t, raw)]; !ok || time.Since(since) < 2*time.Hour {
				t.Fatalf("%v: a token is signed with a key that was published at %v", time.Now(), since)
			}
			ids := kidsOf(t, i.JWKS())
			for _, id := range ids {
				if _, ok := published[id]; !ok {
					published[id] = time.Now()
				}
			}
			if len(ids) > 4 {
				t.Fatalf("%v: %d keys are published", time.Now(), len(ids))
			}
			if last = append(last, raw); len(last) > 2 {
				last = last[1:]
			}
			i.Configure(testURL, time.Hour) // which forgets what was good
			for _, raw := range last {
				if _, err := i.Verify([]byte(raw), leaf); err != nil && kindOf(err) != Expired {
					t.Fatalf("%v: %v", time.Now(), err)
				}
			}
			if kidOf(t, raw) == first {
				retired = raw
			}
		}
		if len(used) != 3 || used[first] != true {
			t.Errorf("%d keys signed in 62 days, want 3", len(used))
		}
		i.Configure(testURL, time.Hour)
		if _, err := i.Verify([]byte(retired), leaf); kindOf(err) != Invalid || !strings.Contains(err.Error(), "kid") {
			t.Errorf("with a retired key: %v", err)
		}
	})
}

// TestKeysAtRest reads the keys again, as the next engine does.
func TestKeysAtRest(t *testing.T) {
	i, leaf := newIssuer(t), newLeaf(t)
	made := func(i *Issuer, p256 bool) string {
		t.Helper()
		raw, err := i.Make(Claims{Subject: "s", ClientID: "s", Thumbprint: sha256.Sum256(leaf.Raw), P256: p256})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	raw, ec := made(i, false), made(i, true)
	info, err := os.Stat(i.path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	content, err := os.ReadFile(i.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, plain := range []string{"generations", "PRIVATE", kidOf(t, raw)} {
		if bytes.Contains(content, []byte(plain)) {
			t.Errorf("the file has %q in it", plain)
		}
	}
	next := New(i.path)
	next.Configure(testURL, time.Hour)
	if _, err := next.Verify([]byte(raw), leaf); !errors.Is(err, ErrLocked) {
		t.Errorf("without the secret: %v", err)
	}
	if _, err := next.Make(Claims{}); !errors.Is(err, ErrLocked) {
		t.Errorf("without the secret: %v", err)
	}
	if err := next.Unlock(secret('a')[1:]); err == nil {
		t.Error("it takes a short secret")
	}
	if err := next.Unlock(secret('a')); err != nil {
		t.Fatal(err)
	}
	for _, raw := range []string{raw, ec} {
		if _, err := next.Verify([]byte(raw), leaf); err != nil {
			t.Error(err)
		}
	}
	if s, err := Parse([]byte(ec), MaxLen, Algorithms()); err != nil || s.Algorithm != jose.ES256 {
		t.Errorf("with P256: %+v, %v", s, err)
	}
	if !bytes.Equal(next.JWKS(), i.JWKS()) {
		t.Error("the published keys are others after a restart")
	}

	// Another secret, or a damaged file: new keys, and the old tokens are out.
	for _, tt := range []struct {
		change func([]byte) []byte
		secret byte
	}{
		{func(b []byte) []byte { return b }, 'b'},
		{func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, 'a'},
		{func(b []byte) []byte { b[len(keysFileHead)] ^= 1; return b }, 'a'},
		{func(b []byte) []byte { return b[:20] }, 'a'},
		{func([]byte) []byte { return nil }, 'a'},
		{func(b []byte) []byte { return []byte(strings.Replace(string(b), "keys 1", "keys 2", 1)) }, 'a'},
	} {
		path := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(path, tt.change(bytes.Clone(content)), 0o600); err != nil {
			t.Fatal(err)
		}
		lost := New(path)
		lost.Configure(testURL, time.Hour)
		if err := lost.Unlock(secret(tt.secret)); !errors.Is(err, ErrKeysLost) {
			t.Errorf("%v, want ErrKeysLost", err)
		}
		if _, err := lost.Verify([]byte(raw), leaf); kindOf(err) != Invalid {
			t.Errorf("an old token: %v", err)
		}
		if _, err := lost.Verify([]byte(made(lost, false)), leaf); err != nil {
			t.Errorf("a new token: %v", err)
		}
	}
}

// TestKeysUnwritable has a disk that takes nothing: what is there goes on, and what is not there is an error.
func TestKeysUnwritable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		claims := Claims{Subject: "s", ClientID: "s"}
		blocked := i.path + ".new"
		if err := os.Mkdir(blocked, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := i.Make(claims); err == nil {
			t.Error("it made a token with a key that is nowhere")
		}
		if err := os.Remove(blocked); err != nil {
			t.Fatal(err)
		}
		raw, err := i.Make(claims)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(blocked, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(40 * 24 * time.Hour)
		later, err := i.Make(claims)
		if err != nil || kidOf(t, later) != kidOf(t, raw) {
			t.Errorf("with the disk full: %v", err)
		}
		if err := os.Remove(blocked); err != nil {
			t.Fatal(err)
		}
		time.Sleep(retryWrite - 1)
		if _, err := i.Make(claims); err != nil || len(kidsOf(t, i.JWKS())) != 2 {
			t.Errorf("soon after a failed write there was another one: %v, %d keys", err, len(kidsOf(t, i.JWKS())))
		}
		time.Sleep(2 * time.Minute)
		if _, err := i.Make(claims); err != nil || len(kidsOf(t, i.JWKS())) != 4 {
			t.Errorf("once it can be written: %v, %d keys", err, len(kidsOf(t, i.JWKS())))
		}
	})
}

// TestRevoke revokes one token, over a restart, and then more than there is room for.
func TestRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, leaf := newIssuer(t), newLeaf(t)
		made := func() string {
			t.Helper()
			raw, err := i.Make(Claims{Subject: "s", ClientID: "s", Thumbprint: sha256.Sum256(leaf.Raw)})
			if err != nil {
				t.Fatal(err)
			}
			return raw
		}
		one, two := made(), made()
		c, err := i.Verify([]byte(one), leaf)
		if err != nil {
			t.Fatal(err)
		}
		blocked := i.path + ".new"
		if err := os.Mkdir(blocked, 0o700); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := i.Revoke(c); err == nil {
				t.Error("Revoke returns no error, and nothing could be written")
			}
			if _, err := i.Verify([]byte(one), leaf); err != nil {
				t.Errorf("the token is refused though its revocation was not written: %v", err)
			}
		}
		if err := os.Remove(blocked); err != nil {
			t.Fatal(err)
		}
		if err := i.Revoke(c); err != nil {
			t.Fatal(err)
		}
		next := New(i.path)
		next.Configure(testURL, time.Hour)
		if err := next.Unlock(secret('a')); err != nil {
			t.Fatal(err)
		}
		for _, i := range []*Issuer{i, next} {
			if _, err := i.Verify([]byte(one), leaf); kindOf(err) != Expired {
				t.Errorf("revoked: %v", err)
			}
			if _, err := i.Verify([]byte(two), leaf); err != nil {
				t.Errorf("not revoked: %v", err)
			}
		}
		// One client that revokes as often as it likes takes away its own tokens alone, and what is kept is bounded.
		now := time.Now()
		of := func(client string, n int) Claims {
			return Claims{ID: fmt.Sprint(client, n), ClientID: client, IssuedAt: now, Expires: now.Add(time.Hour)}
		}
		r := i.saved.Load().revoked
		later := of("greedy", -1)
		later.IssuedAt = now.Add(time.Second)
		for n := range 2 * maxRevoked {
			r = r.with(of("greedy", n), now)
			if single := n < 16; r.has(of("greedy", -1)) == single || len(r.clients) > 0 == single {
				t.Fatalf("after %d of one client: clients %v", n+1, r.clients)
			}
		}
		if len(r.ids) > 1+maxRevokedOfClient || !r.has(c) || !r.has(of("greedy", 0)) || r.has(later) || r.has(of("other", 0)) {
			t.Errorf("with many of one client: %d ids, clients %v", len(r.ids), r.clients)
		}
		stored(t, r)
		for n := range 3 * maxRevoked {
			r = r.with(of(fmt.Sprint("client", n), 0), now)
			if len(r.ids) > maxRevoked || len(r.clients) > maxRevoked || !r.has(c) || !r.has(of(fmt.Sprint("client", n), 0)) {
				t.Fatalf("with many clients: %d ids, %d clients", len(r.ids), len(r.clients))
			}
		}
		if !r.has(of("other", 0)) {
			t.Error("with many clients: not all is revoked")
		}
		stored(t, r)
		time.Sleep(2 * time.Hour)
		r = i.saved.Load().revoked.with(Claims{ID: "x", Expires: time.Now().Add(time.Hour)}, time.Now())
		if len(r.ids) != 1 {
			t.Errorf("%d ids are kept, and all but one expired", len(r.ids))
		}
	})
}

// TestRevokedOutlivesRotation has new keys made between the revocation of a token and its end.
func TestRevokedOutlivesRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, leaf := newIssuer(t), newLeaf(t)
		made := func() []byte {
			t.Helper()
			raw, err := i.Make(Claims{Subject: "s", ClientID: "s", Thumbprint: sha256.Sum256(leaf.Raw)})
			if err != nil {
				t.Fatal(err)
			}
			return []byte(raw)
		}
		made()
		time.Sleep(keyLife - 2*time.Hour - time.Minute)
		raw := made()
		c, err := i.Verify(raw, leaf)
		if err != nil {
			t.Fatal(err)
		}
		if err := i.Revoke(c); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if made(); len(kidsOf(t, i.JWKS())) != 4 {
			t.Fatalf("%d keys are published, and the next ones are due", len(kidsOf(t, i.JWKS())))
		}
		if _, err := i.Verify(raw, leaf); kindOf(err) != Expired {
			t.Errorf("revoked before there were new keys: %v", err)
		}
	})
}

// stored checks that all of what is revoked outlives the engine.
func stored(t *testing.T, r revoked) {
	t.Helper()
	content, err := sealKeys(secret('a'), saved{revoked: r})
	if err != nil {
		t.Fatal(err)
	}
	got, err := openKeys(content, secret('a'))
	same := func(a, b time.Time) bool { return a.Equal(b) }
	if err != nil || !maps.EqualFunc(got.revoked.clients, r.clients, same) || !got.revoked.all.Equal(r.all) || !maps.EqualFunc(got.revoked.ids, r.ids, func(a, b revokedToken) bool {
		return a.Client == b.Client && a.Expires.Equal(b.Expires)
	}) {
		t.Errorf("the file has %d ids, %d clients, all %v (%v), and not %d, %d, %v", len(got.revoked.ids), len(got.revoked.clients), got.revoked.all, err, len(r.ids), len(r.clients), r.all)
	}
}

// TestVerifyDuringWrite verifies tokens, and makes one, while the keys file is being written, which can take as long as a disk likes.
func TestVerifyDuringWrite(t *testing.T) {
	i, leaf := newIssuer(t), newLeaf(t)
	claims := Claims{Subject: "s", ClientID: "s", Thumbprint: sha256.Sum256(leaf.Raw)}
	raw, err := i.Make(claims)
	if err != nil {
		t.Fatal(err)
	}
	s := *i.saved.Load()
	s.generations = []generation{{from: time.Now().Add(-keyLife), keys: s.generations[0].keys}} // the next ones are due
	i.saved.Store(&s)
	i.change.Lock()
	defer i.change.Unlock()
	done := make(chan error, 1)
	go func() {
		_, first := i.Verify([]byte(raw), leaf)
		_, again := i.Verify([]byte(raw), leaf) // from memory
		_, made := i.Make(claims)
		if len(kidsOf(t, i.JWKS())) == 0 {
			t.Error("there are no keys")
		}
		done <- errors.Join(first, again, made)
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("they wait for the write")
	}
}

func FuzzOpenKeys(f *testing.F) {
	g, err := newGeneration(time.Now())
	if err != nil {
		f.Fatal(err)
	}
	content, err := sealKeys(secret('a'), saved{generations: []generation{g}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Fuzz(func(t *testing.T, got []byte) {
		if _, err := openKeys(got, secret('a')); err == nil && !bytes.Equal(got, content) {
			t.Error("it took a file that was not sealed with the secret")
		}
	})
}

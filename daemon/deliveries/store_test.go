package deliveries

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/daemon/jobid"
)

var hook = Hook{"deploy", "github"}

func open(t *testing.T, dir string, keep map[Hook]int) *Store {
	t.Helper()
	s, err := Open(dir, slog.New(slog.DiscardHandler))
	if err == nil {
		err = s.Configure(keep)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// delivery is one of a hook, that came n seconds after the first.
func delivery(h Hook, n int, body string) *Delivery {
	return &Delivery{
		Meta: Meta{
			ID: jobid.New(), Task: h.Task, Webhook: h.Webhook, At: time.Unix(int64(n), 5).UTC(), Delivery: fmt.Sprint("d-", n), Event: "push",
			Ref: "refs/heads/main", Decision: Accepted, Bytes: int64(len(body)),
		},
		Request: webhook.Request{
			Method: "POST", Query: "a=\xff", Remote: "192.0.2.1", Headers: webhook.Headers{{Name: "X-Any", Value: "a\xff\n"}, {Name: "x-any"}}, Body: []byte(body),
		},
	}
}

func put(t *testing.T, s *Store, all ...*Delivery) {
	t.Helper()
	for _, d := range all {
		if err := s.Put(d); err != nil {
			t.Fatal(err)
		}
		s.Settle(d.ID)
	}
}

func kept(s *Store) string {
	var all []string
	for _, m := range s.List(func(Hook) bool { return true }) {
		all = append(all, m.Delivery)
	}
	return strings.Join(all, " ")
}

// What is kept is there after a restart, byte for byte, and nobody else can read it. What a crash left is not.
func TestKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deliveries")
	s := open(t, dir, map[Hook]int{hook: 2})
	one, two := delivery(hook, 1, "a\nb\x00\xff"), delivery(hook, 2, "")
	put(t, s, one, two)
	for _, junk := range []string{jobid.New() + ".7.new", "notes", jobid.New()} {
		if err := os.WriteFile(filepath.Join(dir, junk), []byte(`{"version":1,"id":"x"}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	torn := delivery(hook, 3, "torn")
	content, err := encode(torn)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, torn.ID), content[:len(content)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, map[Hook]int{hook: 2})
	if got := kept(again); got != "d-2 d-1" {
		t.Error(got)
	}
	for _, d := range []*Delivery{one, two} {
		got, err := again.Read(d.ID)
		if err != nil || !reflect.DeepEqual(got, d) {
			t.Errorf("%v\n%+v\n%+v", err, got, d)
		}
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 2 {
		t.Errorf("%v, %v", names, err)
	}
	for _, n := range names {
		if info, err := n.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info.Mode(), err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

// A webhook has as many as the configuration says. One that is not there any more has none, and no folder is made for nothing.
func TestConfigure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deliveries")
	s := open(t, dir, nil)
	put(t, s, delivery(hook, 1, ""))
	if _, err := os.Stat(dir); kept(s) != "" || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%q, %v", kept(s), err)
	}
	other := Hook{"deploy", "chat"}
	s = open(t, dir, map[Hook]int{hook: 3, other: 1})
	for n := range 6 {
		put(t, s, delivery(hook, n, ""))
	}
	put(t, s, delivery(other, 10, ""), delivery(other, 11, ""))
	if got := kept(s); got != "d-11 d-5 d-4 d-3" {
		t.Error(got)
	}
	for _, keep := range []struct {
		keep map[Hook]int
		want string
	}{{map[Hook]int{hook: 2, other: 5}, "d-11 d-5 d-4"}, {map[Hook]int{hook: 2}, "d-5 d-4"}, {nil, ""}} {
		if err := s.Configure(keep.keep); err != nil || kept(s) != keep.want {
			t.Errorf("%v: %q, %v", keep.keep, kept(s), err)
		}
		names, err := os.ReadDir(dir)
		if err != nil || len(names) != len(strings.Fields(keep.want)) {
			t.Errorf("%v, %v", names, err)
		}
	}
	if s.bytes != 0 || len(s.shelves) != 0 {
		t.Errorf("%d bytes, %v", s.bytes, s.shelves)
	}
	// Nothing is removed by an engine that does not know yet what is to be kept.
	s = open(t, dir, map[Hook]int{hook: 3})
	put(t, s, delivery(hook, 1, ""))
	if s, err := Open(dir, slog.New(slog.DiscardHandler)); err != nil || kept(s) != "d-1" {
		t.Errorf("%v", err)
	}
}

// All together are bounded, in number and bytes. The webhook that has the most gives way, with its oldest.
func TestKeptIsBounded(t *testing.T) {
	other := Hook{"deploy", "chat"}
	s := open(t, t.TempDir(), map[Hook]int{hook: 1000, other: 1000})
	s.maxCount = 4
	put(t, s, delivery(other, 0, ""))
	for n := range 9 {
		put(t, s, delivery(hook, n+1, ""))
	}
	if got := kept(s); got != "d-9 d-8 d-7 d-0" {
		t.Error(got)
	}
	s.maxCount, s.maxBytes = 100, 4000
	put(t, s, delivery(other, 10, strings.Repeat("x", 2000)), delivery(other, 11, strings.Repeat("x", 2000)))
	if got := kept(s); got != "d-11 d-9 d-8 d-7" || s.bytes > s.maxBytes {
		t.Errorf("%q, %d bytes", got, s.bytes)
	}
	big := delivery(hook, 12, "")
	big.Request.Headers = webhook.Headers{{Name: "X", Value: strings.Repeat("x", maxHead)}}
	if err := s.Put(big); !errors.Is(err, errTooLarge) {
		t.Error(err)
	}
}

// Of repeats, the first that was accepted stays, else the first: who sends a captured request again pushes nothing out.
func TestRepeats(t *testing.T) {
	s := open(t, t.TempDir(), map[Hook]int{hook: 2})
	repeat := func(n int, decision string) *Delivery {
		d := delivery(hook, n, "")
		d.Key, d.Decision = "key", decision
		return d
	}
	put(t, s, delivery(hook, 0, ""), repeat(1, "refused"), repeat(2, "ignored"))
	if got := kept(s); got != "d-1 d-0" {
		t.Error(got)
	}
	put(t, s, repeat(3, Accepted), repeat(4, Accepted), repeat(5, "ignored"))
	if got := kept(s); got != "d-3 d-0" {
		t.Error(got)
	}
	// One that is put as accepted, and refused after that, is as if it had been refused before.
	s = open(t, t.TempDir(), map[Hook]int{hook: 2})
	first, second := repeat(1, "refused"), repeat(2, Accepted)
	put(t, s, delivery(hook, 0, ""), first)
	if err := s.Put(second); err != nil || kept(s) != "d-2 d-1 d-0" {
		t.Errorf("%q, %v", kept(s), err)
	}
	second.Decision = "refused"
	put(t, s, second)
	if got := kept(s); got != "d-1 d-0" {
		t.Error(got)
	}
	// One that turns out to be none pushes nothing out either.
	third := delivery(hook, 3, "")
	if err := s.Put(third); err != nil {
		t.Fatal(err)
	}
	s.Drop(third.ID)
	s.Settle(third.ID)
	if got := kept(s); got != "d-1 d-0" {
		t.Error(got)
	}
	first.Reason = "another"
	if err := s.Put(first); err != nil || kept(s) != "d-1 d-0" {
		t.Errorf("%q, %v", kept(s), err)
	}
	if m, err := s.Find(first.ID, func(Hook) bool { return true }); err != nil || m.Reason != "another" {
		t.Errorf("%v, %v", m, err)
	}
}

// Where nothing can be written, what was put before is not called accepted for ever: another attempt is.
func TestPutFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deliveries")
	s := open(t, dir, map[Hook]int{hook: 2})
	d := delivery(hook, 1, "")
	d.Key = "key"
	if err := s.Put(d); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	d.Decision, d.Kind = "refused", "unavailable"
	if err := s.Put(d); err == nil {
		t.Error("it was written")
	}
	if err := s.Put(delivery(hook, 2, "")); err == nil || kept(s) != "d-1" {
		t.Errorf("%q, %v", kept(s), err)
	}
	if m, err := s.Find(d.ID, func(Hook) bool { return true }); err != nil || m.Decision != "refused" || m.Kind != "unavailable" {
		t.Errorf("%v, %v", m, err)
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	again := delivery(hook, 3, "")
	again.Key = "key"
	put(t, s, again)
	if got := kept(s); got != "d-3" {
		t.Error(got)
	}
}

// A start reads of each file what it needs, and nothing of the bodies.
func TestOpenReadsNoBodies(t *testing.T) {
	s := open(t, t.TempDir(), map[Hook]int{hook: 2})
	d := delivery(hook, 1, strings.Repeat("x", 2*maxHead))
	put(t, s, d)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := readMeta(filepath.Join(s.dir, d.ID)); err != nil {
		t.Fatal(err)
	}
	if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > maxHead/2 {
		t.Errorf("%d bytes", after.TotalAlloc-before.TotalAlloc)
	}
}

func TestFind(t *testing.T) {
	s := open(t, t.TempDir(), map[Hook]int{hook: 10})
	a, b, c := delivery(hook, 1, ""), delivery(hook, 2, ""), delivery(hook, 3, "")
	a.ID, b.ID, c.ID, c.Delivery = "abcdaaaaaaaaaaaa", "abcdbbbbbbbbbbbb", "cccccccccccccccc", "d-1"
	put(t, s, a, b, c)
	all := func(Hook) bool { return true }
	for ref, want := range map[string]string{a.ID: a.ID, "abcdb": b.ID, "d-1": c.ID, "d-2": b.ID} {
		if m, err := s.Find(ref, all); err != nil || m.ID != want {
			t.Errorf("%s: %v, %v", ref, m, err)
		}
	}
	for ref, want := range map[string]error{"abcd": ErrAmbiguous, "abc": ErrNotFound, "": ErrNotFound, "../abcd": ErrNotFound, "dddd": ErrNotFound} {
		if m, err := s.Find(ref, all); !errors.Is(err, want) {
			t.Errorf("%s: %v, %v", ref, m, err)
		}
	}
	if _, err := s.Find(a.ID, func(h Hook) bool { return h != hook }); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	for _, id := range []string{"", "..", "none", "../x"} {
		if _, err := s.Read(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
		d := delivery(hook, 1, "")
		d.ID = id
		if err := s.Put(d); err == nil {
			t.Errorf("%q was kept", id)
		}
	}
}

// Senders choose the names of their deliveries: none gets in front of another webhook's.
func TestNamesOfSenders(t *testing.T) {
	other := Hook{"deploy", "chat"}
	s := open(t, t.TempDir(), map[Hook]int{hook: 10, other: 10})
	all := func(Hook) bool { return true }
	mine, prefix, id, name := delivery(hook, 1, ""), delivery(other, 2, ""), delivery(other, 3, ""), delivery(other, 4, "")
	mine.ID = "abcdaaaaaaaaaaaa"
	prefix.Delivery, id.Delivery, name.Delivery = "abcda", mine.ID, mine.Delivery
	put(t, s, mine, prefix, id, name)
	for _, ref := range []string{"abcda", "d-1"} {
		if m, err := s.Find(ref, all); !errors.Is(err, ErrAmbiguous) {
			t.Errorf("%s: %v, %v", ref, m, err)
		}
	}
	for ref, fits := range map[string]func(Hook) bool{mine.ID: all, "d-1": func(h Hook) bool { return h == hook }, "abcdaa": all} {
		if m, err := s.Find(ref, fits); err != nil || m.ID != mine.ID {
			t.Errorf("%s: %v, %v", ref, m, err)
		}
	}
	// Another attempt of one webhook's sender is the newest by its name.
	again := delivery(hook, 5, "")
	again.Delivery = "twice"
	first := delivery(hook, 4, "")
	first.Delivery = "twice"
	put(t, s, first, again)
	if m, err := s.Find("twice", all); err != nil || m.ID != again.ID {
		t.Errorf("%v, %v", m, err)
	}
}

// Whether a caller may see a webhook can take a while to find out. It is asked once, and requests that come do not wait for it.
func TestListHoldsNothingUp(t *testing.T) {
	s := open(t, t.TempDir(), map[Hook]int{hook: 10})
	put(t, s, delivery(hook, 1, ""), delivery(hook, 2, ""))
	asked := 0
	s.List(func(h Hook) bool {
		asked++
		put(t, s, delivery(h, 3, ""))
		return true
	})
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

func TestConcurrently(t *testing.T) {
	for range 10 {
		concurrently(t)
	}
}

// concurrently puts deliveries, some with the same id, while others are read and removed.
func concurrently(t *testing.T) {
	s := open(t, t.TempDir(), map[Hook]int{hook: 5})
	var all sync.WaitGroup
	same := jobid.New()
	for n := range 40 {
		all.Go(func() {
			d := delivery(hook, n, strings.Repeat("x", n))
			if n%4 == 0 {
				d.ID = same
			}
			if err := s.Put(d); err != nil {
				t.Error(err)
			}
			s.Settle(d.ID)
			if got, err := s.Read(d.ID); err == nil && !bytes.Equal(got.Request.Body, bytes.Repeat([]byte("x"), len(got.Request.Body))) {
				t.Errorf("%q", got.Request.Body)
			}
			if n%5 == 0 {
				if err := s.Configure(map[Hook]int{hook: 3 + n%3}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	names, err := os.ReadDir(s.dir)
	if metas := s.List(func(Hook) bool { return true }); err != nil || len(names) != len(metas) || len(metas) > 5 {
		t.Errorf("%v, %v, %v", names, metas, err)
	}
}

// What is kept of a request has no secret in it that a replay does not need.
func TestWithoutSecrets(t *testing.T) {
	r := &webhook.Request{
		Method: "GET", URL: "https://example.org/wh/0123456789abcdef?x=1", Query: "x=1&access_token=t&%74oken=t&y=the%20secret&sig=s&key=k&z&issue_key=A-1", Remote: "192.0.2.1", Body: []byte("b"),
	}
	for _, name := range []string{
		"X-GitHub-Event", "X-Author", "Content-Type", "authorization", "Proxy-Authorization", "Cookie", "X-Gitlab-Token", "X-Hub-Signature-256", "X-Sum", "X-Api-Key", "X-Auth-User", "PRIVATE-TOKEN",
		"X-Shopify-Hmac-Sha256", "X-Passed-Token", "X-Sig", "Jwt", "user_pwd", "X-Signal", "X-Event-Key",
	} {
		r.Headers = append(r.Headers, webhook.Header{Name: name, Value: "v"})
	}
	r.Headers = append(r.Headers, webhook.Header{Name: "X-Other", Value: "with the secret"}, webhook.Header{Name: "x-passed-token", Value: "w"})
	got := WithoutSecrets(r, []string{"X-Passed-Token", "X-Other"}, func(name, value string) bool { return name == "X-Sum" || strings.Contains(value, "the secret") })
	var names []string
	for _, h := range got.Headers {
		names = append(names, h.Name)
	}
	if want := []string{"X-GitHub-Event", "X-Author", "Content-Type", "X-Passed-Token", "X-Signal", "X-Event-Key", "x-passed-token"}; !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
	if got.URL != "" || got.Query != "x=1&z&issue_key=A-1" || got.Method != "GET" || got.Remote != "192.0.2.1" || string(got.Body) != "b" {
		t.Errorf("%+v", got)
	}
}

// A file that somebody damaged is an error, and never more.
func FuzzParse(f *testing.F) {
	content, err := encode(delivery(hook, 1, "body"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"version":1,"bytes":-1}` + "\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if d, err := parse(content); err == nil && int64(len(d.Request.Body)) != d.Bytes {
			t.Fatalf("%d bytes, not %d", len(d.Request.Body), d.Bytes)
		}
	})
}

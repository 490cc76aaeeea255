package job

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rtask/rtask/sandbox/log"
	"github.com/rtask/rtask/sandbox/spec"
)

// promisedJob is a job with a promise that writes a line to a file, and what reads that file.
func promisedJob(t *testing.T, dir string) (Spec, func() string) {
	t.Helper()
	ran := filepath.Join(dir, "ran")
	s := sh("echo out; echo err >&2; echo ran >>" + ran + "; exit 3")
	s.As, s.ID, s.Digest, s.Promised, s.RedirectStderr = note(ran).As, newID(), "a", time.Now().Add(time.Hour), false
	return s, func() string {
		b, err := os.ReadFile(ran)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

// prune has everything pruned that has ended, and returns when the job with this id is.
func prune(t *testing.T, m *Manager, id string) {
	t.Helper()
	m.SetRetention(spec.Retention{KeepFor: time.Nanosecond})
	eventually(t, "the job is pruned", func() bool {
		_, err := m.Status(id)
		_, logErr := os.Stat(m.opts.logPath(id))
		return errors.Is(err, ErrNotFound) && errors.Is(logErr, os.ErrNotExist)
	})
	m.SetRetention(spec.Retention{})
}

// A job that is promised runs once, however it is pruned, for this Manager and the next: a repeat gets the first one's answer.
func TestPromise(t *testing.T) {
	dir := shared(t)
	m := openIn(t, dir)
	defer func() { end(t, m) }()
	s, ran := promisedJob(t, dir)
	first, err := m.Run(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	check := func(s Spec) {
		t.Helper()
		again, err := m.Run(t.Context(), s, nil)
		if err != nil {
			t.Fatal(err)
		}
		if again.ID != first.ID || again.State != Ended || again.Exit == nil || again.Exit.Code != 3 ||
			string(again.Stdout) != "out\n" || string(again.Stderr) != "err\n" || again.Truncated {
			t.Errorf("a repeat gets %+v %q %q", again.Job, again.Stdout, again.Stderr)
		}
		if j, err := m.Start(t.Context(), s); err != nil || j.ID != first.ID || j.State != Ended {
			t.Errorf("started again: %+v, %v", j, err)
		}
		if got := ran(); got != "ran\n" {
			t.Errorf("it ran again: %q", got)
		}
	}
	check(s)
	prune(t, m, first.ID)
	check(s)
	// It is known to nobody else.
	all, err := m.List(Filter{Ended: true})
	if err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := m.Find(first.ID[:8], nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("found: %v", err)
	}
	if _, err := m.Wait(t.Context(), first.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("waited for: %v", err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = openIn(t, dir)
	check(s)
	// Under another id that the request had, too, but only while that is promised.
	tomorrow := s
	tomorrow.ID, tomorrow.Otherwise = newID(), []string{newID(), first.ID}
	check(tomorrow)
	different := tomorrow
	different.Digest = "b"
	if _, err := m.Start(t.Context(), different); !errors.Is(err, ErrDifferent) {
		t.Errorf("another request under the same key: %v", err)
	}
	others := tomorrow
	others.Owner = Owner{UID: 1001, Name: "ben"}
	if _, err := m.Start(t.Context(), others); !errors.Is(err, ErrTaken) {
		t.Errorf("another's request under the same key: %v", err)
	}
}

// The same of a request that another job took over.
func TestPromiseOfAnAlias(t *testing.T) {
	dir := shared(t)
	m := openIn(t, dir)
	defer end(t, m)
	s, ran := promisedJob(t, dir)
	s.Task, s.MaxConcurrent, s.Overflow, s.MaxQueue, s.Same = "t", 1, spec.Coalesce, 1, "main"
	busy := s
	busy.Args, busy.ID, busy.Promised = []string{"/bin/sh", "-c", "sleep 1000"}, newID(), time.Time{}
	running := start(t, m, busy)
	waits := s
	waits.ID, waits.Promised = newID(), time.Time{}
	target := start(t, m, waits)
	alias := start(t, m, s)
	if alias.ID != s.ID || alias.Into != target.ID {
		t.Fatalf("%+v", alias)
	}
	if _, err := m.Stop(t.Context(), running.ID, StopOptions{Kill: true}); err != nil {
		t.Fatal(err)
	}
	wait(t, m, target.ID)
	prune(t, m, alias.ID)
	again, err := m.Run(t.Context(), s, nil)
	if err != nil || again.ID != target.ID || again.Exit.Code != 3 || again.State != Ended ||
		string(again.Stdout) != "out\n" || string(again.Stderr) != "err\n" {
		t.Errorf("a repeat gets %+v %q %q, %v", again.Job, again.Stdout, again.Stderr, err)
	}
	if got := ran(); got != "ran\n" {
		t.Errorf("it ran again: %q", got)
	}
}

// TestAliasGoesFirst: when not all that ended at one time is pruned at once, an alias goes before its job, whose log it needs.
func TestAliasGoesFirst(t *testing.T) {
	for _, ids := range [][2]rune{{'a', 'j'}, {'z', 'j'}} {
		synctest.Test(t, func(t *testing.T) {
			s := newShelf(t, t.TempDir(), spec.Retention{KeepJobs: 1})
			s.start()
			now := time.Now()
			of := Job{Spec: Spec{Run: spec.Run{ID: named(ids[1])}, Owner: Owner{Key: "k"}, Promised: now.Add(24 * time.Hour)}, State: Ended, QueuedAt: now, EndedAt: now}
			of.MaxReply = promisedReply
			alias := of
			alias.Run, alias.Into = spec.Run{ID: named(ids[0])}, of.ID
			f, err := os.OpenFile(s.logPath(of.ID), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			log.NewWriter(f, 100, nil).Write(log.Stdout, []byte("out\n"))
			if err := errors.Join(f.Close(), s.store.PutAll(t.Context(), []Job{of, alias})); err != nil {
				t.Fatal(err)
			}
			s.add(of.ID, of.share())
			s.add(alias.ID, of.share())
			time.Sleep(time.Hour)
			if j, err := s.store.Get(of.ID); err != nil || j.State != Ended {
				t.Errorf("the job: %s, %v", j.State, err)
			}
			later := of
			later.ID, later.EndedAt = named('l'), time.Now()
			if err := s.store.Put(t.Context(), later); err != nil {
				t.Fatal(err)
			}
			s.add(later.ID, later.share())
			time.Sleep(time.Hour)
			for _, id := range []string{of.ID, alias.ID} {
				j, err := s.store.Get(id)
				if err != nil || j.State != promised || j.Reply == nil || string(j.Reply.Stdout) != "out\n" {
					t.Errorf("%s: %s %+v, %v", id, j.State, j.Reply, err)
				}
			}
			s.close()
		})
	}
}

// A promise that has ended holds nothing up, and goes.
func TestPromiseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t, t.TempDir(), spec.Retention{KeepFor: time.Minute})
		s.start()
		id := named('p')
		j := Job{Spec: Spec{Run: spec.Run{ID: id}, Owner: Owner{Key: "k"}, Promised: time.Now().Add(24 * time.Hour)}, State: Ended, QueuedAt: time.Now(), EndedAt: time.Now()}
		if err := s.store.Put(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		s.add(id, j.share())
		time.Sleep(23 * time.Hour)
		if got, err := s.store.Get(id); err != nil || got.State != promised || s.promises("key/k") != 1 {
			t.Errorf("%+v, %v, %d promises", got, err, s.promises("key/k"))
		}
		time.Sleep(3 * time.Hour)
		if got := s.kept(); got != "/" || s.promises("key/k") != 0 {
			t.Errorf("%q is left, and %d promises", got, s.promises("key/k"))
		}
		s.close()
	})
}

// An owner that has used up its room for promises gets no more of them, and others do.
func TestPromisesAreBounded(t *testing.T) {
	m := open(t)
	m.records.retention.mu.Lock()
	m.records.retention.maxPromises = 3
	m.records.retention.mu.Unlock()
	promise := func(owner string) Spec {
		s := sh("true")
		s.ID, s.Promised, s.Owner = newID(), time.Now().Add(time.Hour), Owner{Key: owner, Name: owner}
		return s
	}
	for range 3 {
		j := start(t, m, promise("one"))
		wait(t, m, j.ID)
		prune(t, m, j.ID)
	}
	if _, err := m.Start(t.Context(), promise("one")); !errors.Is(err, ErrPromises) || !strings.Contains(err.Error(), "key:one") {
		t.Errorf("%v", err)
	}
	start(t, m, promise("two"))
	s := promise("one")
	s.Promised = time.Time{}
	start(t, m, s)
}

// Of two tasks that the end of a job triggers one may end and be pruned while the other waits for room. It is not started again.
func TestTriggeredOnce(t *testing.T) {
	dir := shared(t)
	m := openIn(t, dir)
	looks := func(task string) (Spec, error) {
		if task == "later" {
			return Spec{}, ErrNotNow
		}
		return note(filepath.Join(dir, "notes")), nil
	}
	m.StartTriggered(looks)
	s := watched("exit 3", OnFailure)
	s.OnFailure = []string{"note", "later"}
	j := start(t, m, s)
	wait(t, m, j.ID)
	var triggered Job
	eventually(t, "the first one has run", func() bool {
		all, err := m.List(Filter{Ended: true, Task: "note", States: []State{Ended}})
		if err == nil && len(all) == 1 {
			triggered = all[0]
		}
		return triggered.ID != ""
	})
	prune(t, m, triggered.ID)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = notes(t, dir) // which has no task "later"
	defer end(t, m)
	if got := lines(t, m, dir); len(got) != 1 {
		t.Errorf("it ran %d times: %q", len(got), got)
	}
}

// promises returns how many promises a share has.
func (s *shelf) promises(share string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.promised[share]
}

package job

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/daemon/job/admission"
	"github.com/rtask/rtask/sandbox/spec"
)

// coalesced is a job of a task of which one runs at a time, and one waits that takes over what comes for the same thing. It
// prints its input and its variable NEWS.
func coalesced(input, same string) Spec {
	s := sh(`read -r in; trap 'exit 0' USR1; echo "$in $NEWS"; [ "$in" != wait ] || while :; do sleep 0.02; done`)
	s.Task, s.MaxConcurrent, s.Overflow, s.Input = "one", 1, spec.Coalesce, []byte(input+"\n")
	s.Env, s.Owner = append(s.Env, "NEWS=of "+input[:min(len(input), 10)]), Owner{Key: "k", Name: "k"}
	s.MaxQueue, s.Same = 10, same
	return s
}

// The job that waits takes the newest input and environment, and each id is one of it, for whoever has it.
func TestCoalesce(t *testing.T) {
	m := open(t)
	first := start(t, m, coalesced("wait", "main"))
	until(t, m, first.ID, "wait")
	ids := []string{first.ID}
	var results sync.WaitGroup
	for _, in := range []string{"b", "c", "d"} {
		j := start(t, m, coalesced(in, "main"))
		if j.State != Queued || slices.Contains(ids, j.ID) {
			t.Fatalf("%s: %s %s", in, j.ID, j.State)
		}
		ids = append(ids, j.ID)
		results.Go(func() {
			if r, err := m.Wait(t.Context(), j.ID); err != nil || r.ID != ids[1] || !r.Succeeded() {
				t.Errorf("%s: %s %+v, %v", in, r.ID, r.Exit, err)
			}
		})
	}
	if list, err := m.List(Filter{}); err != nil || len(list) != 2 {
		t.Errorf("%d jobs are listed, %v", len(list), err)
	}
	signal(t, first.PID, unix.SIGUSR1)
	results.Wait()
	look := func(when string) {
		t.Helper()
		for _, id := range ids[1:] {
			mine := func(j Job) bool { return j.Owner.Key == "k" }
			for _, ref := range []string{id, id[:idLength-1]} {
				if j, err := m.Find(ref, mine); err != nil || j.ID != ids[1] || !j.Succeeded() {
					t.Errorf("%s, %s: %s, %v", when, ref, j.ID, err)
				}
			}
			if _, err := m.Find(id, func(j Job) bool { return j.Owner.Key == "x" }); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s, %s: another one finds it: %v", when, id, err)
			}
			if got := output(t, m, id); got != "d of d\n" {
				t.Errorf("%s, %s: %q", when, id, got)
			}
		}
		if list, err := m.List(Filter{Ended: true}); err != nil || len(list) != 2 {
			t.Errorf("%s: %d jobs are listed, %v", when, len(list), err)
		}
	}
	look("in memory")
	m.runner.ender.recorder.now()
	eventually(t, "they are on record", func() bool {
		m.jobs.mu.Lock()
		defer m.jobs.mu.Unlock()
		return len(m.jobs.live) == 0
	})
	look("on record")
	if len(m.jobs.aliases) != 0 {
		t.Errorf("%d aliases are remembered", len(m.jobs.aliases))
	}
	// Asked for again under its id, an alias is what it was.
	again := coalesced("c", "main")
	again.ID = ids[2]
	if r, err := m.Run(t.Context(), again, nil); err != nil || r.ID != ids[1] || string(r.Stdout) != "d of d\n" {
		t.Errorf("again: %s %q, %v", r.ID, r.Stdout, err)
	}
	again.Owner.Key = "x"
	if _, err := m.Start(t.Context(), again); !errors.Is(err, ErrTaken) {
		t.Errorf("another one's: %v", err)
	}
	noneInUse(t, m)
}

// What was taken over is on record as what waits is: the next Manager runs it once, with the newest input, for all ids.
func TestCoalesceReopen(t *testing.T) {
	dir := t.TempDir()
	m := openIn(t, dir)
	first := start(t, m, coalesced("wait", "main"))
	until(t, m, first.ID, "wait")
	long := func(digit string) string { return strings.Repeat(digit, maxInline+1) }
	b, c := start(t, m, coalesced(long("1"), "main")), start(t, m, coalesced("short", "main"))
	d := start(t, m, coalesced(long("2"), "main"))
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = openIn(t, dir)
	defer end(t, m)
	if inputs, err := os.ReadDir(filepath.Join(dir, "state", "inputs")); err != nil || len(inputs) != 1 {
		t.Errorf("inputs %v, %v", inputs, err)
	}
	signal(t, first.PID, unix.SIGUSR1)
	for _, j := range []Job{b, c, d} {
		r, err := m.Wait(t.Context(), j.ID)
		if err != nil || r.ID != b.ID || !r.Succeeded() {
			t.Fatalf("%s: %s %+v, %v", j.ID, r.ID, r.Exit, err)
		}
	}
	if got := output(t, m, d.ID); got != long("2")+" of 2222222222\n" {
		t.Errorf("%d bytes, %.20q…", len(got), got)
	}
	m.runner.ender.recorder.now()
	eventually(t, "no input is left", func() bool {
		left, err := os.ReadDir(filepath.Join(dir, "state", "inputs"))
		return err == nil && len(left) == 0
	})
}

// Two clients race for one place, many times: the newest input runs last, nothing runs twice at once, and nobody's id is lost.
func TestCoalesceRace(t *testing.T) {
	m := open(t)
	s := sh(`mkdir "$DIR/lock" || exit 9; cat; rmdir "$DIR/lock"`)
	s.Task, s.MaxConcurrent, s.Overflow, s.As, s.Keep, s.RedirectStderr = "one", 1, spec.Coalesce, self(), time.Minute, true
	s.MaxQueue, s.Same = 1, "main"
	s.Env = append(s.Env, "DIR="+t.TempDir())
	var clients sync.WaitGroup
	var mu sync.Mutex
	var ids []string
	for _, name := range []string{"a", "b"} {
		clients.Go(func() {
			for range 100 {
				own := s
				own.Input = []byte(name)
				j, err := m.Start(t.Context(), own)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				ids = append(ids, j.ID)
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	runs := map[string]bool{}
	for _, id := range ids {
		r, err := m.Wait(t.Context(), id)
		if err != nil || !r.Succeeded() {
			t.Fatalf("%s: %+v, %v", id, r.Exit, err)
		}
		runs[r.ID] = true
	}
	if len(runs) == len(ids) {
		t.Error("nothing was coalesced")
	}
	last := s
	last.Input = []byte("last")
	if r, err := m.Run(t.Context(), last, nil); err != nil || string(r.Stdout) != "last" {
		t.Errorf("%q, %v", r.Stdout, err)
	}
	noneInUse(t, m)
}

// A key that is revoked takes what waits with it, and nothing of others.
func TestStopQueued(t *testing.T) {
	m := open(t)
	first := start(t, m, coalesced("wait", "main"))
	until(t, m, first.ID, "wait")
	own, joined := start(t, m, coalesced("x", "main")), start(t, m, coalesced("y", "main"))
	s := coalesced("z", "main")
	s.Owner.Key = "other"
	other := start(t, m, s)
	if n := m.StopQueued(t.Context(), func(o Owner) bool { return o.Key == "k" }, StopOptions{By: "ada"}); n != 1 {
		t.Errorf("%d were stopped", n)
	}
	for _, id := range []string{own.ID, joined.ID} {
		if j := wait(t, m, id); j.ID != own.ID || j.Exit.Reason != spec.Stopped || !j.StartedAt.IsZero() {
			t.Errorf("its own: %s %+v", j.ID, j.Exit)
		}
	}
	for _, c := range []struct {
		id   string
		want State
	}{{other.ID, Queued}, {first.ID, Running}} {
		if j, err := m.Status(c.id); err != nil || j.State != c.want {
			t.Errorf("%s, want %s: %v", j.State, c.want, err)
		}
	}
	signal(t, first.PID, unix.SIGUSR1)
	wait(t, m, other.ID)
}

// TestCoalesceOnlyTheSame: what is for another thing, of another owner or of another trigger waits beside it, in its turn, as far
// as the queue has room. Nothing that was accepted is dropped, under the next Manager neither.
func TestCoalesceOnlyTheSame(t *testing.T) {
	dir := t.TempDir()
	m := openIn(t, dir)
	first := start(t, m, coalesced("wait", "staging"))
	until(t, m, first.ID, "wait")
	type waiting struct {
		spec Spec
		want string // the job's output
	}
	of := func(input, same string) Spec { return coalesced(input, same) }
	byOther, byTimer := of("other", "staging"), of("timer", "staging")
	byOther.Owner.Key, byTimer.Trigger = "other", "timer"
	all := []waiting{
		{of("1", "staging"), "5 of 5\n"}, {of("2", "main"), "2 of 2\n"}, {of("3", ""), "3 of 3\n"}, {of("4", ""), "4 of 4\n"},
		{of("5", "staging"), "5 of 5\n"}, {byOther, "other of other\n"}, {byTimer, "timer of timer\n"},
	}
	var ids []string
	for _, w := range all {
		w.spec.MaxQueue = 6
		ids = append(ids, start(t, m, w.spec).ID)
	}
	for _, same := range []string{"another", ""} {
		s := of("6", same)
		s.MaxQueue = 6
		if _, err := m.Start(t.Context(), s); !errors.Is(err, ErrQueueFull) {
			t.Errorf("one more for %q: %v", same, err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = openIn(t, dir)
	defer func() { end(t, m) }()
	late := start(t, m, of("7", "main"))
	all[1].want = "7 of 7\n"
	signal(t, first.PID, unix.SIGUSR1)
	var order []string
	runs := map[string]Job{}
	for i, id := range append(ids, late.ID) {
		j := wait(t, m, id)
		if want := append(all, all[1])[i].want; !j.Succeeded() || output(t, m, id) != want {
			t.Errorf("%d: %+v, %q, want %q", i, j.Exit, output(t, m, id), want)
		}
		if runs[j.ID].ID == "" {
			order = append(order, j.ID)
		}
		runs[j.ID] = j
	}
	if len(runs) != 6 {
		t.Errorf("%d jobs ran", len(runs))
	}
	if !slices.IsSortedFunc(order, func(a, b string) int { return runs[a].StartedAt.Compare(runs[b].StartedAt) }) {
		t.Error("they did not run in their turn")
	}
}

// TestAliasesBounded: strangers add to a job that waits until it has admission.MaxJoined, and are refused then. Nothing that was accepted
// is forgotten, and looking for an id looks at none of the others.
func TestAliasesBounded(t *testing.T) {
	m := open(t)
	first := start(t, m, coalesced("wait", "main"))
	until(t, m, first.ID, "wait")
	waits := start(t, m, coalesced("x", "main"))
	var clients sync.WaitGroup
	var mu sync.Mutex
	var ids []string
	full := 0
	for range 20 {
		clients.Go(func() {
			for range admission.MaxJoined / 10 {
				j, err := m.Start(t.Context(), coalesced("y", "main"))
				mu.Lock()
				if errors.Is(err, ErrQueueFull) {
					full++
				} else if err != nil {
					t.Error(err)
				} else {
					ids = append(ids, j.ID)
				}
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	if len(ids) != admission.MaxJoined || full != admission.MaxJoined {
		t.Errorf("%d were accepted and %d refused", len(ids), full)
	}
	if _, err := m.Find(newID(), nil); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	signal(t, first.PID, unix.SIGUSR1)
	wait(t, m, waits.ID)
	m.runner.ender.recorder.now()
	eventually(t, "they are on record", func() bool {
		m.jobs.mu.Lock()
		defer m.jobs.mu.Unlock()
		return len(m.jobs.live) == 0 && len(m.jobs.aliases) == 0
	})
	for _, id := range ids {
		if j, err := m.Status(id); err != nil || j.ID != waits.ID || !j.Succeeded() {
			t.Fatalf("%s: %s, %v", id, j.ID, err)
		}
	}
}

// Whoever asks again under an id is not held to the rate, nor what is owed to another job's end; everybody else is.
func TestRate(t *testing.T) {
	m := open(t)
	s := sh("echo")
	s.Task, s.Rate, s.ID, s.Owner, s.Digest = "t", 0.01, newID(), Owner{Key: "k"}, "1"
	for range 3 {
		if _, err := m.Run(t.Context(), s, nil); err != nil {
			t.Fatal(err)
		}
	}
	other := s
	other.Digest = "2"
	if _, err := m.Start(t.Context(), other); !errors.Is(err, ErrDifferent) {
		t.Errorf("another digest: %v", err)
	}
	other.ID = ""
	var rate *RateError
	if _, err := m.Start(t.Context(), other); !errors.As(err, &rate) || rate.RetryAfter < 50*time.Second || rate.RetryAfter > 100*time.Second {
		t.Errorf("a second one: %v", err)
	}
	other.By = s.ID
	if _, err := m.Run(t.Context(), other, nil); err != nil {
		t.Errorf("a triggered one: %v", err)
	}
	if n := m.Running(); n != 0 {
		t.Errorf("%d run", n)
	}
}

// TestCoalesceRepeat: what is to be done once is done once, also where requests become part of one that waits, and where two
// repeats come in the same moment.
func TestCoalesceRepeat(t *testing.T) {
	m := open(t)
	first := start(t, m, coalesced("wait", "main"))
	until(t, m, first.ID, "wait")
	waits := start(t, m, coalesced("b", "main"))
	s := coalesced("c", "main")
	s.Once = Once{Key: "c", Until: time.Now().Add(time.Hour)}
	twin := s
	// Both have looked for a repeat before either is on record.
	joins := make([]admitted, 2)
	for i, s := range []*Spec{&s, &twin} {
		if joins[i] = admittedNow(t, m, s); joins[i].joined == nil {
			t.Fatalf("%+v", joins[i])
		}
	}
	if err := m.starter.placer.coalesce.commit(t.Context(), joins[0].l, joins[0].joined); err != nil {
		t.Fatal(err)
	}
	holder := joins[0].joined.alias.id
	var repeat *RepeatError
	if err := m.starter.placer.coalesce.commit(t.Context(), joins[1].l, joins[1].joined); !errors.As(err, &repeat) || repeat.ID != holder {
		t.Errorf("the twin: %v", err)
	}
	if _, err := m.Start(t.Context(), s); !errors.As(err, &repeat) || repeat.ID != holder {
		t.Errorf("one that comes later: %v", err)
	}
	signal(t, first.PID, unix.SIGUSR1)
	wait(t, m, waits.ID)
	m.runner.ender.recorder.now()
	eventually(t, "they are on record", func() bool {
		m.jobs.mu.Lock()
		defer m.jobs.mu.Unlock()
		return len(m.jobs.live) == 0 && len(m.jobs.aliases) == 0
	})
	if _, err := m.Start(t.Context(), s); !errors.As(err, &repeat) || repeat.ID != holder {
		t.Errorf("one that comes after the end: %v", err)
	}
}

// TestCoalesceGone: a job that waits turns out to be a repeat of another one once it is recorded, and so is none. What it took over
// meanwhile is no repeat, and runs.
func TestCoalesceGone(t *testing.T) {
	m := open(t)
	first := start(t, m, coalesced("wait", "main"))
	until(t, m, first.ID, "wait")
	once, repeat, third := coalesced("a", "a"), coalesced("b", "b"), coalesced("c", "b")
	once.Once = Once{Key: "o", Until: time.Now().Add(time.Hour)}
	repeat.Once = once.Once
	third.Once = Once{Key: "another", Until: time.Now().Add(time.Hour)}
	third.Input = []byte(strings.Repeat("c", maxInline+1) + "\n")
	a, b := admittedNow(t, m, &once), admittedNow(t, m, &repeat)
	if _, err := m.starter.placer.place(t.Context(), &once, a); err != nil {
		t.Fatal(err)
	}
	m.runner.enqueue(a.l)
	c := admittedNow(t, m, &third)
	if c.joined == nil || c.l != b.l {
		t.Fatalf("%+v", c)
	}
	if err := m.starter.placer.placeJoined(t.Context(), &third, c); !errors.Is(err, errGone) {
		t.Errorf("%v", err)
	}
	if _, err := m.starter.placer.place(t.Context(), &repeat, b); !errors.As(err, new(*RepeatError)) {
		t.Errorf("the repeat: %v", err)
	}
	third.ID = c.job.ID
	if j := start(t, m, third); j.ID != third.ID || j.Into != "" || j.State != Queued {
		t.Errorf("%+v", j)
	}
	signal(t, first.PID, unix.SIGUSR1)
	if j := wait(t, m, third.ID); !j.Succeeded() || output(t, m, third.ID) != string(third.Input[:maxInline+1])+" of c\n" {
		t.Errorf("%+v", j.Exit)
	}
	if j := wait(t, m, a.l.job.ID); !j.Succeeded() {
		t.Errorf("%+v", j.Exit)
	}
	noneInUse(t, m)
}

// TestCoalesceForgotten: a job that waits is forgotten in the moment in which a request that it took over is committed. Where that
// request is accepted, there is a job for it.
func TestCoalesceForgotten(t *testing.T) {
	m := open(t)
	first := start(t, m, coalesced("wait", "main"))
	until(t, m, first.ID, "wait")
	for i := range 20 {
		var both [2]admitted
		for k := range both {
			s := coalesced("x", fmt.Sprint(i))
			s.MaxQueue = 100
			if err := m.starter.admitter.check(&s); err != nil {
				t.Fatal(err)
			}
			var err error
			if both[k], err = m.starter.admitter.admit(t.Context(), &s); err != nil {
				t.Fatal(err)
			}
		}
		l, j := both[0].l, both[1].joined
		if j == nil || both[1].l != l {
			t.Fatalf("%+v", both[1])
		}
		var joined, forgotten sync.WaitGroup
		var err error
		var gone bool
		l.writing.Lock()
		joined.Go(func() { err = m.starter.placer.coalesce.commit(t.Context(), l, j) })
		runtime.Gosched() // that one is the first, mostly
		forgotten.Go(func() { gone = m.starter.placer.forget(l) })
		l.writing.Unlock()
		joined.Wait()
		forgotten.Wait()
		if gone != errors.Is(err, errGone) || err != nil && !gone {
			t.Fatalf("round %d: the job was forgotten: %v, and the request was told %v", i, gone, err)
		}
		if !gone {
			close(l.settled)
			m.runner.enqueue(l)
		}
	}
}

// TestForgottenHoldsNothing: a job that could not be recorded is forgotten when the request that it took over was committed, with both
// of their Onces. Whoever comes again is no repeat of a job that never was.
func TestForgottenHoldsNothing(t *testing.T) {
	m := open(t)
	first := start(t, m, coalesced("wait", "main"))
	until(t, m, first.ID, "wait")
	var specs [2]Spec
	var both [2]admitted
	for k := range both {
		s := &specs[k]
		*s = coalesced(fmt.Sprint(k), "main")
		s.Once = Once{Key: fmt.Sprint("once/", k), Until: time.Now().Add(time.Hour)}
		if err := m.starter.admitter.check(s); err != nil {
			t.Fatal(err)
		}
		var err error
		if both[k], err = m.starter.admitter.admit(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := m.starter.placer.coalesce.begin(both[0].l, both[1].joined)
	if err != nil {
		t.Fatal(err)
	}
	if err := committed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !m.starter.placer.forget(both[0].l) { // as if its own commit had failed
		t.Fatal("it is kept")
	}
	if err := m.starter.placer.placeJoined(t.Context(), &specs[1], both[1]); !errors.Is(err, errGone) {
		t.Errorf("the request that it took over: %v", err)
	}
	for _, s := range specs {
		s.Same = "other"
		if j, err := m.Start(t.Context(), s); err != nil || j.State != Queued {
			t.Errorf("%s again: %s, %v", s.Once.Key, j.State, err)
		}
	}
}

// TestJoinWhileItIsPlaced: a job with a long input lets go of that when it is on record, while another request brings a new one.
func TestJoinWhileItIsPlaced(t *testing.T) {
	m := open(t)
	first := start(t, m, coalesced("wait", "main"))
	until(t, m, first.ID, "wait")
	long, short := coalesced(strings.Repeat("1", maxInline+1), "main"), coalesced("2", "main")
	for _, s := range []*Spec{&long, &short} {
		if err := m.starter.admitter.check(s); err != nil {
			t.Fatal(err)
		}
	}
	a, err := m.starter.admitter.admit(t.Context(), &long)
	if err != nil {
		t.Fatal(err)
	}
	var placed sync.WaitGroup
	placed.Go(func() {
		if waits, err := m.starter.placer.place(t.Context(), &long, a); err != nil || !waits {
			t.Errorf("it waits: %v, %v", waits, err)
		}
	})
	<-a.l.settled
	start(t, m, short)
	placed.Wait()
	m.runner.enqueue(a.l)
	signal(t, first.PID, unix.SIGUSR1)
	if j := wait(t, m, a.l.job.ID); !j.Succeeded() || output(t, m, j.ID) != "2 of 2\n" {
		t.Errorf("%+v, %.20q", j.Exit, output(t, m, j.ID))
	}
}

// TestCoalesceInput: a request with a long input that becomes part of a job with a short one is held to the room for inputs, too.
func TestCoalesceInput(t *testing.T) {
	m := open(t)
	first := start(t, m, coalesced("wait", "main"))
	until(t, m, first.ID, "wait")
	waits := start(t, m, coalesced("short", "main"))
	m.jobs.mu.Lock()
	others := m.jobs.admission.Restore(admission.Request{ID: newID(), Task: "other", Share: first.share(), Input: admission.MaxInputs - 100}, true)
	m.jobs.mu.Unlock()
	if _, err := m.Start(t.Context(), coalesced(strings.Repeat("x", maxInline+1), "main")); !errors.Is(err, ErrQueueFull) {
		t.Errorf("a long one: %v", err)
	}
	if left, err := os.ReadDir(m.opts.inputsDir()); err != nil || len(left) != 0 {
		t.Errorf("inputs %v, %v", left, err)
	}
	m.jobs.mu.Lock()
	m.jobs.admission.Leave(others)
	m.jobs.mu.Unlock()
	start(t, m, coalesced("b", "main"))
	signal(t, first.PID, unix.SIGUSR1)
	wait(t, m, waits.ID)
	if got := output(t, m, waits.ID); got != "b of b\n" {
		t.Errorf("%q", got)
	}
}

// TestCoalesceOneID: many requests with one id and long inputs come at once, as jobs of their own or to become part of one that
// waits. The one that was accepted keeps its input, whatever becomes of the others, and the others leave nothing.
func TestCoalesceOneID(t *testing.T) {
	m := open(t)
	first := start(t, m, coalesced("wait", "first"))
	until(t, m, first.ID, "wait")
	const rounds = 10
	body := func(i, n int) string { return strings.Repeat(string(rune('a'+i%n)), maxInline+1) }
	want := map[string]string{} // the input, by id
	for round := range rounds {
		id, same, bodies := newID(), fmt.Sprint("same", round), 1+round/2%2*7
		joins := round%2 == 1
		if joins {
			start(t, m, coalesced(strings.Repeat("0", maxInline+1), same))
		}
		var clients sync.WaitGroup
		var mu sync.Mutex
		accepted := map[string]int{}
		for i := range 16 {
			clients.Go(func() {
				s := coalesced(body(i, bodies), same)
				s.ID, s.Digest, s.MaxQueue = id, body(i, bodies)[:1], 2*rounds
				j, err := m.Start(t.Context(), s)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case errors.Is(err, ErrDifferent) && bodies > 1:
				case err != nil || (j.ID != id) || (j.Into != "") != joins:
					t.Errorf("%s into %q, %v", j.ID, j.Into, err)
				default:
					accepted[body(i, bodies)]++
				}
			})
		}
		clients.Wait()
		if len(accepted) != 1 {
			t.Fatalf("%d different requests were accepted under one id", len(accepted))
		}
		for in := range accepted {
			want[id] = in
		}
		if left, err := os.ReadDir(m.opts.inputsDir()); err != nil || len(left) != len(want) {
			t.Errorf("%d inputs are kept for %d jobs, %v", len(left), len(want), err)
		}
	}
	signal(t, first.PID, unix.SIGUSR1)
	for id, in := range want {
		if j := wait(t, m, id); !j.Succeeded() || output(t, m, id) != in+" of "+in[:10]+"\n" {
			t.Errorf("%+v, %.20q, want %.20q", j.Exit, output(t, m, id), in)
		}
	}
	noneInUse(t, m)
	if left, err := os.ReadDir(m.opts.inputsDir()); err != nil || len(left) != 0 {
		t.Errorf("inputs %v, %v", left, err)
	}
}

// TestLongInputIsKeptFirst: the input of a request that may be coalesced is in a file before anybody knows of the request, and goes
// with a request that comes to nothing.
func TestLongInputIsKeptFirst(t *testing.T) {
	m := open(t)
	s := coalesced(strings.Repeat("x", maxInline+1), "main")
	a := admittedNow(t, m, &s)
	if b, err := os.ReadFile(filepath.Join(m.opts.inputsDir(), s.InputName)); err != nil || string(b) != string(s.Input) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if !m.starter.placer.forget(a.l) {
		t.Error("the job cannot be forgotten")
	}
	m.Drain()
	if _, err := m.starter.admitter.admit(t.Context(), &s); !errors.Is(err, ErrDraining) {
		t.Errorf("while it drains: %v", err)
	}
	if left, err := os.ReadDir(m.opts.inputsDir()); err != nil || len(left) != 0 {
		t.Errorf("inputs %v, %v", left, err)
	}
}

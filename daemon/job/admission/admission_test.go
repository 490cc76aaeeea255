package admission

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rtask/rtask/sandbox/spec"
)

// request is one of the requester with this key for a task, with an id of its own.
func request(id, task, key string) Request {
	return Request{ID: id, Task: task, Share: "key/" + key, Owner: "key:" + key}
}

// one is a request for a task of which one job runs at a time.
func one(id, key string, o spec.Overflow) Request {
	r := request(id, "one", key)
	r.MaxConcurrent, r.Overflow, r.MaxQueue = 1, o, 3
	return r
}

func admit(t testing.TB, a *Admission, r Request) *Ticket {
	t.Helper()
	ticket, err := a.Admit(r)
	if err != nil {
		t.Fatalf("%s: %v", r.ID, err)
	}
	if ticket.Waits() && ticket.ID == r.ID {
		a.Enqueue(ticket)
	}
	return ticket
}

// refused checks that a request is refused with want, and changes nothing.
func refused(t testing.TB, a *Admission, r Request, want error) {
	t.Helper()
	before := state(a)
	if ticket, err := a.Admit(r); !errors.Is(err, want) {
		t.Errorf("%s: %+v, %v; want %v", r.ID, ticket, err, want)
	}
	if after := state(a); after != before {
		t.Errorf("%s was refused, and changed\n%s to\n%s", r.ID, before, after)
	}
}

// state is all that is held, but for the rates.
func state(a *Admission) string {
	var tasks []string
	for name, of := range a.tasks {
		tasks = append(tasks, fmt.Sprint(name, " ", of.running, of.waiting, len(of.queue), len(of.same)))
	}
	slices.Sort(tasks)
	return fmt.Sprint(a.active, a.holds, a.waiting, a.inputs, a.owing, a.owes, tasks)
}

// empty checks that nothing is held any more.
func empty(t testing.TB, a *Admission) {
	t.Helper()
	if got, want := state(a), state(New(0)); got != want {
		t.Errorf("%s is held", got)
	}
}

// next checks which jobs have their turn now.
func next(t testing.TB, a *Admission, want ...string) []*Ticket {
	t.Helper()
	var ids []string
	turns := a.Next()
	for _, ticket := range turns {
		if ticket.Waits() {
			t.Errorf("%s has its turn and waits", ticket.ID)
		}
		ids = append(ids, ticket.ID)
	}
	if got := strings.Join(ids, " "); got != strings.Join(want, " ") {
		t.Errorf("%q have their turn, want %q", got, want)
	}
	return turns
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(1000)
		n := 0
		call := func(task string, rate float64) error {
			n++
			r := request(fmt.Sprint(n), task, "a")
			r.Rate = rate
			_, err := a.Admit(r)
			return err
		}
		in := func(task string, rate float64, want int) {
			t.Helper()
			for i := range want {
				if err := call(task, rate); err != nil {
					t.Errorf("%d of %d: %v", i, want, err)
				}
			}
		}
		out := func(task string, rate float64, want time.Duration) {
			t.Helper()
			var refused *RateError
			if err := call(task, rate); !errors.As(err, &refused) || refused.RetryAfter.Round(time.Microsecond) != want.Round(time.Microsecond) {
				t.Errorf("%v, want it to be refused for %v", err, want)
			}
		}
		in("slow", 0.5, 1)
		out("slow", 0.5, 2*time.Second)
		time.Sleep(1500 * time.Millisecond)
		out("slow", 0.5, 500*time.Millisecond)
		time.Sleep(500 * time.Millisecond)
		in("slow", 0.5, 1)
		// A second's share comes at once, and no more, however long nobody came. Another task has a rate of its own.
		in("fast", 3, 3)
		out("fast", 3, time.Second/3)
		time.Sleep(time.Hour)
		in("fast", 3, 3)
		out("fast", 3, time.Second/3)
		in("unlimited", 0, 100)
		in("slow", 0.5, 1)
		// What is owed to the end of another job is not held to it, and uses nothing of it.
		owed := request("owed", "slow", "a")
		owed.Rate, owed.Owed = 0.5, true
		admit(t, a, owed)
		out("slow", 0.5, 2*time.Second)
		// The rate that holds is that of the newest request.
		time.Sleep(2 * time.Second)
		in("slow", 2, 2)
		out("slow", 2, 500*time.Millisecond)
	})
}

func TestConcurrency(t *testing.T) {
	a := New(1000)
	first := admit(t, a, one("first", "a", spec.Reject))
	refused(t, a, one("second", "b", spec.Reject), ErrConcurrency)
	admit(t, a, request("other", "other", "a"))
	b, c, d := admit(t, a, one("b", "a", spec.Queue)), admit(t, a, one("c", "b", spec.Queue)), admit(t, a, one("d", "a", spec.Queue))
	refused(t, a, one("e", "c", spec.Queue), ErrQueueFull)
	next(t, a)
	if w := a.Waiting(); len(w) != 1 || w["one"] != 3 || a.Queued() != 3 {
		t.Errorf("%v wait, %d in queues", w, a.Queued())
	}
	// One that leaves the queue makes room there when it is gone, and its turn never comes.
	if !a.Unqueue(c) || a.Unqueue(c) {
		t.Error("it was in the queue, once")
	}
	refused(t, a, one("e", "c", spec.Queue), ErrQueueFull)
	a.Leave(c)
	e := admit(t, a, one("e", "c", spec.Queue))
	// Who waits goes first: a request that would be refused is not let past those that wait.
	a.Leave(first)
	refused(t, a, one("f", "a", spec.Reject), ErrConcurrency)
	for _, turn := range []*Ticket{b, d, e} {
		next(t, a, turn.ID)
		next(t, a)
		a.Leave(turn)
	}
	next(t, a)
	again := admit(t, a, one("f", "a", spec.Reject))
	if again.Waits() {
		t.Error("a job waits for nobody")
	}
}

// A job waits until it is on record before its turn can come.
func TestEnqueue(t *testing.T) {
	a := New(1000)
	first := admit(t, a, one("first", "a", spec.Queue))
	late, err := a.Admit(one("late", "a", spec.Queue))
	if err != nil {
		t.Fatal(err)
	}
	soon := admit(t, a, one("soon", "a", spec.Queue))
	a.Leave(first)
	next(t, a, "soon")
	a.Enqueue(late)
	next(t, a)
	a.Leave(soon)
	next(t, a, "late")
	a.Leave(late)
	// One that could not be recorded leaves nothing.
	admit(t, a, one("x", "a", spec.Queue))
	unkept, err := a.Admit(one("y", "a", spec.Queue))
	if err != nil {
		t.Fatal(err)
	}
	a.Leave(unkept)
	if w := a.Waiting(); len(w) != 0 {
		t.Errorf("%v wait", w)
	}
}

// The limit that holds for those that wait is that of the newest request.
func TestLimitIsRaised(t *testing.T) {
	a := New(1000)
	admit(t, a, one("1", "a", spec.Queue))
	admit(t, a, one("2", "a", spec.Queue))
	more := one("3", "a", spec.Queue)
	more.MaxConcurrent = 3
	admit(t, a, more)
	next(t, a, "2", "3")
}

func TestCoalesce(t *testing.T) {
	a := New(1000)
	coalesced := func(id, same string) Request {
		r := one(id, "a", spec.Coalesce)
		r.Same = same
		return r
	}
	first := admit(t, a, coalesced("first", "main"))
	if first.ID != "first" || first.Waits() {
		t.Fatalf("%+v", first)
	}
	waits, other := admit(t, a, coalesced("waits", "main")), admit(t, a, coalesced("other", "dev"))
	for _, id := range []string{"x", "y", "z"} {
		if got := admit(t, a, coalesced(id, "main")); got != waits {
			t.Errorf("%s becomes part of %+v", id, got)
		}
	}
	if got := admit(t, a, coalesced("alone", "")); got.ID != "alone" {
		t.Errorf("what is for nothing becomes part of %s", got.ID)
	}
	refused(t, a, coalesced("full", ""), ErrQueueFull)
	// What was stopped takes nothing over, and no more does what has its turn.
	a.TakeNoMore(other)
	refused(t, a, coalesced("full", "dev"), ErrQueueFull)
	a.Leave(first)
	next(t, a, "waits")
	again := admit(t, a, coalesced("again", "main"))
	if again.ID != "again" || !again.Waits() {
		t.Errorf("%+v", again)
	}
}

// A job takes so many requests over and no more, those of an earlier run included.
func TestJoinedIsBounded(t *testing.T) {
	a := New(1000)
	r := one("0", "a", spec.Coalesce)
	r.Same = "main"
	admit(t, a, r)
	r.ID = "waits"
	waits := a.Restore(r, true)
	a.Enqueue(waits)
	waits.Joined(1)
	for i := range MaxJoined - 1 {
		r.ID = fmt.Sprint(i)
		admit(t, a, r)
	}
	refused(t, a, r, ErrQueueFull)
	waits.Unjoin()
	admit(t, a, r)
}

// One requester can have all of max_jobs, and others get theirs all the same.
func TestShares(t *testing.T) {
	a := New(16)
	held := map[string][]*Ticket{}
	fill := func(key string) int {
		for n := 0; ; n++ {
			ticket, err := a.Admit(request(fmt.Sprint(key, n), "t", key))
			if errors.Is(err, ErrTooMany) {
				return n
			} else if err != nil {
				t.Fatal(err)
			}
			held[key] = append(held[key], ticket)
		}
	}
	for _, c := range []struct {
		key  string
		want int
	}{{"greedy", 16}, {"b", 1}, {"c", 1}, {"d", 0}} {
		if got := fill(c.key); got != c.want {
			t.Errorf("%s has %d, want %d", c.key, got, c.want)
		}
	}
	// What ends makes room for those that have little.
	a.Leave(held["b"][0])
	if n := fill("greedy"); n != 0 {
		t.Errorf("the greedy one gets %d of the reserve", n)
	}
	if n := fill("d"); n != 1 {
		t.Errorf("another one gets %d of it", n)
	}
	for _, key := range []string{"greedy", "c"} {
		for _, ticket := range held[key] {
			a.Leave(ticket)
		}
	}
	a.Leave(held["d"][0])
	empty(t, a)
}

// In the queue nobody waits behind a requester that may have no more; of the others the one that came first goes first, whatever
// its task.
func TestSharesInTheQueue(t *testing.T) {
	a := New(8)
	in := func(id, task, key string) *Ticket {
		r := request(id, task, key)
		r.MaxConcurrent, r.Overflow, r.MaxQueue = 1, spec.Queue, 10
		return admit(t, a, r)
	}
	first, second := in("first", "one", "a"), in("second", "two", "a")
	in("mine", "one", "a")
	theirs := in("theirs", "two", "b")
	later := in("later", "one", "b")
	for i := range 6 {
		admit(t, a, request(fmt.Sprint(i), "any", "a"))
	}
	third := admit(t, a, request("third", "any", "c")) // which has the reserve
	a.Leave(first)
	next(t, a, "later") // task two has its one job
	a.Leave(second)
	next(t, a)
	a.Leave(third)
	next(t, a, "theirs")
	a.Leave(later)
	next(t, a, "mine")
	a.Leave(theirs)
	admit(t, a, request("last", "any", "d"))
	refused(t, a, request("more", "any", "a"), ErrTooMany)
	a.SetMaxJobs(16)
	admit(t, a, request("more", "any", "a"))
}

// While nobody may have a turn, the look for the next one passes over requesters, not over all that they have in the queue.
func TestNextLooksAtOneOfEachShare(t *testing.T) {
	a := New(1)
	r := one("0", "a", spec.Queue)
	r.MaxQueue = 10_000
	admit(t, a, r)
	for i := range 5_000 {
		for _, key := range []string{"a", "b"} {
			r := one(fmt.Sprint(key, i), key, spec.Queue)
			r.MaxQueue = 10_000
			a.Enqueue(a.Restore(r, true))
		}
	}
	a.Leave(a.Restore(request("x", "x", "x"), false))
	looked := 0
	for range a.heads {
		looked++
	}
	if looked != 0 {
		t.Errorf("%d are looked at of a task that may have no other turn", looked)
	}
	a.tasks["one"].max = 0
	for range a.heads {
		looked++
	}
	if looked != 2 {
		t.Errorf("%d are looked at, of two requesters", looked)
	}
	next(t, a)
}

// The inputs of all jobs that wait are bounded, for each requester and in all.
func TestInputs(t *testing.T) {
	a := New(1000)
	const size = MaxInputs/27 + 1
	input := func(id, key string, n int64) Request {
		r := one(id, key, spec.Coalesce)
		r.MaxQueue, r.Input = 1000, n
		return r
	}
	first := admit(t, a, input("first", "a", size)) // which does not wait
	var waiting []*Ticket
	for i := 0; ; i++ {
		ticket, err := a.Admit(input(fmt.Sprint(i), "a", size))
		if errors.Is(err, ErrQueueFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		a.Enqueue(ticket)
		waiting = append(waiting, ticket)
	}
	if len(waiting) != 23 {
		t.Errorf("one requester has %d of 27", len(waiting))
	}
	small := input("small", "a", 0)
	small.Same = "main"
	waits := admit(t, a, small) // what has no input takes no room
	other := input("other", "b", size)
	admit(t, a, other)
	// What another one takes over counts, too, and a shorter one gives room back.
	small.ID, small.Input = "longer", size
	refused(t, a, small, ErrQueueFull)
	a.Leave(waiting[0])
	admit(t, a, small)
	small.ID, small.Input = "shorter", 1
	if got := admit(t, a, small); got != waits || a.inputs["key/a"] != 22*size+1 {
		t.Errorf("%+v, %d bytes", got, a.inputs["key/a"])
	}
	// A turn gives it back.
	a.Leave(first)
	for _, ticket := range append(waiting[1:], waits) {
		next(t, a, ticket.ID)
		a.Leave(ticket)
	}
	a.Leave(next(t, a, "other")[0])
	empty(t, a)
}

// Jobs that have ended and wait for room for what they trigger are bounded: beyond that no job is let in that may trigger more.
func TestOwing(t *testing.T) {
	a := New(1000)
	r := request("x", "t", "a")
	r.Triggers = true
	n := 0
	for ; ; n++ {
		ticket, err := a.Admit(r)
		if errors.Is(err, ErrTooMany) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		a.Leave(ticket)
		a.Owe("key/a")
	}
	if n != MaxOwing*8/9+1 {
		t.Errorf("one requester owes %d of %d", n, MaxOwing)
	}
	owed, other := r, request("other", "t", "b")
	owed.Owed, other.Triggers = true, true
	for _, r := range []Request{owed, other, request("harmless", "t", "a")} {
		a.Leave(admit(t, a, r))
	}
	for range n {
		a.Paid("key/a")
	}
	a.Leave(admit(t, a, r))
	empty(t, a)
}

// BenchmarkStart is a request that gets its turn while others wait, and its end.
func BenchmarkStart(b *testing.B) {
	a := New(1)
	first := request("0", "one", "a")
	a.Restore(first, false)
	for i := range 10_000 {
		r := one(fmt.Sprint(i), fmt.Sprint(i%10), spec.Queue)
		a.Enqueue(a.Restore(r, true))
	}
	a.SetMaxJobs(2)
	for b.Loop() {
		ticket, err := a.Admit(request("x", "t", "b"))
		if err != nil {
			b.Fatal(err)
		}
		a.Leave(ticket)
	}
}

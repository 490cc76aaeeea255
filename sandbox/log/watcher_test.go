package log

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func newWatcher(t testing.TB) *Watcher {
	t.Helper()
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Close()
		if len(w.wakes) > 0 {
			t.Errorf("%d watches are left", len(w.wakes))
		}
	})
	return w
}

// follow starts Follow with what a test needs, and returns what it read and its error.
func follow(ctx context.Context, w *Watcher, f *os.File, done <-chan struct{}) func() (string, error) {
	var got bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		ended <- w.Follow(ctx, f, View{}, done, func(e Entry) error {
			got.Write(e.Data)
			return nil
		})
	}()
	return func() (string, error) {
		err := <-ended
		return got.String(), err
	}
}

func testFollowers(t *testing.T, followers int, separate bool) {
	w := newWatcher(t)
	f := create(t)
	out := NewWriter(f, math.MaxInt64, nil)
	done := make(chan struct{})
	var want [2]hash.Hash
	for i := range want {
		want[i] = sha256.New()
	}
	type sums [2][sha256.Size]byte
	results := make([]sums, followers)
	var wg sync.WaitGroup
	for i := range followers {
		wg.Go(func() {
			time.Sleep(time.Duration(i%10) * 5 * time.Millisecond) // some come late
			f := f
			if separate {
				var err error
				if f, err = os.Open(f.Name()); err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
			}
			got := [2]hash.Hash{sha256.New(), sha256.New()}
			err := w.Follow(t.Context(), f, View{}, done, func(e Entry) error {
				if i == 0 {
					time.Sleep(time.Millisecond) // a slow one
				}
				got[e.Stream-1].Write(e.Data)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			for s := range got {
				got[s].Sum(results[i][s][:0])
			}
		})
	}
	rng := rand.New(rand.NewPCG(3, 3))
	for n := range 2000 {
		stream := Stdout + Stream(rng.IntN(2))
		chunk := fmt.Appendf(nil, "%d %s\nrest", n, strings.Repeat("x", rng.IntN(300)))
		want[stream-1].Write(chunk)
		out.Write(stream, chunk)
		if n%50 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	close(done)
	wg.Wait()
	var expect sums
	for s := range want {
		want[s].Sum(expect[s][:0])
	}
	for i, got := range results {
		if got != expect {
			t.Errorf("follower %d read something else", i)
		}
	}
}

func TestFollowers(t *testing.T) {
	t.Run("100", func(t *testing.T) { testFollowers(t, 100, true) })
	t.Run("500 of one descriptor", func(t *testing.T) { testFollowers(t, 500, false) })
}

// TestFollowWakes sees each write alone: a wake-up that is missed holds it up for ever.
func TestFollowWakes(t *testing.T) {
	w := newWatcher(t)
	f := create(t)
	out := NewWriter(f, math.MaxInt64, nil)
	got := make(chan string)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		err := w.Follow(ctx, f, View{}, nil, func(e Entry) error { got <- string(e.Data); return nil })
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	for i := range 2000 {
		prompt := fmt.Sprint(i)
		out.Write(Stdout, []byte(prompt))
		select {
		case s := <-got:
			if s != prompt {
				t.Fatalf("got %q, want %q", s, prompt)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("write %d woke no one", i)
		}
		if i == 1000 {
			if err := os.Rename(f.Name(), f.Name()+".1"); err != nil {
				t.Fatal(err)
			}
		}
		if i == 1500 {
			if err := os.Remove(f.Name() + ".1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	cancel()
	wg.Wait()
}

// TestFollowDone closes done right after the last write.
func TestFollowDone(t *testing.T) {
	w := newWatcher(t)
	for i := range 300 {
		f := create(t)
		out := NewWriter(f, math.MaxInt64, nil)
		done := make(chan struct{})
		wait := follow(t.Context(), w, f, done)
		var want strings.Builder
		for n := range i % 20 {
			fmt.Fprintf(&want, "%d\n", n)
			out.Write(Stdout, fmt.Appendf(nil, "%d\n", n))
		}
		close(done)
		if got, err := wait(); err != nil || got != want.String() {
			t.Fatalf("got %q, %v; want %q", got, err, want.String())
		}
		f.Close()
	}
}

func TestFollowEnds(t *testing.T) {
	before := runtime.NumGoroutine()
	w := newWatcher(t)
	f := create(t)
	out := NewWriter(f, math.MaxInt64, nil)
	out.Write(Stdout, []byte("a\n"))

	ctx, cancel := context.WithCancelCause(t.Context())
	wait := follow(ctx, w, f, nil)
	time.Sleep(10 * time.Millisecond)
	cancel(errors.New("a cause"))
	if got, err := wait(); err != context.Canceled || got != "a\n" {
		t.Errorf("cancelled: %q, %v", got, err)
	}

	stop := errors.New("stop")
	if err := w.Follow(t.Context(), f, View{}, nil, func(Entry) error { return stop }); err != stop {
		t.Errorf("yield's error: %v", err)
	}

	// What is no record is passed over, and an offset is gone on from.
	if _, err := f.WriteString("rubbish\n"); err != nil {
		t.Fatal(err)
	}
	NewWriter(f, math.MaxInt64, nil).Write(Stderr, []byte("b"))
	done := make(chan struct{})
	close(done)
	if got, err := follow(t.Context(), w, f, done)(); err != nil || got != "a\nb" {
		t.Errorf("with rubbish: %q, %v", got, err)
	}

	closed := create(t)
	closed.Close()
	if err := w.Follow(t.Context(), closed, View{}, done, nil); err == nil {
		t.Error("a closed file can be followed")
	}

	wait = follow(t.Context(), w, f, nil)
	time.Sleep(10 * time.Millisecond)
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := wait(); err != ErrClosed {
		t.Errorf("closed: %v", err)
	}
	if err := w.Close(); err != ErrClosed {
		t.Errorf("closed twice: %v", err)
	}
	if err := w.Follow(t.Context(), f, View{}, nil, nil); err != ErrClosed {
		t.Errorf("after close: %v", err)
	}
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

// TestWatcherOverflow wakes everyone when the kernel could not say whom.
func TestWatcherOverflow(t *testing.T) {
	w := newWatcher(t)
	f := create(t)
	wd, wake, err := w.add(f)
	if err != nil {
		t.Fatal(err)
	}
	defer w.remove(wd, wake)
	w.wake([]byte("\xff\xff\xff\xff\x00\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	w.wake([]byte("\x01\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xffcut short"))
	select {
	case <-wake:
	default:
		t.Error("an overflow woke no one")
	}
}

func BenchmarkFollow(b *testing.B) {
	for _, followers := range []int{1, 100} {
		b.Run(fmt.Sprint(followers), func(b *testing.B) {
			w := newWatcher(b)
			f := create(b)
			out := NewWriter(f, math.MaxInt64, nil)
			chunk := workloads()["lines=128"]
			done := make(chan struct{})
			var wg sync.WaitGroup
			for range followers {
				wg.Go(func() { _ = w.Follow(b.Context(), f, View{}, done, func(Entry) error { return nil }) })
			}
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				out.Write(Stdout, chunk)
				if out.off > 1<<30 {
					b.Fatal("too long a benchmark for the disk")
				}
			}
			close(done)
			wg.Wait()
		})
	}
}

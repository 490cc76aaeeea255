package log

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

// recordsOf returns the records of a log that are in v but for its Tail, found one by one.
func recordsOf(t testing.TB, r io.ReaderAt, v View) []Entry {
	t.Helper()
	var all []Entry
	for in := NewReader(r, v.Offset); ; {
		e, err := in.Next()
		var malformed *FormatError
		switch {
		case errors.Is(err, io.EOF):
			return all
		case errors.As(err, &malformed):
			continue
		case err != nil:
			t.Fatal(err)
		}
		if (v.Stream == 0 || v.Stream == e.Stream) && (v.Since.IsZero() || v.Since.Compare(e.Time) <= 0) &&
			(v.Until.IsZero() || v.Until.Compare(e.Time) >= 0) {
			e.Data = bytes.Clone(e.Data)
			all = append(all, e)
		}
	}
}

// tail is what tail(1) leaves of all output, both streams together.
func tail(all []Entry, lines int64) string {
	var out []byte
	for _, e := range all {
		out = append(out, e.Data...)
	}
	end := bytes.TrimSuffix(out, []byte("\n"))
	for i := len(end); ; lines-- {
		if lines == 0 {
			return string(out[min(i+1, len(out)):])
		}
		if i = bytes.LastIndexByte(end[:i], '\n'); i < 0 {
			return string(out)
		}
	}
}

// checkView holds what a View leaves of a log to what is found without it, and to what is read in two parts.
func checkView(t testing.TB, r io.ReaderAt, size int64, v View) {
	t.Helper()
	bounds := v
	bounds.Tail = false
	if v.Tail {
		bounds.Offset = 0
	}
	all := recordsOf(t, r, bounds)
	want := tail(all, math.MaxInt64)
	if v.Tail {
		want = tail(all, v.Lines)
	}
	start, err := v.start(r, size)
	if err != nil {
		t.Fatal(err)
	}
	// Interrupted after each entry, as a connection that breaks.
	for _, interrupted := range []bool{false, true} {
		var got strings.Builder
		in := NewReader(r, start)
		in.view = v
		for {
			e, err := in.NextBatch()
			var malformed *FormatError
			if errors.As(err, &malformed) {
				continue
			}
			if err != nil {
				break
			}
			got.Write(e.Data)
			if interrupted {
				in = NewReader(r, e.Offset)
				in.view = v
			}
		}
		if got.String() != want {
			t.Fatalf("%+v, interrupted %v: %.200q, want %.200q", v, interrupted, got.String(), want)
		}
	}
}

func TestView(t *testing.T) {
	at := func(n int) time.Time { return noon().Add(time.Duration(n) * time.Second) }
	f := create(t)
	now := noon()
	w := NewWriter(f, math.MaxInt64, func() time.Time { return now })
	for i, s := range []string{"one\n", "two\n", "pro", "warn\n", "gress\nfour\n", "five"} {
		now = at(i)
		stream := Stdout
		if s == "warn\n" {
			stream = Stderr
		}
		w.Write(stream, []byte(s))
	}
	size := w.off
	for _, c := range []struct {
		view View
		want string
	}{
		{View{}, "one\ntwo\nprowarn\ngress\nfour\nfive"},
		{View{Stream: Stderr}, "warn\n"},
		{View{Stream: Stdout}, "one\ntwo\nprogress\nfour\nfive"},
		{View{Since: at(1), Until: at(2)}, "two\npro"},
		{View{Since: at(1).Add(1), Until: at(3).Add(-1)}, "pro"},
		{View{Until: at(-1)}, ""},
		{View{Tail: true}, ""},
		{View{Tail: true, Lines: 1}, "five"},
		{View{Tail: true, Lines: 2}, "four\nfive"},
		{View{Tail: true, Lines: 3}, "gress\nfour\nfive"},
		{View{Tail: true, Lines: 4, Offset: size}, "prowarn\ngress\nfour\nfive"},
		{View{Tail: true, Lines: 3, Stream: Stdout}, "progress\nfour\nfive"},
		{View{Tail: true, Lines: 1, Until: at(4)}, "four\n"},
		{View{Tail: true, Lines: 100}, "one\ntwo\nprowarn\ngress\nfour\nfive"},
	} {
		checkView(t, f, size, c.view)
		start, err := c.view.start(f, size)
		if err != nil {
			t.Fatal(err)
		}
		v := c.view
		v.Offset, v.Tail = start, false
		if got := tail(recordsOf(t, f, v), math.MaxInt64); got != c.want {
			t.Errorf("%+v: %q, want %q", c.view, got, c.want)
		}
	}
}

// TestViewTimes: with Times, an entry's time is that of all that is in it.
func TestViewTimes(t *testing.T) {
	f := create(t)
	now := noon()
	w := NewWriter(f, math.MaxInt64, func() time.Time { return now })
	for range 3 {
		w.Write(Stdout, []byte("a\nb\n"))
		now = now.Add(time.Nanosecond)
	}
	for _, times := range []bool{true, false} {
		r, err := newViewReader(f, View{Times: times})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for ; ; n++ {
			e, err := r.NextBatch()
			if err != nil {
				break
			}
			if want := noon().Add(time.Duration(n)); !e.Time.Equal(want) || times && string(e.Data) != "a\nb\n" {
				t.Errorf("%q at %v, want %v", e.Data, e.Time, want)
			}
		}
		if want := map[bool]int{true: 3, false: 1}[times]; n != want {
			t.Errorf("Times %v: %d entries, want %d", times, n, want)
		}
	}
}

// sparing counts what is read.
type sparing struct {
	io.ReaderAt
	n int64
}

func (s *sparing) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.ReaderAt.ReadAt(p, off)
	s.n += int64(n)
	return n, err
}

// TestTailReadsLittle: the end of a long log is found from its end.
func TestTailReadsLittle(t *testing.T) {
	f := create(t)
	w := NewWriter(f, math.MaxInt64, nil)
	for i := range 100_000 {
		w.Write(Stdout, fmt.Appendf(nil, "line %d\n", i))
	}
	s := &sparing{ReaderAt: f}
	v := View{Tail: true, Lines: 10}
	start, err := v.start(s, w.off)
	if err != nil {
		t.Fatal(err)
	}
	if got := recordsOf(t, f, View{Offset: start}); len(got) != 10 || string(got[0].Data) != "line 99990\n" {
		t.Errorf("%d records", len(got))
	}
	if s.n > 2*maxLine {
		t.Errorf("read %d bytes of %d", s.n, w.off)
	}
}

// TestTailOdd: from the end as from the beginning, what is no record counts for nothing: a torn end, a line longer than any
// record, zeros where a power cut left a file longer than its data.
func TestTailOdd(t *testing.T) {
	record := stamp + " stdout F x\n"
	long := strings.Repeat("y", 5*maxLine)
	for _, s := range []string{
		"", "\n", record, record[:20], record + record[:20], record + strings.Repeat("\x00", 4096), record + long, long + "\n" + record,
		record + long + "\n" + record, record + stamp + " stdout P " + strings.Repeat("z", maxLine) + "\n" + record,
		record + stamp + " stdout P " + strings.Repeat("z", maxLine-len(stamp)-len(" stdout P ")-1) + "\n" + record,
		strings.Repeat(record, 3) + "rubbish\n\n\n" + record, strings.Repeat(strings.Repeat("q", maxLine-1)+"\n", 5) + record,
	} {
		for lines := range int64(4) {
			checkView(t, strings.NewReader(s), int64(len(s)), View{Tail: true, Lines: lines})
		}
	}
}

func FuzzView(f *testing.F) {
	record := stamp + " stdout F x\n"
	for _, s := range []string{"", "\n", record, record + record[:20], stamp + " stderr P \n" + record, record + "\x00\x00\n" + record} {
		f.Add([]byte(s), int64(0), uint8(0), int64(1), uint16(0))
		f.Add([]byte(s), int64(3), uint8(2), int64(0), uint16(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, offset int64, stream uint8, lines int64, cut uint16) {
		// A power cut: what is behind that is gone.
		data = data[:len(data)-min(len(data), int(cut))]
		v := View{Offset: max(offset, 0), Stream: Stream(stream % 3)}
		checkView(t, bytes.NewReader(data), int64(len(data)), v)
		v.Tail, v.Lines = true, max(lines, 0)
		checkView(t, bytes.NewReader(data), int64(len(data)), v)
		v.Since = noon()
		checkView(t, bytes.NewReader(data), int64(len(data)), v)
		checkBatches(t, bytes.NewReader(wellFormed(data)))
	})
}

// wellFormed are the lines of data that are records.
func wellFormed(data []byte) []byte {
	var good []byte
	for line := range bytes.Lines(data) {
		if r := (&Reader{}); len(line) <= maxLine && line[len(line)-1] == '\n' {
			if _, reason := r.parse(line); reason == "" {
				good = append(good, line...)
			}
		}
	}
	return good
}

// TestViewsOfRandomLogs holds all kinds of views of logs with long and short lines to what is found without them.
func TestViewsOfRandomLogs(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 30 {
		f := create(t)
		now := noon()
		w := NewWriter(f, math.MaxInt64, func() time.Time { return now })
		for range rng.IntN(60) {
			now = now.Add(time.Duration(rng.IntN(3)) * time.Second)
			chunk := bytes.Repeat([]byte("x"), rng.IntN(1+rng.IntN(60_000)))
			for range rng.IntN(4) {
				if len(chunk) > 0 {
					chunk[rng.IntN(len(chunk))] = '\n'
				}
			}
			w.Write(Stdout+Stream(rng.IntN(2)), chunk)
		}
		if rng.IntN(2) == 0 { // torn
			if err := os.Truncate(f.Name(), max(0, w.off-rng.Int64N(100))); err != nil {
				t.Fatal(err)
			}
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		for range 6 {
			v := View{Stream: Stream(rng.IntN(3)), Tail: rng.IntN(2) == 0, Lines: rng.Int64N(30)}
			if rng.IntN(2) == 0 {
				v.Since = noon().Add(time.Duration(rng.IntN(60)) * time.Second)
			}
			if rng.IntN(2) == 0 {
				v.Until = noon().Add(time.Duration(rng.IntN(60)) * time.Second)
			}
			checkView(t, f, info.Size(), v)
		}
	}
}

// TestFollowView follows from the last line on, and until a time that is still to come.
func TestFollowView(t *testing.T) {
	w := newWatcher(t)
	f := create(t)
	out := NewWriter(f, math.MaxInt64, nil)
	out.Write(Stdout, []byte("a\nb\n"))
	got := make(chan string, 10)
	ended := make(chan error, 1)
	v := View{Stream: Stdout, Tail: true, Lines: 1, Until: time.Now().Add(300 * time.Millisecond)}
	go func() {
		ended <- w.Follow(t.Context(), f, v, nil, func(e Entry) error {
			got <- string(e.Data)
			return nil
		})
	}()
	if s := <-got; s != "b\n" {
		t.Errorf("the last line is %q", s)
	}
	out.Write(Stderr, []byte("no\n"))
	out.Write(Stdout, []byte("c\n"))
	if s := <-got; s != "c\n" {
		t.Errorf("then comes %q", s)
	}
	if err := <-ended; err != nil || time.Now().Before(v.Until) {
		t.Errorf("ended before its time, or with %v", err)
	}
}

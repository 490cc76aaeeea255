package log

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

// checkBatches compares NextBatch with Next.
func checkBatches(t testing.TB, r io.ReaderAt) {
	t.Helper()
	one, many := NewReader(r, 0), NewReader(r, 0)
	for {
		batch, err := many.NextBatch()
		if err == io.EOF {
			if _, err := one.Next(); err != io.EOF {
				t.Fatalf("the batches end early: %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(batch.Data) > maxBatch {
			t.Fatalf("a batch of %d bytes", len(batch.Data))
		}
		rest := batch.Data
		for first := true; first || len(rest) > 0; first = false {
			e, err := one.Next()
			if err != nil {
				t.Fatal(err)
			}
			if first && !e.Time.Equal(batch.Time) || e.Stream != batch.Stream || !bytes.HasPrefix(rest, e.Data) {
				t.Fatalf("batch %+v has not %+v", batch, e)
			}
			rest = rest[len(e.Data):]
			if len(rest) == 0 && e.Offset != batch.Offset {
				t.Fatalf("a batch ends at %d, its last record at %d", batch.Offset, e.Offset)
			}
		}
	}
}

func TestReaderFormat(t *testing.T) {
	good := stamp + " stdout F good\n"
	for _, c := range []struct {
		line, want, reason string
	}{
		{line: stamp + " stdout F x\n", want: "x\n"},
		{line: stamp + " stderr P x\n", want: "x"},
		{line: stamp + " stdout F \n", want: "\n"},
		{line: stamp + " stdout P \n", want: ""},
		{line: stamp + " stdout F:later:tags x\n", want: "x\n"},
		{line: stamp + " stdout F  x \n", want: " x \n"},
		{line: "2026-03-01T13:00:00+01:00 stdout F x\n", want: "x\n"},
		{line: "\n", reason: "time is not RFC 3339"},
		{line: stamp + "\n", reason: "time is not RFC 3339"},
		{line: "2026-13-01T00:00:00Z stdout F x\n", reason: "time is not RFC 3339"},
		{line: strings.Repeat("9", 200) + " stdout F x\n", reason: "time is not RFC 3339"},
		{line: " stdout F x\n", reason: "time is not RFC 3339"},
		{line: stamp + " stdin F x\n", reason: "stream is neither stdout nor stderr"},
		{line: stamp + " \n", reason: "stream is neither stdout nor stderr"},
		{line: stamp + " stdout X x\n", reason: "tag is neither F nor P"},
		{line: stamp + " stdout FF x\n", reason: "tag is neither F nor P"},
		{line: stamp + " stdout  x\n", reason: "tag is neither F nor P"},
		{line: stamp + " stdout F\n", reason: "tag is neither F nor P"},
		{line: stamp + " stdout F:x\n", reason: "no content"},
	} {
		r := NewReader(strings.NewReader(good+c.line+good), 0)
		if e, err := r.Next(); err != nil || string(e.Data) != "good\n" || !e.Time.Equal(noon()) {
			t.Fatalf("%q: before it: %+v, %v", c.line, e, err)
		}
		e, err := r.Next()
		var malformed *FormatError
		switch {
		case c.reason == "" && (err != nil || string(e.Data) != c.want || e.Offset != int64(len(good)+len(c.line))):
			t.Errorf("%q: %+v, %v", c.line, e, err)
		case c.reason != "" && (!errors.As(err, &malformed) || *malformed != FormatError{Offset: int64(len(good)), Reason: c.reason}):
			t.Errorf("%q: %v", c.line, err)
		}
		if e, err := r.Next(); err != nil || string(e.Data) != "good\n" || !e.Time.Equal(noon()) {
			t.Errorf("%q: behind it: %+v, %v", c.line, e, err)
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("%q: at the end: %v", c.line, err)
		}
	}
}

// TestReaderTornTail reads a file as it grows byte by byte, with the tail replaced on the way, as Writer does after a
// failed write.
func TestReaderTornTail(t *testing.T) {
	f := create(t)
	r := NewReader(f, 0)
	record := []byte(stamp + " stdout F whole\n")
	size := int64(0)
	for n := range record {
		for _, torn := range [][]byte{record[:n], bytes.Repeat([]byte("#"), n)} {
			if _, err := f.Write(torn); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if e, err := r.Next(); err != io.EOF {
					t.Fatalf("%q: %+v, %v", torn, e, err)
				}
			}
			if err := f.Truncate(size); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.Write(record); err != nil {
			t.Fatal(err)
		}
		size += int64(len(record))
		if e, err := r.Next(); err != nil || string(e.Data) != "whole\n" || e.Offset != size {
			t.Fatalf("%+v, %v", e, err)
		}
	}
}

func TestReaderResumes(t *testing.T) {
	f := create(t)
	w := NewWriter(f, math.MaxInt64, nil)
	rng := rand.New(rand.NewPCG(7, 7))
	for range 30 {
		w.Write(Stdout+Stream(rng.IntN(2)), bytes.Repeat([]byte("ab\n"), 1+rng.IntN(5)))
	}
	all, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	var entries []Entry
	for r := NewReader(f, 0); ; {
		e, err := r.Next()
		if err != nil {
			break
		}
		entries = append(entries, Entry{Offset: e.Offset, Data: bytes.Clone(e.Data)})
	}
	next := 0 // the record that begins at or behind offset
	for offset := range all {
		if next < len(entries)-1 && offset > 0 && int64(offset) > offsetBefore(entries, next) {
			next++
		}
		e, err := NewReader(f, int64(offset)).Next()
		if int64(offset) > offsetBefore(entries, next) {
			if err != io.EOF {
				t.Fatalf("offset %d, in the last record: %+v, %v", offset, e, err)
			}
			continue
		}
		if err != nil || e.Offset != entries[next].Offset {
			t.Fatalf("offset %d: %+v, %v; want the record before %d", offset, e, err, entries[next].Offset)
		}
	}
	for _, offset := range []int64{int64(len(all)), int64(len(all)) + 1, 1 << 62} {
		if e, err := NewReader(f, offset).Next(); err != io.EOF {
			t.Fatalf("offset %d: %+v, %v", offset, e, err)
		}
	}
}

func offsetBefore(entries []Entry, i int) int64 {
	if i == 0 {
		return 0
	}
	return entries[i-1].Offset
}

// endless is a file of size bytes without a newline, except for a record at its end.
type endless struct {
	size int64
	tail []byte
}

func (e endless) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for ; n < len(p) && off+int64(n) < e.size; n++ {
		p[n] = 'x'
	}
	if n < len(p) {
		m, err := bytes.NewReader(e.tail).ReadAt(p[n:], off+int64(n)-e.size)
		return n + m, err
	}
	return n, nil
}

func TestReaderGiganticLine(t *testing.T) {
	const size = 32 << 20
	r := NewReader(endless{size, []byte("\n" + stamp + " stdout F behind\n")}, 0)
	var malformed *FormatError
	if _, err := r.Next(); !errors.As(err, &malformed) || malformed.Offset != 0 {
		t.Fatal(err)
	}
	if e, err := r.Next(); err != nil || string(e.Data) != "behind\n" {
		t.Fatalf("%+v, %v", e, err)
	}
	if len(r.buf) != maxLine {
		t.Fatalf("a buffer of %d bytes", len(r.buf))
	}
	// The longest line that is read, and one byte more.
	head := stamp + " stdout F "
	fits := head + strings.Repeat("y", maxLine-len(head)-1) + "\n"
	if e, err := NewReader(strings.NewReader(fits), 0).Next(); err != nil || len(e.Data) != maxLine-len(head) {
		t.Fatal(err)
	}
	if _, err := NewReader(strings.NewReader("\n"+"y"+fits), 1).Next(); !errors.As(err, &malformed) || malformed.Offset != 1 {
		t.Fatal(err)
	}
}

// failing fails its first read.
type failing struct {
	io.ReaderAt
	err error
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if err := f.err; err != nil {
		f.err = nil
		return 0, err
	}
	return f.ReaderAt.ReadAt(p, off)
}

func TestReaderReadError(t *testing.T) {
	broken := errors.New("broken")
	r := NewReader(&failing{strings.NewReader(stamp + " stdout F x\n"), broken}, 0)
	if _, err := r.Next(); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if e, err := r.Next(); err != nil || string(e.Data) != "x\n" {
		t.Fatalf("%+v, %v", e, err)
	}
}

func FuzzReader(f *testing.F) {
	record := stamp + " stdout F x\n"
	for _, s := range []string{"", "\n", record, record + record[:20], stamp + " stderr P \n", record + "\x00\x00\n" + record} {
		f.Add([]byte(s), int64(0))
		f.Add([]byte(s), int64(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, offset int64) {
		for _, next := range []func(*Reader) (Entry, error){(*Reader).Next, (*Reader).NextBatch} {
			r := NewReader(bytes.NewReader(data), offset)
			last := max(offset, 0)
			for calls := 0; ; calls++ {
				e, err := next(r)
				if err == io.EOF {
					break
				}
				var malformed *FormatError
				if err != nil && !errors.As(err, &malformed) {
					t.Fatal(err)
				}
				if calls > len(data) {
					t.Fatal("more records than bytes")
				}
				if err != nil {
					continue
				}
				if e.Offset <= last || e.Offset > int64(len(data)) || data[e.Offset-1] != '\n' {
					t.Fatalf("offset %d after %d of %d", e.Offset, last, len(data))
				}
				last = e.Offset
			}
		}
	})
}

func TestReaderAllocates(t *testing.T) {
	f := create(t)
	w := NewWriter(f, math.MaxInt64, nil)
	for range 2000 {
		w.Write(Stdout, []byte("a line\n"))
	}
	r := NewReader(f, 0)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations for each record", n)
	}
}

func BenchmarkReader(b *testing.B) {
	for name, chunk := range workloads() {
		f := create(b)
		w := NewWriter(f, math.MaxInt64, nil)
		for n := 0; n < 16<<20; n += len(chunk) {
			w.Write(Stdout, chunk)
		}
		written, _ := w.Stats()
		for kind, next := range map[string]func(*Reader) (Entry, error){"one": (*Reader).Next, "batch": (*Reader).NextBatch} {
			b.Run(kind+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(written))
				b.ReportAllocs()
				for b.Loop() {
					total := 0
					for r := NewReader(f, 0); ; {
						e, err := next(r)
						if err != nil {
							break
						}
						total += len(e.Data)
					}
					if total != int(written) {
						b.Fatal(total)
					}
				}
			})
		}
	}
}

func TestStreamString(t *testing.T) {
	if Stdout.String() != "stdout" || Stderr.String() != "stderr" {
		t.Fatal("names")
	}
	if len(noon().AppendFormat(nil, timeFormat)) != len(time.RFC3339Nano)-len("07:00") {
		t.Fatal("the time is not of fixed width")
	}
}

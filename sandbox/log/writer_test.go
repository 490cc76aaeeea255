package log

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const stamp = "2026-03-01T12:00:00.000000042Z"

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 42, time.UTC) }

func create(t testing.TB) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// contents returns what the records of r hold, by stream, and fails on anything that is no whole record.
func contents(t testing.TB, r io.ReaderAt) (stdout, stderr []byte) {
	t.Helper()
	by := make(map[Stream][]byte)
	for rd := NewReader(r, 0); ; {
		e, err := rd.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		by[e.Stream] = append(by[e.Stream], e.Data...)
	}
	return by[Stdout], by[Stderr]
}

func checkStats(t testing.TB, w *Writer, written, dropped int) {
	t.Helper()
	if gw, gd := w.Stats(); gw != uint64(written) || gd != uint64(dropped) {
		t.Fatalf("stats: %d written, %d dropped; want %d and %d", gw, gd, written, dropped)
	}
}

func TestWriterFormat(t *testing.T) {
	long := strings.Repeat("x", maxPiece)
	for _, c := range []struct {
		name   string
		chunks []string
		want   []string
	}{
		{"line", []string{"hello\n"}, []string{"F hello"}},
		{"empty line", []string{"\n"}, []string{"F "}},
		{"prompt", []string{"name? "}, []string{"P name? "}},
		{"rest", []string{"a", "b\nc"}, []string{"P a", "F b", "P c"}},
		{"end of line alone", []string{"a", "\n"}, []string{"P a", "F "}},
		{"any byte", []string{"\x00\r\xff \n\r\n"}, []string{"F \x00\r\xff ", "F \r"}},
		{"nothing", []string{"", ""}, nil},
		{"long line", []string{long + "y\n"}, []string{"P " + long, "F y"}},
		{"longest line", []string{long[1:] + "\n"}, []string{"F " + long[1:]}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := create(t)
			w := NewWriter(f, math.MaxInt64, noon)
			for _, chunk := range c.chunks {
				w.Write(Stderr, []byte(chunk))
			}
			var want strings.Builder
			for _, r := range c.want {
				fmt.Fprintf(&want, "%s stderr %s\n", stamp, r)
			}
			if got, _ := os.ReadFile(f.Name()); string(got) != want.String() {
				t.Errorf("got  %.200q\nwant %.200q", got, want.String())
			}
			stdout, stderr := contents(t, f)
			if len(stdout) > 0 || string(stderr) != strings.Join(c.chunks, "") {
				t.Errorf("read back %.200q and %.200q", stdout, stderr)
			}
		})
	}
}

// roundTrip writes data in chunks of random sizes to random streams and reads it back.
func roundTrip(t testing.TB, data []byte, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	f := create(t)
	w := NewWriter(f, math.MaxInt64, nil)
	want := make(map[Stream][]byte)
	for size := 1 + rng.IntN(1+len(data)); len(data) > 0; {
		chunk := data[:min(len(data), 1+rng.IntN(size))]
		data = data[len(chunk):]
		stream := Stdout + Stream(rng.IntN(2))
		want[stream] = append(want[stream], chunk...)
		w.Write(stream, chunk)
	}
	checkStats(t, w, len(want[Stdout])+len(want[Stderr]), 0)
	stdout, stderr := contents(t, f)
	if !bytes.Equal(stdout, want[Stdout]) || !bytes.Equal(stderr, want[Stderr]) {
		t.Fatal("what was read is not what was written")
	}
	checkBatches(t, f)
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("a\nb"), uint64(1))
	f.Add([]byte("\x00\n\n\r\n"), uint64(2))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) { roundTrip(t, data, seed) })
}

func TestRoundTrip(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, rng.IntN(200<<10))
		alphabet := 2 + rng.IntN(255) // few letters make many newlines
		for i := range data {
			data[i] = byte('\n' + rng.IntN(alphabet))
		}
		roundTrip(t, data, seed)
	}
}

func TestWriterCap(t *testing.T) {
	const output = "one\ntwo\nthree"
	for limit := -1; limit <= len(output)+1; limit++ {
		for chunk := 1; chunk <= len(output); chunk++ {
			f := create(t)
			w := NewWriter(f, int64(limit), noon)
			for p := []byte(output); len(p) > 0; {
				n := min(chunk, len(p))
				w.Write(Stdout, p[:n])
				p = p[n:]
			}
			kept := min(max(limit, 0), len(output))
			checkStats(t, w, kept, len(output)-kept)
			if stdout, _ := contents(t, f); string(stdout) != output[:kept] {
				t.Fatalf("cap %d, chunk %d: kept %q", limit, chunk, stdout)
			}
			f.Close()
		}
	}
}

func TestWriterAppends(t *testing.T) {
	f := create(t)
	NewWriter(f, 1<<20, noon).Write(Stdout, []byte("first\n"))
	failing := &faulty{File: f, write: func(n int) int { return n / 2 }}
	w := newWriter(failing, 1<<20, noon)
	w.Write(Stdout, []byte("lost\n"))
	failing.write = nil
	w.Write(Stdout, []byte("second\n"))
	if stdout, _ := contents(t, f); string(stdout) != "first\nsecond\n" {
		t.Fatalf("got %q", stdout)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w.Write(Stdout, []byte("late"))
	checkStats(t, w, len("second\n"), len("lost\nlate"))
}

// faulty is a file on a disk that fails.
type faulty struct {
	*os.File
	write    func(n int) int // how many of n bytes are written before it fails
	truncate error
	sizes    []int64
}

func (f *faulty) Write(p []byte) (int, error) {
	if f.write == nil {
		return f.File.Write(p)
	}
	n, err := f.File.Write(p[:f.write(len(p))])
	if err == nil && n < len(p) {
		err = &os.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
	}
	return n, err
}

func (f *faulty) Truncate(size int64) error {
	f.sizes = append(f.sizes, size)
	if f.truncate != nil {
		return f.truncate
	}
	return f.File.Truncate(size)
}

func TestWriterFaults(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 2))
		f := &faulty{File: create(t)}
		f.write = func(n int) int {
			if rng.IntN(2) == 0 {
				return n
			}
			return rng.IntN(n)
		}
		w := newWriter(f, math.MaxInt64, nil)
		want := make(map[Stream][]byte)
		total := 0
		for range 50 {
			f.truncate = nil
			if rng.IntN(4) == 0 {
				f.truncate = syscall.EIO
			}
			chunk := make([]byte, 1+rng.IntN(1<<rng.IntN(17)))
			for i := range chunk {
				chunk[i] = byte('\n' + rng.IntN(20))
			}
			stream := Stdout + Stream(rng.IntN(2))
			before, _ := w.Stats()
			w.Write(stream, chunk)
			after, _ := w.Stats()
			// What is kept of a chunk is its beginning.
			want[stream] = append(want[stream], chunk[:after-before]...)
			total += len(chunk)
			checkStats(t, w, int(after), total-int(after))
			if info, _ := f.Stat(); info.Size() != w.off && f.truncate == nil {
				t.Fatal("a torn record was left behind")
			}
			stdout, stderr := contents(t, f)
			if !bytes.Equal(stdout, want[Stdout]) || !bytes.Equal(stderr, want[Stderr]) {
				t.Fatalf("seed %d: what was read is not what was kept", seed)
			}
		}
		f.Close()
	}
}

func TestWriterLeavesWholeFileAlone(t *testing.T) {
	f := &faulty{File: create(t)}
	w := newWriter(f, math.MaxInt64, noon)
	w.Write(Stdout, []byte("a\n"))
	f.write = func(int) int { return 0 }
	w.Write(Stdout, []byte("b\n"))
	if len(f.sizes) > 0 {
		t.Fatalf("truncated to %d although nothing was written", f.sizes)
	}
	checkStats(t, w, 2, 2)
}

func TestWriterConcurrent(t *testing.T) {
	f := create(t)
	w := NewWriter(f, math.MaxInt64, nil)
	var wg sync.WaitGroup
	var want [2]bytes.Buffer
	for i, stream := range []Stream{Stdout, Stderr} {
		wg.Go(func() {
			for n := range 1000 {
				chunk := fmt.Appendf(nil, "%s %d\n%s", stream, n, strings.Repeat("z", n%50))
				want[i].Write(chunk)
				w.Write(stream, chunk)
				w.Stats()
			}
		})
	}
	wg.Wait()
	stdout, stderr := contents(t, f)
	if !bytes.Equal(stdout, want[0].Bytes()) || !bytes.Equal(stderr, want[1].Bytes()) {
		t.Fatal("what was read is not what was written")
	}
}

// tinyDisk returns a folder on a tmpfs of size bytes that is mounted nowhere and goes with the test.
func tinyDisk(t *testing.T, size int) string {
	t.Helper()
	permitted := func(err error) {
		t.Helper()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
			t.Skipf("SKIPPED: no tmpfs can be made here: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	conf, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	permitted(err)
	defer unix.Close(conf)
	permitted(unix.FsconfigSetString(conf, "size", fmt.Sprint(size)))
	permitted(unix.FsconfigCreate(conf))
	root, err := unix.Fsmount(conf, unix.FSMOUNT_CLOEXEC, 0)
	permitted(err)
	t.Cleanup(func() { unix.Close(root) })
	return fmt.Sprintf("/proc/self/fd/%d", root)
}

func TestWriterDiskFull(t *testing.T) {
	dir := tinyDisk(t, 256<<10)
	f, err := os.OpenFile(dir+"/log", os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ballast := dir + "/ballast"
	if err := os.WriteFile(ballast, make([]byte, 100<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	w := NewWriter(f, math.MaxInt64, nil)
	var want []byte
	total := 0
	fill := func() {
		for i := range 3000 {
			chunk := fmt.Appendf(nil, "line %d\n%s\nand a rest", i, strings.Repeat("x", i%500))
			before, _ := w.Stats()
			w.Write(Stdout, chunk)
			after, _ := w.Stats()
			want = append(want, chunk[:after-before]...)
			total += len(chunk)
		}
	}
	fill()
	written, dropped := w.Stats()
	if written == 0 || dropped == 0 {
		t.Fatalf("the disk was not full: %d written, %d dropped", written, dropped)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	fill()
	more, _ := w.Stats()
	if more < written+30<<10 {
		t.Fatalf("writing did not go on: %d bytes, then %d", written, more)
	}
	checkStats(t, w, len(want), total-len(want))
	if stdout, _ := contents(t, f); !bytes.Equal(stdout, want) {
		t.Fatal("what was read is not what was kept")
	}
	if info, _ := f.Stat(); info.Size() != w.off {
		t.Fatal("a torn record was left behind")
	}
}

func TestWriterAllocates(t *testing.T) {
	w := NewWriter(create(t), math.MaxInt64, nil)
	chunk := bytes.Repeat([]byte("a line of output\n"), 1000)
	w.Write(Stdout, chunk)
	if n := testing.AllocsPerRun(100, func() { w.Write(Stdout, chunk) }); n > 0 {
		t.Errorf("%v allocations for each chunk", n)
	}
}

// null takes everything and keeps nothing.
type null struct{ *os.File }

func (null) Write(p []byte) (int, error) { return len(p), nil }

func workloads() map[string][]byte {
	binary := make([]byte, 64<<10)
	for i := range binary {
		binary[i] = byte(11 + i%200)
	}
	return map[string][]byte{
		"lines=16":  bytes.Repeat([]byte(strings.Repeat("l", 15)+"\n"), 4<<10),
		"lines=128": bytes.Repeat([]byte(strings.Repeat("l", 127)+"\n"), 512),
		"binary":    binary,
	}
}

func BenchmarkWriter(b *testing.B) {
	for name, chunk := range workloads() {
		b.Run("format/"+name, func(b *testing.B) {
			w := newWriter(null{create(b)}, math.MaxInt64, nil)
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			for b.Loop() {
				w.Write(Stdout, chunk)
			}
		})
		b.Run("file/"+name, func(b *testing.B) {
			f := create(b)
			w := NewWriter(f, math.MaxInt64, nil)
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			for b.Loop() {
				if w.off > 512<<20 { // in the page cache, not on the disk
					_ = f.Truncate(0)
					w.off = 0
				}
				w.Write(Stdout, chunk)
			}
		})
	}
}

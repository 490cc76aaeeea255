package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/iotest"
)

// framed is messages of gRPC of these sizes.
func framed(sizes ...int) []byte {
	var b []byte
	for i, n := range sizes {
		b = append(b, byte(i%2))
		b = binary.BigEndian.AppendUint32(b, uint32(n))
		b = append(b, bytes.Repeat([]byte{byte(i)}, n)...)
	}
	return b
}

func replyOf(t testing.TB, body io.Reader) *messages {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://rtask", nil)
	if err != nil {
		t.Fatal(err)
	}
	return &messages{ReadCloser: io.NopCloser(body), reply: &http.Response{Request: r}, disconnect: func() {}}
}

// However a reply comes in pieces and wherever it breaks off, what is handed on of it is whole messages, and then it is unavailable.
func TestMessages(t *testing.T) {
	whole := framed(0, 1, 4096, 100_000, 7, maxHeld-prefixBytes, 3)
	for name, pieces := range map[string]func(io.Reader) io.Reader{
		"all at once": func(r io.Reader) io.Reader { return r }, "halves": iotest.HalfReader, "with the error": iotest.DataErrReader,
	} {
		got, err := io.ReadAll(replyOf(t, pieces(bytes.NewReader(whole))))
		if err != nil || !bytes.Equal(got, whole) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	broken := errors.New("connection reset")
	small := framed(0, 1, 20, 7, 3)
	ends := map[int]bool{0: true, 5: true, 11: true, 36: true, 48: true, 56: true}
	last := 0
	for n := range len(small) + 1 {
		if ends[n] {
			last = n
		}
		for name, pieces := range map[string]func(io.Reader) io.Reader{"bytes": iotest.OneByteReader, "all": func(r io.Reader) io.Reader { return r }} {
			m := replyOf(t, pieces(io.MultiReader(bytes.NewReader(small[:n]), iotest.ErrReader(broken))))
			got, err := io.ReadAll(m)
			if err != nil || !bytes.Equal(got, small[:last]) || m.reply.Trailer.Get("Grpc-Status") != "14" {
				t.Errorf("%s, broken behind %d bytes: %d bytes, %v, %v", name, n, len(got), err, m.reply.Trailer)
			}
		}
	}
	// A message that is too long to be held comes as it comes.
	long := framed(2, maxHeld, 5)
	m := replyOf(t, io.MultiReader(bytes.NewReader(long[:50_000]), iotest.ErrReader(broken)))
	disconnected := false
	m.disconnect = func() { disconnected = true }
	if got, err := io.ReadAll(m); !errors.Is(err, broken) || len(got) != 50_000 || m.reply.Trailer != nil || !disconnected {
		t.Errorf("%d bytes, %v, %v, disconnected %v", len(got), err, m.reply.Trailer, disconnected)
	}
	if got, err := io.ReadAll(replyOf(t, bytes.NewReader(long))); err != nil || !bytes.Equal(got, long) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if n := cap(replyHeld(t, long)); n > 2*maxHeld {
		t.Errorf("%d bytes are held", n)
	}
}

// replyHeld is what a reply has held when all of it was read.
func replyHeld(t *testing.T, b []byte) []byte {
	t.Helper()
	m := replyOf(t, bytes.NewReader(bytes.Repeat(b, 4)))
	if _, err := io.ReadAll(m); err != nil {
		t.Fatal(err)
	}
	return m.held
}

// A client that has gone away itself is not told that the engine has.
func TestMessagesOfNobody(t *testing.T) {
	m := replyOf(t, iotest.ErrReader(errors.New("context canceled")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m.reply.Request = m.reply.Request.WithContext(ctx)
	if _, err := io.ReadAll(m); err == nil || m.reply.Trailer != nil {
		t.Errorf("%v, %v", err, m.reply.Trailer)
	}
}

// FuzzMessages: of any reply, what is handed on is what came, but for the part of a message where it breaks off.
func FuzzMessages(f *testing.F) {
	f.Add(framed(0, 1, 20), 3, true)
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 1}, 1, false)
	f.Fuzz(func(t *testing.T, b []byte, piece int, ends bool) {
		in := []io.Reader{bytes.NewReader(b)}
		if !ends {
			in = append(in, iotest.ErrReader(errors.New("connection reset")))
		}
		m := replyOf(t, io.MultiReader(in...))
		disconnected := false
		m.disconnect = func() { disconnected = true }
		buffer := make([]byte, max(1, piece%5000))
		var got []byte
		for {
			n, err := m.Read(buffer)
			got = append(got, buffer[:n]...)
			if err == io.EOF || err != nil && disconnected {
				break
			}
			if err != nil || n == 0 {
				t.Fatal(n, err)
			}
		}
		if !bytes.HasPrefix(b, got) || ends && len(got) != len(b) || !ends && (m.reply.Trailer.Get("Grpc-Status") != "14") != disconnected {
			t.Errorf("%d bytes of %d, %v", len(got), len(b), m.reply.Trailer)
		}
	})
}

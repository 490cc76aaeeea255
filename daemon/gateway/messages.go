package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"connectrpc.com/connect/v2"
)

const (
	// prefixBytes is what stands before each message of gRPC: a flag and the length (gRPC over HTTP2, Length-Prefixed-Message).
	prefixBytes = 5
	// maxHeld is the longest message, with that, that is held until all of it is there. The engine's pieces of output are shorter.
	maxHeld = 128 << 10
	// firstHeld is how many bytes are read at a time at first.
	firstHeld = 4 << 10
)

// messages is the body of a gRPC reply, of which whole messages are handed on. When the engine goes away meanwhile, the reply ends
// behind the last one with the status UNAVAILABLE: clients take a reply that breaks off, or half a message, for INTERNAL. If half of a
// message too long to be held has been sent, only a connection that ends is UNAVAILABLE to them. The engine that went away had all its
// other requests, too. Where the engine has ended that one reply alone, it breaks off alone.
type messages struct {
	io.ReadCloser
	reply      *http.Response
	disconnect func() // ends the client's connection

	held  []byte
	whole int   // how many bytes of held can be handed on
	long  int64 // how many bytes still come of a message that is too long to be held
	err   error // behind held
}

// streamError is a stream that the other end has reset (RFC 9113, section 5.4.2): net/http makes its own error one of any type with these
// fields.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

// Error implements error.
func (e streamError) Error() string {
	return fmt.Sprintf("stream %d was reset with code %d", e.StreamID, e.Code)
}

// Read implements io.Reader.
func (m *messages) Read(b []byte) (int, error) {
	for m.whole == 0 {
		switch {
		case m.err == io.EOF && len(m.held) > 0: // the engine ended it so
			m.whole = len(m.held)
		case m.err != nil:
			return 0, m.end()
		default:
			m.fill()
		}
	}
	n := copy(b, m.held[:m.whole])
	m.whole -= n
	m.held = m.held[:copy(m.held, m.held[n:])]
	return n, nil
}

// fill reads on, and sees how much of that is whole.
func (m *messages) fill() {
	if len(m.held) == cap(m.held) {
		longer := make([]byte, len(m.held), max(2*cap(m.held), firstHeld))
		copy(longer, m.held)
		m.held = longer
	}
	n, err := m.ReadCloser.Read(m.held[len(m.held):cap(m.held)])
	m.held = m.held[:len(m.held)+n]
	m.err = err
	for m.whole < len(m.held) {
		rest := m.held[m.whole:]
		if m.long == 0 {
			if len(rest) < prefixBytes {
				return
			}
			size := prefixBytes + int64(binary.BigEndian.Uint32(rest[1:prefixBytes]))
			if size <= maxHeld && int64(len(rest)) < size {
				return
			}
			m.long = size
		}
		n := min(m.long, int64(len(rest)))
		m.whole += int(n)
		m.long -= n
	}
}

// end returns the error behind the last message.
func (m *messages) end() error {
	if m.err == io.EOF || m.reply.Request.Context().Err() != nil {
		return m.err
	}
	if m.long > 0 {
		if _, alone := errors.AsType[streamError](m.err); !alone {
			m.disconnect()
		}
		return m.err
	}
	if m.reply.Trailer == nil {
		m.reply.Trailer = http.Header{}
	}
	m.reply.Trailer.Set("Grpc-Status", strconv.Itoa(int(connect.CodeUnavailable)))
	m.reply.Trailer.Set("Grpc-Message", "the engine went away")
	return io.EOF
}

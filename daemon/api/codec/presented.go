package codec

import (
	"context"
	"net/http"

	"connectrpc.com/connect/v2"
)

// The head of a call in which the gateway says what a client presented.
const (
	headerKey    = "Rtask-Key-Bin"
	headerRemote = "Rtask-Remote-Addr"
	headerTask   = "Rtask-Task"
)

// Presented is what the gateway knows of a client on the network. Nothing of it is checked.
type Presented struct {
	// Key is the API key; nil: there is none.
	Key []byte
	// RemoteAddr is the client's address without the port, or "unix".
	RemoteAddr string
	// Task is the task that the request names; "": none.
	Task string
}

// Put writes it into the head of a call.
func (p Presented) Put(h interface{ Set(name, value string) }) {
	if p.Key != nil {
		h.Set(headerKey, connect.EncodeBinaryHeader(p.Key))
	}
	h.Set(headerRemote, p.RemoteAddr)
	if p.Task != "" {
		h.Set(headerTask, p.Task)
	}
}

// Context returns the context for a call on behalf of that client.
func (p Presented) Context(ctx context.Context) context.Context {
	ctx, info := connect.NewClientContext(ctx)
	p.Put(info.RequestHeader())
	return ctx
}

// RemoteAddrIn returns the RemoteAddr that stands in the head of a call.
func RemoteAddrIn(h http.Header) string { return Printable(h.Get(headerRemote)) }

// PresentedIn returns what came with a call to a server. A key that is not encoded as it should be, or of which there are several, is
// an empty one.
func PresentedIn(ctx context.Context) Presented {
	info, ok := connect.CallInfoForServerContext(ctx)
	if !ok {
		return Presented{}
	}
	h := info.RequestHeader()
	p := Presented{RemoteAddr: Printable(h.Get(headerRemote)), Task: Printable(h.Get(headerTask))}
	keys := h.Values(headerKey)
	if len(keys) == 0 {
		return p
	}
	p.Key = []byte{}
	if len(keys) == 1 {
		if key, err := connect.DecodeBinaryHeader(keys[0]); err == nil {
			p.Key = key
		}
	}
	return p
}

package deliveries

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/rtask/rtask/daemon/auth/webhook"
)

// A file is a line of JSON and then the body, so that a list needs to read the lines only.

const (
	// maxHead is the longest such line, in bytes. The gateway takes requests with heads of at most 16 KiB, and base64 makes three
	// bytes four.
	maxHead = 256 << 10
	// version is that of the format.
	version = 1
)

// head is the line. Bytes are in base64.
type head struct {
	Version int `json:"version"`
	Meta
	Method  string       `json:"method,omitempty"`
	Query   []byte       `json:"query,omitempty"`
	Remote  string       `json:"remote,omitempty"`
	Headers []headHeader `json:"headers"`
}

type headHeader struct {
	Name  string `json:"name"`
	Value []byte `json:"value"`
}

// encode returns the content of a delivery's file.
func encode(d *Delivery) ([]byte, error) {
	h := head{Version: version, Meta: d.Meta, Method: d.Request.Method, Query: []byte(d.Request.Query), Remote: d.Request.Remote}
	h.Bytes = int64(len(d.Request.Body))
	for _, one := range d.Request.Headers {
		h.Headers = append(h.Headers, headHeader{one.Name, []byte(one.Value)})
	}
	line, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("cannot encode a delivery: %w", err)
	}
	if len(line) > maxHead {
		return nil, errTooLarge
	}
	return append(append(line, '\n'), d.Request.Body...), nil
}

// decode reads the line at the beginning of a file, of which content has that line at least, and returns its length.
func decode(content []byte) (*head, int, error) {
	end := bytes.IndexByte(content, '\n')
	if end < 0 || end > maxHead {
		return nil, 0, errBroken
	}
	h := &head{}
	if err := json.Unmarshal(content[:end], h); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", errBroken, err)
	}
	if h.Version != version {
		return nil, 0, fmt.Errorf("%w: it has the version %d", errBroken, h.Version)
	}
	return h, end + 1, nil
}

// readMeta reads the beginning of a file.
func readMeta(path string) (*entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errBroken
	}
	line, err := bufio.NewReader(io.LimitReader(f, maxHead+1)).ReadBytes('\n') // and nothing of a large body
	if err != nil && err != io.EOF {
		return nil, err
	}
	h, n, err := decode(line)
	switch {
	case err != nil:
		return nil, err
	case int64(n)+h.Bytes != info.Size():
		return nil, errBroken
	}
	return &entry{Meta: h.Meta, size: info.Size()}, nil
}

// readAll reads a file.
func readAll(path string) (*Delivery, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parse(content)
}

// parse reads the content of a file.
func parse(content []byte) (*Delivery, error) {
	h, n, err := decode(content)
	if err == nil && int64(len(content)-n) != h.Bytes {
		err = errBroken
	}
	if err != nil {
		return nil, err
	}
	d := &Delivery{Meta: h.Meta, Request: webhook.Request{Method: h.Method, Query: string(h.Query), Remote: h.Remote, Body: content[n:]}}
	for _, one := range h.Headers {
		d.Request.Headers = append(d.Request.Headers, webhook.Header{Name: one.Name, Value: string(one.Value)})
	}
	return d, nil
}

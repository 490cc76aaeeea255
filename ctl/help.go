package ctl

import (
	"bytes"
	"io"
)

// helpWriter wraps the lines of a help text, which the library prints as long as they are.
type helpWriter struct {
	to    io.Writer
	width int
	rest  []byte // a line that has not ended yet
}

// help is where help goes that is shown on to: as wide as the terminal, or as terminals usually are.
func (a *app) help(to io.Writer) *helpWriter {
	width := a.width()
	if width == 0 {
		width = usualWidth
	}
	return &helpWriter{to: to, width: width}
}

// Write implements io.Writer. It keeps what is behind the last end of a line.
func (h *helpWriter) Write(p []byte) (int, error) {
	h.rest = append(h.rest, p...)
	end := bytes.LastIndexByte(h.rest, '\n') + 1
	if _, err := io.WriteString(h.to, wrap(string(h.rest[:end]), h.width)); err != nil {
		return 0, err
	}
	h.rest = append(h.rest[:0], h.rest[end:]...)
	return len(p), nil
}

package logging

import (
	"bytes"
	"context"
	"log"
	"log/slog"
)

// ForServer returns what http.Server.ErrorLog is to be. Nearly all that net/http has to say is of what a client did (a handshake that
// failed, a preface that is none), of which anybody can have as much as it likes: that is for debugging. What is ours to know
// are panics and connections that cannot be accepted.
func ForServer(l *slog.Logger) *log.Logger { return log.New(complaints{l}, "", 0) }

type complaints struct{ *slog.Logger }

// Write implements io.Writer.
func (c complaints) Write(b []byte) (int, error) {
	level := slog.LevelDebug
	for _, ours := range []string{"http: panic", "http2: panic", "http: Accept error"} {
		if bytes.HasPrefix(b, []byte(ours)) {
			level = slog.LevelWarn
		}
	}
	c.Log(context.Background(), level, string(bytes.TrimRight(b, "\n")))
	return len(b), nil
}

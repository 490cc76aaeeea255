package shim

import (
	"bytes"
	"encoding/binary"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// journalSocket takes datagrams in the native journal protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL).
	journalSocket = "/run/systemd/journal/socket"
	// journalLine is the longest line sent as one entry, journald's LineMax= (journald.conf(5)).
	journalLine = 48 << 10
	// journalQueue is how many entries wait when journald is slow. Beyond it they are dropped and counted: the log file
	// is the truth, the journal a copy, and a job never waits for it.
	journalQueue = 1024
	// journalFlush bounds the wait for a slow journald after the job has ended.
	journalFlush = 2 * time.Second
)

// The MESSAGE_ID= of the entries that mark a job's life; packaging/systemd/rtask.catalog explains them to people.
const (
	messageStarted = "5f0c7c3a2b5e4d8c9a6e1f2d3b4c5a60"
	messageEnded   = "a1d4e6f8b2c34a5d8e7f9c0b1a2d3e4f"
)

// Priorities of entries (syslog(3)).
const (
	priorityInfo    = 6 // LOG_INFO
	priorityWarning = 4 // LOG_WARNING
)

// field is one field of a journal entry.
type field struct{ name, value string }

// journald is a connection to journald, and the queue before it. The jobs of a shim use it one after the other.
type journald struct {
	conn    *net.UnixConn
	entries chan []byte // nil: the end of a job's
}

// dialJournal returns nil where there is no journald.
func dialJournal() *journald {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: journalSocket, Net: "unixgram"})
	if err != nil {
		return nil
	}
	return &journald{conn: conn, entries: make(chan []byte, journalQueue)}
}

// Close closes the connection. No job may use it any more.
func (d *journald) Close() error { return d.conn.Close() }

// journal copies a job's lines to journald from a goroutine of its own. A nil *journal takes everything and does nothing.
type journal struct {
	to      *journald
	common  []byte
	dropped atomic.Uint64
	done    sync.WaitGroup
}

// openJournal returns the journal of a job behind d, which may be nil and stays the caller's. common fields are part of each
// entry.
func openJournal(d *journald, common []field) *journal {
	if d == nil {
		return nil
	}
	_ = d.conn.SetWriteDeadline(time.Time{}) // an open socket takes it
	j := &journal{to: d}
	for _, f := range common {
		j.common = appendField(j.common, f)
	}
	j.done.Go(func() {
		for e := range d.entries {
			if e == nil {
				return
			}
			if _, err := d.conn.Write(e); err != nil {
				j.dropped.Add(1)
			}
		}
	})
	return j
}

// send queues an entry.
func (j *journal) send(message []byte, priority int, fields ...field) {
	if j == nil {
		return
	}
	e := bytes.Clone(j.common)
	e = appendField(e, field{"PRIORITY", strconv.Itoa(priority)})
	for _, f := range fields {
		e = appendField(e, f)
	}
	e = appendBytes(e, "MESSAGE", message)
	select {
	case j.to.entries <- e:
	default:
		j.dropped.Add(1)
	}
}

// close sends what is queued, for a short time, and returns how many entries were dropped in all. Nothing may be sent after it.
func (j *journal) close() uint64 {
	if j == nil {
		return 0
	}
	// A deadline in the past for whoever still waits then; setting one on an open socket does not fail.
	_ = j.to.conn.SetWriteDeadline(time.Now().Add(journalFlush))
	j.to.entries <- nil // the queue goes on being emptied, so there will be room
	j.done.Wait()
	return j.dropped.Load()
}

func appendField(b []byte, f field) []byte { return appendBytes(b, f.name, []byte(f.value)) }

// appendBytes writes one field: NAME=value, or, where the value has a newline, the form with a length.
func appendBytes(b []byte, name string, value []byte) []byte {
	b = append(b, name...)
	if bytes.IndexByte(value, '\n') < 0 {
		b = append(b, '=')
	} else {
		b = append(b, '\n')
		b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	}
	return append(append(b, value...), '\n')
}

// lines cuts a stream into journal entries.
type lines struct {
	j        *journal
	stream   string
	priority int
	rest     []byte
}

func (l *lines) write(p []byte) {
	if l.j == nil {
		return
	}
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			l.rest = append(l.rest, p...)
			for len(l.rest) >= journalLine {
				l.emit(l.rest[:journalLine])
				l.rest = append(l.rest[:0], l.rest[journalLine:]...)
			}
			return
		}
		line := p[:i]
		if len(l.rest) > 0 {
			l.rest = append(l.rest, line...)
			line = l.rest
		}
		for len(line) > journalLine {
			l.emit(line[:journalLine])
			line = line[journalLine:]
		}
		l.emit(line)
		l.rest = l.rest[:0]
		p = p[i+1:]
	}
}

// flush emits what came without a newline at the end.
func (l *lines) flush() {
	if len(l.rest) > 0 {
		l.emit(l.rest)
		l.rest = nil
	}
}

func (l *lines) emit(line []byte) {
	l.j.send(line, l.priority, field{"RTASK_STREAM", l.stream})
}

package log

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Reader reads the records of a log file, which may be growing while it is read. It uses 128 KiB of memory whatever the
// file holds. It is not safe for concurrent use.
type Reader struct {
	r   io.ReaderAt
	off int64 // where buf[pos] is in the file
	// buf[pos:end] is what was read and not yet returned. It never outlives an attempt to read on: what follows the last
	// whole record may be a torn one, which the writer replaces.
	buf      []byte
	pos, end int
	skip     bool // the line at off is to be skipped: it was reported, or off is in its middle

	view View // what of the records to return; its Offset and Tail are off's business

	stamp []byte // the last record's time as text, since adjacent records often share it
	time  time.Time
}

// NewReader returns a Reader of all records of r from offset on: 0, or the Offset of an Entry. From an offset in the
// middle of a record it begins with the next one.
func NewReader(r io.ReaderAt, offset int64) *Reader {
	if offset <= 0 {
		return &Reader{r: r}
	}
	// Skipping the line that ends with the byte before offset skips nothing where a record begins at offset.
	return &Reader{r: r, off: offset - 1, skip: true}
}

// Next returns the next record. It returns io.EOF behind the last whole record; a record that is still being written is
// not returned, and is returned by a later call once it is whole. A line that is no record is a *FormatError, as is a
// line longer than 128 KiB, and the next call goes on behind it. Other errors are those of reading the file; the next
// call tries again.
func (r *Reader) Next() (Entry, error) {
	e, err := r.next()
	e.Data = slices.Clip(e.Data) // what follows in buf is not the caller's to append to
	return e, err
}

func (r *Reader) next() (Entry, error) {
	for {
		line, err := r.line()
		if err != nil {
			return Entry{}, err
		}
		start := r.off
		e, reason := r.parse(line)
		r.advance(len(line))
		if reason != "" {
			return Entry{}, &FormatError{Offset: start, Reason: reason}
		}
		if r.view.has(&e) {
			return e, nil
		}
	}
}

// NextBatch is Next, but puts adjacent records of one stream together, up to 64 KiB of output. It waits for nothing: it
// takes what has been read from the file already.
func (r *Reader) NextBatch() (Entry, error) {
	e, err := r.next()
	for err == nil {
		n := bytes.IndexByte(r.buf[r.pos:r.end], '\n') + 1
		if n == 0 {
			break
		}
		more, reason := r.parse(r.buf[r.pos : r.pos+n])
		if reason != "" {
			break
		}
		if r.view.has(&more) {
			if more.Stream != e.Stream || len(e.Data)+len(more.Data) > maxBatch || r.view.Times && !more.Time.Equal(e.Time) {
				break
			}
			// In place: Data lies in buf, and grows over records that were consumed.
			e.Data = append(e.Data, more.Data...)
		}
		e.Offset = more.Offset
		r.advance(n)
	}
	e.Data = slices.Clip(e.Data)
	return e, err
}

// advance consumes n bytes of buf.
func (r *Reader) advance(n int) {
	r.pos += n
	r.off += int64(n)
}

// line returns the line at off, newline included, without consuming it.
func (r *Reader) line() ([]byte, error) {
	for {
		n := bytes.IndexByte(r.buf[r.pos:r.end], '\n') + 1
		switch {
		case n > 0 && r.skip:
			r.skip = false
			r.advance(n)
			continue
		case n > 0:
			return r.buf[r.pos : r.pos+n], nil
		case r.skip:
			r.advance(r.end - r.pos)
		case r.end-r.pos == maxLine:
			r.skip = true
			return nil, &FormatError{Offset: r.off, Reason: fmt.Sprintf("line is longer than %d bytes", maxLine)}
		}
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads anew from off on. It returns nil if that gave more to look at: a newline, or, where a line is too long to
// have one, a full buffer or something to skip.
func (r *Reader) fill() error {
	if r.buf == nil {
		r.buf = make([]byte, maxLine)
	}
	r.pos, r.end = 0, 0
	n, err := r.r.ReadAt(r.buf, r.off)
	if n == len(r.buf) || n > 0 && (r.skip || bytes.IndexByte(r.buf[:n], '\n') >= 0) {
		r.end = n
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.EOF
	}
	return fmt.Errorf("cannot read the log at offset %d: %w", r.off, err)
}

// parse returns the record that line is, which begins at off, or why it is none.
func (r *Reader) parse(line []byte) (Entry, string) {
	stamp, rest := field(line)
	if len(r.stamp) == 0 || !bytes.Equal(stamp, r.stamp) {
		r.stamp = r.stamp[:0]
		if len(stamp) > len(timeFormat) || r.time.UnmarshalText(stamp) != nil {
			return Entry{}, "time is not RFC 3339"
		}
		r.stamp = append(r.stamp, stamp...)
	}
	e := Entry{Time: r.time, Offset: r.off + int64(len(line))}
	stream, rest := field(rest)
	switch string(stream) {
	case "stdout":
		e.Stream = Stdout
	case "stderr":
		e.Stream = Stderr
	default:
		return Entry{}, "stream is neither stdout nor stderr"
	}
	tags, content := field(rest)
	// Further tags may follow the first behind colons. None is defined yet.
	if len(tags) == 0 || len(tags) > 1 && tags[1] != ':' || tags[0] != 'F' && tags[0] != 'P' {
		return Entry{}, "tag is neither F nor P"
	}
	if len(content) == 0 {
		return Entry{}, "no content"
	}
	if tags[0] == 'P' {
		content = content[:len(content)-1]
	}
	e.Data = content
	return e, ""
}

// field returns what is before the first space of line, and what is behind it; without a space, that is nothing.
func field(line []byte) (first, rest []byte) {
	i := bytes.IndexByte(line, ' ')
	if i < 0 {
		return line, nil
	}
	return line[:i], line[i+1:]
}

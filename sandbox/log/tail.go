package log

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// start returns the offset at which v begins in a file of this size, or of more by now.
func (v *View) start(r io.ReaderAt, size int64) (int64, error) {
	if !v.Tail {
		return v.Offset, nil
	}
	b := backwards{r: r, end: size}
	left := max(v.Lines, 0)
	for first := true; ; first = false {
		e, err := b.previous(v)
		switch {
		case errors.Is(err, io.EOF):
			return 0, nil
		case err != nil:
			return 0, err
		case first && left == 0:
			return e.Offset, nil
		case !bytes.HasSuffix(e.Data, []byte("\n")):
			// Only behind the last newline it makes a line of its own.
			if first {
				left--
			}
		case left == 0:
			return e.Offset, nil
		default:
			left--
		}
	}
}

// backwards reads the records of a log from its end.
type backwards struct {
	r   io.ReaderAt
	end int64 // the line that is next ends here, behind its newline
	// buf[:n] is what the file holds from off on, and reaches to end.
	buf []byte
	n   int
	off int64

	parser Reader
}

// previous returns the record before the last one returned that is in v. It returns io.EOF before the first one. What is
// no record, and a record that is still being written, is passed over.
func (b *backwards) previous(v *View) (Entry, error) {
	for {
		line, err := b.line()
		if err != nil {
			return Entry{}, err
		}
		b.parser.off = b.end
		if e, reason := b.parser.parse(line); reason == "" && len(line) <= maxLine && v.has(&e) {
			return e, nil
		}
	}
}

// line returns the line that ends at end, which then is its beginning.
func (b *backwards) line() ([]byte, error) {
	for {
		// The newline before the line. At the end of the file, what follows the last newline is not whole, and not a line.
		if i := bytes.LastIndexByte(b.buf[:max(b.n-1, 0)], '\n'); i >= 0 || b.off == 0 && b.n > 0 {
			line := b.buf[i+1 : b.n]
			b.n, b.end = i+1, b.off+int64(i+1)
			if line[len(line)-1] != '\n' {
				continue
			}
			return line, nil
		}
		if b.end == 0 {
			return nil, io.EOF
		}
		if err := b.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads what is before end. A line that is longer than any record is passed over.
func (b *backwards) fill() error {
	if b.buf == nil {
		b.buf = make([]byte, 2*maxLine)
	} else if b.n > maxLine {
		// Its last byte may be no newline, so it is no record whatever comes before.
		b.end -= int64(b.n)
		b.n = 0
	}
	b.off = max(0, b.end-int64(len(b.buf)))
	n, err := b.r.ReadAt(b.buf[:b.end-b.off], b.off)
	b.n = n
	if int64(n) == b.end-b.off {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) { // cut back meanwhile: the writer mends a write that failed
		b.end = b.off + int64(n)
		return nil
	}
	return fmt.Errorf("cannot read the log at offset %d: %w", b.off, err)
}

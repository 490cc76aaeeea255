package log

import (
	"bytes"
	"io/fs"
	"os"
	"sync"
	"time"
)

// file is what a Writer needs of an *os.File. Tests put failing disks in its place.
type file interface {
	Write(p []byte) (int, error)
	Truncate(size int64) error
	Stat() (fs.FileInfo, error)
	Sync() error
	Close() error
}

// Writer appends output to a log file. It never fails: what a full or broken disk does not take is counted and dropped,
// so that the job that wrote it is neither held up nor ended. It is safe for concurrent use.
type Writer struct {
	now func() time.Time

	// mu guards everything below, and makes this process's writes to f one after the other.
	mu      sync.Mutex
	f       file
	begun   bool  // off is known
	off     int64 // end of the last whole record in f
	torn    bool  // f may hold more than off
	room    int64 // bytes of output that may still be written
	written uint64
	dropped uint64
	full    []byte // "TIME STREAM F "
	partial []byte // "TIME STREAM P "
	buf     []byte // records not yet written
}

// NewWriter returns a Writer that appends to f, which it owns from now on. It must be the only one that writes to f, and
// f must be a regular file opened with O_APPEND that is empty or ends with a whole record. It keeps max bytes of output,
// counted as the job wrote them and not as they lie in the file; 0 or less keeps nothing, math.MaxInt64 everything. The
// time of a record is now(); nil is time.Now.
func NewWriter(f *os.File, max int64, now func() time.Time) *Writer {
	return newWriter(f, max, now)
}

func newWriter(f file, max int64, now func() time.Time) *Writer {
	if now == nil {
		now = time.Now
	}
	return &Writer{now: now, f: f, room: max}
}

// begin finds the end of the file, and reports whether there may be a write. Most jobs write nothing, and do without.
func (w *Writer) begin() bool {
	if w.begun {
		return true
	}
	info, err := w.f.Stat()
	if err != nil {
		w.room = 0 // without knowing its end, a torn record could not be taken back
		return false
	}
	w.off, w.begun = info.Size(), true
	return true
}

// Write appends p, a chunk as it was read from the job's stream. It writes at once, also a line that has not ended yet,
// and with one write(2) unless the formatted chunk exceeds 256 KiB. A line longer than 32 KiB becomes several records.
// All records of a chunk bear the same time. It keeps nothing of p.
//
// Beyond the cap, and when the file system reports an error (ENOSPC, EDQUOT, EIO), the rest of p is dropped. What is in
// the file is whole records at any time, except between a failed write and its repair, which a Reader takes for a record
// that is still being written. Each further Write tries anew, so writing goes on once there is space.
func (w *Writer) Write(stream Stream, p []byte) {
	if len(p) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	total := w.written + w.dropped + uint64(len(p))
	if keep := min(int64(len(p)), w.room); keep > 0 && w.begin() && w.mend() {
		w.append(stream, p[:keep])
	}
	w.dropped = total - w.written
}

// append formats and writes p.
func (w *Writer) append(stream Stream, p []byte) {
	w.full = w.now().UTC().AppendFormat(w.full[:0], timeFormat)
	w.full = append(w.full, ' ')
	w.full = append(w.full, stream.String()...)
	w.partial = append(append(w.partial[:0], w.full...), " P "...)
	w.full = append(w.full, " F "...)
	w.buf = w.buf[:0]
	collected := 0 // output in buf
	for len(p) > 0 {
		piece := p[:min(len(p), maxPiece)]
		if i := bytes.IndexByte(piece, '\n'); i >= 0 {
			piece = piece[:i+1]
			w.buf = append(w.buf, w.full...)
			w.buf = append(w.buf, piece...)
		} else {
			w.buf = append(w.buf, w.partial...)
			w.buf = append(w.buf, piece...)
			w.buf = append(w.buf, '\n')
		}
		p = p[len(piece):]
		collected += len(piece)
		if len(w.buf) >= flushSize || len(p) == 0 {
			if !w.flush(collected) {
				return
			}
			collected = 0
		}
	}
}

// flush writes buf, which holds n bytes of output, and reports whether all of it is in the file. If not, the file is cut
// back to its last whole record.
func (w *Writer) flush(n int) bool {
	size, err := w.f.Write(w.buf)
	if err != nil {
		size, n = w.whole(size)
		w.torn = true
	}
	w.buf = w.buf[:0]
	w.off += int64(size)
	w.written += uint64(n)
	w.room -= int64(n)
	w.mend()
	return err == nil
}

// whole returns how many of the first n bytes of buf are whole records, and how many bytes of output these hold.
func (w *Writer) whole(n int) (size, output int) {
	head := len(w.full)
	tag := head - len("F ")
	for {
		i := bytes.IndexByte(w.buf[min(size+head, n):n], '\n')
		if i < 0 {
			return size, output
		}
		output += i
		if w.buf[size+tag] == 'F' {
			output++
		}
		size += head + i + 1
	}
}

// mend removes what a failed write left behind the last whole record, and reports whether the file may be appended to.
// Where cutting it fails as well (a copy-on-write file system that is full), it is tried again before the next write.
func (w *Writer) mend() bool {
	if !w.torn {
		return true
	}
	// An ftruncate(2) that changes nothing would wake each follower for nothing.
	if info, err := w.f.Stat(); err != nil || info.Size() != w.off {
		if w.f.Truncate(w.off) != nil {
			return false
		}
	}
	w.torn = false
	return true
}

// Stats returns how many bytes of output are in the file and how many were dropped. Together they are all that was given
// to Write.
func (w *Writer) Stats() (written, dropped uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.written, w.dropped
}

// Sync is fsync(2).
func (w *Writer) Sync() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.f.Sync()
}

// Close closes the file, without a Sync. What is given to Write afterwards is dropped.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mend()
	w.room = 0
	return w.f.Close()
}

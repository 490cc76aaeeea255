package log

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// gather is the least time between two reads of a follower. What comes meanwhile is passed on together: most programs write
// a few KiB at a time, and a piece costs a dozen system calls on its way whatever its size. What comes after a silence is
// passed on at once.
const gather = time.Millisecond

// Watcher wakes the followers of growing log files. A process needs one: all followers share its inotify instance, since
// a user may have no more than 128 of these by default (inotify(7), fs.inotify.max_user_instances). It is safe for
// concurrent use.
type Watcher struct {
	inotify *os.File
	buffers sync.Pool     // *[]byte of maxLine bytes: a follower that waits for output needs none
	stopped chan struct{} // closed when run has returned, because of Close or of err
	err     error         // why, set before stopped is closed

	// mu guards the watches and their followers. An inode has one watch descriptor however often it is added.
	mu     sync.Mutex
	closed bool
	fd     int // of inotify, valid while not closed
	wakes  map[int32]map[chan struct{}]struct{}
}

// NewWatcher returns a Watcher. Its Close must be called.
func NewWatcher() (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("cannot watch log files: %w", os.NewSyscallError("inotify_init1", err))
	}
	w := &Watcher{
		inotify: os.NewFile(uintptr(fd), "inotify"), // non-blocking, so that a Close ends a Read
		buffers: sync.Pool{New: func() any { b := make([]byte, maxLine); return &b }},
		stopped: make(chan struct{}),
		fd:      fd,
		wakes:   make(map[int32]map[chan struct{}]struct{}),
	}
	go w.run()
	return w, nil
}

// Close ends all that goes on in Follow, which then returns ErrClosed, and waits for the Watcher's goroutine.
func (w *Watcher) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return ErrClosed
	}
	w.closed = true
	err := w.inotify.Close()
	w.mu.Unlock()
	<-w.stopped
	return err
}

// Follow calls yield with the output in f that is in v, batched as by Reader.NextBatch, and goes on as f grows until done
// is closed or the time v.Until has come. Then it reads to the end once more and returns nil: who closes done after the
// last write loses nothing. A nil done follows until ctx ends.
//
// It returns ctx.Err() when ctx ends, what yield returns, ErrClosed, or an error of reading or watching f. Lines that are
// no records are passed over. The Data of an Entry is valid until yield returns. A slow yield delays no one else.
//
// Follow never polls; inotify(7) tells of each write(2) through the same kernel. It does not close f, which any number of
// followers may share, and goes on when the file is renamed or removed.
func (w *Watcher) Follow(ctx context.Context, f *os.File, v View, done <-chan struct{}, yield func(Entry) error) error {
	// Watched before it is read: a write after the read finds the watch in place.
	wd, wake, err := w.add(f)
	if err != nil {
		return err
	}
	defer w.remove(wd, wake)
	r, err := newViewReader(f, v)
	if err != nil {
		return err
	}
	var late <-chan time.Time
	if !v.Until.IsZero() {
		t := time.NewTimer(time.Until(v.Until))
		defer t.Stop()
		late = t.C
	}
	last := false
	for {
		select {
		case <-done:
			last = true
		default:
		}
		if err := w.drain(ctx, r, yield); err != nil || last {
			return err
		}
		pause := time.After(gather)
		select {
		case <-wake:
		case <-done:
		case <-late:
			last = true
		case <-ctx.Done():
			return ctx.Err()
		case <-w.stopped:
			return w.err
		}
		select {
		case <-pause:
		case <-done:
		case <-ctx.Done():
		}
	}
}

// newViewReader returns a Reader of what of f is in v.
func newViewReader(f *os.File, v View) (*Reader, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot read the log: %w", err)
	}
	start, err := v.start(f, info.Size())
	if err != nil {
		return nil, err
	}
	r := NewReader(f, start)
	r.view = v
	return r, nil
}

// drain yields what r has.
func (w *Watcher) drain(ctx context.Context, r *Reader, yield func(Entry) error) error {
	buf := w.buffers.Get().(*[]byte)
	r.buf = *buf
	defer func() {
		r.buf, r.pos, r.end = nil, 0, 0
		w.buffers.Put(buf)
	}()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := r.NextBatch()
		var malformed *FormatError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &malformed):
			continue
		case err != nil:
			return err
		}
		if err := yield(e); err != nil {
			return err
		}
	}
}

// add watches f, and returns the watch descriptor and a channel that has a value after f has grown.
func (w *Watcher) add(f *os.File) (int32, chan struct{}, error) {
	wake := make(chan struct{}, 1)
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, nil, fmt.Errorf("cannot watch the log: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, nil, ErrClosed
	}
	var wd int
	var werr error
	err = conn.Control(func(fd uintptr) {
		// By descriptor, since what lies under the name may be another file by now. Growing is all there is to watch:
		// an inode does not go while it is open.
		wd, werr = unix.InotifyAddWatch(w.fd, fmt.Sprintf("/proc/self/fd/%d", fd), unix.IN_MODIFY)
	})
	if err = errors.Join(err, os.NewSyscallError("inotify_add_watch", werr)); err != nil {
		return 0, nil, fmt.Errorf("cannot watch the log: %w", err)
	}
	if w.wakes[int32(wd)] == nil {
		w.wakes[int32(wd)] = make(map[chan struct{}]struct{})
	}
	w.wakes[int32(wd)][wake] = struct{}{}
	return int32(wd), wake, nil
}

// remove undoes add.
func (w *Watcher) remove(wd int32, wake chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.wakes[wd], wake)
	if len(w.wakes[wd]) > 0 {
		return
	}
	delete(w.wakes, wd)
	if !w.closed {
		// It can only fail for a watch that is gone with its file system. Numbers are not used again, so events that
		// are still queued find no one.
		_, _ = unix.InotifyRmWatch(w.fd, uint32(wd))
	}
}

// run wakes followers until the inotify instance is closed.
func (w *Watcher) run() {
	defer close(w.stopped)
	buf := make([]byte, 16<<10)
	for {
		n, err := w.inotify.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			w.err = ErrClosed
			return
		}
		if err != nil {
			w.err = fmt.Errorf("cannot watch log files: %w", err)
			return
		}
		w.wake(buf[:n])
	}
}

// wake wakes the followers that events concern.
func (w *Watcher) wake(events []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(events) >= unix.SizeofInotifyEvent {
		// struct inotify_event: wd, mask, cookie and len, of 32 bits each, and a name of len bytes.
		wd := int32(binary.NativeEndian.Uint32(events))
		mask := binary.NativeEndian.Uint32(events[4:])
		name := binary.NativeEndian.Uint32(events[12:])
		events = events[min(unix.SizeofInotifyEvent+uint64(name), uint64(len(events))):]
		if mask&unix.IN_Q_OVERFLOW == 0 {
			notify(w.wakes[wd])
			continue
		}
		for _, wakes := range w.wakes {
			notify(wakes)
		}
	}
}

// notify leaves a value in each channel that has none.
func notify(wakes map[chan struct{}]struct{}) {
	for wake := range wakes {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// Package store keeps durable records: values of one type, found by id, in the order of their time, in one bbolt file.
// Writers share commits, so that many records cost little more than one.
//
// It knows nothing about its values: Options say what a value's id and time are. The engine's packages may import it; it imports only
// sandbox/durable. The file never shrinks; space that Delete frees is used again.
package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bberrors "go.etcd.io/bbolt/errors"

	"github.com/rtask/rtask/sandbox/durable"
)

const (
	// lockTimeout is how long Open waits for another process to let go of the file: a restart's old process.
	lockTimeout = 5 * time.Second
	// maxQueue is how many bytes of records may wait for the disk before PutSoon drops.
	maxQueue = 64 << 20
	// layout is the version of the buckets (bucket.go).
	layout = 3
)

// Store keeps values of type T, encoded as CBOR. A field that a record has and T has not is ignored, one that T has and a
// record has not is zero, so T may gain and lose fields. Times are kept to the nanosecond, in UTC; strings may hold any
// bytes. It is safe for concurrent use.
type Store[T any] struct {
	codec[T]
	db      *bbolt.DB
	wake    chan struct{} // has a value when run has something to look at
	stopped chan struct{} // closed when run has returned

	// mu guards what waits for the disk. It is never held during a transaction.
	mu         sync.Mutex
	closed     bool
	queue      *batch // gathers what the next commit takes
	committing *batch // nil when there is no commit under way
}

// Open opens the file at path, which it creates with mode 0600 if it is missing. It waits up to 5 s for another process
// to close it, and returns ErrInUse then. ErrVersion is a file of another layout. Its Close must be called.
func Open[T any](path string, opts Options[T]) (*Store[T], error) {
	return open(path, opts, lockTimeout)
}

func open[T any](path string, opts Options[T], timeout time.Duration) (*Store[T], error) {
	codec, err := newCodec(opts)
	if err != nil {
		return nil, err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: timeout, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bberrors.ErrTimeout) {
		err = ErrInUse
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open records %s: %w", path, err)
	}
	if err := errors.Join(db.Update(prepare), durable.SyncFolder(filepath.Dir(path))); err != nil {
		return nil, fmt.Errorf("cannot open records %s: %w", path, errors.Join(err, db.Close()))
	}
	s := &Store[T]{
		codec:   codec,
		db:      db,
		wake:    make(chan struct{}, 1),
		stopped: make(chan struct{}),
		queue:   newBatch(),
	}
	go s.run()
	return s, nil
}

// prepare makes the buckets, or checks that they are those that this version knows.
func prepare(tx *bbolt.Tx) error {
	if b := meta.of(tx); b != nil {
		if v := b.Get([]byte("layout")); !bytes.Equal(v, []byte{layout}) {
			return fmt.Errorf("%w of the file: %v", ErrVersion, v)
		}
	}
	for _, name := range []bucket{meta, records, order, unfinished, groups, counts, holds, expiries, crowds} {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return err
		}
	}
	return meta.of(tx).Put([]byte("layout"), []byte{layout})
}

// Close commits what waits, ends the Store's goroutine and closes the file. What is called afterwards returns ErrClosed.
func (s *Store[T]) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.closed = true
	s.mu.Unlock()
	s.notify()
	<-s.stopped
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("cannot close records: %w", err)
	}
	return nil
}

// Put stores v in place of what has the same id, and returns once it is on disk (fdatasync(2)). Puts that wait at the
// same time share a commit, and an error if it fails; then none of them is stored. If ctx ends first, Put returns its
// error, and v is stored or not. Puts of one id take effect in the order of their calls. v is encoded before Put waits
// and may be changed afterwards.
func (s *Store[T]) Put(ctx context.Context, v T) error { return s.PutAll(ctx, []T{v}) }

// PutAll is Put of several values in one commit: all of them are stored or none, but for one whose key another value holds.
func (s *Store[T]) PutAll(ctx context.Context, values []T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	committed, err := s.Begin(values)
	if err != nil {
		return err
	}
	return committed(ctx)
}

// Begin is the first half of PutAll: it queues the values and returns immediately. The function that it returns is the second half: it
// waits for the commit.
func (s *Store[T]) Begin(values []T) (committed func(context.Context) error, err error) {
	ids, ops := make([]string, len(values)), make([]op, len(values))
	for i := range values {
		if ids[i], ops[i], err = s.encode(&values[i]); err != nil {
			return nil, err
		}
	}
	if len(values) == 0 {
		return func(context.Context) error { return nil }, nil
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	b := s.queue
	for i := range ids {
		b.add(ids[i], ops[i])
	}
	s.mu.Unlock()
	s.notify()
	return func(ctx context.Context) error { return b.wait(ctx, ids) }, nil
}

// PutSoon is Put without waiting. Get sees the value immediately. Errors go to Options.OnError, once for each commit that fails. While
// 64 MiB of records wait for the disk, values are dropped with ErrBehind.
func (s *Store[T]) PutSoon(v T) {
	id, op, err := s.encode(&v)
	if err == nil {
		err = s.enqueue(id, op)
	}
	if err != nil {
		s.onError(err)
		return
	}
	s.notify()
}

// enqueue gives op to the next commit without a wait for it.
func (s *Store[T]) enqueue(id string, op op) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("cannot store record %q: %w", id, ErrClosed)
	}
	if s.queue.size >= maxQueue {
		return fmt.Errorf("cannot store record %q: %w", id, ErrBehind)
	}
	s.queue.add(id, op)
	s.queue.soon++
	return nil
}

func (s *Store[T]) onError(err error) {
	if s.opts.OnError != nil {
		s.opts.OnError(err)
	}
}

// Delete removes the records with ids, in one commit, and returns once that is on disk. An id without a record is no
// error. What the values held stays held.
func (s *Store[T]) Delete(ids ...string) error { return s.remove(ids, make([]op, len(ids))) }

// Undo removes the records of values that came to nothing, and gives up what they hold, in one commit.
func (s *Store[T]) Undo(values ...T) error {
	ids, ops := make([]string, len(values)), make([]op, len(values))
	for i := range values {
		ids[i] = s.opts.ID(&values[i])
		if s.opts.Hold != nil {
			ops[i].hold = Hold{Key: s.opts.Hold(&values[i]).Key, Released: true}
		}
	}
	return s.remove(ids, ops)
}

// remove commits ops, which have no records.
func (s *Store[T]) remove(ids []string, ops []op) error {
	if len(ids) == 0 {
		return nil
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	b := s.queue
	for i, id := range ids {
		b.add(id, ops[i])
	}
	s.mu.Unlock()
	s.notify()
	<-b.done
	if b.err != nil {
		return fmt.Errorf("cannot delete records: %w", b.err)
	}
	return nil
}

// notify makes run look at the queue.
func (s *Store[T]) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run commits what is queued, until the Store is closed.
func (s *Store[T]) run() {
	defer close(s.stopped)
	for range s.wake {
		s.mu.Lock()
		closed := s.closed
		var b *batch
		if len(s.queue.ops) > 0 {
			b = s.queue
			s.committing, s.queue = b, newBatch()
		}
		s.mu.Unlock()
		if b != nil {
			s.commit(b)
		}
		if closed {
			return // nothing is queued after closed is set
		}
	}
}

// commit writes b and wakes its callers.
func (s *Store[T]) commit(b *batch) {
	b.err = s.db.Update(func(tx *bbolt.Tx) error {
		now := time.Now()
		b.refused = map[string]error{}
		for id, op := range b.ops {
			err := hold(tx, id, op.hold, s.opts.MaxHolds, s.opts.Free, now)
			if taken := (*HeldError)(nil); errors.As(err, &taken) {
				b.refused[id] = taken
				continue
			}
			if err == nil {
				err = apply(tx, id, op)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	s.mu.Lock()
	s.committing = nil // readers find it in the file now
	s.mu.Unlock()
	close(b.done)
	if b.err != nil && b.soon > 0 {
		s.onError(fmt.Errorf("cannot store %d records: %w", b.soon, b.err))
	}
}

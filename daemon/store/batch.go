package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// batch is what one transaction commits. The last operation on an id is the one that counts.
type batch struct {
	ops  map[string]op
	size int           // bytes of records in ops
	soon int           // operations of PutSoon, which have no caller that waits
	done chan struct{} // closed after the transaction
	err  error         // of the transaction, set before done is closed
	// refused are the ids that were not stored, since other values hold their keys. Set before done is closed.
	refused map[string]error
}

// op is a Put, or without a record a Delete.
type op struct {
	record     []byte
	extract    []byte
	unfinished bool
	hold       Hold
}

func newBatch() *batch {
	return &batch{ops: make(map[string]op), done: make(chan struct{})}
}

// wait waits for the commit of b, and returns what became of ids.
func (b *batch) wait(ctx context.Context, ids []string) error {
	select {
	case <-b.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if b.err != nil {
		return fmt.Errorf("cannot store record %q: %w", ids[0], b.err)
	}
	for _, id := range ids {
		if err := b.refused[id]; err != nil {
			return fmt.Errorf("cannot store record %q: %w", id, err)
		}
	}
	return nil
}

func (b *batch) add(id string, op op) {
	b.size += len(op.record) - len(b.ops[id].record)
	b.ops[id] = op
}

// apply writes one record and its index entries, and removes the entries of the one before.
func apply(tx *bbolt.Tx, id string, op op) error {
	all, byTime, open := records.of(tx), order.of(tx), unfinished.of(tx)
	before, after := indexKey(all.Get([]byte(id)), id), indexKey(op.record, id)
	errs := []error{regroup(tx, id, byTime.Get(before), op.extract)}
	if before != nil && !bytes.Equal(before, after) {
		errs = append(errs, byTime.Delete(before), open.Delete(before))
	}
	if op.record == nil {
		errs = append(errs, all.Delete([]byte(id)))
		return errors.Join(errs...)
	}
	errs = append(errs, all.Put([]byte(id), op.record), byTime.Put(after, op.extract))
	if op.unfinished {
		errs = append(errs, open.Put(after, nil))
	} else {
		errs = append(errs, open.Delete(after))
	}
	return errors.Join(errs...)
}

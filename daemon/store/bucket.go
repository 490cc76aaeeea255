package store

import "go.etcd.io/bbolt"

// bucket is the name of a bucket. The keys of indexes are made by indexKey.
type bucket string

const (
	meta       bucket = "meta"       // "layout" → one byte
	records    bucket = "records"    // id → record
	order      bucket = "order"      // index of all records → extract
	unfinished bucket = "unfinished" // index of those that Options.Unfinished is true for
	groups     bucket = "groups"     // index of those that have a group, by group and then by their time in it
	counts     bucket = "counts"     // group → how many are in it
	holds      bucket = "claims"     // key of a Hold → who holds it
	expiries   bucket = "expiries"   // index of holds by the time when they expire
	crowds     bucket = "crowds"     // key of a hold up to its last slash → how many holds begin so
)

func (b bucket) of(tx *bbolt.Tx) *bbolt.Bucket { return tx.Bucket([]byte(b)) }

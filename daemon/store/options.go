package store

import "time"

// Options say what a Store needs to know about its values. ID, Time and Unfinished must be set, must be pure and may be
// called concurrently.
type Options[T any] struct {
	// ID names a value: 1 to 1024 bytes.
	ID func(*T) string
	// Time is what values are ordered by, to the nanosecond; equal times are ordered by id. It may change from one Put
	// of an id to the next.
	Time func(*T) time.Time
	// Unfinished reports whether Unfinished is to return the value.
	Unfinished func(*T) bool
	// Group puts a value in a group, which Oldest and Groups are about, and gives the time, to the nanosecond, that orders it
	// there; "": it is in none. Nil: none is. It must be pure, and so must Summary.
	Group func(*T) (name string, at time.Time)
	// Summary is what Select passes to its filter. Nil: nothing.
	Summary func(*T) []byte
	// Hold is what the value holds exclusively from when it is stored. Nil: nothing. It must be pure.
	Hold func(*T) Hold
	// Free, if set, reports whether the value with an id has given up its hold, though that is not committed yet. The Store calls it
	// while it commits: it must not wait for a commit.
	Free func(id string) bool
	// MaxHolds is how many holds may have keys that are the same up to the last slash. Beyond it, each new hold replaces one that
	// expires early. 0: any number.
	MaxHolds int
	// Upgrade, if set, is given each value that was read from a record, which may be one of an earlier program.
	Upgrade func(*T)
	// Downgrade, if set, changes a copy of each value before it is encoded, so that an earlier program can read it.
	Downgrade func(*T)
	// OnError, if set, is called if values of PutSoon are not committed, by the Store's goroutine or by the caller of PutSoon. It must
	// not wait for the Store.
	OnError func(error)
}

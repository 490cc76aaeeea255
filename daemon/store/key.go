package store

import (
	"encoding/binary"
	"time"
)

// timeSize is the size of a time in a key or a record, in bytes.
const timeSize = 12

// appendTime appends t so that bytes sort as times do: seconds since 1970 with the sign bit flipped, nanoseconds. Unlike
// UnixNano it has room for any year.
func appendTime(b []byte, t time.Time) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(t.Unix())^1<<63)
	return binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
}

// keyTime returns the time that a key begins with.
func keyTime(key []byte) time.Time {
	return time.Unix(int64(binary.BigEndian.Uint64(key)^1<<63), int64(binary.BigEndian.Uint32(key[8:])))
}

// indexKey returns the key of record in the index buckets: its time, then its id. For a record that is missing or cut
// short it is nil.
func indexKey(record []byte, id string) []byte {
	if len(record) < timeSize {
		return nil
	}
	key := make([]byte, 0, timeSize+len(id))
	return append(append(key, record[:timeSize]...), id...)
}

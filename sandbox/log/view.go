package log

import (
	"time"
)

// View is a part of a log. The zero View is all of it.
type View struct {
	// Offset is where to begin: 0, or the Offset of an Entry.
	Offset int64
	// Stream is the only one to read; 0: both.
	Stream Stream
	// Since and Until leave out what was written before and after them. What was written at that very moment is in. The
	// zero Time is no bound.
	Since, Until time.Time
	// Tail begins Lines lines before the end, counted in what the rest of the View leaves: as `tail -n` would cut the
	// output, so that what follows the last newline is a line, too. Offset then means nothing.
	Tail  bool
	Lines int64
	// Times keeps records of different times in entries of their own.
	Times bool
}

// has reports whether a record is in v.
func (v *View) has(e *Entry) bool {
	return (v.Stream == 0 || e.Stream == v.Stream) &&
		(v.Since.IsZero() || !e.Time.Before(v.Since)) && (v.Until.IsZero() || !e.Time.After(v.Until))
}

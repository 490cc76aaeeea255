package deliveries

import "errors"

var (
	// ErrNotFound is returned for a delivery that is not kept, or that its caller may not know of.
	ErrNotFound = errors.New("no such delivery is kept")
	// ErrAmbiguous is returned by Find if what was given can mean several: ids that begin so, or names of senders.
	ErrAmbiguous = errors.New("several deliveries can be meant: give the whole id")
	// errTooLarge is returned for the head of a delivery that is too long.
	errTooLarge = errors.New("its headers are too long")
	// errBroken is returned for a file that is none of a delivery's.
	errBroken = errors.New("it is no delivery, or not a whole one")
)

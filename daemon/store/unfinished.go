package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"go.etcd.io/bbolt"
	bberrors "go.etcd.io/bbolt/errors"
)

// HasUnfinished reports whether the file at path has a value for which Options.Unfinished was true, without opening it for
// more than that. A file that is missing has none. It returns ErrInUse if a Store has it open: that knows.
func HasUnfinished(path string) (bool, error) { return hasUnfinished(path, lockTimeout) }

func hasUnfinished(path string, timeout time.Duration) (found bool, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: timeout, ReadOnly: true})
	if errors.Is(err, bberrors.ErrTimeout) {
		err = ErrInUse
	}
	if err == nil {
		err = db.View(func(tx *bbolt.Tx) error {
			if b := unfinished.of(tx); b != nil {
				k, _ := b.Cursor().First()
				found = k != nil
			}
			return nil
		})
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		return false, fmt.Errorf("cannot look into the records %s: %w", path, err)
	}
	return found, nil
}

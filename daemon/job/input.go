package job

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/rtask/rtask/sandbox/durable"
	"github.com/rtask/rtask/sandbox/spec"
)

// maxInline is the longest input that is kept in a job's record, in bytes.
const maxInline = 64 << 10

// inputs is the folder of the inputs that are too long for a record.
type inputs struct {
	dir    string
	logger *slog.Logger
}

// path is where the input of a job is.
func (i inputs) path(j *Job) string { return filepath.Join(i.dir, cmp.Or(j.InputName, j.ID)) }

// write writes an input; it is there for good when it returns.
func (i inputs) write(j *Job, input []byte) error {
	if err := durable.Create(i.path(j), input, 0o600); err != nil {
		return fmt.Errorf("cannot keep the job's input: %w", err)
	}
	return nil
}

// read returns the input of a job, from its record or its file.
func (i inputs) read(j *Job) ([]byte, error) {
	if !j.InputFile {
		return j.Input, nil
	}
	return os.ReadFile(i.path(j))
}

// size is how long the input of a job is that an earlier engine left.
func (i inputs) size(j *Job) int64 {
	if !j.InputFile {
		return int64(len(j.Input))
	}
	fi, err := os.Stat(i.path(j))
	if err != nil {
		return 0 // its start says what is wrong
	}
	return fi.Size()
}

// drop removes an input that is not needed any more.
func (i inputs) drop(j *Job) {
	if !j.InputFile {
		return
	}
	if err := os.Remove(i.path(j)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		i.logger.Warn("cannot remove the input of a job", "job", j.ID, "error", err)
	}
}

// keepLong writes an input of a request that may be coalesced to a file, if it is too long for a record, before anything is known of
// the request: whether it becomes an input of its own or that of a job that waits, no record ever names a file that is not there.
// The file has a name that no other request has, not even one with the same id. keepLong returns what removes the file again.
func (i inputs) keepLong(s *Spec) (drop func(), err error) {
	s.InputName = ""
	if s.Overflow != spec.Coalesce || len(s.Input) <= maxInline {
		return func() {}, nil
	}
	s.InputName = newID()
	file := Job{Spec: Spec{Run: spec.Run{ID: s.ID}, Terms: Terms{InputFile: true, InputName: s.InputName}}}
	drop = func() { i.drop(&file) }
	return drop, i.write(&file, s.Input)
}

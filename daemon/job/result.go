package job

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/rtask/rtask/sandbox/log"
)

// Result is a job that has ended, and the beginning of what it wrote.
type Result struct {
	Job
	// Stdout and Stderr are at most Spec.MaxReply bytes each. They are empty if the job ended before this call, or under another
	// engine.
	Stdout, Stderr []byte
	// Truncated: there was more.
	Truncated bool
}

// resultOf returns a job that has ended with the beginning of what it wrote, from its log. Where there is no log, the job wrote
// nothing, or the log is gone.
func resultOf(j Job, logPath string) (Result, error) {
	r := Result{Job: j}
	err := r.read(logPath)
	r.Truncated = r.Truncated || j.Exit != nil && j.Exit.LogBytes > uint64(len(r.Stdout)+len(r.Stderr))
	return r, err
}

// read reads the beginning of a log. It skips lines that are no records.
func (r *Result) read(logPath string) error {
	f, err := os.Open(logPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the output of job %s: %w", r.ID, err)
	}
	defer f.Close()
	for reader := log.NewReader(f, 0); ; {
		e, err := reader.NextBatch()
		var malformed *log.FormatError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &malformed):
			continue
		case err != nil:
			return err
		}
		if r.add(e); r.full() {
			return nil
		}
	}
}

// add adds as much as there is room for.
func (r *Result) add(e log.Entry) {
	to := &r.Stdout
	if e.Stream == log.Stderr {
		to = &r.Stderr
	}
	data := e.Data
	if room := r.MaxReply - int64(len(*to)); int64(len(data)) > room {
		data, r.Truncated = data[:room], true
	}
	*to = append(*to, data...)
}

// full reports whether r takes no more.
func (r *Result) full() bool {
	return r.Truncated && int64(len(r.Stdout)) >= r.MaxReply && (r.RedirectStderr || int64(len(r.Stderr)) >= r.MaxReply)
}

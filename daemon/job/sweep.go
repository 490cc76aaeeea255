package job

import (
	"cmp"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// sweepAge is how old an unfinished file of a shim must be to be removed. A shim writes its file within moments.
const sweepAge = time.Hour

// sweep removes files that a killed engine left of jobs that have ended: exit records that are no longer needed, and inputs that no job
// will read. left are the jobs that have not ended.
func sweep(o *Options, left []Job) {
	exits, inputs := map[string]bool{}, map[string]bool{}
	for _, j := range left {
		exits[j.ID] = true
		inputs[cmp.Or(j.InputName, j.ID)] = j.InputFile
	}
	sweepFolder(o.exitsDir(), exits, o.Logger)
	sweepFolder(o.inputsDir(), inputs, o.Logger)
}

// sweepFolder removes the files in dir, except those that are needed.
func sweepFolder(dir string, needed map[string]bool, logger *slog.Logger) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		logger.Warn("cannot look for what is left of jobs", "error", err)
		return
	}
	for _, e := range entries {
		if needed[e.Name()] {
			continue
		}
		if !validID(e.Name()) {
			if info, err := e.Info(); err != nil || time.Since(info.ModTime()) < sweepAge {
				continue
			}
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			logger.Warn("cannot remove what is left of a job", "error", err)
		}
	}
}

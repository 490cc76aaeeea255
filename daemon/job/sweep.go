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

// sweepAge is how old a file must be that a shim was about to write, for that shim to be gone: it writes it in one go.
const sweepAge = time.Hour

// sweep removes what an engine that was killed left of jobs that have ended: exit records that it had read, or that came
// after it had heard of the end, and inputs that nobody reads any more. left are the jobs that have not ended.
func sweep(o *Options, left []Job) {
	exits, inputs := map[string]bool{}, map[string]bool{}
	for _, j := range left {
		exits[j.ID] = true
		inputs[cmp.Or(j.InputName, j.ID)] = j.InputFile
	}
	sweepFolder(o.exitsDir(), exits, o.Logger)
	sweepFolder(o.inputsDir(), inputs, o.Logger)
}

// sweepFolder removes the files that do not have the id of a job for a name that needs them.
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

package job

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/rtask/rtask/sandbox"
	"github.com/rtask/rtask/sandbox/spec"
)

// Options are what a Manager needs.
type Options struct {
	Host *sandbox.Host
	// StateDir holds the records (0700), LogDir a file for each job's output (0750).
	StateDir, LogDir string
	// UIDs are lent to jobs that name no user. Without the privilege to use them, jobs run as the engine's user.
	UIDs spec.UIDRange
	// MaxJobs is how many jobs may run at a time. Running jobs of an earlier engine do not have to fit.
	MaxJobs int
	// Retention bounds what is kept of jobs that have ended.
	Retention spec.Retention
	Logger    *slog.Logger
	// Ended is called for each job that has ended, before Wait returns. It must not block.
	Ended func(Job)
}

// logPath is where a job's output is.
func (o *Options) logPath(id string) string { return filepath.Join(o.LogDir, id+".log") }

// exitsDir is where shims write how their jobs ended, and recordPath where that of one job does.
func (o *Options) exitsDir() string { return filepath.Join(o.StateDir, "exits") }

func (o *Options) recordPath(id string) string { return filepath.Join(o.exitsDir(), id) }

// inputsDir is where inputs are that are too long for a record.
func (o *Options) inputsDir() string { return filepath.Join(o.StateDir, "inputs") }

// makeFolders makes the folders.
func (o *Options) makeFolders() error {
	// The folders of the state come first: LogDir may be inside of StateDir, which would get the wrong mode.
	for _, dir := range []struct {
		path string
		mode fs.FileMode
	}{{o.StateDir, 0o700}, {o.exitsDir(), 0o700}, {o.inputsDir(), 0o700}, {o.LogDir, 0o750}} {
		if err := os.MkdirAll(dir.path, dir.mode); err != nil {
			return fmt.Errorf("cannot make a folder: %w", err)
		}
	}
	return nil
}

// StopOptions say how to stop a job.
type StopOptions struct {
	// By names the caller, for the job's record.
	By string
	// Kill sends SIGKILL immediately.
	Kill bool
}

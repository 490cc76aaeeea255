package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/sandbox/durable"
)

// keptName is the file in the state folder with the last configuration that was good. It serves at a start while the one on
// disk has errors.
//
// It has the text of rtask.hcl and of the files of tasks.d, so it is as secret as these are: 0600, in a folder of mode 0700. A
// file that a setting names (environment_file, secret_files, token_file, load_credential) is not in it: it is read where it is,
// when it is needed, so that a secret that was changed or removed is not in use longer than its file says.
const keptName = "last-good-configuration.json"

// maxKept bounds the file, in bytes: base64 makes three bytes of a configuration four, and there are names and paths.
const maxKept = 32 << 20

// kept is the content of that file.
type kept struct {
	// ReadAt is when the configuration was read first.
	ReadAt time.Time     `json:"read_at"`
	Files  []config.File `json:"files"`
}

// keep records a configuration that is in force now, unless it is on record already.
func (s *settings) keep(c *config.Config, at time.Time) {
	if s.keptFile == "" || s.kept != nil && slices.EqualFunc(s.kept.Files, c.Files, same) {
		return
	}
	k := &kept{ReadAt: at, Files: c.Files}
	b, err := json.Marshal(k)
	if err == nil {
		err = durable.Replace(s.keptFile, s.keptFile+".new", b, 0o600)
	}
	if err != nil {
		s.logger.Error("cannot keep the configuration for a start at which the one on disk has errors", "error", err)
		return
	}
	s.kept = k
}

func same(a, b config.File) bool {
	return a.Path == b.Path && a.Root == b.Root && bytes.Equal(a.Data, b.Data)
}

// loadKept reads what keep recorded. No record is a nil kept.
func loadKept(path string) (*kept, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || stat.Uid != 0 && int64(stat.Uid) != int64(os.Geteuid()) {
		return nil, fmt.Errorf("%s must be a regular file that belongs to rtaskd's user, with mode 0600", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKept+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxKept {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, maxKept)
	}
	k := &kept{}
	if err := json.Unmarshal(b, k); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// fallBack returns the last configuration that was good, and when it was read, or nil.
func (s *settings) fallBack() (*config.Config, time.Time) {
	if s.kept == nil {
		return nil, time.Time{}
	}
	opts := s.options
	opts.ReadSecret = nil // at each request: one that is wrong now must not keep all the rest from being used
	c, diags := config.LoadFiles(s.kept.Files, opts)
	if diags.HasErrors() {
		s.logger.Error("cannot use the last configuration that was good", "error", diags.Error())
		return nil, time.Time{}
	}
	return c, s.kept.ReadAt
}

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rtask/rtask/sandbox/wire"
)

// A claim is a file that stands for a job to be started. The shim that takes the job renames the file; an engine that takes the job back
// removes it. Only one of them can succeed, so a job never starts twice. If an engine dies after it has sent a job, the next one sees
// whether a shim took it. Claims need not survive a restart of the machine, and are in RuntimeDir.

// claimSuffix is how the name of a claim ends, after the job's id.
const claimSuffix = ".claim"

// claimPath is the claim of a job.
func (h *Host) claimPath(id string) string { return filepath.Join(h.opts.RuntimeDir, id+claimSuffix) }

// stake makes the claim of a job.
func (h *Host) stake(id string, memo []byte) (string, error) {
	path := h.claimPath(id)
	err := os.WriteFile(path, memo, 0o600)
	if err == nil {
		return path, nil
	}
	err = fmt.Errorf("cannot offer the job to its supervisor: %w", err)
	if e := os.Remove(path); e != nil && !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return "", err
}

// Claims returns the jobs that earlier engines sent to shims and did not forget, with the memo of each.
func (h *Host) Claims() (map[string][]byte, error) {
	entries, err := os.ReadDir(h.opts.RuntimeDir)
	if err != nil {
		return nil, fmt.Errorf("cannot list the claims: %w", err)
	}
	claims := map[string][]byte{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(strings.TrimSuffix(e.Name(), wire.Taken), claimSuffix)
		if !ok {
			continue
		}
		memo, err := os.ReadFile(filepath.Join(h.opts.RuntimeDir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			memo, err = os.ReadFile(h.claimPath(id) + wire.Taken) // a shim took it in this moment
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read a claim: %w", err)
		}
		claims[id] = memo
	}
	return claims, nil
}

// takeBack takes a job back that may have been sent to a shim. It returns false if a shim has taken it.
func (h *Host) takeBack(id string) (bool, error) {
	err := os.Remove(h.claimPath(id))
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("cannot take the job back: %w", err)
	}
	_, err = os.Lstat(h.claimPath(id) + wire.Taken)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // it was never offered
	}
	return false, err
}

// Forget removes what was kept of a job in case this engine dies, once its end is recorded.
func (h *Host) Forget(id string) error {
	var err error
	for _, path := range []string{h.claimPath(id) + wire.Taken, h.claimPath(id)} {
		if e := os.Remove(path); e == nil || !errors.Is(e, fs.ErrNotExist) {
			return e // there is one of the two at most
		}
	}
	return err
}

// Package machine answers what a configuration asks of the machine that it is checked on: accounts, folders, programs, files
// with secrets. It looks, and runs nothing.
//
// The engine and rtaskctl use it, so that a check without an engine says what the engine would say.
package machine

import (
	"fmt"
	"os"
	"os/user"
	"sync/atomic"
	"time"

	"github.com/rtask/rtask/daemon/config"
)

const (
	// patience is how long a file system may take to answer a question. One whose server is gone never answers.
	patience = 2 * time.Second
	// maxStuck is how many questions may wait for such an answer. While there are as many, no more are asked.
	maxStuck = 4
)

// Machine is this machine. Many goroutines may ask.
type Machine struct {
	owner int
	// private are the folders of the system's engine's own files, which it hides from jobs.
	private []string
	// stuck are the questions that wait for an answer longer than patience. Each is a goroutine that ends with the answer.
	stuck atomic.Int32
}

// New returns this machine, on which files of root and owner are trusted.
func New(owner int) *Machine {
	m := &Machine{owner: owner}
	if owner == 0 {
		m.private = []string{"/etc/rtask", "/var/lib/rtask", "/var/log/rtask/jobs", "/run/rtask"}
	}
	return m
}

// Ask returns opts with everything in it that is asked of this machine.
func (m *Machine) Ask(opts config.Options) config.Options {
	opts.OwnerUID = m.owner
	opts.LookupUser, opts.LookupGroup = lookupUser, lookupGroup
	opts.StatDir = func(path string) error { return within(m, path, func() error { return isDir(path) }) }
	opts.CheckEnvironmentFile = func(path string) error {
		return within(m, path, func() error {
			_, err := config.ReadEnvironmentFile(path, m.owner)
			return err
		})
	}
	opts.CheckFile = func(path string) error {
		return within(m, path, func() error {
			_, err := config.ReadTrusted(path, m.owner)
			return err
		})
	}
	opts.IsRoot = isRoot
	read := config.SecretReader(m.owner)
	opts.ReadSecret = func(path string) (string, error) {
		var secret string
		err := within(m, path, func() (err error) {
			secret, err = read(path)
			return err
		})
		if err != nil {
			return "", err // and not what may be written to secret some time
		}
		return secret, nil
	}
	opts.Exposed = func(path string) bool {
		return within(m, path, func() error {
			if exposed(path) {
				return errExposed
			}
			return nil
		}) == errExposed
	}
	opts.Inspect = func(t *config.Task) (found []config.Finding) {
		var all []config.Finding
		if within(m, t.Workdir, func() error { all = m.inspect(t); return nil }) == nil {
			found = all
		}
		return found
	}
	return opts
}

// ReadTrusted reads a file that only its owner or root may write, such as the certificates of an authority.
func (m *Machine) ReadTrusted(path string) ([]byte, error) {
	var content []byte
	err := within(m, path, func() (err error) {
		content, err = config.ReadTrusted(path, m.owner)
		return err
	})
	if err != nil {
		return nil, err // and not what may be read some time
	}
	return content, nil
}

// within asks a question about a path, and does not wait for an answer for ever: it returns config.ErrNoAnswer then.
func within(m *Machine, path string, ask func() error) error {
	if m.stuck.Load() >= maxStuck {
		return fmt.Errorf("%s: %w", path, config.ErrNoAnswer)
	}
	answer := make(chan error, 1)
	go func() { answer <- ask() }()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case err := <-answer:
		return err
	case <-late.C:
	}
	m.stuck.Add(1)
	go func() { <-answer; m.stuck.Add(-1) }()
	return fmt.Errorf("%s: %w", path, config.ErrNoAnswer)
}

func lookupUser(name string) error {
	_, err := user.Lookup(name)
	return err
}

// isRoot reports whether a user is uid 0, whatever its name is.
func isRoot(name string) bool {
	u, err := user.Lookup(name)
	return err == nil && u.Uid == "0"
}

func lookupGroup(name string) error {
	_, err := user.LookupGroup(name)
	return err
}

func isDir(path string) error {
	fi, err := os.Stat(path)
	if err == nil && !fi.IsDir() {
		err = fmt.Errorf("%s is not a folder", path)
	}
	return err
}

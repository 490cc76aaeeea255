// Package contexts keeps the servers that somebody has logged in to, in files of that user: contexts.toml, and for each context a folder
// with its certificate, its token, the authority of the server, and, where it is in a file, its key (see package keystore). It shows
// them to servers as the client.Credentials that they are, and renews them.
//
// It speaks to no person; only package ctl imports it.
package contexts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/ctl/keystore"
	"github.com/rtask/rtask/sandbox/durable"
)

const (
	listFile  = "contexts.toml"
	certFile  = "cert.pem"
	caFile    = "ca.pem"
	tokenFile = "token"
	// warnedFile has the time at which somebody was last told that a renewal fails.
	warnedFile = "warned"
	// nameMax is the longest name of a context.
	nameMax = 64
	// fileMax is the largest file that is read, in bytes.
	fileMax = 1 << 20
	// lockPause is how often a lock that another process has is tried.
	lockPause = 20 * time.Millisecond
)

// Local is the name that means the engine of this machine. No context has it.
const Local = "local"

var (
	// ErrNone is returned for a name that no context has.
	ErrNone = errors.New("there is no such context")
	// ErrLoggedOut is returned for a context without a certificate.
	ErrLoggedOut = errors.New("you are not logged in")
)

// Context is a server, and who one is there.
type Context struct {
	Name string `toml:"-"`
	URL  string `toml:"url"`
	// Key is where the key is kept.
	Key keystore.Place `toml:"key,omitempty"`
	// Provider is the OpenID provider whose token a certificate comes for; with a key in memory, each process asks it anew.
	Provider string `toml:"provider,omitempty"`
	// CertFile, KeyFile and CAFile are somebody's own, absolute. KeyFile may be "": the key is in ssh-agent.
	CertFile string `toml:"cert_file,omitempty"`
	KeyFile  string `toml:"key_file,omitempty"`
	CAFile   string `toml:"ca_file,omitempty"`
}

// list is contexts.toml.
type list struct {
	Current  string              `toml:"current,omitempty"`
	Contexts map[string]*Context `toml:"contexts,omitempty"`

	// undo, if there is one, undoes what was done to a folder for a list that could then not be written.
	undo func() error
}

// Folder is where all contexts are, such as ~/.config/rtask. It need not exist before something is saved.
type Folder struct{ Path string }

// All returns the contexts, sorted by name, and the name of the current one, "" if it is none of them.
func (f Folder) All() ([]Context, string, error) {
	l, err := f.read()
	if err != nil {
		return nil, "", err
	}
	var all []Context
	for _, c := range l.Contexts {
		all = append(all, *c)
	}
	slices.SortFunc(all, func(a, b Context) int { return strings.Compare(a.Name, b.Name) })
	return all, l.Current, nil
}

// Get returns a context. Without one of that name it is ErrNone.
func (f Folder) Get(name string) (Context, error) {
	l, err := f.read()
	if err != nil {
		return Context{}, err
	}
	c := l.Contexts[name]
	if c == nil {
		return Context{}, ErrNone
	}
	return *c, nil
}

// Dir is the folder of a context.
func (f Folder) Dir(name string) string { return filepath.Join(f.Path, name) }

// CheckName says why a name cannot be a context's.
func CheckName(name string) error {
	ok := name != "" && len(name) <= nameMax && name[0] != '.' && name[0] != '-' && name != Local && !strings.HasPrefix(name, listFile)
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	}
	if !ok {
		return fmt.Errorf("%q cannot be the name of a context: up to %d letters, digits and . _ - can, and not %q", name, nameMax, Local)
	}
	return nil
}

// Use makes a context the current one; Local: none.
func (f Folder) Use(ctx context.Context, name string) error {
	return f.change(ctx, "", func(l *list) error {
		if name == Local {
			l.Current = ""
			return nil
		}
		if l.Contexts[name] == nil {
			return ErrNone
		}
		l.Current = name
		return nil
	})
}

// Rename gives a context another name. It finishes what was interrupted after the folder had its new name.
func (f Folder) Rename(ctx context.Context, from, to string) error {
	if err := CheckName(to); err != nil {
		return err
	}
	return f.change(ctx, from, func(l *list) error {
		switch {
		case l.Contexts[from] == nil:
			return ErrNone
		case l.Contexts[to] != nil:
			return fmt.Errorf("there is a context %s already", to)
		}
		if err := f.move(l, from, to); err != nil {
			return err
		}
		l.Contexts[to] = l.Contexts[from]
		delete(l.Contexts, from)
		if l.Current == from {
			l.Current = to
		}
		return nil
	})
}

// Remove forgets a context, and removes its folder unless that has a file of somebody's own. The current one is then none.
func (f Folder) Remove(ctx context.Context, name string) error {
	return f.change(ctx, name, func(l *list) error {
		c := l.Contexts[name]
		if c == nil {
			return ErrNone
		}
		if err := f.apart(*c); err != nil {
			return err
		}
		if err := remove(f.Dir(name)); err != nil {
			return err
		}
		delete(l.Contexts, name)
		if l.Current == name {
			l.Current = ""
		}
		return nil
	})
}

// Content is what a context's folder has beside the key.
type Content struct {
	// Certificate is the chain in PEM; CA the authorities of the server, "": the system's.
	Certificate, CA string
}

// Save makes or replaces a context, all of it or nothing; see Check. Keep puts the key into its folder; nil: the key stays. With use, it becomes
// the current one.
func (f Folder) Save(ctx context.Context, c Context, content Content, keep func(dir string) error, use bool) error {
	if err := CheckName(c.Name); err != nil {
		return err
	}
	return f.change(ctx, c.Name, func(l *list) error {
		if err := f.free(l, c); err != nil {
			return err
		}
		if err := f.replace(c.Name, content, keep); err != nil {
			return err
		}
		if l.Contexts[c.Name] == nil {
			l.undo = func() error { return remove(f.Dir(c.Name)) }
		}
		if l.Contexts == nil {
			l.Contexts = map[string]*Context{}
		}
		l.Contexts[c.Name] = &c
		if use {
			l.Current = c.Name
		}
		return nil
	})
}

// change changes contexts.toml, one process at a time. Meanwhile no process renews the context that the change is about; "": it is
// about no context's folder. It waits for them until ctx ends.
func (f Folder) change(ctx context.Context, name string, by func(*list) error) error {
	if err := os.MkdirAll(f.Path, 0o700); err != nil {
		return err
	}
	if err := check(f.Path); err != nil {
		return err
	}
	unlock, err := lock(ctx, f.Path)
	if err != nil {
		return err
	}
	defer unlock()
	l, err := f.read()
	if err != nil {
		return err
	}
	if CheckName(name) == nil {
		unlock, err := lock(ctx, f.Dir(name))
		if err == nil {
			defer unlock()
		} else if !errors.Is(err, fs.ErrNotExist) { // it is a new one, or none
			return err
		}
	}
	if err := by(l); err != nil {
		return err
	}
	text, err := toml.Marshal(l)
	if err != nil {
		return err
	}
	path := filepath.Join(f.Path, listFile)
	err = durable.Replace(path, path+".new", text, 0o600)
	if err == nil || l.undo == nil {
		return err
	}
	if now, failed := readFile(path); failed == nil && bytes.Equal(now, text) {
		return err // it is not certain to be on the disk, but it is the list from now on
	}
	return errors.Join(err, l.undo())
}

// read reads contexts.toml.
func (f Folder) read() (*list, error) {
	l := &list{}
	text, err := readFile(filepath.Join(f.Path, listFile))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	if err := check(f.Path); err != nil {
		return nil, err
	}
	d := toml.NewDecoder(strings.NewReader(string(text)))
	if err := d.DisallowUnknownFields().Decode(l); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", filepath.Join(f.Path, listFile), err)
	}
	for name, c := range l.Contexts {
		if err := CheckName(name); err != nil || c == nil {
			return nil, fmt.Errorf("cannot read %s: %w", filepath.Join(f.Path, listFile), err)
		}
		c.Name = name
	}
	if l.Contexts[l.Current] == nil {
		l.Current = ""
	}
	return l, nil
}

// check refuses a folder in which others could put a certificate, a key or an authority of theirs.
func check(dir string) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		return fmt.Errorf("%s is no folder", dir)
	}
	if s, ok := fi.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user (uid %d)", dir, s.Uid)
	}
	if fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s can be changed by others (mode %04o): chmod 700 it, and look at what is in it", dir, fi.Mode().Perm())
	}
	return nil
}

// lock takes the lock of a folder and returns what gives it back. It waits for other processes until ctx ends.
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		held, err := hold(f, dir)
		if held {
			return func() { _ = f.Close() }, nil // which unlocks it
		}
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("cannot lock %s: %w", dir, err)
		}
		t := time.NewTimer(lockPause)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, context.Cause(ctx)
		case <-t.C:
		}
	}
}

// hold locks an open folder, unless another process has it locked or it is no longer the one of its path: replace has exchanged it.
func hold(f *os.File, path string) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return false, nil
	}
	return err == nil && same(f, path), err
}

// same reports whether an open folder is still the one of that path.
func same(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// readFile reads a small file.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > fileMax {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, fileMax)
	}
	return io.ReadAll(io.LimitReader(f, fileMax))
}

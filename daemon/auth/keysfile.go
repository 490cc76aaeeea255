package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/durable"
)

// maxKeysFile is more than 10,000 keys take, in bytes.
const maxKeysFile = 8 << 20

const keysFileHead = `# The API keys of rtask, without their secrets: rtaskctl key lists, makes and revokes them.
# To undo an edit or restore a copy, put the file here and run rtaskctl reload.
`

// keysFile is the content of a keys file.
type keysFile struct {
	Key []keyEntry `toml:"key"`
}

// keyEntry is one key of a keys file. Times are UTC, in whole seconds; a zero one is left out.
type keyEntry struct {
	Name     string     `toml:"name"`
	ID       keyID      `toml:"id"`
	Created  time.Time  `toml:"created"`
	Expires  time.Time  `toml:"expires,omitzero"`
	LastUsed time.Time  `toml:"last_used,omitzero"`
	Hash     hashRecord `toml:"hash"`
	// Previous is the hash of the secret before the last rotation, good until PreviousExpires.
	Previous        hashRecord `toml:"previous,omitzero"`
	PreviousExpires time.Time  `toml:"previous_expires,omitzero"`
}

func validKeyName(name string) bool {
	if name == "" || len(name) > 63 || name[0] == '-' || name[0] == '_' {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// parseKeysFile reads a keys file's content. Every error is a *FileError.
func parseKeysFile(path string, content []byte) ([]keyEntry, error) {
	var f keysFile
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")) // a byte order mark, which some editors write
	dec := toml.NewDecoder(bytes.NewReader(content)).DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		at := &FileError{File: path, Err: err}
		if unknown, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(unknown.Errors) > 0 {
			first := unknown.Errors[0]
			at.Line, at.Column = first.Position()
			at.Err = fmt.Errorf("there is no %q here", strings.Join(first.Key(), "."))
		} else if wrong, ok := errors.AsType[*toml.DecodeError](err); ok {
			at.Line, at.Column = wrong.Position()
			at.Err = errors.New(strings.TrimPrefix(wrong.Error(), "toml: "))
		}
		return nil, at
	}

	lines := entryLines(content, len(f.Key))
	seen := make(map[string]bool)
	for i := range f.Key {
		e := &f.Key[i]
		if err := e.normalize(); err != nil {
			return nil, &FileError{File: path, Line: lines[i], Err: err}
		}
		// A name or an id has to lead to one key only, also where either may stand.
		for _, s := range []string{e.Name, e.ID.String()} {
			if seen[s] {
				return nil, &FileError{File: path, Line: lines[i], Err: fmt.Errorf("%q is the name or the id of an earlier entry", s)}
			}
			seen[s] = true
		}
	}
	return f.Key, nil
}

// normalize checks that an entry has everything it needs, and brings its times to what is written.
func (e *keyEntry) normalize() error {
	switch {
	case e.Name == "":
		return errors.New("the entry has no name")
	case !validKeyName(e.Name):
		return ErrBadName
	case e.ID == keyID{}:
		return errors.New("the entry has no id")
	case e.Hash.Version == 0:
		return errors.New("the entry has no hash")
	case e.Created.IsZero():
		return errors.New("the entry has no time of creation")
	case (e.Previous.Version == 0) != e.PreviousExpires.IsZero():
		return errors.New("previous and previous_expires go together")
	}
	for _, t := range []*time.Time{&e.Created, &e.Expires, &e.LastUsed, &e.PreviousExpires} {
		if t.IsZero() {
			continue
		}
		*t = t.UTC().Truncate(time.Second)
		if t.Year() < 1970 || t.Year() > maxYear {
			return fmt.Errorf("a time is not between the years 1970 and %d", maxYear)
		}
	}
	return nil
}

// maxYear is the last one that TOML can write.
const maxYear = 9999

// entryLines returns the lines of the [[key]] headers. Where they cannot be told, because the file is written in
// another of TOML's ways, all are 0.
func entryLines(content []byte, entries int) []int {
	header := regexp.MustCompile(`(?m)^[ \t]*\[{1,2}[ \t]*key[ \t]*\]`)
	found := header.FindAllIndex(content, -1)
	lines := make([]int, entries)
	if len(found) != entries {
		return lines
	}
	for i, at := range found {
		lines[i] = 1 + bytes.Count(content[:at[0]], []byte("\n"))
	}
	return lines
}

// formatKeysFile returns what parseKeysFile reads.
func formatKeysFile(entries []keyEntry) ([]byte, error) {
	content, err := toml.Marshal(keysFile{Key: entries})
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		content = nil // instead of "key = []"
	}
	return append([]byte(keysFileHead), content...), nil
}

// fileStamp tells one version of a file from another: a file that is replaced has another inode, one that is edited in
// place another time. The zero fileStamp is that of no file.
type fileStamp struct {
	dev, ino    uint64
	ctime, size int64
}

func stampOf(info fs.FileInfo) fileStamp {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileStamp{}
	}
	return fileStamp{dev: uint64(st.Dev), ino: st.Ino, ctime: st.Ctim.Nano(), size: st.Size}
}

// stampAt returns the stamp of the file that is at a path now.
func stampAt(path string) (fileStamp, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fileStamp{}, nil
	}
	if err != nil {
		return fileStamp{}, err
	}
	return stampOf(info), nil
}

// readKeysFile reads and checks a keys file. No file is an empty one.
func readKeysFile(path string) ([]keyEntry, fileStamp, error) {
	// O_NONBLOCK: opening a FIFO must not wait.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fileStamp{}, nil
	case errors.Is(err, unix.ELOOP):
		return nil, fileStamp{}, &FileError{File: path, Err: fmt.Errorf("%w: it is a symbolic link", ErrUnsafeFile)}
	case err != nil:
		return nil, fileStamp{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fileStamp{}, err
	}
	if err := checkSafe(info); err != nil {
		return nil, fileStamp{}, &FileError{File: path, Err: err}
	}
	content, err := io.ReadAll(io.LimitReader(f, maxKeysFile+1))
	if err != nil {
		return nil, fileStamp{}, err
	}
	if len(content) > maxKeysFile {
		return nil, fileStamp{}, &FileError{File: path, Err: fmt.Errorf("it is larger than %d bytes", maxKeysFile)}
	}
	entries, err := parseKeysFile(path, content)
	return entries, stampOf(info), err
}

// checkSafe returns ErrUnsafeFile and what to do about it.
func checkSafe(info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || !info.Mode().IsRegular():
		return fmt.Errorf("%w: it is not a regular file", ErrUnsafeFile)
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%w: it belongs to user %d, and must belong to root or to user %d", ErrUnsafeFile, st.Uid,
			os.Geteuid())
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%w: its mode is %#o, and must be 0600", ErrUnsafeFile, info.Mode().Perm())
	}
	return nil
}

// writeKeysFile replaces a keys file: after a crash at any point there is the old one or the new one. It returns the
// new file's stamp, also with an error if the new one is in its place but perhaps not for good.
func writeKeysFile(path string, entries []keyEntry) (fileStamp, error) {
	content, err := formatKeysFile(entries)
	if err != nil {
		return fileStamp{}, err
	}
	next := path + ".new"
	if err := durable.Create(next, content, 0o600); err != nil {
		return fileStamp{}, err
	}
	if err := os.Rename(next, path); err != nil {
		return fileStamp{}, errors.Join(err, os.Remove(next))
	}
	stamp, err := stampAt(path)
	if err != nil {
		return fileStamp{}, err
	}
	return stamp, durable.SyncFolder(filepath.Dir(path))
}

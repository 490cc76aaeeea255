package jail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/jail/landlock"
	"github.com/rtask/rtask/sandbox/jail/seccomp"
	"github.com/rtask/rtask/sandbox/safepath"
	"github.com/rtask/rtask/sandbox/spec"
)

// layer is a second layer under the mounts of a room: a ruleset of Landlock that says of files what the places say, as far as
// rules can, and says it also where a mount was got rid of. Rules only ever allow, for all below a folder. So a folder that is
// read-only and has something hidden below it is not allowed itself; what is in it is, entry by entry.
type layer struct {
	ruleset *landlock.Ruleset
	places  []place
	listed  []listed
}

// listed is a folder of the machine whose entries were allowed one by one, as it was then.
type listed struct {
	path     string
	dev, ino uint64
	changed  unix.Timespec
}

// mtimeGrain is longer than the interval in which two changes of a folder can get the same time: the kernel's clock for that ticks at
// least 100 times a second.
const mtimeGrain = 50 * time.Millisecond

// layered reports whether jobs with s get the second layer. It takes more than the places say: under Landlock nothing can be
// mounted and no process outside can be looked into, and FIFOs and devices of a read-only folder cannot be written to, all of
// which other profiles leave to a job. And where the root is writable and executable, there is nothing that rules could say.
func layered(s spec.Sandbox, places []place) bool {
	confined := s.Profile == "strict" && s.NoNewPrivileges && s.PrivatePIDs && seccomp.Refuses(s, "@mount")
	return confined && len(places) > 0 && places[0].path == "/" && (places[0].readOnly || places[0].noExec)
}

// newLayer makes the layer of places that were arranged, as they are seen by the calling thread. It is nil without Landlock.
func newLayer(places []place) (*layer, error) {
	if _, err := landlock.Version(); err != nil {
		return nil, nil // which the engine reports (sandbox.Host.Weaker)
	}
	ruleset, err := landlock.New()
	if err != nil {
		return nil, fmt.Errorf("cannot make a ruleset of Landlock: %w", err)
	}
	l := &layer{ruleset: ruleset, places: places}
	for _, p := range places {
		if p.content == hidden {
			continue
		}
		rights := p.rights()
		if rights&landlock.Write == 0 && l.coversBelow(p.path) {
			err = l.list(p.path, rights, p.content == own)
		} else {
			err = l.allow(p.path, rights)
		}
		if err != nil {
			ruleset.Close()
			return nil, err
		}
	}
	return l, nil
}

// rights are what the place allows.
func (p place) rights() landlock.Rights {
	rights := landlock.Read
	if !p.noExec {
		rights |= landlock.Execute
	}
	if !p.readOnly || p.content == devices { // whose folder is read-only, and whose devices are not
		rights |= landlock.Write
	}
	return rights
}

// coversBelow reports whether something is hidden below dir.
func (l *layer) coversBelow(dir string) bool {
	return slices.ContainsFunc(l.places, func(p place) bool {
		return (p.content == hidden || p.content == private || p.content == devices) && p.path != dir && spec.Below(p.path, dir)
	})
}

// list allows the entries of dir, except those for which a place says otherwise.
func (l *layer) list(dir string, rights landlock.Rights, machine bool) error {
	st, err := safepath.Lstat(dir)
	if err != nil {
		return fmt.Errorf("cannot look at %s: %w", dir, err)
	}
	// Before its names are read, which may take long.
	if age := time.Since(time.Unix(st.Mtim.Unix())); age >= 0 && age < mtimeGrain {
		st.Mtim = unix.Timespec{} // what comes in this moment may not change it: it counts as changed
	}
	entries, err := readDir(dir)
	if errors.Is(err, fs.ErrPermission) {
		return l.allow(dir, rights) // its names cannot be known
	}
	if err != nil {
		return fmt.Errorf("cannot list a folder: %w", err)
	}
	if machine {
		l.listed = append(l.listed, listed{dir, st.Dev, st.Ino, st.Mtim})
	}
	for _, e := range entries {
		at := path.Join(dir, e.Name())
		switch {
		case e.Type()&fs.ModeSymlink != 0:
		case slices.ContainsFunc(l.places, func(p place) bool { return p.path == at }):
		case e.IsDir() && l.coversBelow(at):
			err = l.list(at, rights, machine)
		default:
			err = l.allow(at, rights)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readDir lists a folder, whose path is resolved.
func readDir(path string) ([]os.DirEntry, error) {
	fd, err := safepath.Open(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	return f.ReadDir(-1)
}

// allow gives rights over what is at path. What cannot be reached needs no rule.
func (l *layer) allow(path string, rights landlock.Rights) error {
	fd, err := safepath.Open(path, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := l.ruleset.Allow(fd, rights); err != nil {
		return fmt.Errorf("cannot make a rule of Landlock for %s: %w", path, err)
	}
	return nil
}

// outdated reports whether the machine has got something in a folder whose entries were allowed one by one.
func (l *layer) outdated() bool {
	return slices.ContainsFunc(l.listed, func(d listed) bool {
		st, err := safepath.Lstat(d.path)
		return err != nil || st.Dev != d.dev || st.Ino != d.ino || st.Mtim != d.changed
	})
}

func (l *layer) close() {
	if l != nil {
		l.ruleset.Close()
	}
}

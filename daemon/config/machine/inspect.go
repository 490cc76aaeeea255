package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/sandbox/spec"
)

// defaultPath is where a job's program is looked for whose task sets no PATH, as daemon/job has it.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// account is who a job runs as, as far as the permissions of files are concerned.
type account struct {
	name   string
	uid    uint32
	groups []uint32
}

// noUID is a uid that owns nothing: that of a job whose task names no user.
const noUID = 1<<32 - 2

// inspect returns what would keep a task from running, as far as this user may look, and what it leaves open to others.
func (m *Machine) inspect(t *config.Task) []config.Finding {
	var found findings
	for _, c := range t.Sandbox.LoadCredential {
		if exposed(c.Path) {
			found.add("load_credential", "Do: chmod o-r "+c.Path, "load_credential: every user of this machine can read %s", c.Path)
		}
	}
	m.inspectArguments(t, &found)
	m.inspectProgram(t, &found)
	return found
}

// findings are what was found of a task.
type findings []config.Finding

func (f *findings) add(setting, detail, format string, args ...any) {
	*f = append(*f, config.Finding{Setting: setting, Summary: fmt.Sprintf(format, args...), Detail: detail})
}

// inspectProgram looks for what would keep the program of a task from being executed.
func (m *Machine) inspectProgram(t *config.Task, found *findings) {
	// What such a sandbox shows at a path is not what is there now, and who has capabilities is not held to permissions.
	if len(t.Sandbox.Binds)+len(t.Sandbox.TemporaryFileSystem) > 0 || t.Sandbox.AmbientCapabilities != 0 {
		return
	}
	who, ok := m.accountOf(t)
	if !ok {
		return
	}
	if dir := who.barrier(t.Workdir, true); dir != "" {
		found.add("workdir", fmt.Sprintf("The task fails until it may. Set user, or do: chmod o+x %s", dir), "workdir: %s may not enter %s", who.name, dir)
		return
	}
	search := m.searchPath(t)
	program, ok := locate(t.Command[0], t.Workdir, search)
	if !ok {
		found.add("command", "The task fails until it is installed. Or write where it is: /usr/local/bin/NAME.", "command: there is no program %q in PATH, which is %s", t.Command[0], search)
		return
	}
	if summary, detail := who.trouble(program, search); summary != "" {
		found.add("command", detail, "command: %s", summary)
	}
}

// inspectArguments looks for arguments that are files of rtask's own, which a job does not see unless the profile is off. The
// program itself is shown to it.
func (m *Machine) inspectArguments(t *config.Task, found *findings) {
	if t.Sandbox.Profile == config.ProfileOff {
		return
	}
	for _, arg := range t.Command[1:] {
		if !filepath.IsAbs(arg) {
			continue
		}
		arg = filepath.Clean(arg)
		hides := func(dir string) bool {
			return spec.Below(arg, dir) && !(spec.Below(t.Workdir, dir) && spec.Below(arg, t.Workdir))
		}
		shows := func(b spec.Bind) bool { return spec.Below(arg, b.Destination) }
		if _, err := os.Lstat(arg); err != nil || !slices.ContainsFunc(m.private, hides) || slices.ContainsFunc(t.Sandbox.Binds, shows) {
			continue
		}
		found.add("command", fmt.Sprintf("Keep it in another folder, or show it: bind_read_only_paths = [%q]", arg),
			"command: the job does not see %s, since the sandbox hides rtask's own files", arg)
	}
}

// accountOf returns who the jobs of a task run as; false: that is not known here.
func (m *Machine) accountOf(t *config.Task) (account, bool) {
	a := account{name: "the job", uid: noUID}
	named := t.User
	if named == "" && m.owner != 0 {
		named = strconv.Itoa(m.owner)
	}
	if named != "" {
		u, err := user.Lookup(named)
		if err != nil {
			if u, err = user.LookupId(named); err != nil {
				return a, false
			}
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return a, false
		}
		a.name, a.uid = "user "+u.Username, uint32(uid)
		groups, err := u.GroupIds()
		if err != nil {
			return a, false
		}
		for _, g := range append(groups, u.Gid) {
			if gid, err := strconv.ParseUint(g, 10, 32); err == nil {
				a.groups = append(a.groups, uint32(gid))
			}
		}
	}
	names := t.SupplementaryGroups
	if t.Group != "" {
		names = append(slices.Clone(names), t.Group)
	}
	for _, name := range names {
		g, err := user.LookupGroup(name)
		if err != nil {
			if g, err = user.LookupGroupId(name); err != nil {
				return a, false
			}
		}
		if gid, err := strconv.ParseUint(g.Gid, 10, 32); err == nil {
			a.groups = append(a.groups, uint32(gid))
		}
	}
	return a, true
}

// may reports whether a may do with a file what the bits of rwx say. An access control list is believed to allow it.
func (a account) may(path string, fi fs.FileInfo, bits fs.FileMode) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	mode := fi.Mode().Perm()
	switch {
	case a.uid == 0: // CAP_DAC_OVERRIDE
		return fi.IsDir() || bits&1 == 0 || mode&0o111 != 0
	case st.Uid == a.uid:
		return mode>>6&bits == bits
	}
	if _, err := unix.Getxattr(path, "system.posix_acl_access", nil); err == nil {
		return true
	}
	if slices.Contains(a.groups, st.Gid) {
		return mode>>3&bits == bits
	}
	return mode&bits == bits
}

// barrier returns the first folder on the way to a path, or with whole the path itself, that a may not enter; "": there is none
// that this user can see.
func (a account) barrier(path string, whole bool) string {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	if !whole {
		path = filepath.Dir(path)
	}
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		dir := path[:i]
		fi, err := os.Stat(dir)
		if err != nil {
			return ""
		}
		if !a.may(dir, fi, 1) {
			return dir
		}
	}
	return ""
}

// searchPath is the PATH of a task's jobs.
func (m *Machine) searchPath(t *config.Task) string {
	env := t.Environment
	if t.EnvironmentFile != "" {
		if more, err := config.ReadEnvironmentFile(t.EnvironmentFile, m.owner); err == nil {
			env = slices.Concat(env, more)
		}
	}
	path := defaultPath
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = value
		}
	}
	return path
}

// locate returns where a program is, which need not be there if it is named by a path; false: no folder of search has it.
func locate(name, workdir, search string) (string, bool) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(workdir, name)
		}
		return name, true
	}
	for _, dir := range filepath.SplitList(search) {
		path := filepath.Join(dir, name)
		if fi, err := os.Stat(path); filepath.IsAbs(dir) && err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return path, true
		}
	}
	return "", false
}

// trouble returns what would keep a from executing a program, and what to do about it; "": nothing that can be seen.
func (a account) trouble(path, search string) (summary, detail string) {
	fi, err := os.Stat(path)
	if dir := a.barrier(path, false); dir != "" {
		return fmt.Sprintf("%s may not enter %s", a.name, dir), fmt.Sprintf("The task fails until it may. Set user, or do: chmod o+x %s", dir)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return path + " is not there", "The task fails until it is."
	case err != nil: // that cannot be seen from here
		return "", ""
	case !fi.Mode().IsRegular():
		return path + " is not a program", "The task fails until it is."
	case fi.Mode()&0o111 == 0:
		return path + " is not executable", "Do: chmod +x " + path
	case !a.may(path, fi, 1):
		return fmt.Sprintf("%s may not execute %s", a.name, path), "Set user, or do: chmod o+x " + path
	}
	return a.scriptTrouble(path, search)
}

// scriptTrouble is trouble with a script, beyond its permissions.
func (a account) scriptTrouble(path, search string) (summary, detail string) {
	head, err := beginning(path)
	if err != nil || len(head) == 0 {
		return "", ""
	}
	line, isScript := bytes.CutPrefix(head, []byte("#!"))
	switch {
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf#!")):
		return path + " begins with a byte order mark, so it cannot be executed", "Save it as UTF-8 without one."
	case !isScript && isText(head):
		return path + " is a text without a line #! at its beginning, so it cannot be executed", "Begin it with: #!/bin/sh"
	case !isScript:
		return "", ""
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	if bytes.HasSuffix(line, []byte("\r")) {
		return fmt.Sprintf("the first line of %s ends with CRLF, so its interpreter is not found", path), fmt.Sprintf(`Do: sed -i 's/\r$//' %s`, path)
	}
	words := strings.Fields(string(line))
	if len(words) == 0 {
		return "", ""
	}
	interpreter := words[0]
	if fi, err := os.Stat(interpreter); errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("the interpreter %s of %s is not there", interpreter, path), "The task fails until it is installed."
	} else if err == nil && !a.may(interpreter, fi, 1) {
		return fmt.Sprintf("%s may not execute %s, the interpreter of %s", a.name, interpreter, path), ""
	}
	if filepath.Base(interpreter) == "env" && len(words) > 1 && !strings.HasPrefix(words[1], "-") && !strings.Contains(words[1], "=") {
		if _, ok := locate(words[1], "/", search); !ok {
			return fmt.Sprintf("the interpreter %s of %s is not in PATH, which is %s", words[1], path, search), "The task fails until it is installed."
		}
	}
	return "", ""
}

func isText(b []byte) bool {
	return utf8.Valid(b) && !bytes.ContainsFunc(b, func(r rune) bool { return unicode.IsControl(r) && !unicode.IsSpace(r) })
}

// beginning returns the first bytes of a file, as many as the kernel reads of a script (BINPRM_BUF_SIZE).
func beginning(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 256)
	n, err := io.ReadFull(f, head)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	for n > 0 && n == len(head) && !utf8.Valid(head[:n]) && n > len(head)-utf8.UTFMax { // a character that is cut off
		n--
	}
	return head[:n], err
}

var errExposed = errors.New("every user can read it")

// exposed reports whether every user of this machine can read a file.
func exposed(path string) bool {
	stranger := account{uid: noUID}
	path, err := filepath.EvalSymlinks(path)
	if err != nil || stranger.barrier(path, false) != "" {
		return false
	}
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o004 != 0
}

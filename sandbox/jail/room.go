package jail

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/jail/fork"
	"github.com/rtask/rtask/sandbox/safepath"
	"github.com/rtask/rtask/sandbox/spec"
)

// Room is the namespaces that the jobs of a slot are born into, one job at a time. It is made once and entered by each;
// Untouched tells whether a job has left something in it.
type Room struct {
	namespaces []*os.File
	pids       *os.File     // the PID namespace, nil: the machine's
	users      *os.File     // the user namespace, likewise
	init       *fork.Parked // the first process of pids
	own        []*os.File   // its own file systems
	layer      *layer       // nil: none
	// What Untouched looks at.
	mounts *os.File   // mountinfo of the mount namespace; nil: not open yet
	tmpfs  []filled   // those of own that a job can write to
	tables []*os.File // of System V IPC
	queues *os.File   // of POSIX message queues, nil: none
}

// filled is a temporary file system as it was when the room was made.
type filled struct {
	root          *os.File
	files, blocks uint64
	mode          uint32
	uid, gid      uint32
}

// NewRoom makes the namespaces that s asks for, for jobs that start in dir with the credentials c. It takes the privilege to
// mount.
func NewRoom(s spec.Sandbox, dir string, c *spec.Credentials) (*Room, error) {
	type made struct {
		room *Room
		err  error
	}
	done := make(chan made)
	go func() {
		// The thread is of no use to anybody else afterwards: it is never unlocked, and ends with this goroutine.
		runtime.LockOSThread()
		r, err := furnish(s, dir, c)
		done <- made{r, err}
	}()
	m := <-done
	return m.room, m.err
}

// furnish turns the calling thread into one of a new room.
func furnish(s spec.Sandbox, dir string, c *spec.Credentials) (_ *Room, err error) {
	r := &Room{}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	// Of the machine, before there is another one.
	proc, err := unix.Open("/proc/thread-self", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot watch the job's namespaces: %w", err)
	}
	defer unix.Close(proc)
	flags := unix.CLONE_NEWNS
	if s.PrivateIPC {
		flags |= unix.CLONE_NEWIPC
	}
	if s.PrivateNetwork {
		flags |= unix.CLONE_NEWNET
	}
	if s.ProtectHostname {
		flags |= unix.CLONE_NEWUTS
	}
	if err := unix.Unshare(flags); err != nil {
		return nil, fmt.Errorf("cannot make the job's namespaces: %w", err)
	}
	// A slave: what is mounted on the machine later is seen, what is unmounted is not held, and nothing goes back.
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return nil, fmt.Errorf("cannot separate the job's mounts from the machine's: %w", err)
	}
	if s.PrivateNetwork {
		if err := loopback(); err != nil {
			return nil, fmt.Errorf("cannot apply private_network: %w", err)
		}
	}
	if s.PrivatePIDs {
		if r.init, r.pids, err = parked(unix.CLONE_NEWPID, "pid"); err != nil {
			return nil, fmt.Errorf("cannot apply private_pids: %w", err)
		}
	}
	// Who is not root is in a user namespace already, that of its shim, and cannot have more users in another one.
	if s.PrivateUsers && os.Geteuid() == 0 {
		if r.users, err = users(c); err != nil {
			return nil, fmt.Errorf("cannot apply private_users: %w", err)
		}
	}
	if err := r.watchTables(s, proc); err != nil {
		return nil, err
	}
	f := &furnisher{room: r}
	if s.AsCaller && c != nil && os.Geteuid() == 0 {
		if err := f.adopt(c); err != nil {
			return nil, err
		}
	}
	defer func() {
		for _, t := range f.trees {
			_ = t.Close() // it is attached by now, or not wanted
		}
	}()
	if err := f.all(s, dir, c); err != nil {
		return nil, err
	}
	return r, r.watch(s, proc)
}

// all mounts all that s asks for.
func (f *furnisher) all(s spec.Sandbox, dir string, c *spec.Credentials) error {
	credentials, err := readCredentials(s.LoadCredential)
	if err != nil {
		return err
	}
	if err := f.proc(s); err != nil {
		return err
	}
	places, err := f.resolve(wanted(s, dir))
	if err != nil {
		return err
	}
	places = arrange(places)
	trees, names, err := f.pieces(s, c, places)
	if err != nil {
		return err
	}
	if err := f.furnish(places, trees, func() error { return f.hand(credentials, s.CredentialsDirectory(), c) }); err != nil {
		return err
	}
	for path, p := range names {
		if err := f.attach(p.tree, path, false); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cannot name the job's user in %s: %w", path, err)
		}
	}
	if layered(s, places) {
		f.room.layer, err = newLayer(places)
	}
	return err
}

// proc mounts another /proc, where s asks for one.
func (f *furnisher) proc(s spec.Sandbox) error {
	if !s.PrivatePIDs && s.ProtectProc == "" && s.ProcSubset == "" {
		return nil
	}
	var options []string
	by := "private_pids"
	if s.ProtectProc != "" {
		by, options = "protect_proc", append(options, "hidepid="+s.ProtectProc)
	}
	if s.ProcSubset != "" {
		by, options = "proc_subset", append(options, "subset="+s.ProcSubset)
	}
	if err := fork.MountProc(f.room.pids, "/proc", strings.Join(options, ",")); err != nil {
		return switchError(by, "/proc", err)
	}
	return nil
}

// pieces makes what is put at hidden places, and the files that name the job's user.
func (f *furnisher) pieces(s spec.Sandbox, c *spec.Credentials, places []place) (trees []*os.File, names map[string]*piece, err error) {
	var all []*piece
	at := map[int]*piece{}
	for i, p := range places {
		if p.content != hidden {
			continue
		}
		st, err := f.lstat(p.path, p.named)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) && p.optional {
				continue
			}
			return nil, nil, switchError(p.by, p.path, err)
		}
		at[i] = &piece{dir: st.Mode&unix.S_IFMT == unix.S_IFDIR}
		all = append(all, at[i])
	}
	names = map[string]*piece{}
	if s.DynamicUser && c != nil {
		for path, line := range map[string]string{
			"/etc/passwd": fmt.Sprintf("%s:x:%d:%d:%s:/:/bin/sh\n", s.UserName, c.UID, c.GID, s.UserName),
			"/etc/group":  fmt.Sprintf("%s:x:%d:\n", s.UserName, c.GID),
		} {
			// A machine that has no such file goes without.
			var b []byte
			if path, err = safepath.Resolve(path); err == nil {
				b, err = readSome(path, math.MaxInt64)
			}
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, nil, fmt.Errorf("cannot name the job's user: %w", err)
			}
			if n := len(b); n > 0 && b[n-1] != '\n' {
				b = append(b, '\n')
			}
			names[path] = &piece{mode: 0o444, content: append(b, line...)}
			all = append(all, names[path])
		}
	}
	if err := f.make(all); err != nil {
		return nil, nil, fmt.Errorf("cannot make files for the job: %w", err)
	}
	trees = make([]*os.File, len(places))
	for i, p := range at {
		trees[i] = p.tree
	}
	return trees, names, nil
}

// loopback brings up the loopback device of the thread's network namespace (netdevice(7)).
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// parked makes a process in a new namespace, and opens the namespace.
func parked(flag uint64, name string) (*fork.Parked, *os.File, error) {
	p, err := fork.Park(flag)
	if err != nil {
		return nil, nil, err
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", p.PID, name))
	if err != nil {
		p.End()
		return nil, nil, err
	}
	return p, f, nil
}

// users makes a user namespace that has root and the user and group of c.
func users(c *spec.Credentials) (_ *os.File, err error) {
	p, f, err := parked(unix.CLONE_NEWUSER, "user")
	if err != nil {
		return nil, err
	}
	defer p.End()
	var uid, gid uint32
	if c != nil {
		uid, gid = c.UID, c.GID
	}
	for name, id := range map[string]uint32{"uid_map": uid, "gid_map": gid} {
		text := "0 0 1\n"
		if id != 0 {
			text += fmt.Sprintf("%d %d 1\n", id, id)
		}
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/%s", p.PID, name), []byte(text), 0); err != nil {
			_ = f.Close() // it is of no use
			return nil, err
		}
	}
	return f, nil
}

// openAt opens a file of the folder dir for reading, without the poller: package os would set a mode each time that it is asked for
// the descriptor.
func openAt(dir int, name string) (*os.File, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// watchTables opens what there is of System V IPC. By the machine's /proc, since the kernel's tables are not those of a PID
// namespace.
func (r *Room) watchTables(s spec.Sandbox, proc int) error {
	if !s.PrivateIPC {
		return nil
	}
	// proc_sysvipc(5): the files go on to show the namespace in which they were opened.
	for _, name := range []string{"msg", "sem", "shm"} {
		f, err := openAt(unix.AT_FDCWD, "/proc/sysvipc/"+name)
		if errors.Is(err, os.ErrNotExist) {
			continue // a kernel without System V IPC
		}
		if err != nil {
			return fmt.Errorf("cannot watch the job's namespaces: %w", err)
		}
		r.tables = append(r.tables, f)
	}
	return nil
}

// watch opens what Untouched looks at, and the namespaces themselves. Proc is the thread's folder in the machine's /proc.
func (r *Room) watch(s spec.Sandbox, proc int) error {
	names := []string{"mnt"}
	if s.PrivateIPC {
		names = append(names, "ipc")
	}
	if s.PrivateNetwork {
		names = append(names, "net")
	}
	if s.ProtectHostname {
		names = append(names, "uts")
	}
	for _, name := range names {
		f, err := openAt(proc, "ns/"+name)
		if err != nil {
			return fmt.Errorf("cannot keep the job's namespaces: %w", err)
		}
		r.namespaces = append(r.namespaces, f)
	}
	for i := range r.tmpfs {
		f := &r.tmpfs[i]
		var st unix.Stat_t
		err := unix.Fstat(int(f.root.Fd()), &st)
		if err == nil {
			f.mode, f.uid, f.gid = st.Mode, st.Uid, st.Gid
			f.files, f.blocks, err = use(f.root)
		}
		if err != nil {
			return fmt.Errorf("cannot watch the job's temporary files: %w", err)
		}
	}
	fd, err := unix.Openat(proc, "mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot watch the job's namespaces: %w", err)
	}
	r.mounts = os.NewFile(uintptr(fd), "mountinfo")
	return nil
}

// use returns how many files and blocks a file system has in use.
func use(root *os.File) (files, blocks uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &st); err != nil {
		return 0, 0, fmt.Errorf("cannot look at the job's temporary files: %w", err)
	}
	return st.Files - st.Ffree, st.Blocks - st.Bfree, nil
}

// Untouched reports whether the room is as it was made: no file, no IPC object, no mount was left in it. What cannot be
// looked at counts as touched.
func (r *Room) Untouched() bool {
	if r.remounted() {
		return false
	}
	for _, f := range r.tmpfs {
		files, blocks, err := use(f.root)
		// More or less: what was there may have been exchanged for something else.
		if err != nil || files != f.files || blocks != f.blocks || f.changed() {
			return false
		}
	}
	buf := make([]byte, 4096)
	for _, t := range r.tables {
		n, err := unix.Pread(int(t.Fd()), buf, 0)
		if err != nil || bytes.Count(buf[:n], []byte{'\n'}) > 1 { // the first line has the names
			return false
		}
	}
	return r.queues == nil || empty(r.queues)
}

// remounted reports whether a mount of the room, or one of the machine's that is seen in it, came or went since the room was made
// or this was asked. A file of mounts is ready with POLLPRI and POLLERR once they have changed (proc_pid_mounts(5)).
func (r *Room) remounted() bool {
	fds := []unix.PollFd{{Fd: int32(r.mounts.Fd()), Events: unix.POLLPRI}}
	for {
		if n, err := unix.Poll(fds, 0); !errors.Is(err, unix.EINTR) {
			return n != 0 || err != nil
		}
	}
}

// Outdated reports whether the machine has changed so that a new room would show its jobs more: a rule of the second layer is for
// what was there when it was made, and not for what is mounted over that later.
func (r *Room) Outdated() bool { return r.layer != nil && (r.layer.outdated() || r.remounted()) }

// changed reports whether the folder itself was given another mode or owner.
func (f filled) changed() bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.root.Fd()), &st) != nil || st.Mode != f.mode || st.Uid != f.uid || st.Gid != f.gid
}

// empty reports whether a folder has no entry.
func empty(dir *os.File) bool {
	fd := int(dir.Fd())
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return false
	}
	var buf [4096]byte
	n, err := unix.Getdents(fd, buf[:])
	if err != nil {
		return false
	}
	_, entries, _ := unix.ParseDirent(buf[:n], -1, nil) // without "." and ".."
	return entries == 0
}

// fds are the namespaces to enter.
func (r *Room) fds() []int {
	if r == nil {
		return nil
	}
	fds := make([]int, len(r.namespaces))
	for i, f := range r.namespaces {
		fds[i] = int(f.Fd())
	}
	return fds
}

// has reports whether a job with the credentials c finds something at path: in the room, and with no more rights than it has, since
// what is said of it reaches whoever started the job.
func (r *Room) has(c *spec.Credentials, path string) bool {
	done := make(chan bool)
	go func() {
		// The thread is of no use to anybody else afterwards: it is never unlocked, and ends with this goroutine.
		runtime.LockOSThread()
		done <- func() bool {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return false
			}
			for _, fd := range r.fds() {
				if err := unix.Setns(fd, 0); err != nil {
					return false
				}
			}
			f := &furnisher{}
			if c != nil && os.Geteuid() == 0 {
				if err := f.adopt(c); err != nil {
					return false
				}
			}
			var st unix.Stat_t
			return f.as(true, func() error { return unix.Stat(path, &st) }) == nil
		}()
	}()
	return <-done
}

// Close lets go of the room. Once no process is in it, it and all that is in it are gone.
func (r *Room) Close() {
	if r == nil {
		return
	}
	for _, f := range slices.Concat(r.namespaces, r.tables, r.own, []*os.File{r.pids, r.users, r.queues}) {
		if f != nil {
			_ = f.Close() // nothing was written to it
		}
	}
	if r.mounts != nil {
		_ = r.mounts.Close() // likewise
	}
	r.layer.close()
	r.init.End()
}

// maxCredential is the largest credential, in bytes, as systemd has it (systemd.exec(5), LoadCredential=).
const maxCredential = 1 << 20

// credential is one that was read.
type credential struct {
	name    string
	content []byte
}

func readCredentials(list []spec.Credential) ([]credential, error) {
	var all []credential
	for _, c := range list {
		b, err := readSome(c.Path, maxCredential)
		if err != nil {
			return nil, switchError("load_credential", c.Path, unwrapPath(err))
		}
		all = append(all, credential{c.Name, b})
	}
	return all, nil
}

// readSome reads a regular file of most bytes.
func readSome(path string, most int64) ([]byte, error) {
	f, err := safepath.OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, cmp.Or(err, errors.New("it is not a regular file"))
	}
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil, err
	}
	if n, _ := f.Read(make([]byte, 1)); n > 0 {
		return nil, fmt.Errorf("it is larger than %d bytes", most)
	}
	return b, nil
}

// hand gives the job its credentials, in a folder that it alone can read.
func (f *furnisher) hand(all []credential, at string, c *spec.Credentials) error {
	if len(all) == 0 {
		return nil
	}
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	if c != nil {
		uid, gid = c.UID, c.GID
	}
	const attrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	size := 0
	for _, one := range all {
		size += len(one.content) + os.Getpagesize()
	}
	fs, err := newFS("tmpfs", fmt.Sprintf("mode=700,uid=%d,gid=%d,size=%d,nr_inodes=%d", uid, gid, size+os.Getpagesize(), len(all)+2), attrs)
	if err != nil {
		return err
	}
	f.trees = append(f.trees, fs)
	for _, one := range all {
		fd, err := unix.Openat(int(fs.Fd()), one.name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o400)
		if err != nil {
			return err
		}
		file := os.NewFile(uintptr(fd), one.name)
		_, err = file.Write(one.content)
		if err := errors.Join(err, unix.Fchown(fd, int(uid), int(gid)), file.Close()); err != nil {
			return err
		}
	}
	if err := unix.Fchmodat(int(fs.Fd()), ".", 0o500, 0); err != nil {
		return err
	}
	if err := attributes(int(fs.Fd()), unix.MOUNT_ATTR_RDONLY, false); err != nil {
		return err
	}
	if err := f.makeTarget(place{path: at, content: private}, nil); err != nil {
		return err
	}
	return f.attach(fs, at, false)
}

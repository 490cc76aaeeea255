package jail

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/jail/fork"
	"github.com/rtask/rtask/sandbox/safepath"
	"github.com/rtask/rtask/sandbox/spec"
)

// NewRoom makes the namespaces that s asks for, for jobs that start in dir with the credentials c. It takes the privilege to
// mount.
func NewRoom(s spec.Sandbox, dir string, c *spec.Credentials) (*Room, error) {
	type made struct {
		room *Room
		err  error
	}
	done := make(chan made)
	go func() {
		// No other goroutine may get this thread afterwards: it is never unlocked, and ends with this goroutine.
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

// has reports whether a job with the credentials c finds something at path in the room. It looks with the rights of the job, since the
// caller that started the job learns the result.
func (r *Room) has(c *spec.Credentials, path string) bool {
	done := make(chan bool)
	go func() {
		// No other goroutine may get this thread afterwards: it is never unlocked, and ends with this goroutine.
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

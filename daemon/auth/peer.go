package auth

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peer is who is at the other end of a Unix socket, as the kernel said when the connection was accepted. What it says
// of users and groups is what the process had when it connected: somebody added to a group has to log in again, as
// with any Unix group.
//
// The zero Peer is nobody: its control group is not known.
type Peer struct {
	// UID and GID are the effective ids, from SO_PEERCRED of unix(7).
	UID, GID uint32
	// Groups are the supplementary groups, from SO_PEERGROUPS.
	Groups []uint32
	// PID is for people to read. Nothing is decided by it: it may be another process's by now.
	PID int32
	// InSlice is whether the process sits below the slice that PeerOf was given: it is a job.
	InSlice bool
	// CgroupKnown is whether InSlice could be found out. It cannot where the process is gone, is out of this PID
	// namespace, or is hidden by proc(5)'s hidepid=.
	CgroupKnown bool
}

// In reports whether the peer's process is in a group, by its primary group or a supplementary one.
func (p Peer) In(gid uint32) bool { return p.GID == gid || slices.Contains(p.Groups, gid) }

// PeerOf asks the kernel who is at the other end of an accepted connection. Call it right after Accept: on kernels
// before 6.5, which lack SO_PEERPIDFD, the process is found by its number, and in the time between connect and PeerOf
// that can become another's.
//
// The slice is a unit's name such as "rtask.slice"; a process is in it wherever in its path of control groups that
// name stands, so that a slice of a user's manager counts too. An empty slice means that there is none to be in:
// CgroupKnown is true and InSlice is not. It is no error if the control group cannot be found out.
func PeerOf(c *net.UnixConn, slice string) (Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, fmt.Errorf("cannot read the peer's credentials: %w", err)
	}
	var p Peer
	var perr error
	if err := raw.Control(func(fd uintptr) { p, perr = peerOf(int(fd), slice) }); err != nil {
		perr = err
	}
	if perr != nil {
		return Peer{}, fmt.Errorf("cannot read the peer's credentials: %w", perr)
	}
	return p, nil
}

func peerOf(fd int, slice string) (Peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, os.NewSyscallError("getsockopt SO_PEERCRED", err)
	}
	if cred.Uid == math.MaxUint32 { // What a socket that has no peer answers.
		return Peer{}, errors.New("the socket has no peer")
	}
	groups, err := peerGroups(fd)
	if err != nil {
		return Peer{}, os.NewSyscallError("getsockopt SO_PEERGROUPS", err)
	}
	p := Peer{UID: cred.Uid, GID: cred.Gid, Groups: groups, PID: cred.Pid}
	if slice == "" {
		p.CgroupKnown = true
		return p, nil
	}
	p.InSlice, p.CgroupKnown = peerInSlice(fd, cred.Pid, slice)
	return p, nil
}

// peerGroups is getsockopt(SO_PEERGROUPS), which x/sys lacks. The kernel answers ERANGE and the size it needs if the
// buffer is too small (net/core/sock.c).
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return slices.Clip(groups[:size/4]), nil
		case errno == unix.ERANGE && int(size/4) > len(groups):
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}

// peerInSlice reads the peer's control groups. A pidfd holds on to the process that connected: if that has not been waited for when
// /proc/PID/cgroup was read, no other process had its number, and that file was this process's.
func peerInSlice(fd int, pid int32, slice string) (in, known bool) {
	if pid <= 0 { // It is outside of this PID namespace.
		return false, false
	}
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if errors.Is(err, unix.ENOPROTOOPT) { // Before kernel 6.5. Any other error: the process is gone.
		pidfd, err = unix.PidfdOpen(int(pid), 0)
	}
	if err != nil {
		return false, false
	}
	defer unix.Close(pidfd)

	cgroups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		_, err := os.Stat("/proc/self/cgroup")
		noCgroups := errors.Is(err, fs.ErrNotExist) && procMounted()
		return false, noCgroups
	}
	if waitedFor(pidfd) {
		return false, false
	}
	return inSlice(cgroups, slice), true
}

// waitedFor reports whether the process behind a pidfd was waited for, so that its number may be another's by now. Signal 0 is none
// (kill(2)).
func waitedFor(pidfd int) bool {
	err := unix.PidfdSendSignal(pidfd, 0, nil, 0)
	return err != nil && !errors.Is(err, unix.EPERM)
}

// procMounted tells a kernel without control groups from a /proc that is not there.
func procMounted() bool {
	_, err := os.Stat("/proc/self/stat")
	return err == nil
}

// inSlice looks for a slice in the content of /proc/PID/cgroup, lines of "HIERARCHY:CONTROLLERS:PATH" (cgroups(7)),
// as a whole component of a path. All hierarchies are looked at: the unified one, and systemd's own where a machine
// still runs version 1.
func inSlice(cgroups []byte, slice string) bool {
	for line := range strings.Lines(string(cgroups)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		path := strings.TrimSuffix(fields[2], " (deleted)") // of a group that was removed under a zombie
		if slices.Contains(strings.Split(path, "/"), slice) {
			return true
		}
	}
	return false
}

type peerKey struct{}

type peerResult struct {
	peer Peer
	err  error
}

// ConnContext is for http.Server.ConnContext: it asks PeerOf at accept and leaves the answer for PeerFrom. A connection that
// has the answer says it by its method Peer() (Peer, error). One that wraps another one is looked through by its method
// NetConn() net.Conn, as *tls.Conn has one.
func ConnContext(slice string) func(ctx context.Context, c net.Conn) context.Context {
	return func(ctx context.Context, c net.Conn) context.Context {
		if k, ok := c.(interface{ Peer() (Peer, error) }); ok {
			p, err := k.Peer()
			return context.WithValue(ctx, peerKey{}, peerResult{p, err})
		}
		for {
			wrapped, ok := c.(interface{ NetConn() net.Conn })
			if !ok {
				break
			}
			c = wrapped.NetConn()
		}
		r := peerResult{err: errors.New("cannot read the peer's credentials: not a Unix socket")}
		if c, ok := c.(*net.UnixConn); ok {
			r.peer, r.err = PeerOf(c, slice)
		}
		return context.WithValue(ctx, peerKey{}, r)
	}
}

// PeerFrom returns the peer of a request's connection. It is false where there is none: ConnContext did not see the
// connection, or the kernel gave no answer (PeerError says why).
func PeerFrom(ctx context.Context) (Peer, bool) {
	r, ok := ctx.Value(peerKey{}).(peerResult)
	if !ok || r.err != nil {
		return Peer{}, false
	}
	return r.peer, true
}

// PeerError returns why PeerFrom has no peer, for the log; nil if it has one.
func PeerError(ctx context.Context) error {
	r, ok := ctx.Value(peerKey{}).(peerResult)
	if !ok {
		return errors.New("cannot read the peer's credentials: the connection was not looked at")
	}
	return r.err
}

// Package wire is how the engine and a shim talk: one CBOR message a packet over a SOCK_SEQPACKET socket (unix(7)),
// with file descriptors where a message brings some.
//
// The first message of each side carries the version of the protocol, so that an engine that was upgraded can still talk
// to shims that run since before. Only the two halves of the sandbox may import this package.
package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// Version is the version of the messages. It goes up when an older peer would misread a message; what is merely new is
// a field that an older peer ignores.
const Version = 1

const (
	// maxInline is the largest message that travels in the packet itself. Packets end near 208 KiB
	// (net.core.wmem_default); what is larger travels in a sealed memfd.
	maxInline = 64 << 10
	// maxMessage is the largest message at all. It holds the kernel's largest argument vector and environment together
	// (execve(2): 6 MiB) as well as a reply of 64 MiB twice.
	maxMessage = 160 << 20
	// maxFiles is how many descriptors one message may bring.
	maxFiles = 4
	// sendTimeout is how long a peer may leave its queue full before it counts as gone. A peer that reads at all never
	// lets it get full: the queue holds more than a job's whole conversation.
	sendTimeout = 10 * time.Second
)

// ErrMessage is returned for a packet that is no message.
var ErrMessage = errors.New("not a message of the shim protocol")

// Message is what travels. Exactly one of the pointers is set, or none where a newer peer sent what this one does not
// know; such a message is passed over.
type Message struct {
	Version int `cbor:"v"`

	// Start tells the shim to run a job. Its files are standard input and the log. It may come again once the job before
	// has Ended.
	Start *Start `cbor:"start,omitempty"`
	// Hello tells a shim that an engine is back, and looks for a job.
	Hello *Hello `cbor:"hello,omitempty"`
	// Stop tells the shim to end the job.
	Stop *Stop `cbor:"stop,omitempty"`
	// Ack tells the shim that its Ended is in good hands.
	Ack *Ack `cbor:"ack,omitempty"`

	// Started tells the engine that the job's process runs.
	Started *Started `cbor:"started,omitempty"`
	// Ended tells the engine how the job ended, after nothing of it is left.
	Ended *spec.Exit `cbor:"ended,omitempty"`
	// Refused tells the engine that the shim has no such job: it did not take it, or does not know it.
	Refused *Refused `cbor:"refused,omitempty"`
}

// Taken is what a shim adds to the name of the file Start.Claim when it takes the job.
const Taken = ".taken"

// Start is a job and what the shim must know of the machine to run it.
type Start struct {
	Job spec.Run `cbor:"job"`
	// Mount is where the cgroup v2 hierarchy is, and ControlGroup the shim's scope below it; both empty where jobs have
	// no control group.
	Mount        string `cbor:"mount,omitempty"`
	ControlGroup string `cbor:"control_group,omitempty"`
	// Socket is where the shim listens for an engine that comes back. It is the same for all jobs of a shim.
	Socket string `cbor:"socket"`
	// Claim is the file by which the shim takes the job, before it does anything else: it adds Taken to the file's name. If the file is
	// gone, an engine took the job back, and it must not run. Empty: no engine can take it back.
	Claim string `cbor:"claim,omitempty"`
	// Last says that the shim gets no job after this one.
	Last bool `cbor:"last,omitempty"`
	// NoFileSoft and NoFileHard are the job's RLIMIT_NOFILE (setrlimit(2)).
	NoFileSoft uint64 `cbor:"nofile_soft"`
	NoFileHard uint64 `cbor:"nofile_hard"`
	// KernelMDWE says that memory_deny_write_execute is the kernel's own switch where the kernel has it, and not a filter.
	KernelMDWE bool `cbor:"kernel_mdwe,omitempty"`
}

// Hello names the job that the engine expects. The answer is Started, Ended or Refused.
type Hello struct {
	Job string `cbor:"job"`
}

// Refused names an unknown job.
type Refused struct {
	Job string `cbor:"job"`
}

// Stop ends a job.
type Stop struct {
	// Job is which one; empty: the one that runs.
	Job string `cbor:"job,omitempty"`
	// Kill sends SIGKILL immediately.
	Kill bool `cbor:"kill,omitempty"`
	// By says who wanted it, for the job's record.
	By string `cbor:"by,omitempty"`
}

// Ack acknowledges the end of a job.
type Ack struct {
	Job string `cbor:"job"`
}

// Started is what a shim knows of a job that runs.
type Started struct {
	Job string `cbor:"job"`
	// PID of the main process.
	PID int `cbor:"pid"`
	// ControlGroup is the job's own, below the cgroup v2 mount; empty where there is none.
	ControlGroup string `cbor:"control_group,omitempty"`
	// At is when it was started.
	At time.Time `cbor:"at"`
}

// kinds returns how many of the pointers are set.
func (m *Message) kinds() int {
	n := 0
	for _, set := range []bool{m.Start != nil, m.Hello != nil, m.Stop != nil, m.Ack != nil, m.Started != nil, m.Ended != nil,
		m.Refused != nil} {
		if set {
			n++
		}
	}
	return n
}

// frame is a packet: a message, or the length of one that stands in the first file.
type frame struct {
	Message cbor.RawMessage `cbor:"m,omitempty"`
	InFile  int64           `cbor:"f,omitempty"`
}

// modes are the CBOR rules of both sides.
type modes struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newModes() (modes, error) {
	enc, err := cbor.EncOptions{Time: cbor.TimeRFC3339NanoUTC}.EncMode()
	if err != nil {
		return modes{}, err
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 16, MaxArrayElements: 1 << 20, MaxMapPairs: 1 << 10,
		IndefLength: cbor.IndefLengthForbidden, UTF8: cbor.UTF8DecodeInvalid, TagsMd: cbor.TagsAllowed,
	}.DecMode()
	return modes{enc, dec}, err
}

// Conn is one side of the connection. One goroutine may send while another receives.
type Conn struct {
	c     *net.UnixConn
	modes modes
	buf   []byte
	oob   []byte
}

// NewConn takes over c, a SOCK_SEQPACKET connection.
func NewConn(c *net.UnixConn) (*Conn, error) {
	m, err := newModes()
	if err != nil {
		return nil, fmt.Errorf("cannot set up CBOR: %w", err)
	}
	return &Conn{c: c, modes: m, buf: make([]byte, maxInline+64), oob: make([]byte, unix.CmsgSpace(maxFiles*4))}, nil
}

// FromFile makes a Conn of an inherited descriptor and closes f.
func FromFile(f *os.File) (*Conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("cannot use the descriptor as a socket: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close() // it is the wrong thing; why closing it failed does not matter
		return nil, errors.New("cannot use the descriptor: it is not a Unix socket")
	}
	return NewConn(u)
}

// Pair returns the engine's side of a new connection, and the file to hand to a shim.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "shim")
	ours, err := FromFile(os.NewFile(uintptr(fds[0]), "engine"))
	if err != nil {
		_ = theirs.Close() // the first error is the one that says something
		return nil, nil, err
	}
	return ours, theirs, nil
}

// Close ends the connection; the other side reads io.EOF.
func (c *Conn) Close() error { return c.c.Close() }

// Send sends one message with files, which stay the caller's.
func (c *Conn) Send(m Message, files ...*os.File) error {
	m.Version = Version
	if m.kinds() != 1 {
		return fmt.Errorf("cannot send: %w", ErrMessage)
	}
	body, err := c.modes.enc.Marshal(m)
	if err != nil {
		return fmt.Errorf("cannot encode a message: %w", err)
	}
	f := frame{Message: body}
	if len(body) > maxInline {
		large, err := SealedFile("rtask-message", body)
		if err != nil {
			return err
		}
		defer large.Close()
		f = frame{InFile: int64(len(body))}
		files = append([]*os.File{large}, files...)
	}
	packet, err := c.modes.enc.Marshal(f)
	if err != nil {
		return fmt.Errorf("cannot encode a message: %w", err)
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	if err := c.c.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return fmt.Errorf("cannot send a message: %w", err)
	}
	_, _, err = c.c.WriteMsgUnix(packet, rights, nil)
	runtime.KeepAlive(files)
	if err != nil {
		return fmt.Errorf("cannot send a message: %w", err)
	}
	return nil
}

// SetReadDeadline bounds Receive, which then returns an error that wraps os.ErrDeadlineExceeded. The zero time is no bound.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.c.SetReadDeadline(t) }

// Peer returns what the kernel knows of the process at the other end (SO_PEERCRED, unix(7)): the one that connected, or for the side that
// connected, the one that listens.
func (c *Conn) Peer() (*unix.Ucred, error) {
	var cred *unix.Ucred
	var credErr error
	raw, err := c.c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		})
	}
	if err := errors.Join(err, credErr); err != nil {
		return nil, fmt.Errorf("cannot ask for the peer: %w", err)
	}
	return cred, nil
}

// Receive returns the next message and its files, which are the caller's to close. It returns io.EOF when the other
// side is gone and everything it sent was received. After an error that wraps ErrMessage the connection can be read on.
func (c *Conn) Receive() (Message, []*os.File, error) {
	n, oobn, flags, _, err := c.c.ReadMsgUnix(c.buf, c.oob)
	if errors.Is(err, unix.ECONNRESET) {
		// The other side closed without having read all. The kernel says so once, before what that side had sent.
		n, oobn, flags, _, err = c.c.ReadMsgUnix(c.buf, c.oob)
	}
	switch {
	case errors.Is(err, io.EOF) && oobn > 0: // an empty packet with files, which is none of ours
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, net.ErrClosed):
		return Message{}, nil, io.EOF
	case err != nil:
		return Message{}, nil, err
	}
	files, err := rights(c.oob[:oobn])
	if err != nil {
		return Message{}, nil, err
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		closeAll(files)
		return Message{}, nil, fmt.Errorf("%w: cut off", ErrMessage)
	}
	m, rest, err := c.decode(c.buf[:n], files)
	if err != nil {
		closeAll(files)
		return Message{}, nil, err
	}
	return m, rest, nil
}

// decode reads a packet and returns the files that are not part of the framing.
func (c *Conn) decode(packet []byte, files []*os.File) (Message, []*os.File, error) {
	var f frame
	if err := c.modes.dec.Unmarshal(packet, &f); err != nil {
		return Message{}, nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	body, inFile := []byte(f.Message), f.InFile != 0
	if inFile {
		if len(files) == 0 {
			return Message{}, nil, fmt.Errorf("%w: it has no file", ErrMessage)
		}
		var err error
		if body, err = readAll(files[0], f.InFile); err != nil {
			return Message{}, nil, err
		}
	}
	var m Message
	if err := c.modes.dec.Unmarshal(body, &m); err != nil {
		return Message{}, nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if m.Version < 1 || m.Version > Version {
		return Message{}, nil, fmt.Errorf("%w: version %d", ErrMessage, m.Version)
	}
	if m.kinds() > 1 {
		return Message{}, nil, fmt.Errorf("%w: it is several", ErrMessage)
	}
	if m.Started != nil && !spec.ValidTime(m.Started.At) || m.Ended != nil && !spec.ValidTime(m.Ended.Ended) {
		return Message{}, nil, fmt.Errorf("%w: its time is none", ErrMessage)
	}
	if inFile {
		_ = files[0].Close() // it was only read
		files = files[1:]
	}
	return m, files, nil
}

// readAll reads a message of size bytes from f, which must really have them: a length alone costs no memory.
func readAll(f *os.File, size int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if !info.Mode().IsRegular() || size < 0 || size > maxMessage || size != info.Size() {
		return nil, fmt.Errorf("%w: a length of %d", ErrMessage, size)
	}
	body := make([]byte, size)
	if _, err := f.ReadAt(body, 0); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	return body, nil
}

func rights(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("cannot read descriptors: %w", err)
	}
	var files []*os.File
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("cannot read descriptors: %w", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // nothing was written to it here
	}
}

// SealedFile returns a file in memory that holds b, stands at its beginning, can never be changed and, since Linux 6.3,
// not be executed (memfd_create(2)).
func SealedFile(name string, b []byte) (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.WriteAt(b, 0)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS,
			unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		_ = f.Close() // the first error is the one that says something
		return nil, fmt.Errorf("cannot fill a file in memory: %w", err)
	}
	return f, nil
}

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
)

// ErrMessage is returned for a packet that is no message.
var ErrMessage = errors.New("not a message of the shim protocol")

// Message is what travels. Exactly one of the pointers is set.
type Message struct {
	Version int `cbor:"v"`

	// Start tells the shim to run a job. Its files are standard input and the log.
	Start *Start `cbor:"start,omitempty"`
	// Hello tells a shim that runs a job that an engine is back.
	Hello *Hello `cbor:"hello,omitempty"`
	// Stop tells the shim to end the job.
	Stop *Stop `cbor:"stop,omitempty"`
	// Ack tells the shim that its Ended is in good hands.
	Ack *Ack `cbor:"ack,omitempty"`

	// Started tells the engine that the job's process runs.
	Started *Started `cbor:"started,omitempty"`
	// Ended tells the engine how the job ended, after nothing of it is left.
	Ended *spec.Exit `cbor:"ended,omitempty"`
}

// Start is a job and what the shim must know of the machine to run it.
type Start struct {
	Job spec.Job `cbor:"job"`
	// Mount is where the cgroup v2 hierarchy is, and ControlGroup the shim's scope below it; both empty where jobs have
	// no control group.
	Mount        string `cbor:"mount,omitempty"`
	ControlGroup string `cbor:"control_group,omitempty"`
	// Socket is where the shim listens for an engine that comes back.
	Socket string `cbor:"socket"`
	// NoFileSoft and NoFileHard are the job's RLIMIT_NOFILE (setrlimit(2)).
	NoFileSoft uint64 `cbor:"nofile_soft"`
	NoFileHard uint64 `cbor:"nofile_hard"`
}

// Hello names the job that the engine expects. The answer is Started or Ended.
type Hello struct {
	Job string `cbor:"job"`
}

// Stop ends a job.
type Stop struct {
	// Kill is SIGKILL at once.
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

// valid reports whether exactly one of the pointers is set.
func (m *Message) valid() bool {
	n := 0
	for _, set := range []bool{m.Start != nil, m.Hello != nil, m.Stop != nil, m.Ack != nil, m.Started != nil, m.Ended != nil} {
		if set {
			n++
		}
	}
	return n == 1
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
	if !m.valid() {
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
	if _, _, err := c.c.WriteMsgUnix(packet, rights, nil); err != nil {
		return fmt.Errorf("cannot send a message: %w", err)
	}
	return nil
}

// Receive returns the next message and its files, which are the caller's to close. It returns io.EOF when the other
// side is gone.
func (c *Conn) Receive() (Message, []*os.File, error) {
	n, oobn, flags, _, err := c.c.ReadMsgUnix(c.buf, c.oob)
	if err != nil {
		if errors.Is(err, unix.ECONNRESET) || errors.Is(err, net.ErrClosed) {
			err = io.EOF
		}
		return Message{}, nil, err
	}
	files, err := rights(c.oob[:oobn])
	if err != nil {
		return Message{}, nil, err
	}
	if n == 0 && oobn == 0 {
		return Message{}, nil, io.EOF
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
	body := []byte(f.Message)
	if f.InFile != 0 {
		if len(files) == 0 || f.InFile < 0 || f.InFile > maxMessage {
			return Message{}, nil, fmt.Errorf("%w: a length of %d", ErrMessage, f.InFile)
		}
		body = make([]byte, f.InFile)
		if _, err := files[0].ReadAt(body, 0); err != nil {
			return Message{}, nil, fmt.Errorf("%w: %w", ErrMessage, err)
		}
		_ = files[0].Close() // it was only read
		files = files[1:]
	}
	var m Message
	if err := c.modes.dec.Unmarshal(body, &m); err != nil {
		return Message{}, nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if !m.valid() {
		return Message{}, nil, ErrMessage
	}
	return m, files, nil
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

// SealedFile returns a file in memory that holds b, stands at its beginning and can never be changed
// (memfd_create(2)).
func SealedFile(name string, b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
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

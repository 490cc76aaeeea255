package scope

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/godbus/dbus/v5"
)

// busDriver is the name under which a bus sends its own messages. No other sender can use it.
const busDriver = "org.freedesktop.DBus"

const (
	// maxFields is the longest header of a message that is read, in bytes. systemd's have a few hundred: a unit's name has 255 at
	// most (systemd.unit(5)), and three times as many in an object's path.
	maxFields = 16 << 10
	// maxMessage is the longest message of the protocol, in bytes (D-Bus specification, "Message Format").
	maxMessage = 1 << 27
)

// endpoint is where a manager is reached. Its private socket, which systemctl(1) uses, too, is better: no other process can send anything
// there, or fill a queue before systemd's answers. systemd does not guarantee this socket (systemd(1), FILES), but does guarantee the
// bus, which is the fallback.
type endpoint struct {
	private string // "": none
	bus     string // addresses (D-Bus specification, "Server Addresses")
}

// systemEndpoint is the system's manager.
func systemEndpoint() (endpoint, error) {
	e := endpoint{"/run/systemd/private", "unix:path=/run/dbus/system_bus_socket"}
	if address := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"); address != "" {
		e.bus = address
	}
	return e, nil
}

// userEndpoint is the calling user's own manager.
func userEndpoint() (endpoint, error) {
	dir, address := os.Getenv("XDG_RUNTIME_DIR"), os.Getenv("DBUS_SESSION_BUS_ADDRESS")
	switch {
	case dir == "" && address == "":
		return endpoint{}, errors.New("neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set")
	case dir == "":
		return endpoint{"", address}, nil
	case address == "":
		address = "unix:path=" + dbus.EscapeBusAddressValue(path.Join(dir, "bus"))
	}
	return endpoint{path.Join(dir, "systemd/private"), address}, nil
}

// dial connects to the manager, or to its bus where it has no private socket that can be used.
func (e endpoint) dial(ctx context.Context) (*incoming, error) {
	if e.private != "" {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", e.private)
		if err == nil {
			return newIncoming(ctx, conn, true)
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return nil, err // it comes back
		}
	}
	conn, err := dialBus(ctx, e.bus)
	if err != nil {
		return nil, err
	}
	return newIncoming(ctx, conn, false)
}

// dialBus connects to the first of the addresses that answers (D-Bus specification, "Server Addresses").
func dialBus(ctx context.Context, addresses string) (net.Conn, error) {
	var errs []error
	for address := range strings.SplitSeq(addresses, ";") {
		name, err := socketName(address)
		if err == nil {
			var conn net.Conn
			if conn, err = new(net.Dialer).DialContext(ctx, "unix", name); err == nil {
				return conn, nil
			}
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// socketName returns the Unix socket of an address, as package net writes it.
func socketName(address string) (string, error) {
	if keys, ok := strings.CutPrefix(address, "unix:"); ok {
		for pair := range strings.SplitSeq(keys, ",") {
			key, value, _ := strings.Cut(pair, "=")
			value, err := dbus.UnescapeBusAddressValue(value)
			switch {
			case err != nil:
				return "", fmt.Errorf("bad bus address %q: %w", address, err)
			case key == "path":
				return value, nil
			case key == "abstract":
				return "@" + value, nil
			}
		}
	}
	return "", fmt.Errorf("bad bus address %q: it must be unix:path=FILE or unix:abstract=NAME", address)
}

// incoming is a connection to systemd or to a bus. It passes on only relevant messages. A bus delivers what any process sends to the
// unique name of a connection, in any form and of any size. So incoming checks the sender, which the bus writes into each message,
// before it decodes anything else. The connection accepts no descriptors.
type incoming struct {
	net.Conn
	direct bool // the other end is systemd, and everything comes from it
	in     *bufio.Reader
	play   io.Reader // the replies that the user of this connection gets while it authenticates
	begun  bool      // it has done so, and messages follow. It is set before any of them is read or written.
	head   []byte    // what was not read yet of the header of a message that is passed on
	body   int       // and how much of its body

	owner atomic.Pointer[string] // the unique name of systemd on the bus; nil: not known yet
	stale atomic.Bool            // the name systemd has another owner by now, so this connection ends
}

// newIncoming authenticates conn, and closes it if that fails. Like systemctl, it writes everything in one go, and sends no message before
// the answer. systemd 252 does not process a message that directly follows the authentication until another one comes.
func newIncoming(ctx context.Context, conn net.Conn, direct bool) (*incoming, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	c := &incoming{Conn: conn, direct: direct, in: bufio.NewReader(conn), play: strings.NewReader("REJECTED EXTERNAL\r\nOK 0\r\n")}
	// D-Bus specification, "Authentication Protocol".
	_, err := fmt.Fprintf(conn, "\x00AUTH EXTERNAL %x\r\nBEGIN\r\n", strconv.Itoa(os.Geteuid()))
	var answer []byte
	if err == nil {
		answer, err = c.in.ReadSlice('\n')
	}
	if err == nil && !bytes.HasPrefix(answer, []byte("OK ")) {
		err = fmt.Errorf("it does not let this user in: %q", answer)
	}
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// Write implements io.Writer. What the user of this connection says until BEGIN was said already.
func (c *incoming) Write(b []byte) (int, error) {
	if !c.begun {
		c.begun = string(b) == "BEGIN\r\n"
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// Read implements io.Reader.
func (c *incoming) Read(p []byte) (int, error) {
	if !c.begun {
		return c.play.Read(p)
	}
	for len(c.head) == 0 && c.body == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	n, err := c.in.Read(p[:min(len(p), c.body)])
	c.body -= n
	return n, err
}

// next reads up to the body of the next message, and past that of one that does not matter.
func (c *incoming) next() error {
	if c.stale.Load() {
		return io.EOF
	}
	var fixed [16]byte
	if _, err := io.ReadFull(c.in, fixed[:]); err != nil {
		return err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if fixed[0] == 'B' {
		order = binary.BigEndian
	}
	body, fields := uint64(order.Uint32(fixed[4:])), uint64(order.Uint32(fixed[12:]))
	padded := (fields + 7) &^ 7
	if body+padded > maxMessage {
		return errors.New("the bus sent a message that is too long")
	}
	if fields > maxFields {
		return c.skip(padded + body)
	}
	head := append(make([]byte, 0, 16+padded), fixed[:]...)[:16+padded]
	if _, err := io.ReadFull(c.in, head[16:]); err != nil {
		return err
	}
	if !c.matters(dbus.Type(fixed[1]), order, head[16:16+fields]) {
		return c.skip(body)
	}
	c.head, c.body = head, int(body)
	return nil
}

func (c *incoming) skip(n uint64) error {
	_, err := c.in.Discard(int(n))
	return err
}

// matters reports whether a message is an answer or an expected signal, and comes from systemd or the bus. Calls are ignored: this end
// offers no methods.
func (c *incoming) matters(kind dbus.Type, order binary.ByteOrder, fields []byte) bool {
	from, member, ok := readFields(order, fields)
	owner := c.owner.Load()
	if !ok || !c.direct && from != busDriver && (owner == nil || from != *owner) {
		return false
	}
	switch kind {
	case dbus.TypeMethodReply, dbus.TypeError:
		return true
	case dbus.TypeSignal:
		return member == "JobRemoved" || member == "NameOwnerChanged"
	default:
		return false
	}
}

// readFields reads the header fields of a message: who sent it and what it is called, "" where that is not said. It is not ok if
// they cannot be read or say a thing twice (D-Bus specification, "Message Format": an array of structures, each of them a code and
// a variant, at multiples of 8 bytes).
func readFields(order binary.ByteOrder, fields []byte) (sender, member string, ok bool) {
	at, ok := 0, true
	// take returns the next n bytes, which begin at a multiple of align.
	take := func(align, n int) []byte {
		begin := (at + align - 1) &^ (align - 1)
		if n < 0 || n > len(fields)-begin {
			at, ok = len(fields), false
			return make([]byte, 4)
		}
		at = begin + n
		return fields[begin:at]
	}
	var seen [256]bool
	for at < len(fields) {
		head := take(8, 4) // the code, and the signature of the value: its length, one letter and a zero byte
		code, value := head[0], []byte(nil)
		if head[1] != 1 || seen[code] {
			return "", "", false
		}
		seen[code] = true
		switch head[2] {
		case 's', 'o':
			value = take(1, int(order.Uint32(take(4, 4))))
			take(1, 1)
		case 'g':
			take(1, int(take(1, 1)[0])+1)
		case 'u':
			take(4, 4)
		default:
			return "", "", false
		}
		switch dbus.HeaderField(code) {
		case dbus.FieldSender:
			sender = string(value)
		case dbus.FieldMember:
			member = string(value)
		}
	}
	return sender, member, ok
}

package scope

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
)

// encode returns a message as it comes from a bus.
func encode(t testing.TB, order binary.ByteOrder, kind dbus.Type, from string, body ...any) []byte {
	t.Helper()
	return encodeAs(t, order, kind, from, "JobRemoved", body...)
}

func encodeAs(t testing.TB, order binary.ByteOrder, kind dbus.Type, from, member string, body ...any) []byte {
	t.Helper()
	m := dbus.Message{Type: kind, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldDestination: dbus.MakeVariant(":1.9"),
		dbus.FieldReplySerial: dbus.MakeVariant(uint32(7)),
		dbus.FieldErrorName:   dbus.MakeVariant("org.example.Error"),
		dbus.FieldPath:        dbus.MakeVariant(busPath),
		dbus.FieldInterface:   dbus.MakeVariant(managerIface),
		dbus.FieldMember:      dbus.MakeVariant(member),
	}}
	if from != "" {
		m.Headers[dbus.FieldSender] = dbus.MakeVariant(from)
	}
	if len(body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
	}
	var b bytes.Buffer
	if err := m.EncodeTo(&b, order); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// received is a connection on which these bytes came, after authentication.
func received(b []byte, owner string) *incoming {
	in := &incoming{in: bufio.NewReader(bytes.NewReader(b)), begun: true}
	if owner != "" {
		in.owner.Store(&owner)
	}
	return in
}

// TestIncoming: of all messages only those of the bus and of systemd are read, and of their signals those that are waited for, whole
// and in their order.
func TestIncoming(t *testing.T) {
	var all, want []byte
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		all = append(all, encodeAs(t, order, dbus.TypeSignal, ":1.5", "UnitNew")...)
		for _, from := range []string{":1.5", busDriver, ":1.55", ":1.", "", busName, "org.freedesktop.DBu", strings.Repeat("x", 300)} {
			for _, kind := range []dbus.Type{dbus.TypeMethodCall, dbus.TypeMethodReply, dbus.TypeError, dbus.TypeSignal} {
				for _, body := range [][]any{nil, {"done"}, {uint32(1), busPath, "a.scope", "failed"}, {make([]byte, 10_000)}} {
					m := encode(t, order, kind, from, body...)
					all = append(all, m...)
					if (from == ":1.5" || from == busDriver) && kind != dbus.TypeMethodCall {
						want = append(want, m...)
					}
				}
			}
		}
	}
	got, err := io.ReadAll(received(all, ":1.5"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes were read of %d, want %d, %v", len(got), len(all), len(want), err)
	}
	// Before it is known who systemd is, only the bus is believed.
	early, bus := encode(t, binary.LittleEndian, dbus.TypeSignal, ":1.5"), encode(t, binary.LittleEndian, dbus.TypeSignal, busDriver)
	got, err = io.ReadAll(received(slices.Concat(early, bus), ""))
	if err != nil || !bytes.Equal(got, bus) {
		t.Errorf("%q, %v", got, err)
	}
	// Where the other end is systemd, nobody else can send.
	in := received(slices.Concat(early, encodeAs(t, binary.LittleEndian, dbus.TypeSignal, "", "UnitNew"), encode(t, binary.LittleEndian, dbus.TypeMethodCall, ""), bus), "")
	in.direct = true
	if got, err = io.ReadAll(in); err != nil || !bytes.Equal(got, slices.Concat(early, bus)) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestIncomingEnds: messages that no bus sends, and the end of a connection in the middle of one.
func TestIncomingEnds(t *testing.T) {
	m := encode(t, binary.LittleEndian, dbus.TypeSignal, ":1.5", "done")
	for n := range m {
		got, err := io.ReadAll(received(m[:n], ":1.5"))
		if !bytes.HasPrefix(m, got) || len(got) == len(m) || n > 0 && n < 16 && err == nil {
			t.Errorf("of %d bytes %d are passed on, %v", n, len(got), err)
		}
	}
	long := slices.Clone(m)
	binary.LittleEndian.PutUint32(long[4:], 1<<31)
	if _, err := io.ReadAll(received(long, ":1.5")); err == nil {
		t.Error("a message of 2 GiB is no error")
	}
	// A header that is longer than any of systemd's, followed by a message.
	wide := slices.Concat(m[:16], make([]byte, maxFields+8), m)
	binary.LittleEndian.PutUint32(wide[4:], 0)
	binary.LittleEndian.PutUint32(wide[12:], maxFields+8)
	if got, err := io.ReadAll(received(wide, ":1.5")); err != nil || !bytes.Equal(got, m) {
		t.Errorf("%d bytes after a long header, %v", len(got), err)
	}
	// Once systemd is somebody else, nothing more is read.
	in := received(slices.Concat(m, m), ":1.5")
	if _, err := io.ReadFull(in, make([]byte, len(m))); err != nil {
		t.Fatal(err)
	}
	in.stale.Store(true)
	if n, err := in.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %d, %v", n, err)
	}
}

// TestSenderTwice: a header with two senders names none.
func TestSenderTwice(t *testing.T) {
	field := func(from string) []byte {
		b := append([]byte{byte(dbus.FieldSender), 1, 's', 0}, binary.LittleEndian.AppendUint32(nil, uint32(len(from)))...)
		b = append(append(b, from...), 0)
		return append(b, make([]byte, (8-len(b)%8)%8)...)
	}
	if got, _, ok := readFields(binary.LittleEndian, field(":1.5")[:13]); got != ":1.5" || !ok {
		t.Errorf("one: %q, %v", got, ok)
	}
	if got, _, ok := readFields(binary.LittleEndian, slices.Concat(field(":1.7"), field(":1.5"))); ok {
		t.Errorf("two: %q", got)
	}
}

// FuzzIncoming: whatever comes, what is passed on are whole messages of the bus or of systemd.
func FuzzIncoming(f *testing.F) {
	f.Add(encode(f, binary.LittleEndian, dbus.TypeSignal, ":1.5", "done"))
	f.Add(encode(f, binary.BigEndian, dbus.TypeError, busDriver, "done"))
	f.Add(slices.Concat(encode(f, binary.LittleEndian, dbus.TypeSignal, ":1.6", "done"), encode(f, binary.LittleEndian, dbus.TypeMethodReply, ":1.5")))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := received(b, ":1.5")
		for {
			m, err := dbus.DecodeMessage(in)
			if err != nil {
				return // the connection ends, or its user passes over it
			}
			if from, _ := m.Headers[dbus.FieldSender].Value().(string); from != ":1.5" && from != busDriver || m.Type == dbus.TypeMethodCall {
				t.Fatalf("type %d of %q", m.Type, from)
			}
		}
	})
}

func TestSocketName(t *testing.T) {
	for address, want := range map[string]string{
		"unix:path=/run/dbus/system_bus_socket":   "/run/dbus/system_bus_socket",
		"unix:path=/tmp/a%20b,guid=0123":          "/tmp/a b",
		"unix:guid=0123,abstract=/tmp/dbus-x":     "@/tmp/dbus-x",
		"unix:path=%2frun%2fuser%2f1000%2fbus":    "/run/user/1000/bus",
		"tcp:host=127.0.0.1,port=1":               "",
		"unix:runtime=yes":                        "",
		"unix:path=%zz":                           "",
		"":                                        "",
		"unix":                                    "",
		"unixexec:path=/bin/true,argv1=unix:path": "",
	} {
		got, err := socketName(address)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v", address, got, err)
		}
	}
}

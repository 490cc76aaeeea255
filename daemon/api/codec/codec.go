// Package codec puts the API's messages on the wire and takes them off it, for clients and servers of connect-go. With it any Go
// string may be in a message, whatever its bytes: where a message has a field "encoding" and one of its byte fields is not UTF-8,
// those fields are base64 on the wire, and only there. All other text that is not UTF-8 is escaped, so that no text of a stranger
// makes a message that cannot be sent.
//
// The engine, the gateway and rtaskctl use it: servers with Options and ErrorTexts, clients with Options.
package codec

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// Base64 is the value of a field "encoding" whose message has byte fields in base64.
const Base64 = "base64"

// encodingField says in a message how its byte fields are encoded.
const encodingField = "encoding"

// byteFields are the fields that "encoding" is about, by message. The comments of rtask.proto say the same.
func byteFields() map[protoreflect.Name][]protoreflect.Name {
	return map[protoreflect.Name][]protoreflect.Name{
		"Job":          {"command"},
		"Process":      {"name"},
		"Property":     {"value"},
		"StartRequest": {"name", "arguments", "path", "working_directory", "search_path", "environment"},
		"Task":         {"command", "working_directory"},
	}
}

// Options make a server or a client speak with this package's codecs, and without compression: a compressed message is read whole
// before anybody can look at it, and on a local socket there is nothing to win.
func Options() []connecthttp.Option {
	s := newSchema()
	return []connecthttp.Option{connecthttp.WithCodecs(binary{s}, text{s}), connecthttp.WithCompressors()}
}

// Printable returns text whose bytes that are not UTF-8 are escaped as \xNN.
func Printable(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, `\x%02x`, s[i])
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// schema is what is known of the messages.
type schema struct {
	// bytes are the byte fields of messages that have some.
	bytes map[protoreflect.FullName][]protoreflect.FieldDescriptor
	// reach are the fields of each message in which, however deep, is one that has byte fields.
	reach map[protoreflect.FullName][]protoreflect.FieldDescriptor
}

func newSchema() *schema {
	s := &schema{bytes: map[protoreflect.FullName][]protoreflect.FieldDescriptor{}, reach: map[protoreflect.FullName][]protoreflect.FieldDescriptor{}}
	messages := rtaskv1.File_rtask_v1_rtask_proto.Messages()
	for name, fields := range byteFields() {
		d := messages.ByName(name)
		for _, f := range fields {
			s.bytes[d.FullName()] = append(s.bytes[d.FullName()], d.Fields().ByName(f))
		}
	}
	for i := range messages.Len() {
		s.look(messages.Get(i))
	}
	return s
}

// look fills in reach of a message and of those in it, and reports whether one of them has byte fields. No message of the API is
// part of itself.
func (s *schema) look(d protoreflect.MessageDescriptor) bool {
	fields, seen := s.reach[d.FullName()]
	if !seen {
		for i := range d.Fields().Len() {
			f := d.Fields().Get(i)
			if m := f.Message(); m != nil && !f.IsMap() && s.look(m) {
				fields = append(fields, f)
			}
		}
		s.reach[d.FullName()] = fields
	}
	return len(fields) > 0 || s.bytes[d.FullName()] != nil
}

// decode takes the byte fields of m, and of all messages in it, out of base64.
func (s *schema) decode(m protoreflect.Message) error {
	d := m.Descriptor()
	if fields := s.bytes[d.FullName()]; fields != nil {
		encoding := d.Fields().ByName(encodingField)
		switch is := m.Get(encoding).String(); is {
		case "":
		case Base64:
			var failed error
			for _, f := range fields {
				change(m, f, func(v string) string {
					b, err := base64.StdEncoding.DecodeString(v)
					if err != nil {
						failed = errors.Join(failed, fmt.Errorf("%s of %s is not base64: %w", f.Name(), d.Name(), err))
					}
					return string(b)
				})
			}
			if failed != nil {
				return failed
			}
			m.Clear(encoding)
		default:
			return fmt.Errorf("the encoding %q of %s is unknown: it is empty or %q", is, d.Name(), Base64)
		}
	}
	for _, f := range s.reach[d.FullName()] {
		switch {
		case !m.Has(f):
		case f.IsList():
			for i, list := 0, m.Get(f).List(); i < list.Len(); i++ {
				if err := s.decode(list.Get(i).Message()); err != nil {
					return err
				}
			}
		default:
			if err := s.decode(m.Get(f).Message()); err != nil {
				return err
			}
		}
	}
	return nil
}

// encode is the opposite of decode, and escapes all other text that is not UTF-8.
func (s *schema) encode(m protoreflect.Message) {
	fields := s.bytes[m.Descriptor().FullName()]
	wrong := false
	for _, f := range fields {
		change(m, f, func(v string) string { wrong = wrong || !utf8.ValidString(v); return v })
	}
	if wrong {
		for _, f := range fields {
			change(m, f, func(v string) string { return base64.StdEncoding.EncodeToString([]byte(v)) })
		}
		m.Set(m.Descriptor().Fields().ByName(encodingField), protoreflect.ValueOfString(Base64))
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case isText(f) || f.IsMap() && isText(f.MapKey()) && isText(f.MapValue()):
			change(m, f, Printable)
		case f.IsMap():
		case f.Message() != nil && f.IsList():
			for i := range v.List().Len() {
				s.encode(v.List().Get(i).Message())
			}
		case f.Message() != nil:
			s.encode(v.Message())
		}
		return true
	})
}

func isText(f protoreflect.FieldDescriptor) bool { return f.Kind() == protoreflect.StringKind }

// change replaces the text of a field: a string, a list of them, or the names and values of a map.
func change(m protoreflect.Message, f protoreflect.FieldDescriptor, by func(string) string) {
	switch {
	case !m.Has(f):
	case f.IsList():
		list := m.Mutable(f).List()
		for i := range list.Len() {
			list.Set(i, protoreflect.ValueOfString(by(list.Get(i).String())))
		}
	case f.IsMap():
		all := m.NewField(f).Map()
		m.Get(f).Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			all.Set(protoreflect.ValueOfString(by(k.String())).MapKey(), protoreflect.ValueOfString(by(v.String())))
			return true
		})
		m.Set(f, protoreflect.ValueOfMap(all))
	default:
		m.Set(f, protoreflect.ValueOfString(by(m.Get(f).String())))
	}
}

// marshal writes m as encode puts it and, if that cannot be, what can.
func (s *schema) marshal(to io.Writer, message any, encode func([]byte, proto.Message) ([]byte, error)) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no protobuf message", message)
	}
	var space []byte
	if b, ok := to.(*bytes.Buffer); ok { // as connecthttp has it
		b.Grow(proto.Size(m)) // else encode makes a slice of its own, and Write another one
		space = b.AvailableBuffer()
	}
	data, err := encode(space, m)
	if err != nil {
		c := proto.Clone(m)
		s.encode(c.ProtoReflect())
		if data, err = encode(space, c); err != nil {
			return err
		}
	}
	_, err = to.Write(data)
	return err
}

func (s *schema) unmarshal(from io.Reader, message any, decode func([]byte, proto.Message) error) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no protobuf message", message)
	}
	data, err := read(from)
	if err != nil {
		return err
	}
	if err := decode(data, m); err != nil {
		return fmt.Errorf("cannot read a %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return s.decode(m.ProtoReflect())
}

// read returns the message that a transport has received.
func read(from io.Reader) ([]byte, error) {
	if b, ok := from.(*bytes.Buffer); ok { // as connecthttp has it
		return b.Bytes(), nil
	}
	return io.ReadAll(from)
}

// binary is protobuf's own encoding.
type binary struct{ *schema }

// Name implements connect.Codec.
func (binary) Name() string { return connect.CodecNameProto }

// MarshalWrite implements connect.Codec.
func (b binary) MarshalWrite(_ context.Context, to io.Writer, message any) error {
	return b.marshal(to, message, proto.MarshalOptions{}.MarshalAppend)
}

// UnmarshalRead implements connect.Codec.
func (b binary) UnmarshalRead(_ context.Context, from io.Reader, message any) error {
	return b.unmarshal(from, message, proto.Unmarshal)
}

// text is protobuf's JSON.
type text struct{ *schema }

// Name implements connect.Codec.
func (text) Name() string { return connect.CodecNameJSON }

// MarshalWrite implements connect.Codec.
func (t text) MarshalWrite(_ context.Context, to io.Writer, message any) error {
	return t.marshal(to, message, protojson.MarshalOptions{}.MarshalAppend)
}

// UnmarshalRead implements connect.Codec. A name that is not known is left out, so that a newer client can speak to an older
// engine.
func (t text) UnmarshalRead(_ context.Context, from io.Reader, message any) error {
	return t.unmarshal(from, message, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal)
}

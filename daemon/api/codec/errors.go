package codec

import (
	"context"
	"errors"
	"unicode/utf8"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/protobuf/proto"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// ErrorTexts escapes what is not UTF-8 in the texts of a server's errors.
func ErrorTexts(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		return printableError(next(ctx, spec, stream))
	}
}

// printableError is err as it can be sent.
func printableError(err error) error {
	if err == nil || utf8.ValidString(err.Error()) {
		return err
	}
	e, ok := errors.AsType[*connect.Error](err)
	if !ok { // as connect itself sends it
		return connect.NewError(connect.CodeUnknown, Printable(err.Error())).WithCause(err)
	}
	out := connect.NewError(e.Code(), Printable(e.Message())).WithCause(err)
	for _, d := range e.Details() {
		out = out.WithDetail(d)
	}
	return out
}

// Detail makes the detail of an error of a message, whatever its bytes. It returns nil if there can be none.
func Detail(m proto.Message) *connect.ErrorDetail {
	d, err := connectproto.NewErrorDetail(m)
	if err == nil {
		return d
	}
	c := proto.Clone(m)
	newSchema().encode(c.ProtoReflect())
	if d, err = connectproto.NewErrorDetail(c); err != nil {
		return nil
	}
	return d
}

// DetailOf returns what an error says beyond its code and text, or nil.
func DetailOf(err error) *rtaskv1.Error {
	e, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return nil
	}
	for _, d := range e.Details() {
		m, err := connectproto.UnmarshalErrorDetail(d)
		if err != nil {
			continue // a detail of a newer engine
		}
		if e, ok := m.(*rtaskv1.Error); ok {
			return e
		}
	}
	return nil
}

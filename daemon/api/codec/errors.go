package codec

import (
	"context"
	"errors"
	"unicode/utf8"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
)

// errorTexts escapes what is not UTF-8 in the texts of errors.
type errorTexts struct{}

// printableError is err as it can be sent.
func printableError(err error) error {
	if err == nil || utf8.ValidString(err.Error()) {
		return err
	}
	var e *connect.Error
	if !errors.As(err, &e) {
		return errors.New(Printable(err.Error()))
	}
	out := connect.NewError(e.Code(), errors.New(Printable(e.Message())))
	for _, d := range e.Details() {
		out.AddDetail(d)
	}
	return out
}

// Detail makes the detail of an error of a message, whatever its bytes. It returns nil if there can be none.
func Detail(m proto.Message) *connect.ErrorDetail {
	d, err := connect.NewErrorDetail(m)
	if err == nil {
		return d
	}
	c := proto.Clone(m)
	newSchema().encode(c.ProtoReflect())
	if d, err = connect.NewErrorDetail(c); err != nil {
		return nil
	}
	return d
}

// WrapUnary implements connect.Interceptor.
func (errorTexts) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		reply, err := next(ctx, r)
		return reply, printableError(err)
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (errorTexts) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, c connect.StreamingHandlerConn) error { return printableError(next(ctx, c)) }
}

// WrapStreamingClient implements connect.Interceptor; it is for handlers only.
func (errorTexts) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

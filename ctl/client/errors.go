package client

import (
	"errors"
	"net/http"

	"connectrpc.com/connect/v2"

	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

var (
	// ErrNotRunning is returned when the socket is not there or nobody listens on it.
	ErrNotRunning = errors.New("rtaskd is not running")

	// ErrPermission is returned when the socket or the engine refuses the caller.
	ErrPermission = errors.New("permission denied")
)

// refused is an engine's refusal, which keeps the engine's own words.
type refused struct{ error }

// Is makes it an ErrPermission.
func (refused) Is(target error) bool { return target == ErrPermission }

// Unwrap returns the error of the call.
func (r refused) Unwrap() error { return r.error }

// Classify returns err so that errors.Is tells ErrNotRunning and ErrPermission, be it the socket or the engine that
// said so. Other errors, and nil, come back as they are.
func Classify(err error) error {
	if connect.CodeOf(err) == connect.CodePermissionDenied && !errors.Is(err, ErrPermission) {
		return refused{err}
	}
	return err
}

// Message is what to tell a person: the engine's own words where it answered, otherwise what kept the call from
// reaching it. It may have several lines.
func Message(err error) string {
	if r, ok := errors.AsType[*Refused](err); ok {
		return r.Error()
	}
	if c, ok := errors.AsType[*cut](err); ok {
		return c.Error()
	}
	if t, ok := errors.AsType[*told](err); ok {
		return t.text
	}
	var call *connect.Error
	if !errors.As(err, &call) {
		return err.Error()
	}
	if Answered(err) {
		return call.Message()
	}
	if errors.Is(err, ErrNotRunning) || errors.Is(err, ErrPermission) {
		return call.Message()
	}
	return "cannot talk to rtaskd: " + call.Message()
}

// Broken reports whether a call failed on its way, because the engine is going away, or because its token ended, and not because of
// what was asked: the same call may succeed once the engine is back, or with another token.
func Broken(err error) bool {
	if err == nil || errors.Is(err, ErrPermission) {
		return false
	}
	if errors.As(err, new(*Refused)) || errors.As(err, new(*unusable)) || errors.As(err, new(*refusedTwice)) {
		return false
	}
	if p, ok := errors.AsType[*Problem](err); ok {
		return p.Status == http.StatusBadGateway || p.Status == http.StatusServiceUnavailable || p.Status == http.StatusGatewayTimeout
	}
	if !Answered(err) || staleToken(err) {
		return true
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeCanceled:
		return true
	default:
		return false
	}
}

// Detail returns what the engine says of an error beyond its code and text.
func Detail(err error) (*rtaskv1.Error, bool) {
	d := codec.DetailOf(err)
	return d, d != nil
}

// Answered reports whether an error is one that the engine answered with.
func Answered(err error) bool {
	call, ok := errors.AsType[*connect.Error](err)
	return ok && call.IsRemote()
}

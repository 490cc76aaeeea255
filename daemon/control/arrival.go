package control

import (
	"errors"
	"os"
	"time"

	"connectrpc.com/connect/v2"
)

// messageTime is how long the message of a call may take to come.
const messageTime = 30 * time.Second

// arrival is the stream of a call whose message is still to come. Its sender chooses when that is, so that the call is decided when
// the message is there: what held when its head came may not hold any more.
type arrival struct {
	connect.ServerStream
	body   *rest
	within time.Duration
	// decide returns why the call is refused after all.
	decide  func() error
	refused bool
}

// Receive implements connect.ServerStream.
func (a *arrival) Receive(message any) error {
	if err := a.body.conn.SetReadDeadline(time.Now().Add(a.within)); err != nil {
		return coded(connect.CodeInternal, err)
	}
	err := a.ServerStream.Receive(message)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return connect.Errorf(connect.CodeDeadlineExceeded, "the message did not come within %s: send it faster", a.within)
	case err != nil:
		a.body.long = connect.CodeOf(err) == connect.CodeResourceExhausted
		return err
	}
	if err := a.body.conn.SetReadDeadline(time.Time{}); err != nil {
		return coded(connect.CodeInternal, err)
	}
	err = a.decide()
	a.refused = err != nil
	return err
}

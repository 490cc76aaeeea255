package control

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/sandbox/log"
)

// StreamLogs implements JobService.
func (s *Server) StreamLogs(ctx context.Context, r *rtaskv1.StreamLogsRequest, stream rtaskv1connect.JobServiceStreamLogsServerStream) error {
	id, err := s.findID(ctx, r.Job)
	if err != nil {
		return err
	}
	view, err := logView(r)
	if err != nil {
		return err
	}
	done, err := s.watch(callOf(ctx))
	if err != nil {
		return err
	}
	defer done()
	// The header goes out before the first output does, so that a follower of a silent job knows that it follows.
	if err := stream.SendHeaders(); err != nil {
		return err
	}
	// One message for all pieces: it is encoded when Send returns.
	m := &rtaskv1.StreamLogsResponse{Time: &timestamppb.Timestamp{}}
	err = s.Jobs.StreamLogs(ctx, id, job.LogOptions{Follow: r.Follow, View: view}, func(e log.Entry) error {
		m.Stream, m.Data, m.Offset = rtaskv1.Stream(e.Stream), e.Data, e.Offset
		m.Time.Seconds, m.Time.Nanos = e.Time.Unix(), int32(e.Time.Nanosecond())
		return stream.Send(m)
	})
	if err != nil {
		return waitError(err)
	}
	return nil
}

// findID is the id of what find finds. It is not inlined, since a job.Job is large, and each follower would have one on its stack for
// as long as it follows.
//
//go:noinline
func (s *Server) findID(ctx context.Context, ref string) (string, error) {
	j, err := s.find(callOf(ctx), ref)
	return j.ID, err
}

// logView is what of a log a request asks for.
func logView(r *rtaskv1.StreamLogsRequest) (log.View, error) {
	invalid := func(format string, args ...any) (log.View, error) {
		return log.View{}, connect.Errorf(connect.CodeInvalidArgument, format, args...)
	}
	v := log.View{Offset: r.Offset, Times: r.Times}
	if r.Offset < 0 {
		return invalid("offset %d is below 0", r.Offset)
	}
	switch r.Stream {
	case rtaskv1.Stream_STREAM_UNSPECIFIED:
	case rtaskv1.Stream_STREAM_STDOUT:
		v.Stream = log.Stdout
	case rtaskv1.Stream_STREAM_STDERR:
		v.Stream = log.Stderr
	default:
		return invalid("there is no stream %d", r.Stream)
	}
	if r.Tail != nil && r.Offset == 0 {
		if v.Tail, v.Lines = true, *r.Tail; v.Lines < 0 {
			return invalid("tail %d is below 0", v.Lines)
		}
	}
	var err error
	if v.Since, v.Until, err = bounds(r.Since, r.Until); err != nil {
		return log.View{}, err
	}
	return v, nil
}

// bounds are the two ends of a time, the zero Time where there is none.
func bounds(since, until *timestamppb.Timestamp) (from, to time.Time, err error) {
	for _, b := range []struct {
		name string
		t    *timestamppb.Timestamp
		dst  *time.Time
	}{{"since", since, &from}, {"until", until, &to}} {
		if b.t == nil {
			continue
		}
		if err := b.t.CheckValid(); err != nil {
			return from, to, coded(connect.CodeInvalidArgument, fmt.Errorf("%s is no time: %w", b.name, err))
		}
		*b.dst = b.t.AsTime()
	}
	return from, to, nil
}

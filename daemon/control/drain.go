package control

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/job"
)

// drainRetryAfter is what a client is told that comes while the engine drains: when that ends nobody knows.
const drainRetryAfter = 30 * time.Second

// drainError is the refusal of a job while the engine drains.
func drainError() *connect.Error {
	return fail(connect.CodeUnavailable, rtaskv1.KindUnavailable, job.ErrDraining, retryIn(drainRetryAfter))
}

// Drain implements JobService.
func (s *Server) Drain(ctx context.Context, r *rtaskv1.DrainRequest) (*rtaskv1.DrainResponse, error) {
	switch {
	case r.Wait:
		if _, err := s.Jobs.Drained(ctx); err != nil {
			return nil, waitError(err)
		}
	case r.Cancel:
		s.Jobs.Accept()
	default:
		s.Jobs.Drain()
	}
	if !r.Wait {
		s.news.tell()
		s.Logger.Info("draining", "begins", !r.Cancel, "by", callOf(ctx).Name())
		s.StatusChanged()
	}
	return &rtaskv1.DrainResponse{Draining: s.Jobs.Draining(), Jobs: int32(s.Jobs.Running())}, nil
}

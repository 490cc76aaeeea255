package control

import (
	"context"

	"connectrpc.com/connect/v2"

	healthv1 "github.com/rtask/rtask/daemon/api/grpc/health/v1"
	"github.com/rtask/rtask/daemon/api/grpc/health/v1/healthv1connect"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

// health implements the health checking of gRPC. An engine that drains serves, but accepts no new jobs, so it is not to be sent any.
type health struct{ *Server }

func (h health) status(service string) (healthv1.HealthCheckResponse_ServingStatus, bool) {
	switch service {
	case "", rtaskv1connect.JobServiceName:
	default:
		return healthv1.HealthCheckResponse_SERVICE_UNKNOWN, false
	}
	if h.Jobs.Draining() {
		return healthv1.HealthCheckResponse_NOT_SERVING, true
	}
	return healthv1.HealthCheckResponse_SERVING, true
}

// Check implements healthv1connect.HealthHandler.
func (h health) Check(_ context.Context, r *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	status, ok := h.status(r.Service)
	if !ok {
		return nil, connect.NewError(connect.CodeNotFound, "there is no such service")
	}
	return &healthv1.HealthCheckResponse{Status: status}, nil
}

// List implements healthv1connect.HealthHandler.
func (h health) List(context.Context, *healthv1.HealthListRequest) (*healthv1.HealthListResponse, error) {
	all := map[string]*healthv1.HealthCheckResponse{}
	for _, service := range []string{"", rtaskv1connect.JobServiceName} {
		status, _ := h.status(service)
		all[service] = &healthv1.HealthCheckResponse{Status: status}
	}
	return &healthv1.HealthListResponse{Statuses: all}, nil
}

// Watch implements healthv1connect.HealthHandler.
func (h health) Watch(ctx context.Context, r *healthv1.HealthCheckRequest, stream healthv1connect.HealthWatchServerStream) error {
	done, err := h.watch(callOf(ctx))
	if err != nil {
		return err
	}
	defer done()
	for told := healthv1.HealthCheckResponse_UNKNOWN; ; {
		changed := h.news.change() // from before the status is read
		if now, _ := h.status(r.Service); now != told {
			if err := stream.Send(&healthv1.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			told = now
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return waitError(ctx.Err())
		}
	}
}

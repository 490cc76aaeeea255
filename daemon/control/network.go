package control

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/daemon/jobid"
	"github.com/rtask/rtask/sandbox/log"
)

const (
	// idempotencyTime is how long an idempotency key stands for the job that it was first used for.
	idempotencyTime = 24 * time.Hour
	// longestIdempotencyKey is how many bytes it may have.
	longestIdempotencyKey = 255
	// longestWait is the most that a GET waits, whatever it asks for.
	longestWait = 5 * time.Minute
)

// count counts a request that came to admission, under the name of its key or webhook. One whose wait broke off was accepted.
func (s *Server) count(task *config.Task, name string, err error) {
	result := "accepted"
	var e *connect.Error
	if errors.As(err, &e) && e.Code() != connect.CodeCanceled {
		if kind := kindOf(err); kind != rtaskv1.KindUnavailable {
			result = string(kind)
		}
	}
	s.Requested(task.Name, name, result)
}

// runSpec is what a request with a key starts, or why it does not.
func (s *Server) runSpec(c *call, r *rtaskv1.RunRequest) (job.Spec, error) {
	refuse := func(reason string, err error) (job.Spec, error) {
		s.Requested(c.task.Name, c.Key.Name, string(kindOf(err)))
		return job.Spec{}, s.refuseFor(c, c.task.Name, reason, err)
	}
	if r.InputTooLarge {
		err := inputTooLarge(c.task)
		return refuse(errorText(err), err)
	}
	if err := misplaced(c.task, r); err != nil {
		return refuse(errMisplaced.Error(), err)
	}
	err := encoded(valuesOf(r.Headers, "Content-Encoding"))
	var js job.Spec
	if err == nil {
		js, err = s.keySpec(c, r)
	}
	if err == nil {
		js.ID = r.Id
		err = idempotent(c, r, &js)
	}
	if err != nil {
		return refuse(errorText(err), err)
	}
	return js, nil
}

// idempotent gives a job the id that its idempotency key stands for, so that a client that asks again finds it, a digest of what
// is asked for, and the time until which the job library knows it whatever retention says. The id is made of API key, task,
// idempotency key and day. So a repeat within 24 hours has the id of the same day, or of the day before; of two requests that
// come at midnight one may have the id of the day after.
func idempotent(c *call, r *rtaskv1.RunRequest, js *job.Spec) error {
	if len(r.IdempotencyKey) == 0 {
		return nil
	}
	if len(r.IdempotencyKey) > longestIdempotencyKey {
		return badRequest("the Idempotency-Key is longer than %d bytes", longestIdempotencyKey)
	}
	now := time.Now()
	of := func(t time.Time) string {
		day := t.Unix() / int64(idempotencyTime/time.Second)
		return idOf([]byte(c.Key.ID), []byte(js.Task), r.IdempotencyKey, binary.BigEndian.AppendUint64(nil, uint64(day)))
	}
	js.Digest, js.Promised = digest(r.Input, r.Query), now.Add(idempotencyTime)
	js.ID, js.Otherwise = of(now), []string{of(now.Add(-idempotencyTime)), of(now.Add(idempotencyTime))}
	return nil
}

// digest tells one list of texts from every other.
func digest(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// idOf makes the id of a job of a list of texts.
func idOf(parts ...[]byte) string {
	return jobid.Of(sha256.Sum256([]byte("rtask job " + digest(parts...))))
}

// waitFor waits for the end of a job, as long as a client wants to, and returns it as it is then.
func (s *Server) waitFor(ctx context.Context, c *call, j job.Job, wait string) (job.Job, error) {
	if wait == "" {
		return j, nil
	}
	d, err := config.ParseDuration(wait)
	if err != nil {
		return j, badRequest("wait is not a duration such as 30s: %w", err)
	}
	if j.State == job.Ended {
		return j, nil
	}
	done, err := s.watch(c)
	if err != nil {
		return j, err
	}
	defer done()
	bounded, cancel := context.WithTimeout(ctx, min(d, longestWait))
	defer cancel()
	r, err := s.Jobs.Wait(bounded, j.ID)
	switch {
	case err == nil:
		return r.Job, nil
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		return s.Jobs.Status(j.ID)
	case errors.Is(err, job.ErrClosed):
		return j, fail(connect.CodeUnavailable, rtaskv1.KindUnavailable, errors.New("the engine is restarting"), func(e *rtaskv1.Error) { e.Restarting = true })
	default:
		return j, waitError(err)
	}
}

// RunStream implements GatewayService.
func (s *Server) RunStream(ctx context.Context, r *rtaskv1.RunRequest, stream rtaskv1connect.GatewayServiceRunStreamServerStream) error {
	c := callOf(ctx)
	js, err := s.runSpec(c, r)
	if err != nil {
		return err
	}
	started, err := s.run(ctx, false, js, c.decision())
	s.count(c.task, c.Key.Name, err)
	if err != nil {
		return err
	}
	if err := stream.Send(&rtaskv1.RunStreamResponse{Job: jobMessage(started.Job), Accepted: !c.task.Blocking}); err != nil || !c.task.Blocking {
		return err
	}
	return s.sendOutput(ctx, started.ID, true, r.Offset, stream)
}

// Logs implements GatewayService.
func (s *Server) Logs(ctx context.Context, r *rtaskv1.LogsRequest, stream rtaskv1connect.GatewayServiceLogsServerStream) error {
	c := callOf(ctx)
	j, err := s.find(c, r.Id)
	if err != nil {
		return err
	}
	offset := int64(0)
	if r.Offset != "" {
		if offset, err = strconv.ParseInt(r.Offset, 10, 64); err != nil || offset < 0 {
			return badRequest("the Last-Event-ID is not one that was sent")
		}
	}
	watched, err := s.watch(c)
	if err != nil {
		return err
	}
	defer watched()
	if err := stream.Send(&rtaskv1.RunStreamResponse{Job: jobMessage(j)}); err != nil {
		return err
	}
	return s.sendOutput(ctx, j.ID, r.Follow, offset, stream)
}

// runStream is where a job's output is sent.
type runStream interface {
	Send(*rtaskv1.RunStreamResponse) error
}

// sendOutput sends what a job wrote from offset on, and then the job if it has ended.
func (s *Server) sendOutput(ctx context.Context, id string, follow bool, offset int64, stream runStream) error {
	m := &rtaskv1.RunStreamResponse{} // one for all pieces: it is encoded when Send returns
	err := s.Jobs.StreamLogs(ctx, id, job.LogOptions{Follow: follow, View: log.View{Offset: offset}}, func(e log.Entry) error {
		m.Stream, m.Data, m.Offset = rtaskv1.Stream(e.Stream), e.Data, e.Offset
		return stream.Send(m)
	})
	var format *log.FormatError
	switch {
	case errors.As(err, &format) && offset > 0:
		return badRequest("the Last-Event-ID is not one that was sent")
	case errors.Is(err, job.ErrNotFound): // it never ran, or its output is not kept any more
	case errors.Is(err, job.ErrClosed):
		return runsOn(id, err)
	case err != nil:
		return waitError(err)
	}
	var j job.Job
	if follow {
		r, err := s.Jobs.Wait(ctx, id)
		if err != nil {
			return runsOn(id, err)
		}
		j = r.Job
	} else if j, err = s.Jobs.Status(id); err != nil {
		return waitError(err)
	}
	return stream.Send(&rtaskv1.RunStreamResponse{Job: jobMessage(j), End: j.State == job.Ended})
}

// End implements GatewayService.
func (s *Server) End(ctx context.Context, r *rtaskv1.EndRequest) (*rtaskv1.EndResponse, error) {
	c := callOf(ctx)
	j, err := s.find(c, r.Id)
	if j, _, err = s.stop(ctx, c, j, err, job.StopOptions{}, ""); err != nil {
		return nil, err
	}
	return &rtaskv1.EndResponse{Job: jobMessage(j)}, nil
}

// Disconnected implements GatewayService. A client whose request was refused has no job, and its key is looked at no second time.
func (s *Server) Disconnected(ctx context.Context, r *rtaskv1.DisconnectedRequest) (*rtaskv1.DisconnectedResponse, error) {
	c := *callOf(ctx)
	j, err := s.Jobs.Find(r.Id, func(j job.Job) bool { return j.ID == r.Id && j.Owner.Key != "" && j.Task == c.named })
	if err != nil {
		return nil, fail(connect.CodeNotFound, rtaskv1.KindNotFound, errors.New("there is no such job"))
	}
	key, err := s.Keys.Verify(ctx, c.Remote, codec.PresentedIn(ctx).Key)
	if err != nil || key.ID != j.Owner.Key {
		return nil, fail(connect.CodeUnauthenticated, rtaskv1.KindUnauthorized, auth.ErrUnauthorized)
	}
	c.Kind, c.Key = auth.KeyHolder, key
	cfg := c.snapshot.Config
	// What others asked for, too, does not end with one of them.
	if cfg == nil || cfg.Tasks[j.Task] == nil || cfg.Tasks[j.Task].OnDisconnect != config.OnDisconnectStop || s.Jobs.Shared(j.ID) {
		return &rtaskv1.DisconnectedResponse{}, nil
	}
	_, _, err = s.stop(ctx, &c, j, nil, job.StopOptions{By: c.Name() + ", whose client went away"}, "the client went away")
	return &rtaskv1.DisconnectedResponse{}, err
}

package control

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"

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

// keyed begins a call that comes with a key: it returns the key if that is good, and a context that ends with
// auth.ErrUnauthorized as its cause when it is revoked. The caller calls done when the call is over, unless there is an error.
func (s *Server) keyed(ctx context.Context, r presented) (_ context.Context, key auth.KeyInfo, done func(), err error) {
	if key, err = s.verify(ctx, r); err != nil {
		return ctx, key, nil, err
	}
	waiting, done := s.waits.add(ctx, key.ID)
	if done == nil {
		return ctx, key, nil, s.refuse(r, key, "", "concurrency", fail(connect.CodeResourceExhausted, "concurrency",
			fmt.Errorf("too many requests of this key are under way: %d", s.waits.most), func(e *rtaskv1.Error) { e.RetryAfter = durationpb.New(retryAfter) }))
	}
	// Again, now that a revocation finds this call.
	if key, err = s.verify(waiting, r); err != nil {
		done()
		return ctx, key, nil, err
	}
	return waiting, key, done, nil
}

// ended returns the error of a call whose key may have been revoked meanwhile.
func (s *Server) ended(ctx context.Context, r presented, key auth.KeyInfo, err error) error {
	if errors.Is(context.Cause(ctx), auth.ErrUnauthorized) {
		return s.unauthorized(r, key)
	}
	return err
}

// count counts a request that came to admission, under the name of its key or webhook. One whose wait broke off was accepted.
func (s *Server) count(task *config.Task, name string, err error) {
	result := "accepted"
	var e *connect.Error
	if errors.As(err, &e) && e.Code() != connect.CodeCanceled {
		if kind := kindOf(err); kind != "unavailable" {
			result = kind
		}
	}
	s.Requested(task.Name, name, result)
}

// runSpec is what a request with a key starts, or why it does not.
func (s *Server) runSpec(r *rtaskv1.RunRequest, key auth.KeyInfo) (*config.Task, job.Spec, error) {
	c, task, err := s.taskFor(r, key)
	if err != nil {
		s.Requested("", key.Name, kindOf(err))
		return nil, job.Spec{}, err
	}
	if r.InputTooLarge {
		s.Requested(task.Name, key.Name, "input-too-large")
		return nil, job.Spec{}, s.refuse(r, key, task.Name, "input-too-large", inputTooLarge(task))
	}
	if err := misplaced(task, r); err != nil {
		s.Requested(task.Name, key.Name, kindOf(err))
		return nil, job.Spec{}, s.refuseFor(r, key, task.Name, kindOf(err), errMisplaced.Error(), err)
	}
	var js job.Spec
	if err = encoded(valuesOf(r.Headers, "Content-Encoding")); err == nil {
		js, err = s.keySpec(c, task, key, r)
	}
	if err == nil {
		js.ID = r.Id
		err = s.idempotent(r, key, &js)
	}
	if err != nil {
		s.Requested(task.Name, key.Name, kindOf(err))
		return nil, job.Spec{}, s.refuse(r, key, task.Name, kindOf(err), err)
	}
	return task, js, nil
}

// idempotent gives a job the id that its idempotency key stands for, so that a client that asks again finds it, a digest of what
// is asked for, and the time until which the job library knows it whatever retention says. The id is made of API key, task,
// idempotency key and day. So a repeat within 24 hours has the id of the same day, or of the day before; of two requests that
// come at midnight one may have the id of the day after.
func (s *Server) idempotent(r *rtaskv1.RunRequest, key auth.KeyInfo, js *job.Spec) error {
	if len(r.IdempotencyKey) == 0 {
		return nil
	}
	if len(r.IdempotencyKey) > longestIdempotencyKey {
		return badRequest("the Idempotency-Key is longer than %d bytes", longestIdempotencyKey)
	}
	now := time.Now()
	of := func(t time.Time) string {
		day := t.Unix() / int64(idempotencyTime/time.Second)
		return idOf([]byte(key.ID), []byte(js.Task), r.IdempotencyKey, binary.BigEndian.AppendUint64(nil, uint64(day)))
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

// jobOf returns a job that a key started over the network, if it has not ended for longer than its task's retention.
func (s *Server) jobOf(task *config.Task, key auth.KeyInfo, id string) (job.Job, error) {
	unknown := fail(connect.CodeNotFound, "not-found", errors.New("there is no such job of this task and key, or its result is not kept any more"))
	if !jobid.Valid(id) { // it is no prefix and no PID
		return job.Job{}, unknown
	}
	j, err := s.Jobs.Find(id, func(j job.Job) bool { return j.ID == id && j.Owner.Key == key.ID && j.Task == task.Name })
	switch {
	case errors.Is(err, job.ErrNotFound), errors.Is(err, job.ErrAmbiguous):
		return job.Job{}, unknown
	case err != nil:
		return job.Job{}, waitError(err)
	case j.State == job.Ended && time.Since(j.EndedAt) > task.Retention:
		return job.Job{}, unknown
	}
	return j, nil
}

// waitFor waits for the end of a job, as long as a client wants to, and returns it as it is then.
func (s *Server) waitFor(ctx context.Context, key auth.KeyInfo, j job.Job, wait string) (job.Job, error) {
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
	done, err := s.watch(key.ID, maxWatchesOfKey)
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
		return j, fail(connect.CodeUnavailable, "unavailable", errors.New("the engine is restarting"), func(e *rtaskv1.Error) { e.Restarting = true })
	default:
		return j, waitError(err)
	}
}

// RunStream implements GatewayService.
func (s *Server) RunStream(ctx context.Context, r *rtaskv1.RunRequest, stream rtaskv1connect.GatewayServiceRunStreamServerStream) error {
	ctx, key, done, err := s.keyed(ctx, r)
	if err != nil {
		return err
	}
	defer done()
	task, js, err := s.runSpec(r, key)
	if err != nil {
		return err
	}
	started, err := s.run(ctx, false, js, keyDecision(task, key, r))
	s.count(task, key.Name, err)
	if err != nil {
		return s.ended(ctx, r, key, err)
	}
	if err := stream.Send(&rtaskv1.RunStreamResponse{Job: jobMessage(started.Job), Accepted: !task.Blocking}); err != nil || !task.Blocking {
		return err
	}
	return s.ended(ctx, r, key, s.sendOutput(ctx, started.ID, true, r.Offset, stream))
}

// Logs implements GatewayService.
func (s *Server) Logs(ctx context.Context, r *rtaskv1.LogsRequest, stream rtaskv1connect.GatewayServiceLogsServerStream) error {
	ctx, key, done, err := s.keyed(ctx, r)
	if err != nil {
		return err
	}
	defer done()
	_, task, err := s.taskFor(r, key)
	if err != nil {
		return err
	}
	j, err := s.jobOf(task, key, r.Id)
	if err != nil {
		return err
	}
	offset := int64(0)
	if r.Offset != "" {
		if offset, err = strconv.ParseInt(r.Offset, 10, 64); err != nil || offset < 0 {
			return badRequest("the Last-Event-ID is not one that was sent")
		}
	}
	watched, err := s.watch(key.ID, maxWatchesOfKey)
	if err != nil {
		return err
	}
	defer watched()
	if err := stream.Send(&rtaskv1.RunStreamResponse{Job: jobMessage(j)}); err != nil {
		return err
	}
	return s.ended(ctx, r, key, s.sendOutput(ctx, j.ID, r.Follow, offset, stream))
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
	ctx, key, done, err := s.keyed(ctx, r)
	if err != nil {
		return nil, err
	}
	defer done()
	_, task, err := s.taskFor(r, key)
	if err != nil {
		return nil, err
	}
	d := keyDecision(task, key, r)
	j, err := s.jobOf(task, key, r.Id)
	if err != nil {
		s.decide(d, "", err)
		return nil, err
	}
	by := "key:" + key.Name
	if r.Disconnected {
		// What others asked for, too, does not end with one of them.
		if task.OnDisconnect != config.OnDisconnectStop || s.Jobs.Shared(r.Id) {
			return &rtaskv1.EndResponse{Job: jobMessage(j)}, nil
		}
		by += ", whose client went away"
		d.reason = "the client went away"
	}
	d.moot = j.State == job.Ended
	s.decide(d, j.ID, nil)
	if j, err = s.Jobs.Stop(ctx, j.ID, job.StopOptions{By: by}); err != nil {
		return nil, s.ended(ctx, r, key, waitError(err))
	}
	return &rtaskv1.EndResponse{Job: jobMessage(j)}, nil
}

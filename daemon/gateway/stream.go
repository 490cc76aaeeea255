package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect/v2"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
	"github.com/rtask/rtask/daemon/jobid"
)

// The trailers of a streamed run (RFC 9110, section 6.5).
const (
	trailerStatus   = "Rtask-Status"
	trailerReason   = "Rtask-Reason"
	trailerExitCode = "Rtask-Exit-Code"

	trailers = trailerStatus + ", " + trailerReason + ", " + trailerExitCode
)

// keepAlive is for how long a stream of events may be quiet. Then it says so in a comment, as the standard of server-sent
// events advises, for proxies close a connection on which nothing comes (nginx after 60 s, proxy_read_timeout).
const keepAlive = 20 * time.Second

// source is a stream of the engine's that can be taken up again behind the piece that has this offset.
type source func(ctx context.Context, offset int64) (runStream, error)

// runStream is one of the engine's streams.
type runStream interface {
	Receive() (*rtaskv1.RunStreamResponse, error)
	Close() error
}

// receive calls each with the messages of a stream. When the engine goes away meanwhile, it goes on with the next one.
func receive(ctx context.Context, offset int64, open source, each func(*rtaskv1.RunStreamResponse) error) error {
	var failed error // of each: whoever reads is gone
	_, err := persist(ctx, func(ctx context.Context) (*rtaskv1.RunStreamResponse, error) {
		stream, err := open(ctx, offset)
		if err != nil {
			return nil, err
		}
		for m, err := range client.Messages(stream) {
			if err != nil {
				return nil, err
			}
			if failed = each(m); failed != nil {
				return nil, nil
			}
			if len(m.Data) > 0 {
				offset = m.Offset
			}
		}
		return nil, nil
	})
	if failed != nil {
		return failed
	}
	return err
}

// output writes what a job wrote, as it comes.
type output struct {
	w      http.ResponseWriter
	sse    bool
	begun  bool
	job    *rtaskv1.Job // as it was seen last
	header func(http.Header)

	mu    sync.Mutex  // held to write, and guards begun while alive runs
	quiet *time.Timer // runs since the last write
}

func newOutput(w http.ResponseWriter, header func(http.Header)) *output {
	return &output{w: w, header: header, quiet: time.NewTimer(keepAlive)}
}

// alive writes a comment whenever nothing has been written for keepAlive, until stop. It calls gone when it cannot.
func (o *output) alive(gone func()) (stop func()) {
	if !o.sse {
		return func() {}
	}
	done := make(chan struct{})
	var comments sync.WaitGroup
	comments.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-o.quiet.C:
			}
			if err := o.comment(); err != nil {
				gone()
				return
			}
		}
	})
	return func() {
		close(done)
		comments.Wait()
	}
}

// comment writes one, unless the reply has not begun: it may become a problem.
func (o *output) comment() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.begun {
		o.quiet.Reset(keepAlive)
		return nil
	}
	return o.write([]byte(":\n\n"))
}

// begin sends the header, once.
func (o *output) begin() {
	if o.begun {
		return
	}
	o.begun = true
	h := o.w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if o.sse {
		h.Set("Content-Type", "text/event-stream")
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Accel-Buffering", "no") // nginx, http_proxy_module: proxy_buffering
	h.Set("Rtask-Job-Id", o.job.GetId())
	if o.header != nil {
		o.header(h)
	}
	o.w.WriteHeader(http.StatusOK)
}

// write writes and sends one piece. A client that does not read does not hold a connection for ever. mu is held.
func (o *output) write(b []byte) error {
	o.quiet.Reset(keepAlive)
	return send(o.w, b)
}

// take writes one message.
func (o *output) take(m *rtaskv1.RunStreamResponse) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if m.Job != nil {
		o.job = m.Job
		o.begin()
		if o.sse && m.End {
			return o.write(endEvent(m.Job))
		}
		return o.write(nil)
	}
	if o.sse {
		return o.write(outputEvent(m))
	}
	return o.write(m.Data)
}

// outputEvent is a piece of output as an event. Its name is the stream's. Lines are joined by newlines as the standard of
// server-sent events has it, so that a piece that ends with one has an empty line last. What that cannot carry is base64, and
// the name says so.
func outputEvent(m *rtaskv1.RunStreamResponse) []byte {
	name, data := "stdout", m.Data
	if m.Stream == rtaskv1.Stream_STREAM_STDERR {
		name = "stderr"
	}
	if !utf8.Valid(data) || bytes.ContainsAny(data, "\r\x00") {
		name += ".base64"
		data = base64.StdEncoding.AppendEncode(nil, data)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "event: %s\nid: %d\n", name, m.Offset)
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		b.WriteString("data: ")
		b.Write(line)
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// endID is the id of the event that says how a job ended. No other event comes behind it.
const endID = "end"

// endEvent says how a job ended.
func endEvent(j *rtaskv1.Job) []byte {
	data, err := json.Marshal(view.RunOf(j))
	if err != nil {
		panic(err) // it is plain data
	}
	return fmt.Appendf(nil, "event: end\nid: %s\ndata: %s\n\n", endID, data)
}

// stream serves POST /tasks/{task} for a client that wants the output as it comes.
func (a *api) stream(w http.ResponseWriter, r *http.Request, client codec.Presented, request *rtaskv1.RunRequest) {
	defer readInTime(w) // the end, which net/http sends
	request.Id = jobid.New()
	out := newOutput(w, func(h http.Header) {
		h.Set("Trailer", trailers)
	})
	accepted := false
	err := receive(r.Context(), 0, func(ctx context.Context, offset int64) (runStream, error) {
		request.Offset = offset
		return a.engine.RunStream(client.Context(ctx), request)
	}, func(m *rtaskv1.RunStreamResponse) error {
		if m.Accepted {
			out.job, accepted = m.Job, true
			return nil
		}
		return out.take(m)
	})
	switch {
	case r.Context().Err() != nil:
		a.disconnected(r, client, request, out.job.GetId())
		panic(http.ErrAbortHandler) // who only stopped sending must not take what was sent for all
	case err != nil && !out.begun:
		writeProblem(w, a.problemOf(err))
	case err != nil:
		var engines *connect.Error
		if !errors.As(err, &engines) { // it could not be written
			a.disconnected(r, client, request, out.job.GetId())
		}
		panic(http.ErrAbortHandler) // the end is missing, and that the connection breaks off is all that can be said now
	case accepted:
		writeRun(w, client.Task, &rtaskv1.RunResponse{Job: out.job, Accepted: true}, 0)
	default:
		setEnd(w.Header(), out.job)
	}
}

// setEnd says in a head, or in its trailers, how a job ended.
func setEnd(h http.Header, j *rtaskv1.Job) {
	end := view.RunOf(j)
	h.Set(trailerStatus, end.Status)
	if end.Reason != "" {
		h.Set(trailerReason, end.Reason)
	}
	if end.ExitCode != nil {
		h.Set(trailerExitCode, strconv.Itoa(int(*end.ExitCode)))
	}
}

// logs serves GET /tasks/{task}/{id}/logs.
func (a *api) logs(w http.ResponseWriter, r *http.Request, task, id string) {
	client := a.presented(r, task)
	request := &rtaskv1.LogsRequest{Id: id, Offset: r.Header.Get("Last-Event-ID")}
	switch follow := r.URL.Query().Get("follow"); follow {
	case "", "0", "false":
	case "1", "true":
		request.Follow = r.Method != http.MethodHead
	default:
		writeProblem(w, problem{Kind: rtaskv1.KindBadRequest, Detail: "follow is 1 or 0"})
		return
	}
	if !utf8.ValidString(request.Offset) {
		request.Offset = "-"
	}
	done := working(r)
	defer done()
	defer readInTime(w) // the end, which net/http sends
	out := newOutput(w, nil)
	out.sse = preferred(r, "text/plain", "text/event-stream") == "text/event-stream"
	switch {
	case !out.sse:
		request.Offset = "" // it is for events
	case request.Offset == endID:
		a.behindEnd(w, r, client, id)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stop := out.alive(cancel)
	err := receive(ctx, 0, func(ctx context.Context, offset int64) (runStream, error) {
		if offset > 0 {
			request.Offset = strconv.FormatInt(offset, 10)
		}
		return a.engine.Logs(client.Context(ctx), request)
	}, out.take)
	stop()
	switch {
	case err == nil:
	case !out.begun && r.Context().Err() == nil:
		done()
		writeProblem(w, a.problemOf(err))
	default:
		panic(http.ErrAbortHandler) // what was sent is not all
	}
}

// behindEnd answers a reader that has read the event of the end: with 204, by which it does not come again (HTML, section 9.2.3).
func (a *api) behindEnd(w http.ResponseWriter, r *http.Request, client codec.Presented, id string) {
	reply, err := call(r.Context(), client, a.engine.Result, &rtaskv1.ResultRequest{Id: id})
	switch {
	case err != nil:
		writeProblem(w, a.problemOf(err))
	case reply.Accepted:
		writeProblem(w, problem{Kind: rtaskv1.KindBadRequest, Detail: "the Last-Event-ID is not one that was sent: the job has not ended"})
	default:
		w.Header().Set("Rtask-Job-Id", reply.GetJob().GetId())
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent)
	}
}

// disconnectTries is how often a job is looked for whose client went away while it was just being started.
const disconnectTries = 5

// disconnected tells the engine that the client of a job is gone. With an idempotency key it may come again for the answer.
func (a *api) disconnected(r *http.Request, client codec.Presented, request *rtaskv1.RunRequest, id string) {
	if len(request.IdempotencyKey) > 0 || len(client.Key) == 0 {
		return
	}
	if id == "" {
		id = request.Id
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), stopTimeout)
	defer cancel()
	for range disconnectTries {
		_, err := a.engine.Disconnected(client.Context(ctx), &rtaskv1.DisconnectedRequest{Id: id})
		if connect.CodeOf(err) != connect.CodeNotFound {
			return // it is over, or there is nobody to tell
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// end serves DELETE /tasks/{task}/{id}.
func (a *api) end(w http.ResponseWriter, r *http.Request, task, id string) {
	done := working(r)
	defer done()
	reply, err := call(r.Context(), a.presented(r, task), a.engine.End, &rtaskv1.EndRequest{Id: id})
	if err != nil {
		done()
		writeProblem(w, a.problemOf(err))
		return
	}
	w.Header().Set("Rtask-Job-Id", reply.GetJob().GetId())
	writeJSON(w, http.StatusOK, "application/json", view.RunOf(reply.GetJob()))
}

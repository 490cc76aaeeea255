package gateway

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

const (
	// holdTime is how long the first output of a job is held back at most, and holdBytes how much of it is: a job that fails soon
	// after has a status that says so.
	holdTime  = time.Second
	holdBytes = 16 << 10
	// headerTruncated says that the job wrote more than there is of it.
	headerTruncated = "Rtask-Truncated"
)

// webhookStream answers a webhook's request with what its job writes. release gives back the room of the request's body.
func (a *api) webhookStream(w http.ResponseWriter, r *http.Request, client codec.Presented, request *rtaskv1.WebhookRequest, release func()) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer readInTime(w) // the end, which net/http sends
	// Behind the output a client of HTTP/1.0 can be told nothing any more: the end of its connection is the end of the output.
	request.Ended = !r.ProtoAtLeast(1, 1)
	out := newHookOutput(w, cancel)
	sender := senderOf(r, client.RemoteAddr)
	err := receive(ctx, 0, func(ctx context.Context, offset int64) (runStream, error) {
		if id := out.first.GetJob().GetId(); id != "" {
			request = &rtaskv1.WebhookRequest{Hash: request.Hash, Job: id, Offset: offset, Ended: request.Ended}
		}
		return a.engine.WebhookStream(client.Context(ctx), request)
	}, func(m *rtaskv1.RunStreamResponse) error {
		if m.Job != nil {
			a.strangers.praise(sender)
			request.Body = nil // the job has it
			release()
		}
		return out.take(m)
	})
	gone := out.stop()
	switch {
	case gone != nil, err != nil && (out.begun || r.Context().Err() != nil):
		panic(http.ErrAbortHandler) // what was sent is not all, which who only stopped sending can still read; the job runs on
	case err != nil:
		p := a.problemOf(err)
		if p.job == "" {
			p.job = out.first.GetJob().GetId()
		}
		writeProblem(w, p)
	case out.answer != nil:
		if out.answer.Run != nil {
			a.strangers.praise(sender)
		}
		writeAnswer(w, out.answer)
	default:
		if !out.finish() {
			panic(http.ErrAbortHandler)
		}
	}
}

// hookOutput writes a reply that is what a job wrote to its standard output. Its status is decided on when the first of it is sent: until
// then the job may fail, and the reply says so. After that, that a connection breaks off is all that can be said.
type hookOutput struct {
	w      http.ResponseWriter
	cancel func() // ends what fills it

	mu sync.Mutex // guards what follows, and is held to write
	// first is the engine's first message about the job, answer what it answers in place of output, and end tells how the job ended.
	first, end *rtaskv1.RunStreamResponse
	answer     *rtaskv1.WebhookResponse
	read       uint64      // bytes that the job wrote, as far as they came
	held       []byte      // that are still to be sent
	timer      *time.Timer // has held sent; nil: there was nothing yet
	begun      bool
	told       bool  // the head says how the job ended
	over       bool  // all messages were taken, and the timer sends nothing more
	gone       error // why the timer could not send
}

func newHookOutput(w http.ResponseWriter, cancel func()) *hookOutput {
	return &hookOutput{w: w, cancel: cancel}
}

// take takes one message. It returns an error if the client reads no more.
func (o *hookOutput) take(m *rtaskv1.RunStreamResponse) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case m.Webhook != nil && m.Job == nil:
		o.answer = m.Webhook
	case m.Job != nil:
		if o.first == nil {
			o.first = m
		}
		if m.Job.Ended() {
			o.end = m
		}
	default:
		o.read += uint64(len(m.Data))
		if m.Stream != rtaskv1.Stream_STREAM_STDERR { // which has a stream of its own only where that is wanted
			return o.add(m.Data)
		}
	}
	return nil
}

// add sends a piece of output, or holds it back. mu is held.
func (o *hookOutput) add(b []byte) error {
	switch {
	case o.gone != nil:
		return o.gone
	case o.begun:
		return o.write(b)
	case o.end != nil || len(o.held)+len(b) > holdBytes:
		o.begin()
		held := o.held
		o.held = nil
		return errors.Join(o.write(held), o.write(b))
	}
	o.held = append(o.held, b...)
	if o.timer == nil {
		o.timer = time.AfterFunc(holdTime, o.flush)
	}
	return nil
}

// flush sends what was held back long enough.
func (o *hookOutput) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.begun || o.over {
		return
	}
	o.begin()
	if o.gone = o.write(o.held); o.gone != nil {
		o.cancel()
	}
	o.held = nil
}

// stop ends what flush does, and returns its error.
func (o *hookOutput) stop() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = true
	if o.timer != nil {
		o.timer.Stop()
	}
	return o.gone
}

// write writes and sends one piece, which the client has writeTimeout to read. mu is held.
func (o *hookOutput) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	return send(o.w, b)
}

// begin sends the head. mu is held.
func (o *hookOutput) begin() {
	o.begun = true
	h := o.w.Header()
	status := int(o.first.GetHead().GetStatus())
	h.Set("Content-Type", o.first.GetHead().GetContentType())
	sandboxed(h)
	h.Set("X-Accel-Buffering", "no") // nginx, http_proxy_module: proxy_buffering
	h.Set("Rtask-Job-Id", o.first.GetJob().GetId())
	if o.end == nil {
		h.Set("Trailer", trailers)
		o.w.WriteHeader(status)
		return
	}
	o.told = true
	j := o.end.Job
	if !j.Succeeded() && !o.toPerson() {
		status = http.StatusInternalServerError
	}
	setEnd(h, j)
	if j.LogDroppedBytes > 0 || o.over && o.read < j.LogBytes {
		h.Set(headerTruncated, "true")
	}
	if o.end.Length != nil {
		h.Set("Content-Length", strconv.FormatInt(*o.end.Length, 10))
	}
	o.w.WriteHeader(status)
}

// toPerson reports whether a person reads the reply, who is shown nothing of one that failed.
func (o *hookOutput) toPerson() bool { return o.first.GetWebhook().GetPerson() }

// finish ends the reply. It returns false if its client must see that it is not whole, or that the job failed after all. It is called
// behind stop.
func (o *hookOutput) finish() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.end == nil:
		return false // which is not how the engine ends
	case o.begun && o.told:
		return o.read >= o.end.Job.LogBytes-o.end.Job.LogDroppedBytes
	case o.begun:
		setEnd(o.w.Header(), o.end.Job)
		return o.toPerson() || o.end.Job.Succeeded() && o.read >= o.end.Job.LogBytes
	case len(o.held) == 0 && !o.end.Job.Succeeded():
		o.end.Job.Id = o.first.Job.Id // or it is that of the job which the request is part of
		if o.toPerson() {
			o.first.Webhook.Run = &rtaskv1.RunResponse{Job: o.end.Job}
			writeAnswer(o.w, o.first.Webhook)
		} else {
			writeRun(o.w, "", &rtaskv1.RunResponse{Job: o.end.Job, Truncated: o.read < o.end.Job.LogBytes}, 0)
		}
		return true
	}
	length := int64(len(o.held))
	o.end.Length = &length
	o.begin()
	return o.write(o.held) == nil
}

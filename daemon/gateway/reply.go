package gateway

import (
	"cmp"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect/v2"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

// writeTimeout is how long a client may take to read a reply.
const writeTimeout = 30 * time.Second

// writeRun answers POST /tasks/{task}, and without a task who cannot ask for the job. The status, unless it is 0, is that of what is
// accepted, or has succeeded.
func writeRun(w http.ResponseWriter, task string, m *rtaskv1.RunResponse, status int) {
	id := m.GetJob().GetId()
	w.Header().Set("Rtask-Job-Id", id)
	if m.Accepted {
		if task != "" {
			w.Header().Set("Location", "/tasks/"+task+"/"+id)
		}
		writeJSON(w, cmp.Or(status, http.StatusAccepted), "application/json", struct {
			TaskID string `json:"task_id"`
		}{id})
		return
	}
	r := resultOf(m)
	status = cmp.Or(status, http.StatusOK)
	if !m.GetJob().Succeeded() {
		status = http.StatusInternalServerError
	}
	writeJSON(w, status, "application/json", r)
}

// writeResult answers GET /tasks/{task}/{id}: that the job failed is no failure of this request.
func writeResult(w http.ResponseWriter, m *rtaskv1.RunResponse) {
	id := m.GetJob().GetId()
	w.Header().Set("Rtask-Job-Id", id)
	if m.Accepted {
		writeJSON(w, http.StatusOK, "application/json", view.RunOf(m.GetJob()))
		return
	}
	writeJSON(w, http.StatusOK, "application/json", resultOf(m))
}

func resultOf(m *rtaskv1.RunResponse) view.Result {
	j := m.GetJob()
	stdout, stderr := m.Stdout, m.Stderr
	if m.Truncated {
		stdout, stderr = wholeCharacters(stdout), wholeCharacters(stderr)
	}
	r := view.Result{
		End: view.EndOf(j), Stdout: string(stdout), Stderr: string(stderr), Truncated: m.Truncated, TaskID: j.GetId(), Span: view.SpanOf(j),
	}
	_, r.Encoding = view.Base64(nil, &r.Stdout, &r.Stderr)
	return r
}

// wholeCharacters drops the beginning of a character at the end of b, where a text was cut.
func wholeCharacters(b []byte) []byte {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if tail := b[len(b)-n:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				return b[:len(b)-n]
			}
			break
		}
	}
	return b
}

// problem is an error reply (RFC 9457), with a stable kind.
type problem struct {
	Type       string       `json:"type"`
	Title      string       `json:"title"`
	Status     int          `json:"status"`
	Kind       rtaskv1.Kind `json:"kind"`
	Detail     string       `json:"detail,omitempty"`
	retryAfter time.Duration
	job        string
}

func writeProblem(w http.ResponseWriter, p problem) {
	p.Status = p.Kind.HTTPStatus()
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	if p.Kind == rtaskv1.KindUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="rtask"`)
		w.Header().Add("WWW-Authenticate", `Basic realm="rtask", charset="UTF-8"`)
	}
	if p.Kind == rtaskv1.KindUnsupportedMediaType {
		w.Header().Set("Accept-Encoding", "identity") // RFC 9110, section 12.5.3
	}
	if p.job != "" {
		w.Header().Set("Rtask-Job-Id", p.job)
	}
	if p.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(p.retryAfter.Seconds()))))
	}
	writeJSON(w, p.Status, "application/problem+json", p)
}

// readInTime gives a client so long to read what is written from here on: one that does not does not hold a connection for ever.
func readInTime(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)) // ignore the error: the server may not support deadlines
}

// send writes and sends one piece of a reply that comes piece by piece. Its client has writeTimeout to read it. How long the next one
// takes to come is not bounded: over HTTP/2 a deadline that passes resets the stream, also where nothing is being written.
func send(w http.ResponseWriter, b []byte) error {
	readInTime(w)
	control := http.NewResponseController(w)
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }() // ignore the error as in readInTime
	if _, err := w.Write(b); err != nil {
		return err
	}
	return control.Flush()
}

// bodyless reports whether a reply with this status has no body (RFC 9110, sections 15.3.5 and 15.3.6).
func bodyless(status int) bool {
	return status == http.StatusNoContent || status == http.StatusResetContent
}

func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	readInTime(w)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if bodyless(status) {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // a client that is gone is no error
}

// problemOf turns an error of the engine into a reply. What has no kind is trouble between gateway and engine, and none of
// the client's business.
func (a *api) problemOf(err error) problem {
	if m := detail(err); m != nil {
		return problem{Kind: rtaskv1.Kind(m.Kind), Detail: client.Message(err), retryAfter: m.RetryAfter.AsDuration(), job: m.JobId}
	}
	if connect.CodeOf(err) != connect.CodeCanceled {
		a.logger.Error("the engine cannot be asked", "error", err)
	}
	p := problem{Kind: rtaskv1.KindUnavailable, Detail: "the engine cannot be reached", retryAfter: time.Second}
	switch {
	case errors.Is(err, errSilent): // which was only asked how it is
		p.Detail = "the engine does not answer"
	case !errors.Is(err, client.ErrNotRunning) && !errors.Is(err, client.ErrPermission):
		// It was reached, and went away: a client that tries again by itself may have the task run twice.
		p.Detail, p.retryAfter = "the engine went away; whether the task runs is not known", 0
	}
	return p
}

// detail returns what the engine says of an error, or nil if it is not the engine's.
func detail(err error) *rtaskv1.Error {
	if m, _ := client.Detail(err); m.GetKind() != "" {
		return m
	}
	return nil
}

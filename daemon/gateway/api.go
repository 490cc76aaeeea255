package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/jobid"
)

const (
	// drainRetryAfter is what a client is told that asks whether a draining engine is ready: when that ends nobody knows.
	drainRetryAfter = 30 * time.Second
	// askTimeout bounds the wait for the engine's first word, and of a refusal for its receipt.
	askTimeout = 5 * time.Second
	// decideTimeout is how long a body counts once it was read. The engine has refused a bad key or signature by then; what is left
	// belongs to a job.
	decideTimeout = 5 * time.Second
)

// api serves the HTTP API.
type api struct {
	engine rtaskv1connect.GatewayServiceClient
	logger *slog.Logger
	// strangers is for the bodies of webhooks, and for short ones with a key that nobody has looked at yet; keys for those with a
	// key that is good.
	strangers, keys *memory
	watch           *watch
}

func newAPI(engine rtaskv1connect.GatewayServiceClient, l *slog.Logger) *api {
	return &api{engine: engine, logger: l, strangers: newMemory(bodyMemory / 4), keys: newMemory(0), watch: newWatch(engine)}
}

// ServeHTTP routes by the path as it was sent: nothing is cleaned, nothing redirected, so that no POST becomes a GET and no
// escaped slash a real one.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The deadline is that of the reply before, on the same connection. Ignore the error: the server may not support deadlines.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	parts := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	for _, p := range parts {
		if p == "" || strings.Contains(p, "%") {
			notFound(w, r)
			return
		}
	}
	switch {
	case len(parts) == 1 && parts[0] == "healthz":
		allow(w, r, a.healthz, http.MethodGet, http.MethodHead)
	case len(parts) == 1 && parts[0] == "readyz":
		allow(w, r, a.readyz, http.MethodGet, http.MethodHead)
	case len(parts) == 1 && parts[0] == "tasks":
		allow(w, r, a.tasks, http.MethodGet, http.MethodHead)
	case len(parts) == 2 && parts[0] == "tasks":
		allow(w, r, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				a.run(w, r, parts[1])
				return
			}
			a.jobs(w, r, parts[1])
		}, http.MethodGet, http.MethodHead, http.MethodPost)
	case len(parts) == 3 && parts[0] == "tasks":
		allow(w, r, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodDelete {
				a.end(w, r, parts[1], parts[2])
				return
			}
			a.result(w, r, parts[1], parts[2])
		}, http.MethodGet, http.MethodHead, http.MethodDelete)
	case len(parts) == 4 && parts[0] == "tasks" && parts[3] == "logs":
		allow(w, r, func(w http.ResponseWriter, r *http.Request) { a.logs(w, r, parts[1], parts[2]) }, http.MethodGet, http.MethodHead)
	case len(parts) == 2 && parts[0] == "wh":
		a.webhook(w, r, parts[1])
	case len(parts) == 1 && parts[0] == "openapi.json":
		allow(w, r, openapi, http.MethodGet, http.MethodHead)
	default:
		notFound(w, r)
	}
}

// allow calls h for the methods that a path has.
func allow(w http.ResponseWriter, r *http.Request, h http.HandlerFunc, methods ...string) {
	if slices.Contains(methods, r.Method) {
		h(w, r)
		return
	}
	notAllowed(w, methods)
}

// notAllowed answers a method that a path does not have (RFC 9110, section 15.5.6).
func notAllowed(w http.ResponseWriter, methods []string) {
	w.Header().Set("Allow", strings.Join(methods, ", "))
	writeProblem(w, problem{Kind: rtaskv1.KindMethodNotAllowed, Detail: "this path takes " + strings.Join(methods, ", ")})
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	writeProblem(w, problem{Kind: rtaskv1.KindNotFound, Detail: "there is nothing at this path"})
}

// healthz says that this process serves.
func (a *api) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	readInTime(w)
	_, _ = io.WriteString(w, "ok\n") // a client that is gone is no error
}

// readyz says that the engine answers and accepts jobs, too.
func (a *api) readyz(w http.ResponseWriter, r *http.Request) {
	state, err := a.watch.now(r.Context())
	if err != nil {
		writeProblem(w, a.problemOf(err))
		return
	}
	if state.Draining {
		writeProblem(w, problem{Kind: rtaskv1.KindUnavailable, Detail: "the engine is draining and accepts no new jobs", retryAfter: drainRetryAfter})
		return
	}
	if state.NoConfiguration {
		writeProblem(w, problem{Kind: rtaskv1.KindConfiguration, Detail: "the configuration has errors, so there are no tasks"})
		return
	}
	a.healthz(w, r)
	if state.ConfigurationErrors {
		_, _ = io.WriteString(w, "the configuration has errors; the last good one is in force\n")
	}
}

// run serves POST /tasks/{task}.
func (a *api) run(w http.ResponseWriter, r *http.Request, task string) {
	client := a.presented(r, task)
	request := &rtaskv1.RunRequest{Query: []byte(r.URL.RawQuery), Headers: headers(r, "Authorization")}
	request.IdempotencyKey = []byte(strings.Join(r.Header.Values("Idempotency-Key"), ", "))
	sender := senderOf(r, client.RemoteAddr)
	if len(client.Key) == 0 {
		// The engine is to say what it says of all bad keys, and to log it. What else such a client sends is not read.
		closeAfter(w, r)
	} else {
		got, p := a.readInput(w, r, sender, client)
		if p != nil {
			writeProblem(w, *p)
			return
		}
		defer got.release()
		request.Input, request.InputTooLarge = got.bytes, got.tooLong
	}
	done := working(r)
	defer done()
	if streams(r) {
		a.stream(w, r, client, request)
		return
	}
	// When the engine goes away meanwhile the request is made again under the same id: the next engine knows by that whether the
	// job is there.
	request.Id = jobid.New()
	reply, err := call(r.Context(), client, a.engine.Run, request)
	if err != nil && r.Context().Err() != nil {
		a.disconnected(r, client, request, "")
		panic(http.ErrAbortHandler) // who only stopped sending must not take an empty reply for the job's
	}
	if err != nil {
		p := a.problemOf(err)
		if p.Kind == rtaskv1.KindUnavailable && p.retryAfter == 0 && p.job == "" && len(request.IdempotencyKey) == 0 {
			p.job = request.Id // under which it is found if it runs; with an Idempotency-Key the engine makes the id
		}
		done()
		writeProblem(w, p)
		return
	}
	a.strangers.praise(sender)
	writeRun(w, task, reply, 0)
}

// received is a body as far as it was read.
type received struct {
	bytes   []byte
	tooLong bool   // it is not read
	release func() // gives back the room that it takes up; it may be called again
}

// readInput reads the body of a request with a key. A key that is to bring more than a little is looked at first.
func (a *api) readInput(w http.ResponseWriter, r *http.Request, sender any, client codec.Presented) (got received, p *problem) {
	switch size := r.ContentLength; {
	case size == 0:
		return received{release: func() {}}, nil
	case 0 < size && size <= uncheckedBody:
		got, p = a.readBody(w, r, a.strangers, sender, uncheckedBody)
	default:
		defer working(r)()
		framing, err := call(r.Context(), client, a.engine.RunFraming, &rtaskv1.RunFramingRequest{})
		if err != nil {
			closeAfter(w, r)
			p := a.problemOf(err)
			return received{}, &p
		}
		a.strangers.praise(sender)
		got, p = a.readBody(w, r, a.keys, framing.KeyId, framing.MaxInputBytes)
	}
	if p != nil {
		a.refused(r, client, &rtaskv1.RefusedRequest{}, *p)
	}
	return got, p
}

// readBody reads a body, whose room is its sender's.
func (a *api) readBody(w http.ResponseWriter, r *http.Request, from *memory, sender any, limit int64) (received, *problem) {
	tooLong := func() (received, *problem) {
		closeAfter(w, r) // the rest is not read
		return received{tooLong: true, release: func() {}}, nil
	}
	if r.ContentLength > limit {
		return tooLong()
	}
	b, held, err := from.read(http.NewResponseController(w), r.Body, sender, r.ContentLength, limit)
	p := problem{Kind: rtaskv1.KindBadRequest, Detail: "the body could not be read"}
	switch {
	case err == nil:
		decided := time.AfterFunc(decideTimeout, held.leave)
		return received{bytes: b, release: func() {
			decided.Stop()
			held.leave()
		}}, nil
	case errors.Is(err, errTooLong):
		return tooLong()
	case errors.Is(err, errFull):
		p = problem{Kind: rtaskv1.KindUnavailable, Detail: "too many request bodies are being received", retryAfter: time.Second}
	case errors.Is(err, errSlow):
		p.Detail = err.Error()
	}
	closeAfter(w, r)
	return received{}, &p
}

// senderOf is whose bodies count together: those of an address, or of a connection of this machine.
func senderOf(r *http.Request, remote string) any {
	if from, err := netip.ParseAddr(remote); err == nil {
		if p := clientOf(from); p.IsValid() {
			return p
		}
	}
	return connectionOf(r)
}

// refused tells the engine of a request that is refused here. That it cannot be told changes nothing for the client.
func (a *api) refused(r *http.Request, client codec.Presented, m *rtaskv1.RefusedRequest, p problem) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), askTimeout)
	defer cancel()
	m.Kind, m.Reason = string(p.Kind), p.Detail
	if _, err := a.engine.Refused(client.Context(ctx), m); err != nil {
		a.logger.Warn("the engine cannot be told of a refusal", "kind", string(p.Kind), "reason", p.Detail, "remote", client.RemoteAddr, "error", err)
	}
}

// presented is what the engine is told of a request's client.
func (a *api) presented(r *http.Request, task string) codec.Presented {
	return codec.Presented{Key: presentedKey(r), RemoteAddr: a.remoteAddr(r), Task: task}
}

// presentedKey returns the key that a client presents, or nothing: as a bearer token (RFC 6750, section 2.1), or as the password of
// HTTP Basic (RFC 7617) with any user name, for clients that know nothing else. A browser sends a password that it knows with
// whatever request any page makes, so from a page of another origin that is no key.
func presentedKey(r *http.Request) []byte {
	all := r.Header.Values("Authorization")
	if len(all) != 1 {
		return nil
	}
	scheme, key, ok := strings.Cut(all[0], " ")
	switch {
	case ok && strings.EqualFold(scheme, "Bearer"):
		return []byte(strings.TrimLeft(key, " "))
	case ok && strings.EqualFold(scheme, "Basic") && new(http.CrossOriginProtection).Check(r) == nil:
		_, password, _ := r.BasicAuth()
		return []byte(password)
	default:
		return nil
	}
}

// closeAfter has what a client still sends behind the reply not be read, not even to use the connection again. Over HTTP/2 a
// request ends with its reply and leaves the others of its connection alone.
func closeAfter(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
}

// headers are the lines of a request's head, without those of one name: a key goes to the engine by itself.
func headers(r *http.Request, without string) []*rtaskv1.Header {
	all := []*rtaskv1.Header{{Name: "Host", Value: []byte(r.Host)}} // net/http has it there
	for name, values := range r.Header {
		if name == without || !utf8.ValidString(name) {
			continue
		}
		for _, v := range values {
			all = append(all, &rtaskv1.Header{Name: name, Value: []byte(v)})
		}
	}
	return all
}

// result serves GET /tasks/{task}/{id}.
func (a *api) result(w http.ResponseWriter, r *http.Request, task, id string) {
	request := &rtaskv1.ResultRequest{Id: id, Wait: strings.ToValidUTF8(r.URL.Query().Get("wait"), "?")}
	done := working(r)
	defer done()
	reply, err := call(r.Context(), a.presented(r, task), a.engine.Result, request)
	if err != nil {
		done()
		writeProblem(w, a.problemOf(err))
		return
	}
	writeResult(w, reply)
}

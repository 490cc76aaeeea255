package gateway

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// The output of a job that writes nothing for a long time goes on, and ends, over either version of HTTP.
func TestQuietJob(t *testing.T) {
	const webhook, run = "webhook", "run"
	for _, kind := range []string{webhook, run} {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, HTTP/2 %v", kind, http2), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testQuietJob(t, kind == webhook, http2) })
			})
		}
	}
}

func testQuietJob(t *testing.T, hook, http2 bool) {
	at := func(s rtaskv1.State) *rtaskv1.RunStreamResponse {
		return &rtaskv1.RunStreamResponse{
			Job:  &rtaskv1.Job{Id: "aaaaaaaaaaaaaaaa", State: s, LogBytes: 8},
			Head: &rtaskv1.WebhookReply{Status: 200, ContentType: "text/plain"},
		}
	}
	messages := []*rtaskv1.RunStreamResponse{at(rtaskv1.State_STATE_RUNNING), {Data: []byte("one\n")}, {Data: []byte("two\n")}, at(rtaskv1.State_STATE_ENDED)}
	handler := func(w http.ResponseWriter, _ *http.Request) {
		defer readInTime(w)
		forHook, forRun := newHookOutput(w, func() {}), newOutput(w, func(h http.Header) { h.Set("Trailer", trailers) })
		for _, m := range messages {
			time.Sleep(3 * writeTimeout)
			take := forRun.take
			if hook {
				take = forHook.take
			}
			if err := take(m); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
		if !hook {
			setEnd(w.Header(), forRun.job)
		} else if forHook.stop() != nil || !forHook.finish() {
			panic(http.ErrAbortHandler)
		}
	}
	theirs, ours := net.Pipe()
	o := once{conns: make(chan net.Conn, 1)}
	o.conns <- ours
	s := service{handler: http.HandlerFunc(handler)}.server(slog.New(slog.DiscardHandler))
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan error)
	go func() { served <- s.Serve(o) }()
	transport := &http.Transport{Protocols: new(http.Protocols), DialContext: func(context.Context, string, string) (net.Conn, error) { return theirs, nil }}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetUnencryptedHTTP2(http2)
	defer func() {
		transport.CloseIdleConnections()
		theirs.Close()
		time.Sleep(time.Hour) // for a handler that does not know
		close(o.conns)
		<-served
		_ = s.Close()
	}()
	res, err := (&http.Client{Transport: transport}).Post("http://x/", "", nil)
	if err != nil {
		t.Error(err)
		return
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "one\ntwo\n" || res.Trailer.Get(trailerStatus) != "success" || (res.ProtoMajor == 2) != http2 {
		t.Errorf("%s: %q, %v, %v", res.Proto, b, err, res.Trailer)
	}
}

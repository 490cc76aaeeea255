package gateway

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// torn is a connection that breaks.
type torn struct {
	*httptest.ResponseRecorder
	broken bool
}

func (t *torn) Write(b []byte) (int, error) {
	if t.broken {
		return 0, errors.New("broken pipe")
	}
	return t.ResponseRecorder.Write(b)
}

// A stream of events on which nothing comes has a comment now and then, and what is no such stream has none.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &torn{ResponseRecorder: httptest.NewRecorder()}
		o := newOutput(w, nil)
		body := func() string {
			o.mu.Lock()
			defer o.mu.Unlock()
			return w.Body.String()
		}
		comments := func() int { return strings.Count(body(), ":\n\n") }
		o.sse = true
		gone := 0
		stop := o.alive(func() { gone++ })
		time.Sleep(2*keepAlive + time.Second)
		if body() != "" {
			t.Errorf("before its header: %q", body())
		}
		if err := o.take(&rtaskv1.RunStreamResponse{Job: &rtaskv1.Job{Id: "aaaaaaaaaaaaaaaa"}}); err != nil {
			t.Fatal(err)
		}
		for range 10 { // as long as there are events, none is needed
			time.Sleep(keepAlive - time.Second)
			if err := o.take(&rtaskv1.RunStreamResponse{Data: []byte("x\n"), Offset: 1}); err != nil {
				t.Fatal(err)
			}
		}
		if n := comments(); n != 0 || strings.Count(body(), "event: stdout\n") != 10 {
			t.Errorf("%d comments in %q", n, body())
		}
		time.Sleep(3*keepAlive + time.Second)
		synctest.Wait()
		if n := comments(); n != 3 {
			t.Errorf("%d comments while it is quiet", n)
		}
		o.mu.Lock()
		w.broken = true
		o.mu.Unlock()
		time.Sleep(keepAlive)
		synctest.Wait()
		if gone != 1 {
			t.Errorf("that the reader is gone was noticed %d times", gone)
		}
		stop()

		w = &torn{ResponseRecorder: httptest.NewRecorder()}
		o = newOutput(w, func(h http.Header) {})
		stop = o.alive(func() {})
		if err := o.take(&rtaskv1.RunStreamResponse{Job: &rtaskv1.Job{Id: "aaaaaaaaaaaaaaaa"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		stop()
		if w.Body.Len() != 0 {
			t.Errorf("in plain text: %q", w.Body)
		}
	})
}

package control

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/auth"
)

// half is a call of which half of the message has come, and the engine waits for the rest.
type half struct {
	t    *testing.T
	conn net.Conn
	from *bufio.Reader
	rest string
}

// half makes a call, and returns when the engine reads its message.
func (f *fixture) half(t *testing.T, socket string, p auth.Peer, procedure, message string, head ...string) *half {
	t.Helper()
	kind := "application/json"
	if streams(procedure) {
		kind, message = "application/connect+json", string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))))+message
	}
	conn, err := f.dial(socket, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	h := &half{t: t, conn: conn, from: bufio.NewReader(conn), rest: message[len(message)/2:]}
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: rtask\r\nContent-Type: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n%s\r\n", procedure, kind, len(message), strings.Join(head, ""))
	r, err := http.ReadResponse(h.from, nil)
	if err != nil || r.StatusCode != http.StatusContinue {
		t.Fatalf("%v, %v", r, err)
	}
	io.WriteString(conn, message[:len(message)/2])
	return h
}

// answer returns what the engine answers.
func (h *half) answer() string {
	h.t.Helper()
	r, err := http.ReadResponse(h.from, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

// end sends the rest of the message and returns the answer.
func (h *half) end() string {
	h.t.Helper()
	io.WriteString(h.conn, h.rest)
	return h.answer()
}

// presents is the head of a call of the gateway.
func presents(key []byte, task string) []string {
	return []string{"Rtask-Key-Bin: " + base64.RawStdEncoding.EncodeToString(key) + "\r\n", "Rtask-Task: " + task + "\r\n"}
}

// A call is decided on what holds when its message has come, however long ago its head came.
func TestHalfCallsAreDecidedAtTheirEnd(t *testing.T) {
	const start, run, stream = rtaskv1connect.JobServiceStartProcedure, rtaskv1connect.GatewayServiceRunProcedure, rtaskv1connect.GatewayServiceRunStreamProcedure
	revoke := func(t *testing.T, f *fixture) {
		must[rtaskv1.RevokeKeyResponse](t)(f.as(peers()[auth.Admin]).RevokeKey(t.Context(), &rtaskv1.RevokeKeyRequest{Key: "demo"}))
	}
	for name, c := range map[string]struct {
		procedure, task string
		change          func(*testing.T, *fixture)
		want            string
	}{
		"user removed": {start, "hello", func(_ *testing.T, f *fixture) {
			f.configure(strings.ReplaceAll(tasks, `"ada"`, `"ben"`))
		}, "permission_denied"},
		"task disabled": {start, "hello", func(_ *testing.T, f *fixture) {
			f.configure(strings.Replace(tasks, `task "hello" {`, "task \"hello\" {\n  enabled = false", 1))
		}, "disabled"},
		"switched off": {run, "async", func(t *testing.T, f *fixture) {
			must[rtaskv1.SwitchTaskResponse](t)(f.as(peers()[auth.Admin]).SwitchTask(t.Context(), &rtaskv1.SwitchTaskRequest{Task: "async"}))
		}, "disabled"},
		"key taken from the task": {run, "async", func(_ *testing.T, f *fixture) {
			f.configure(strings.ReplaceAll(tasks, `"demo"`, `"third"`))
		}, "permission_denied"},
		"key revoked":               {run, "async", revoke, "unauthenticated"},
		"key revoked, for a stream": {stream, "async", revoke, "unauthenticated"},
		"key rotated": {run, "async", func(t *testing.T, f *fixture) {
			must[rtaskv1.RotateKeyResponse](t)(f.as(peers()[auth.Admin]).RotateKey(t.Context(), &rtaskv1.RotateKeyRequest{Key: "demo"}))
		}, "unauthenticated"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, tasks)
			key := f.key("demo")
			var h *half
			if c.procedure == start {
				h = f.half(t, "control", ada, c.procedure, `{"name":"`+c.task+`"}`)
			} else {
				h = f.half(t, "gateway", peers()[auth.Gateway], c.procedure, `{"input":"eA=="}`, presents(key, c.task)...)
			}
			c.change(t, f) // returns while the call stands
			if got := h.end(); !strings.Contains(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
			f.noJobs()
			if n := strings.Count(f.logs.String(), "RTASK_DECISION=refused"); n != 1 {
				t.Errorf("%d entries: %s", n, f.logs)
			}
		})
	}
}

// A local user whom no task names any more is a stranger when his message has come.
func TestHalfCallOfStranger(t *testing.T) {
	f := newFixture(t, tasks)
	var gone atomic.Bool
	f.serve("named", f.door(f.handler(), func(ctx context.Context) (auth.Caller, error) {
		if gone.Load() {
			return auth.Caller{}, auth.ErrForbidden
		}
		return f.asPeer(f.controlCaller)(ctx)
	}))
	h := f.half(t, "named", ada, rtaskv1connect.JobServiceListProcedure, `{"ended":true}`)
	gone.Store(true)
	if got := h.end(); code(got) != "permission_denied" {
		t.Error(got)
	}
}

// A call whose message does not come ends.
func TestSlowMessages(t *testing.T) {
	f := newFixture(t, tasks)
	f.messageTime = 50 * time.Millisecond
	h := f.half(t, "control", ada, rtaskv1connect.JobServiceStartProcedure, `{"name":"hello"}`)
	if got := h.answer(); code(got) != "deadline_exceeded" || !strings.Contains(got, "the message did not come within 50ms") {
		t.Error(got)
	}
	h = f.half(t, "gateway", peers()[auth.Gateway], rtaskv1connect.GatewayServiceRunStreamProcedure, `{"input":"eA=="}`, presents(f.key("demo"), "sleeps")...)
	if got := h.answer(); !strings.Contains(got, "the message did not come within 50ms") {
		t.Error(got)
	}
	f.noJobs()
}

// A wait may take longer than the message of its call.
func TestWaitsOutliveMessageTime(t *testing.T) {
	f := newFixture(t, tasks)
	f.messageTime = time.Second
	h := f.half(t, "gateway", peers()[auth.Gateway], rtaskv1connect.GatewayServiceRunProcedure, `{"input":"eA=="}`, presents(f.key("other"), "sleeps")...)
	wait := make(chan error, 1)
	go func() {
		io.WriteString(h.conn, h.rest)
		_, err := h.from.ReadByte()
		wait <- err
	}()
	select {
	case err := <-wait:
		t.Errorf("a call whose message has come ended: %v", err)
	case <-time.After(2 * time.Second):
	}
	h.conn.Close()
	<-wait
}

// flood sends a call without an end and returns how many bytes of the message went out before the engine closed the connection.
func (f *fixture) flood(t *testing.T, procedure, kind, begin string) int {
	t.Helper()
	const size = 64 << 20
	conn, err := f.dial("control", ada)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: rtask\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", procedure, kind, size, begin)
	sent := len(begin)
	for piece := make([]byte, 64<<10); sent < size; {
		n, err := conn.Write(piece[:min(len(piece), size-sent)])
		if sent += n; err != nil {
			break
		}
	}
	return sent
}

// Of a message that is too long, or too much beside others, the engine reads only so much more.
func TestRestIsBounded(t *testing.T) {
	f := newFixture(t, tasks)
	const most = maxSmallRequest + 3*maxRest // twice, and what the kernel keeps
	if sent := f.flood(t, rtaskv1connect.JobServiceStreamLogsProcedure, "application/connect+json", "\x00\x03\x00\x00\x00"); sent > most {
		t.Errorf("of an envelope that claims 48 MiB the engine read %d", sent)
	}
	if sent := f.flood(t, rtaskv1connect.JobServiceListProcedure, "application/json", ""); sent > most {
		t.Errorf("of a message without an end the engine read %d", sent)
	}
	f = newFixture(t, tasks)
	f.mostOfUser = 100
	if sent := f.flood(t, rtaskv1connect.JobServiceStartProcedure, "application/json", ""); sent > most {
		t.Errorf("of a message that is too much the engine read %d", sent)
	}
	f.nothingHeld(t)
}

// The rest of a message that is too long is not waited for.
func TestRestDoesNotCome(t *testing.T) {
	f := newFixture(t, tasks)
	f.messageTime = time.Hour
	conn, err := f.dial("control", ada)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: rtask\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n%s",
		rtaskv1connect.JobServiceListProcedure, strings.Repeat(" ", maxSmallRequest+1))
	b, err := io.ReadAll(conn) // until the engine closes it
	if err != nil || !strings.Contains(string(b), "resource_exhausted") {
		t.Errorf("%q, %v", b, err)
	}
}

// What comes behind a message that was no good is not read.
func TestRestOfBadMessage(t *testing.T) {
	body := strings.NewReader("the rest")
	r := &rest{ReadCloser: io.NopCloser(body), begun: true, left: 100}
	if err := r.Close(); err != nil || body.Len() != len("the rest") {
		t.Errorf("%d bytes are left, %v", body.Len(), err)
	}
}

package control

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
)

// apiProcedures are the rows of the table that are of rtask's own API.
func apiProcedures() iter.Seq2[string, auth.Rule] {
	return func(yield func(string, auth.Rule) bool) {
		for procedure, rule := range auth.Procedures() {
			if strings.HasPrefix(procedure, "/rtask.v1.") && !yield(procedure, rule) {
				return
			}
		}
	}
}

// Every row of the table against every kind of caller, on both sockets.
func TestEveryProcedureForEveryCaller(t *testing.T) {
	f := newFixture(t, tasks)
	for _, socket := range []string{"control", "gateway"} {
		for kind, peer := range peers() {
			for procedure, rule := range apiProcedures() {
				// Who one is depends on the socket: the gateway's lets nobody else in, and the other one not the gateway.
				ours := strings.HasPrefix(procedure, "/rtask.v1.GatewayService/") == (socket == "gateway")
				want := ours && (rule.Allows(kind) || rule.Least == auth.KeyHolder) && (socket == "gateway") == (kind == auth.Gateway)
				status, reply := f.call(socket, peer, procedure, "{}")
				if got := status != http.StatusForbidden; got != want {
					t.Errorf("%s socket, %v, %s: %d %s", socket, kind, procedure, status, reply)
				}
				if status == http.StatusForbidden && code(reply) != "permission_denied" {
					t.Errorf("%s socket, %v, %s: %s", socket, kind, procedure, reply)
				}
				// What is for holders of keys the gateway may not by itself.
				if want && rule.Least == auth.KeyHolder && code(reply) != "unauthenticated" {
					t.Errorf("%s without a key: %d %s", procedure, status, reply)
				}
			}
		}
	}
	// A key makes nobody but the gateway the holder of one, and is good for nothing but what is for these.
	key := base64.RawStdEncoding.EncodeToString(f.key("demo"))
	for kind, peer := range peers() {
		for procedure, rule := range apiProcedures() {
			for _, socket := range []string{"control", "gateway"} {
				status, reply := f.call(socket, peer, procedure, "{}", "Rtask-Key-Bin", key, "Rtask-Task", "async")
				got := status != http.StatusForbidden && code(reply) != "unauthenticated"
				ours := strings.HasPrefix(procedure, "/rtask.v1.GatewayService/") == (socket == "gateway")
				want := ours && (socket == "gateway") == (kind == auth.Gateway) && (rule.Allows(kind) || kind == auth.Gateway && rule.Allows(auth.KeyHolder))
				if got != want {
					t.Errorf("%s socket, %v, %s, with a key: %d %s", socket, kind, procedure, status, reply)
				}
				if want && rule.Task {
					if _, reply := f.call(socket, peer, procedure, "{}", "Rtask-Key-Bin", key, "Rtask-Task", "nothing"); code(reply) != "permission_denied" {
						t.Errorf("%s, for a task that is not the key's: %s", procedure, reply)
					}
				}
			}
		}
	}
	// Root is an admin on one socket and a gateway on the other, never both on one.
	root := auth.Peer{CgroupKnown: true}
	for procedure := range apiProcedures() {
		gateway := strings.HasPrefix(procedure, "/rtask.v1.GatewayService/")
		for _, socket := range []string{"control", "gateway"} {
			status, reply := f.call(socket, root, procedure, "{}")
			if got, want := status != http.StatusForbidden, gateway == (socket == "gateway"); got != want {
				t.Errorf("%s socket, root, %s: %d %s", socket, procedure, status, reply)
			}
		}
	}
	// A job is nobody, whatever it runs as.
	for _, p := range []auth.Peer{{InSlice: true, CgroupKnown: true}, {}} {
		for _, socket := range []string{"control", "gateway"} {
			for procedure := range apiProcedures() {
				if status, reply := f.call(socket, p, procedure, "{}"); status != http.StatusForbidden {
					t.Errorf("a job on the %s socket, %s: %d %s", socket, procedure, status, reply)
				}
			}
		}
	}
}

func TestUnknownProcedures(t *testing.T) {
	f := newFixture(t, "")
	for _, path := range []string{"/", "/rtask.v1.JobService/", "/rtask.v1.JobService/Nothing", "/rtask.v1.JobService/start", "//rtask.v1.JobService/Start", "/rtask.v1.JobService/Start/"} {
		if status, reply := f.call("control", peers()[auth.Admin], path, "{}"); status == http.StatusOK {
			t.Errorf("%s: %d %s", path, status, reply)
		}
		if status, _ := f.call("control", peers()[auth.Nobody], path, "{}"); status != http.StatusForbidden {
			t.Errorf("%s, a stranger: %d", path, status)
		}
	}
}

// The table is held by the interceptor alone: nothing gets past it that came by no door.
func TestInterceptorsDenyByDefault(t *testing.T) {
	f := newFixture(t, "")
	f.serve("none", f.handler())
	for procedure := range apiProcedures() {
		if status, reply := f.call("none", auth.Peer{}, procedure, "{}"); status != http.StatusForbidden {
			t.Errorf("%s: %d %s", procedure, status, reply)
		}
	}
}

// firstError returns the error with which a stream begins, if it does.
func firstError[M any, S interface{ Receive() (*M, error) }](s S, err error) error {
	if err != nil {
		return err
	}
	_, err = s.Receive()
	return err
}

// A stranger's body is not read: the answer comes while it is still being sent, or never is.
func TestStrangersAreRefusedAtOnce(t *testing.T) {
	f := newFixture(t, "")
	user, method := peers()[auth.User], "/rtask.v1.JobService/"
	for name, c := range map[string]struct {
		peer   auth.Peer
		head   string
		socket string
		path   string
	}{
		"huge":                    {peers()[auth.Nobody], "Content-Length: 1000000000000", "control", method + "Start"},
		"chunked":                 {peers()[auth.Nobody], "Transfer-Encoding: chunked", "control", method + "Start"},
		"expect":                  {peers()[auth.Nobody], "Content-Length: 1000\r\nExpect: 100-continue", "control", method + "Start"},
		"gateway":                 {peers()[auth.Admin], "Content-Length: 1000", "gateway", "/rtask.v1.GatewayService/Run"},
		"method of others":        {user, "Content-Length: 1000\r\nContent-Type: application/json", "control", method + "AddKey"},
		"without a known content": {peers()[auth.Nobody], "Content-Length: 1000\r\nContent-Type: text/plain", "control", method + "Start"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := f.dial(c.socket, c.peer)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: rtask\r\n%s\r\n\r\n", c.path, c.head)
			r, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			if r.StatusCode != http.StatusForbidden {
				t.Errorf("%d", r.StatusCode)
			}
		})
	}
}

// streams reports whether a method has a stream for an answer, for which plain JSON is no request.
func streams(procedure string) bool {
	return strings.HasSuffix(procedure, "/StreamLogs") || strings.HasSuffix(procedure, "/RunStream") || strings.HasSuffix(procedure, "/WebhookStream") || strings.HasSuffix(procedure, "/Logs") || strings.HasSuffix(procedure, "/Watch")
}

// What a message may be is bounded before it is decoded: compressed ones are not taken, and large ones only where there
// is an input.
func TestMessagesAreBounded(t *testing.T) {
	f := newFixture(t, tasks)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	io.WriteString(z, "{}")
	z.Close()
	r, err := http.NewRequest("POST", "http://rtask/rtask.v1.JobService/Info", &packed)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Content-Encoding", "gzip")
	reply, err := f.client("control", peers()[auth.Admin]).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	if b, _ := io.ReadAll(reply.Body); code(string(b)) != "unimplemented" {
		t.Errorf("compressed: %d %s", reply.StatusCode, b)
	}
	big, demo := strings.Repeat("x", 1<<20), f.key("demo")
	for procedure := range apiProcedures() {
		socket, peer := "control", peers()[auth.Admin]
		if strings.HasPrefix(procedure, "/rtask.v1.GatewayService/") {
			socket, peer = "gateway", peers()[auth.Gateway]
		}
		if streams(procedure) {
			continue
		}
		_, text := f.call(socket, peer, procedure, `{"unknown":"`+big+`"}`, "Rtask-Key-Bin", base64.RawStdEncoding.EncodeToString(demo), "Rtask-Task", "async")
		takes := strings.HasSuffix(procedure, "/Start") || strings.HasSuffix(procedure, "/Run") || strings.HasSuffix(procedure, "/ImportKeys") ||
			strings.HasSuffix(procedure, "/Webhook") || strings.HasSuffix(procedure, "/TestWebhook")
		if got := code(text) != "resource_exhausted"; got != takes {
			t.Errorf("%s with 1 MiB: %.100s", procedure, text)
		}
	}
	for name, err := range map[string]error{
		"StreamLogs": firstError(f.as(peers()[auth.Admin]).StreamLogs(t.Context(), &rtaskv1.StreamLogsRequest{Job: big})),
		"Logs":       firstError(f.net(demo, "async").Logs(t.Context(), &rtaskv1.LogsRequest{Id: big})),
	} {
		if connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("%s with 1 MiB: %v", name, err)
		}
	}
	err = firstError(f.net(demo, "async").RunStream(t.Context(), &rtaskv1.RunRequest{Input: []byte(big)}))
	if detail(err).GetKind() != "input-too-large" { // it has an input
		t.Errorf("RunStream with 1 MiB: %v", err)
	}
	err = firstError(f.net(nil, "").WebhookStream(t.Context(), &rtaskv1.WebhookRequest{Body: []byte(big)}))
	if connect.CodeOf(err) != connect.CodeNotFound { // of no webhook
		t.Errorf("WebhookStream with 1 MiB: %v", err)
	}
}

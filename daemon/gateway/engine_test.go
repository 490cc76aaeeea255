package gateway

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/packaging/testkit"
)

// silent is an engine that takes requests and never answers.
func silent(t *testing.T) *client.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gateway.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	engine := client.Dial(path)
	t.Cleanup(engine.Close)
	return engine
}

// TestWebhookWaitsForTheEngine: while the engine is asked how much of a webhook's request is to be read, the connection makes no room
// for others.
func TestWebhookWaitsForTheEngine(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := capped(inner, 4, 4)
	s := &http.Server{Handler: newAPI(silent(t).Gateway, slog.New(slog.DiscardHandler)), ConnContext: connContext}
	go s.Serve(l)
	defer s.Close()
	c, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST /wh/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the connection counts as in use", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.here.open == 1 && l.here.idle.Len() == 0
	})
}

// TestPraise: a client is good once something of its was accepted, and not by a request that anybody can make.
func TestPraise(t *testing.T) {
	f := newFixture(t)
	f.configure("trusted_proxies = [\"127.0.0.1\"]\n")
	testkit.Eventually(t, "the proxy is trusted", func() bool {
		state, err := f.inner.watch.now(t.Context())
		return err == nil && len(state.TrustedProxies) == 1
	})
	path := f.url("slack")
	send := func(from, body string) {
		t.Helper()
		stamp := fmt.Sprint(time.Now().Unix())
		sum := strings.TrimPrefix(signed("v0:"+stamp+":"+body), "sha256=")
		r := f.do("POST", path, strings.NewReader(body), "X-Slack-Request-Timestamp", stamp, "X-Slack-Signature", "v0="+sum, "X-Forwarded-For", from)
		if r.status != 200 {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
	good := func(address string) bool {
		f.inner.strangers.mu.Lock()
		defer f.inner.strangers.mu.Unlock()
		return f.inner.strangers.good[netip.MustParsePrefix(address+"/32")] != nil
	}
	if r := f.do("POST", path, strings.NewReader("token=x&ssl_check=1"), "X-Forwarded-For", "192.0.2.5"); r.status != 200 || good("192.0.2.5") {
		t.Errorf("after a request without a signature: %d, good %v", r.status, good("192.0.2.5"))
	}
	if send("192.0.2.6", "command=%2Fdeploy&trigger_id=2"); !good("192.0.2.6") {
		t.Error("a client whose request was accepted is not good")
	}
}

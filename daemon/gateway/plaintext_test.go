package gateway

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/packaging/testkit"
)

// configure sets what rtask.hcl says.
func (f *fixture) configure(text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, "rtask.hcl"), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	people := client.Dial(filepath.Join(f.dir, "run", "rtask.sock"))
	defer people.Close()
	if _, err := people.Jobs.Reload(f.t.Context(), &rtaskv1.ReloadRequest{}); err != nil {
		f.t.Fatal(err)
	}
}

// everywhere listens on every address.
func everywhere(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// healthy asks for /healthz on a connection of its own.
func healthy(port string) bool {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	res, err := c.Get("http://127.0.0.1:" + port + "/healthz")
	if err != nil {
		return false
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return err == nil && string(b) == "ok\n"
}

// Without TLS others than this machine are served only where rtask.hcl says so, and whatever it says, the other sockets are.
func TestPlaintext(t *testing.T) {
	f := newFixture(t)
	var log testkit.Logs
	l := everywhere(t)
	loop, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.serve(Options{Logger: log.Logger()}, map[string][]net.Listener{"api": {l, loop}})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_, safe, _ := net.SplitHostPort(loop.Addr().String())

	testkit.Eventually(t, "the refusal is logged", func() bool { return strings.Contains(log.String(), "plain HTTP is not served") })
	for range 3 {
		if healthy(port) || !healthy(safe) {
			t.Errorf("not allowed: loopback %v, others %v", healthy(safe), healthy(port))
		}
	}
	if got := log.String(); strings.Count(got, "plain HTTP is not served") != 1 || !strings.Contains(got, "allow_plaintext = true") {
		t.Errorf("logged:\n%s", got)
	}
	f.configure("allow_plaintext = true\n")
	testkit.Eventually(t, "it is served once that is allowed", func() bool { return healthy(port) })
	kept := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}, Timeout: 10 * time.Second}
	defer kept.CloseIdleConnections()
	onKept := func() error {
		res, err := kept.Post("http://127.0.0.1:"+port+"/healthz", "", nil) // which is not tried again
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		return err
	}
	if err := onKept(); err != nil {
		t.Error(err)
	}
	// The engine's word holds while it is away.
	f.stopEngine()
	time.Sleep(askAgain)
	if !healthy(port) {
		t.Error("not served while the engine is away")
	}
	f.stopEngine = engine(t, f.dir)
	f.configure("allow_plaintext = false\n")
	testkit.Eventually(t, "a request on a connection from before is refused", func() bool { return onKept() != nil })
	testkit.Eventually(t, "it is refused again", func() bool { return !healthy(port) })
	if !healthy(safe) {
		t.Error("loopback is not served")
	}
}

// An engine that does not answer keeps no connection from being accepted, and is asked once for all of them.
func TestPlaintextUnanswered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.sock")
	silent, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	engine := client.Dial(path)
	defer engine.Close()
	var log testkit.Logs
	a := newAPI(engine.Gateway, log.Logger())
	ctx, cancel := context.WithCancel(t.Context())
	l := &exposed{Listener: everywhere(t), what: "api", allowed: func() error { return a.plaintext(ctx) }, logger: log.Logger()}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	read := make(chan error, 3)
	for range cap(read) {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Fatal(err)
		}
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		go func() {
			_, err := in.Read(make([]byte, 1))
			read <- err
		}()
	}
	select {
	case err := <-read:
		t.Errorf("a connection was read before the engine answered: %v", err)
	default:
	}
	cancel()
	for range cap(read) {
		if err := <-read; err != io.EOF {
			t.Errorf("%v", err)
		}
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "cannot ask the engine") {
		t.Errorf("logged:\n%s", got)
	}
}

// An address of the command line that must not be served is an error; that of the metrics holds back nothing else.
func TestPlaintextAddress(t *testing.T) {
	f := newFixture(t)
	engine := client.Dial(filepath.Join(f.dir, "run", "gateway.sock"))
	defer engine.Close()
	var log testkit.Logs
	open := func(o Options) (names []string, _ error) {
		o.Logger = log.Logger()
		a := newAPI(engine.Gateway, o.Logger)
		services, err := o.open(t.Context(), a, newRemote(engine.Gateway, a, o), newMetrics(engine.Gateway, Options{}), nil)
		for _, s := range services {
			names = append(names, s.name)
		}
		_ = closeAll(services)
		return names, err
	}
	if _, err := open(Options{APIAddress: "0.0.0.0:0"}); err == nil || !strings.Contains(err.Error(), "cannot listen on ") || !strings.Contains(err.Error(), "allow_plaintext = true") {
		t.Errorf("%v", err)
	}
	if names, err := open(Options{APIAddress: "127.0.0.1:0", MetricsAddress: "0.0.0.0:0"}); err != nil || strings.Join(names, " ") != "api" {
		t.Errorf("%q, %v", names, err)
	}
	if got := log.String(); !strings.Contains(got, `"not served" what=metrics`) || !strings.Contains(got, "allow_plaintext = true") {
		t.Errorf("logged:\n%s", got)
	}
	if _, err := open(Options{}); err == nil {
		t.Error("serves nothing")
	}
	f.configure("allow_plaintext = true\n")
	if names, err := open(Options{APIAddress: "0.0.0.0:0", MetricsAddress: "[::1]:0"}); err != nil || strings.Join(names, " ") != "api metrics" {
		t.Errorf("%q, %v", names, err)
	}
	f.stopEngine()
	if _, err := open(Options{APIAddress: "0.0.0.0:0"}); err == nil || !strings.Contains(err.Error(), "cannot ask the engine") {
		t.Errorf("without an engine: %v", err)
	}
	f.stopEngine = func() {}
}

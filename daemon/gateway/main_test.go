package gateway

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/daemon"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/packaging/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const tasks = `
task "hello" {
  command  = ["/bin/sh", "-c", "read -r name; echo \"hello $name\""]
  blocking = true
  api_keys = ["demo"]
}
task "count" {
  command  = ["/usr/bin/wc", "-c"]
  blocking = true
  api_keys = ["demo"]
  max_input_bytes = "300K"
}
task "fails" {
  command  = ["/bin/sh", "-c", "echo out; echo err >&2; exit 9"]
  redirect_stderr = false
  duration_buckets = [0.25, 100]
  blocking = true
  api_keys = ["demo"]
}
task "killed" {
  command  = ["/bin/sh", "-c", "kill -KILL $$"]
  blocking = true
  api_keys = ["demo"]
}
task "slow" {
  command  = ["/bin/sleep", "100"]
  timeout  = "100ms"
  blocking = true
  api_keys = ["demo"]
}
task "missing" {
  command  = ["/no/such/program"]
  blocking = true
  api_keys = ["demo"]
}
task "binary" {
  command  = ["/bin/printf", "\\377\\000x"]
  blocking = true
  api_keys = ["demo"]
}
task "cut" {
  command  = ["/bin/sh", "-c", "echo aé"]
  max_output_bytes = 2
  blocking = true
  api_keys = ["demo"]
}
task "async" {
  command  = ["/bin/true"]
  api_keys = ["demo"]
}
task "off" {
  command  = ["/bin/true"]
  enabled  = false
  api_keys = ["demo"]
}
task "hooked" {
  command = ["/usr/bin/wc", "-c"]
  queue   = 100
  webhook "counts" {
    verify          = "github"
    secrets         = ["s3cret"]
    respond         = "result"
    max_input_bytes = "300K"
  }
  webhook "large" {
    verify  = "github"
    secrets = ["s3cret"]
  }
  webhook "slack" {
    verify  = "slack"
    secrets = ["s3cret"]
    events  = ["/deploy", "block_actions"]
  }
}
task "watched" {
  command = ["/bin/sh", "-c", "exit $(cat)"]
  queue   = 100
  webhook "exits" {
    verify  = "github"
    secrets = ["s3cret"]
    events  = ["push"]
    respond = "result"
    replay  = "refuse"
  }
  webhook "later" {
    verify       = "github"
    secret_files = ["/no/such/file"]
  }
}
task "answers" {
  command        = ["/bin/cat"]
  max_concurrent = 0
  webhook "plain" {
    token   = "token-for-get-0123"
    methods = ["GET", "POST"]
  }
  webhook "got" {
    token   = "token-for-get-alone"
    methods = ["GET"]
  }
  webhook "said" {
    token        = "token-with-a-message"
    methods      = ["GET", "POST"]
    status       = 200
    message      = "<b>Thank you"
    content_type = "text/html"
  }
  webhook "none" {
    token   = "token-without-a-body"
    methods = ["GET", "POST"]
    respond = "result"
    status  = 204
  }
}
task "prints" {
  command        = ["/bin/sh", "-c", "eval \"$(cat)\""]
  blocking       = true
  api_keys       = ["demo"]
  max_concurrent = 0
  timeout        = "1min"
  log_max_bytes  = "1M"
  sandbox {
    profile = "off"
  }
  webhook "prints" {
    token        = "token-whose-job-answers"
    respond      = "output"
    content_type = "text/html"
  }
  webhook "stripe" {
    verify  = "stripe"
    secrets = ["s3cret"]
    respond = "output"
    status  = 203
  }
}
task "floods" {
  command = ["/bin/sh", "-c", "head -c 50000000 /dev/zero; : >\"$(cat)\""]
  sandbox {
    profile = "off"
  }
  webhook "floods" {
    token   = "token-of-much-output"
    respond = "output"
  }
}
task "split" {
  command         = ["/bin/sh", "-c", "echo out; echo err >&2"]
  redirect_stderr = false
  webhook "split" {
    token   = "token-of-two-streams"
    respond = "output"
  }
}
task "brief" {
  command = ["/bin/sh", "-c", "echo early; sleep 100"]
  timeout = "100ms"
  webhook "brief" {
    token   = "token-of-a-timeout"
    respond = "output"
  }
}
task "absent" {
  command = ["/no/such/program"]
  webhook "absent" {
    token   = "token-of-no-program"
    respond = "output"
  }
}
task "slacks" {
  command        = ["/bin/sh", "-c", "eval \"$(sed -n 's/.*&text=\\([^&]*\\).*/\\1/p' | sed 's/+/ /g; s/%3B/;/g')\""]
  max_concurrent = 0
  webhook "slacks" {
    verify  = "slack"
    secrets = ["s3cret"]
    respond = "output"
  }
}
task "seldom" {
  command    = ["/bin/true"]
  rate_limit = 0.01
  webhook "seldom" {
    verify  = "github"
    secrets = ["s3cret"]
  }
}
task "rare" {
  command    = ["/bin/true"]
  blocking   = true
  api_keys   = ["demo"]
  rate_limit = 0.01
}
task "long" {
  command   = ["/bin/sleep", "1000"]
  timeout   = "infinity"
  api_keys  = ["demo"]
  retention = "1min"
}
task "while" {
  command  = ["/bin/sleep", "1000"]
  timeout  = "infinity"
  blocking = true
  api_keys = ["demo"]
}
task "others" {
  command  = ["/bin/true"]
  api_keys = ["other"]
}
task "headed" {
  command              = ["/usr/bin/env"]
  blocking             = true
  api_keys             = ["demo"]
  pass_request_headers = ["Host", "X-One"]
  queue                = 10
  webhook "headed" {
    verify  = "github"
    secrets = ["s3cret"]
    respond = "result"
  }
}
task "deploy" {
  command  = ["/usr/bin/env"]
  blocking = true
  api_keys = ["demo", "other"]
  param "env" {
    values  = ["staging", "prod"]
    default = "staging"
  }
  param "ref" {
    pattern    = "[0-9a-f]+"
    max_length = 40
    default    = "0"
  }
}
`

// engine runs an engine on the folders below dir until stop.
func engine(t testing.TB, dir string) (stop func()) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "tasks.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tasks.d", "a.hcl"), []byte(tasks), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(dir, "engine.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- daemon.Run(ctx, daemon.Options{
			ConfigFile: filepath.Join(dir, "rtask.hcl"), TasksDir: filepath.Join(dir, "tasks.d"), StateDir: filepath.Join(dir, "state"),
			LogDir: filepath.Join(dir, "log"), RuntimeDir: filepath.Join(dir, "run"), Shim: testkit.Shim(), NoSystemd: true,
			Version: "1.2.3", Logger: slog.New(slog.NewTextHandler(log, nil)), Ready: func() { close(ready) },
		})
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// fixture is a gateway on loopback before an engine.
type fixture struct {
	t            testing.TB
	dir          string
	key          string
	api, metrics string // host:port
	stopEngine   func()
	inner        *api // of the gateway that was served last
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir()}
	f.stopEngine = engine(t, f.dir)
	t.Cleanup(func() { f.stopEngine() })
	f.key = f.addKey("demo")

	at := f.serve(Options{APIAddress: "127.0.0.1:0", MetricsAddress: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler), Version: "1.2.3"}, nil)
	f.api, f.metrics = at["api"], at["metrics"]
	return f
}

func (f *fixture) addKey(name string) string {
	f.t.Helper()
	people := client.Dial(filepath.Join(f.dir, "run", "rtask.sock"))
	defer people.Close()
	r, err := people.Jobs.AddKey(f.t.Context(), &rtaskv1.AddKeyRequest{Name: name})
	if err != nil {
		f.t.Fatal(err)
	}
	return r.Secret
}

// serve runs a gateway before the engine until the test ends, and returns where it listens.
func (f *fixture) serve(o Options, given map[string][]net.Listener) map[string]string {
	f.t.Helper()
	o.Engine = filepath.Join(f.dir, "run", "gateway.sock")
	at, inner, _ := serveGateway(f.t, o, given)
	f.inner = inner
	return at
}

// serveGateway runs a gateway until the test ends, and returns where it listens, and its inner parts.
func serveGateway(t testing.TB, o Options, given map[string][]net.Listener) (map[string]string, *api, *remote) {
	t.Helper()
	engine := client.Dial(o.Engine)
	ctx, cancel := context.WithCancel(context.Background())
	inner := newAPI(engine.Gateway, o.Logger)
	r := newRemote(engine.Gateway, inner, o)
	services, err := o.open(ctx, inner, r, newMetrics(engine.Gateway, o), given)
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]string{}
	for _, s := range services {
		at[s.name] = s.listener.Addr().String()
	}
	done := make(chan error, 1)
	go func() { done <- serve(ctx, o, services) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.close()
		inner.watch.close()
		engine.Close()
	})
	return at, inner, r
}

// reply is what came of a request.
type reply struct {
	status  int
	header  http.Header
	trailer http.Header
	body    string
	json    map[string]any
}

func (f *fixture) do(method, path string, body io.Reader, header ...string) reply {
	f.t.Helper()
	r, err := http.NewRequest(method, "http://"+f.api+path, body)
	if err != nil {
		f.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return f.send(r)
}

func (f *fixture) send(r *http.Request) reply {
	f.t.Helper()
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		f.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	got := reply{status: res.StatusCode, header: res.Header, trailer: res.Trailer, body: string(b)}
	_ = json.Unmarshal(b, &got.json)
	return got
}

func (f *fixture) run(task, input string) reply {
	f.t.Helper()
	return f.do("POST", "/tasks/"+task, strings.NewReader(input), "Authorization", "Bearer "+f.key)
}

// raw sends bytes as they are and returns the first of the answer.
func (f *fixture) raw(request string) string {
	f.t.Helper()
	c, err := net.Dial("tcp", f.api)
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, request); err != nil {
		f.t.Fatal(err)
	}
	b := make([]byte, 64<<10)
	n, err := c.Read(b)
	if err != nil {
		f.t.Fatalf("%q: %v", request, err)
	}
	return string(b[:n])
}

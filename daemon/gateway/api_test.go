package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

func TestRoutes(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"POST", "/tasks/hello", 200, ""},
		{"POST", "/tasks/hello?", 200, ""},
		{"POST", "/tasks/hello?x=y", 400, ""}, // it has no such parameter
		{"POST", "/tasks/hello?%zz", 400, ""},
		{"POST", "/tasks/hello?\xff", 400, ""},
		{"POST", "//tasks/hello", 404, ""},
		{"POST", "/tasks/hello/", 404, ""},
		{"POST", "/tasks//hello", 404, ""},
		{"POST", "/tasks/", 404, ""},
		{"POST", "/tasks", 405, "GET, HEAD"},
		{"GET", "/tasks", 200, ""},
		{"HEAD", "/tasks", 200, ""},
		{"GET", "/tasks/", 404, ""},
		{"POST", "/", 404, ""},
		{"POST", "/Tasks/hello", 404, ""},
		{"POST", "/tasks%2Fhello", 404, ""},
		{"POST", "/tasks/%68ello", 404, ""},
		{"POST", "/x/../tasks/hello", 404, ""},
		{"POST", "/tasks/../hello", 405, "GET, HEAD, DELETE"},
		{"POST", "/tasks/..%2fhello", 404, ""},
		{"POST", "/tasks/..", 403, ""},
		{"POST", "/tasks/hello/x", 405, "GET, HEAD, DELETE"},
		{"DELETE", "/tasks/hello/x", 404, ""},
		{"DELETE", "/tasks/hello", 405, "GET, HEAD, POST"},
		{"GET", "/tasks/hello/x/logs", 404, ""},
		{"GET", "/tasks/hello/x/logs?follow=2", 400, ""},
		{"POST", "/tasks/hello/x/logs", 405, "GET, HEAD"},
		{"GET", "/tasks/hello/x/log", 404, ""},
		{"GET", "/openapi.json", 200, ""},
		{"GET", "/tasks/hello/x", 404, ""},
		{"GET", "/tasks/hello/x/y", 404, ""},
		{"GET", "/tasks/hello", 200, ""},
		{"HEAD", "/tasks/hello", 200, ""},
		{"GET", "/tasks/others", 403, ""},
		{"HEAD", "/tasks/none", 403, ""},
		{"PUT", "/tasks/hello", 405, "GET, HEAD, POST"},
		{"OPTIONS", "/tasks/hello", 405, "GET, HEAD, POST"},
		{"BREW", "/tasks/hello", 405, "GET, HEAD, POST"},
		{"GET", "/healthz", 200, ""},
		{"HEAD", "/healthz", 200, ""},
		{"POST", "/healthz", 405, "GET, HEAD"},
		{"GET", "/readyz", 200, ""},
		{"GET", "/healthz/", 404, ""},
		{"POST", "/wh/none", 404, ""},
		{"POST", "/wh/", 404, ""},
		{"POST", "/wh", 404, ""},
		{"POST", "/wh/a/b", 404, ""},
		{"POST", "//wh/none", 404, ""},
		{"POST", "/wh/%6eone", 404, ""},
		{"GET", "/wh/none", 404, ""},
		{"PUT", "/wh/none", 404, ""},
		{"PUT", f.url("counts"), 405, "HEAD, POST"},
		{"HEAD", "/wh/none", 404, ""},
		{"GET", "/metrics", 404, ""}, // it has a port of its own
		{"GET", "/rtask.v1.GatewayService/Run", 404, ""},
	} {
		r := f.do(c.method, c.path, nil, "Authorization", "Bearer "+f.key)
		if r.status != c.status || r.header.Get("Allow") != c.allow {
			t.Errorf("%s %s: %d, Allow %q; want %d, %q", c.method, c.path, r.status, r.header.Get("Allow"), c.status, c.allow)
		}
		if r.status >= 400 && c.method != "HEAD" && (r.header.Get("Content-Type") != "application/problem+json" || r.json["kind"] == "" || r.json["status"] != float64(r.status)) {
			t.Errorf("%s %s: %s %s", c.method, c.path, r.header.Get("Content-Type"), r.body)
		}
		if r.header.Get("Location") != "" {
			t.Errorf("%s %s redirects", c.method, c.path)
		}
	}
	for request, want := range map[string]string{
		"GET * HTTP/1.1\r\nHost: x\r\n\r\n":                                                  "404",
		"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n":                                            "404",
		"GET http://other/healthz HTTP/1.1\r\nHost: x\r\n\r\n":                               "200",
		"GET /tasks/\x01 HTTP/1.1\r\nHost: x\r\n\r\n":                                        "400",
		"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n":                                               "400",
		"GET /tasks/ü HTTP/1.1\r\nHost: x\r\n\r\n":                                           "404",
		"POST /tasks/hello HTTP/1.1\r\n\r\n":                                                 "400",
		"GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("x", 64<<10) + "\r\n\r\n": "431",
	} {
		if got := f.raw(request); !strings.HasPrefix(got, "HTTP/1.1 "+want) {
			t.Errorf("%.60q: %.60q, want %s", request, got, want)
		}
	}
	// None of it wrote on a connection as on one that must not be written to any more.
	for range 3 {
		if r := f.do("GET", "/healthz", nil); r.body != "ok\n" {
			t.Errorf("%q", r.body)
		}
		f.run("hello", "x")
	}
}

// Whatever is wrong with the credentials, the reply is the same, and so it is whatever else the request is.
func TestUnauthorized(t *testing.T) {
	f := newFixture(t)
	seen := map[string]bool{}
	big := strings.Repeat("x", 2<<20)
	for name, header := range map[string][]string{
		"none": nil, "empty": {"Authorization", ""}, "scheme alone": {"Authorization", "Bearer"}, "no key": {"Authorization", "Bearer "},
		"two": {"Authorization", "Bearer " + f.key, "Authorization", "Bearer " + f.key}, "Basic": {"Authorization", "Basic " + f.key},
		"Basic, the key as name": {"Authorization", basic(f.key, "")}, "Basic, no colon": {"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(f.key))},
		"Basic, wrong": {"Authorization", basic("x", f.key+"x")}, "Basic, not base64": {"Authorization", "Basic !"}, "Basic alone": {"Authorization", "Basic"},
		"Basic, of another origin": {"Authorization", basic("x", f.key), "Sec-Fetch-Site", "cross-site"},
		"Basic, another Origin":    {"Authorization", basic("x", f.key), "Origin", "https://evil.example"},
		"key alone":                {"Authorization", f.key}, "wrong": {"Authorization", "Bearer rtk_x"}, "comma": {"Authorization", "Bearer " + f.key + ", Bearer x"},
		"two words": {"Authorization", "Bearer " + f.key + " x"}, "tab": {"Authorization", "Bearer\t" + f.key}, "other header": {"X-Api-Key", f.key},
	} {
		for _, task := range []string{"hello", "others", "none"} {
			for _, body := range []string{"", "x", big} {
				r := f.do("POST", "/tasks/"+task, strings.NewReader(body), header...)
				r.header.Del("Date")
				r.header.Del("Connection")
				if r.status != 401 || !slices.Equal(r.header.Values("Www-Authenticate"), []string{`Bearer realm="rtask"`, `Basic realm="rtask", charset="UTF-8"`}) || r.json["kind"] != "unauthorized" {
					t.Errorf("%s: %d %v %s", name, r.status, r.header, r.body)
				}
				seen[r.body] = true
			}
		}
	}
	if len(seen) != 1 {
		t.Errorf("replies differ: %v", slices.Collect(maps.Keys(seen)))
	}
	// In a query it is no credential.
	if r := f.do("POST", "/tasks/hello?api_key="+f.key+"&access_token="+f.key, nil); r.status != 401 {
		t.Errorf("%d", r.status)
	}
	// The key may be the password of HTTP Basic.
	for _, v := range []string{basic("", f.key), basic("any", f.key), "bASIC " + basic("any", f.key)[6:]} {
		for _, same := range []string{"", "http://" + f.api} {
			r := f.do("POST", "/tasks/hello", strings.NewReader("x\n"), "Authorization", v, "Origin", same)
			if r.status != 200 || r.json["stdout"] != "hello x\n" {
				t.Errorf("%q: %d %s", v[:6], r.status, r.body)
			}
		}
	}
	// The scheme's case does not count, nor does space around (RFC 9110, sections 5.5 and 11.1).
	for _, v := range []string{"bearer " + f.key, "BEARER   " + f.key, " Bearer " + f.key + " \t"} {
		if got := f.raw("POST /tasks/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nAuthorization: " + v + "\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Errorf("%q: %.60q", v[:8], got)
		}
	}
	// Who has no key is not waited for, and not asked to go on.
	for _, head := range []string{"Content-Length: 1000000", "Transfer-Encoding: chunked", "Content-Length: 1000\r\nExpect: 100-continue"} {
		if got := f.raw("POST /tasks/hello HTTP/1.1\r\nHost: x\r\n" + head + "\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 401") {
			t.Errorf("%s: %.60q", head, got)
		}
	}
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestBodies(t *testing.T) {
	f := newFixture(t)
	limit := 300 << 10 // of the task that takes the most
	for size, want := range map[int]int{0: 200, 1: 200, 16<<10 + 1: 200, limit: 200, limit + 1: 413, 3 << 20: 413} {
		r := f.run("count", strings.Repeat("x", size))
		if r.status != want {
			t.Errorf("%d bytes: %d %s", size, r.status, r.body)
		}
		if n, _ := r.json["stdout"].(string); want == 200 && strings.TrimSpace(n) != strconv.Itoa(size) {
			t.Errorf("%d bytes: the job read %q", size, n)
		}
	}
	// The task's own limit is the engine's to hold.
	for size, want := range map[int]int{16 << 10: 200, 16<<10 + 1: 413, limit + 1: 413} {
		if r := f.run("hello", strings.Repeat("x", size)); r.status != want || want == 413 && r.json["kind"] != "input-too-large" {
			t.Errorf("hello with %d bytes: %d %s", size, r.status, r.body)
		}
	}
	// Nobody learns by size whether a task exists.
	if a, b := f.run("others", strings.Repeat("x", limit+1)), f.run("none", "x"); a.status != 403 || a.body != b.body {
		t.Errorf("%d %s, %d %s", a.status, a.body, b.status, b.body)
	}
	chunked := f.do("POST", "/tasks/count", struct{ *bytes.Reader }{bytes.NewReader([]byte("12345"))}, "Authorization", "Bearer "+f.key)
	if chunked.status != 200 || chunked.json["stdout"] != "5\n" {
		t.Errorf("chunked: %d %s", chunked.status, chunked.body)
	}
	c, err := net.Dial("tcp", f.api)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 4096)
	c.Write([]byte("POST /tasks/count HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + f.key + "\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"))
	if n, err := c.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 100") {
		t.Fatalf("%q, %v", b[:n], err)
	}
	c.Write([]byte("abc"))
	if n, err := c.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 200") || !strings.Contains(string(b[:n]), `"stdout":"3\n"`) {
		t.Errorf("%q, %v", b[:n], err)
	}
	// A body that breaks off starts nothing.
	if got := f.raw("POST /tasks/count HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + f.key + "\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400") {
		t.Errorf("%.60q", got)
	}
}

func TestResults(t *testing.T) {
	f := newFixture(t)
	for task, c := range map[string]struct {
		status int
		body   string // with ID for the id
	}{
		"hello":  {200, `{"status":"success","exit_code":0,"stdout":"hello <&>\n","stderr":"","task_id":"ID"}`},
		"fails":  {500, `{"status":"failure","reason":"exit-code","exit_code":9,"stdout":"out\n","stderr":"err\n","task_id":"ID"}`},
		"killed": {500, `{"status":"failure","reason":"signal","signal":"SIGKILL","stdout":"","stderr":"","task_id":"ID"}`},
		"slow":   {500, `{"status":"failure","reason":"timeout","signal":"SIGTERM","stdout":"","stderr":"","task_id":"ID"}`},
		"binary": {200, `{"status":"success","exit_code":0,"stdout":"/wB4","stderr":"","encoding":"base64","task_id":"ID"}`},
		"cut":    {200, `{"status":"success","exit_code":0,"stdout":"a","stderr":"","truncated":true,"task_id":"ID"}`},
	} {
		r := f.run(task, "<&>\n")
		id, _ := r.json["task_id"].(string)
		if got := strings.Replace(untimed(t, r.body), id, "ID", 1); r.status != c.status || got != c.body || len(id) != 16 {
			t.Errorf("%s: %d\n%s, want %d\n%s", task, r.status, got, c.status, c.body)
		}
		if r.header.Get("Rtask-Job-Id") != id || r.header.Get("Content-Type") != "application/json" || r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", task, r.header)
		}
	}
	if r := f.run("missing", ""); r.status != 500 || r.json["reason"] != "setup" || r.json["exit_code"] != float64(127) || !strings.Contains(r.json["detail"].(string), "/no/such/program") {
		t.Errorf("missing: %d %s", r.status, r.body)
	}
	r := f.run("async", "")
	if id, _ := r.json["task_id"].(string); r.status != 202 || len(r.json) != 1 || r.header.Get("Location") != "/tasks/async/"+id || r.header.Get("Rtask-Job-Id") != id {
		t.Errorf("async: %d %v %s", r.status, r.header, r.body)
	}
	if r := f.run("off", ""); r.status != 503 || r.json["kind"] != "disabled" {
		t.Errorf("off: %d %s", r.status, r.body)
	}
}

// untimed checks the times of a result, and returns it without them.
func untimed(t *testing.T, body string) string {
	t.Helper()
	var r struct {
		Queued   time.Time `json:"queued_at"`
		Started  time.Time `json:"started_at"`
		Ended    time.Time `json:"ended_at"`
		Duration float64   `json:"duration"`
	}
	rest, stamps, ok := strings.Cut(strings.TrimSpace(body), `,"queued_at":`)
	err := json.Unmarshal([]byte(body), &r)
	d := r.Ended.Sub(r.Started)
	if !ok || err != nil || r.Queued.IsZero() || r.Started.Before(r.Queued) || d < 0 || d.Round(time.Microsecond).Seconds() != r.Duration || strings.Count(stamps, `Z"`) != 3 {
		t.Errorf("%s: %v", body, err)
	}
	return rest + "}"
}

func TestEngineGoneAndBack(t *testing.T) {
	f := newFixture(t)
	if r := f.run("hello", "x"); r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	f.stopEngine()
	for range 2 {
		r := f.run("hello", "x")
		if r.status != 503 || r.json["kind"] != "unavailable" || r.header.Get("Retry-After") != "1" || strings.Contains(r.body, f.dir) {
			t.Errorf("%d %v %s", r.status, r.header, r.body)
		}
		time.Sleep(askAgain)
		if r := f.do("GET", "/readyz", nil); r.status != 503 || r.header.Get("Retry-After") == "" {
			t.Errorf("readyz: %d %s", r.status, r.body)
		}
		if r := f.do("GET", "/healthz", nil); r.status != 200 {
			t.Errorf("healthz: %d", r.status)
		}
		if m := f.scrape(); !strings.Contains(m, "rtask_engine_up 0") || !strings.Contains(m, "rtask_gateway_build_info") {
			t.Errorf("metrics: %s", m)
		}
	}
	f.stopEngine = engine(t, f.dir)
	if r := f.run("hello", "x"); r.status != 200 {
		t.Errorf("back again: %d %s", r.status, r.body)
	}
	if r := f.do("GET", "/readyz", nil); r.status != 200 {
		t.Errorf("readyz: %d", r.status)
	}
}

func (f *fixture) scrape() string {
	f.t.Helper()
	r, err := http.NewRequest("GET", "http://"+f.metrics+"/metrics", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	got := f.send(r)
	if got.status != 200 {
		f.t.Errorf("/metrics: %d %s", got.status, got.body)
	}
	return got.body
}

func TestMetrics(t *testing.T) {
	f := newFixture(t)
	f.run("hello", "x")
	f.run("fails", "")
	f.run("off", "")
	f.do("POST", "/tasks/made-up", nil)
	m := f.scrape()
	for _, want := range []string{
		`task_duration_seconds_count{task="hello"} 1`, `task_rejection_total{reason="disabled",task="off"} 1`,
		`task_rejection_total{reason="unauthorized",task=""} 1`, `rtask_jobs_ended_total{reason="",status="success",task="hello"} 1`,
		`rtask_jobs_ended_total{reason="exit-code",status="failure",task="fails"} 1`, "rtask_jobs_running 0", "rtask_engine_up 1",
		`rtask_requests_total{key="demo",result="accepted",task="hello"} 1`, `rtask_requests_total{key="demo",result="disabled",task="off"} 1`,
		"rtask_key_failures_total 1", `rtask_jobs{state="queued"} 0`, `rtask_jobs{state="running"} 0`,
		`task_duration_seconds_bucket{task="fails",le="0.25"} `, `task_duration_seconds_bucket{task="fails",le="100"} `,
		`rtask_engine_build_info{version="1.2.3"} 1`, `rtask_gateway_build_info{version="1.2.3"} 1`,
	} {
		if !strings.Contains(m, want+"\n") && !(strings.HasSuffix(want, " ") && strings.Contains(m, want)) {
			t.Errorf("no %s in\n%s", want, m)
		}
	}
	if !strings.Contains(m, `rtask_last_success_timestamp_seconds{task="hello"} 1.`) || strings.Contains(m, `rtask_last_success_timestamp_seconds{task="fails"}`) {
		t.Error("when the last success was is wrong")
	}
	if strings.Contains(m, `task_duration_seconds_bucket{task="fails",le="0.5"}`) || !strings.Contains(m, `task_duration_seconds_bucket{task="hello",le="0.5"}`) {
		t.Error("the bounds of one task are another's")
	}
	if strings.Contains(m, "made-up") {
		t.Error("a stranger's word is a label")
	}
	for _, line := range strings.Split(m, "\n") {
		if name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE "); name != "" && !strings.HasPrefix(name, "rtask_") && !strings.HasPrefix(name, "task_") {
			t.Errorf("a name of its own: %s", line)
		}
	}
	for path, want := range map[string]int{"/": 404, "/metrics/": 404, "/tasks/hello": 404, "//metrics": 404} {
		r, _ := http.NewRequest("GET", "http://"+f.metrics+path, nil)
		if got := f.send(r); got.status != want {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	r, _ := http.NewRequest("POST", "http://"+f.metrics+"/metrics", nil)
	if got := f.send(r); got.status != 405 {
		t.Errorf("POST: %d", got.status)
	}
}

func TestWholeCharacters(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a": "a", "é": "é", "a\xc3": "a", "€": "€", "a\xe2\x82": "a", "a\xf0\x9f\x98": "a", "😀": "😀", "\xff": "\xff", "a\x82": "a\x82",
		"\xf0\x9f\x98\x80\x80": "\xf0\x9f\x98\x80\x80", "\xc3": "",
	} {
		if got := string(wholeCharacters([]byte(in))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// Every kind of error has its status, and what is not known is trouble of ours.
func TestProblems(t *testing.T) {
	a := newAPI(nil, slog.New(slog.DiscardHandler))
	for _, err := range []error{errors.New("/run/rtask/gateway.sock"), connect.NewError(connect.CodeInternal, "secret"), context.Canceled} {
		if p := a.problemOf(err); p.Kind.HTTPStatus() != 503 || p.Kind != "unavailable" || strings.Contains(p.Detail, "secret") || strings.Contains(p.Detail, "/run") {
			t.Errorf("%v: %+v", err, p)
		}
	}
	for i := range rtaskv1.Reason_name {
		if w := rtaskv1.Reason(i).Word(); (w == "") != (i == 0) {
			t.Errorf("%v: %q", rtaskv1.Reason(i), w)
		}
	}
	if rtaskv1.Reason(999).Word() != "lost" {
		t.Error("a reason of a newer engine counts as success")
	}
}

// The time that a client has to send is not the time that its task has to run.
func TestReadTimeout(t *testing.T) {
	s := httptest.NewUnstartedServer(newAPI(&stub{takes: time.Second}, slog.New(slog.DiscardHandler)))
	s.Config.ReadTimeout = 200 * time.Millisecond
	s.Start()
	defer s.Close()
	for _, body := range []string{"", "x"} {
		r, err := http.NewRequest("POST", s.URL+"/tasks/x", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer x")
		res, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Errorf("%q: %d", body, res.StatusCode)
		}
	}
}

// stub is an engine that takes everything.
type stub struct {
	ran   *rtaskv1.RunRequest
	task  string // of ran
	key   string
	hook  *rtaskv1.WebhookRequest
	takes time.Duration
	// methods are those of its webhooks, and reply is how it answers them.
	methods []string
	reply   *rtaskv1.WebhookReply
	// goes is how many more calls of Webhook it breaks off, and again what it was told in each.
	goes  int
	again []bool
}

func (s *stub) Run(ctx context.Context, r *rtaskv1.RunRequest) (*rtaskv1.RunResponse, error) {
	s.ran, s.task, s.key = r, presented(ctx, "Rtask-Task"), presented(ctx, "Rtask-Key-Bin")
	if s.takes > 0 {
		select {
		case <-time.After(s.takes):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &rtaskv1.RunResponse{Job: &rtaskv1.Job{Id: "aaaaaaaaaaaaaaaa", State: rtaskv1.State_STATE_ENDED}}, nil
}

// presented is what the engine would be told under a name.
func presented(ctx context.Context, name string) string {
	info, _ := connect.CallInfoForClientContext(ctx)
	return info.RequestHeader().Get(name)
}

func (*stub) Result(context.Context, *rtaskv1.ResultRequest) (*rtaskv1.RunResponse, error) {
	return &rtaskv1.RunResponse{Job: &rtaskv1.Job{Id: "aaaaaaaaaaaaaaaa", State: rtaskv1.State_STATE_ENDED}}, nil
}

func (s *stub) RunStream(ctx context.Context, r *rtaskv1.RunRequest) (none rtaskv1connect.GatewayServiceRunStreamClientStream, err error) {
	s.ran, s.task, s.key = r, presented(ctx, "Rtask-Task"), presented(ctx, "Rtask-Key-Bin")
	return none, connect.NewError(connect.CodeUnimplemented, "it has no streams")
}

func (*stub) Logs(context.Context, *rtaskv1.LogsRequest) (none rtaskv1connect.GatewayServiceLogsClientStream, err error) {
	return none, connect.NewError(connect.CodeUnimplemented, "it has no streams")
}

func (*stub) End(context.Context, *rtaskv1.EndRequest) (*rtaskv1.EndResponse, error) {
	return &rtaskv1.EndResponse{Job: &rtaskv1.Job{Id: "aaaaaaaaaaaaaaaa"}}, nil
}

func (*stub) Disconnected(context.Context, *rtaskv1.DisconnectedRequest) (*rtaskv1.DisconnectedResponse, error) {
	return &rtaskv1.DisconnectedResponse{}, nil
}

func (*stub) KeyTasks(context.Context, *rtaskv1.KeyTasksRequest) (*rtaskv1.KeyTasksResponse, error) {
	return &rtaskv1.KeyTasksResponse{}, nil
}

func (*stub) KeyJobs(context.Context, *rtaskv1.KeyJobsRequest) (*rtaskv1.KeyJobsResponse, error) {
	return &rtaskv1.KeyJobsResponse{}, nil
}

func (*stub) Watch(context.Context, *rtaskv1.WatchRequest) (none rtaskv1connect.GatewayServiceWatchClientStream, err error) {
	return none, connect.NewError(connect.CodeUnimplemented, "it has no streams")
}

func (*stub) RunFraming(context.Context, *rtaskv1.RunFramingRequest) (*rtaskv1.RunFramingResponse, error) {
	return &rtaskv1.RunFramingResponse{MaxInputBytes: 16}, nil
}

func (s *stub) WebhookFraming(context.Context, *rtaskv1.WebhookFramingRequest) (*rtaskv1.WebhookFramingResponse, error) {
	return &rtaskv1.WebhookFramingResponse{MaxInputBytes: 16, Methods: s.methods}, nil
}

func (s *stub) Refused(context.Context, *rtaskv1.RefusedRequest) (*rtaskv1.RefusedResponse, error) {
	return &rtaskv1.RefusedResponse{}, nil
}

func (s *stub) Webhook(_ context.Context, r *rtaskv1.WebhookRequest) (*rtaskv1.WebhookResponse, error) {
	s.hook, s.again = r, append(s.again, r.Again)
	if s.goes--; s.goes >= 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return &rtaskv1.WebhookResponse{Run: &rtaskv1.RunResponse{Job: &rtaskv1.Job{Id: "aaaaaaaaaaaaaaaa"}, Accepted: true}, Reply: s.reply}, nil
}

func (*stub) WebhookStream(context.Context, *rtaskv1.WebhookRequest) (none rtaskv1connect.GatewayServiceWebhookStreamClientStream, err error) {
	return none, connect.NewError(connect.CodeUnimplemented, "it has no streams")
}

func (*stub) Enroll(context.Context, *rtaskv1.EnrollRequest) (*rtaskv1.EnrollResponse, error) {
	return &rtaskv1.EnrollResponse{}, nil
}

func (*stub) Metrics(context.Context, *rtaskv1.MetricsRequest) (*rtaskv1.MetricsResponse, error) {
	return &rtaskv1.MetricsResponse{}, nil
}

// Nothing in a path or a header makes the router panic, redirect, or name a task that is not one part of the path as sent.
func FuzzServeHTTP(f *testing.F) {
	f.Add("POST", "/tasks/hello", "Bearer x", "body")
	f.Add("GET", "/healthz", "", "")
	f.Add("POST", "/tasks/..", "Bearer", "")
	f.Add("POST", "/tasks/a%2fb", "Bearer  x ", "12345678901234567")
	f.Add("PUT", "//tasks//x", "bearer x", "")
	f.Add("POST", "/tasks/x?y#z", "Basic x", "")
	f.Add("POST", "/wh/x", "", "12345678901234567")
	f.Fuzz(func(t *testing.T, method, path, authorization, body string) {
		r, err := http.NewRequest(method, "http://x", strings.NewReader(body))
		if err != nil {
			return
		}
		if r.URL, err = r.URL.Parse(path); err != nil {
			return
		}
		r.Header["Authorization"] = []string{authorization}
		s := &stub{}
		w := httptest.NewRecorder()
		newAPI(s, slog.New(slog.DiscardHandler)).ServeHTTP(w, r)
		if w.Code < 200 || w.Code >= 300 && w.Code < 400 {
			t.Errorf("%s %q: %d", method, path, w.Code)
		}
		if s.hook != nil && (method != "POST" || r.URL.EscapedPath() != "/wh/"+s.hook.Hash || len(s.hook.Body) > 16 || s.hook.BodyTooLarge && len(s.hook.Body) > 0) {
			t.Errorf("%s %q is webhook %q with the body %q", method, path, s.hook.Hash, s.hook.Body)
		}
		if s.ran != nil {
			if method != "POST" || r.URL.EscapedPath() != "/tasks/"+s.task || s.task == "" || strings.ContainsAny(s.task, "/%") {
				t.Errorf("%s %q ran %q", method, path, s.task)
			}
			if len(s.ran.Input) > uncheckedBody || s.key == "" && len(s.ran.Input) > 0 {
				t.Errorf("%q with the input %q", s.key, s.ran.Input)
			}
		}
	})
}

// A key is never more than what was sent behind one of the two schemes.
func FuzzPresentedKey(f *testing.F) {
	for _, s := range []string{"", "Bearer", "Bearer ", "Bearer x", "bearer  x", "Basic x", "Bearer\tx", "Bearerx", " Bearer x", "Bearer x y", "Basic YTpi", "basic OmI=", "Basic YQ=="} {
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, value string, twice bool) {
		r := &http.Request{Method: "POST", Header: http.Header{"Authorization": {value}}}
		if twice {
			r.Header.Add("Authorization", value)
		}
		key := string(presentedKey(r))
		if key == "" {
			return
		}
		if strings.EqualFold(value[:6], "Basic ") && !twice {
			if b, err := base64.StdEncoding.DecodeString(value[6:]); err != nil || !strings.HasSuffix(string(b), ":"+key) {
				t.Errorf("%q gave %q", value, key)
			}
			return
		}
		if twice || !strings.EqualFold(value[:7], "Bearer ") || !strings.HasSuffix(value, key) || strings.Trim(value[7:len(value)-len(key)], " ") != "" || key[0] == ' ' {
			t.Errorf("%q gave %q", value, key)
		}
	})
}

// A client is told to try again only when its task provably did not run.
func TestRetryOnlyWhatDidNotRun(t *testing.T) {
	a := newAPI(&stub{}, slog.New(slog.DiscardHandler))
	gone := connect.NewError(connect.CodeUnavailable, "no engine").WithCause(client.ErrNotRunning)
	if p := a.problemOf(gone); p.Kind.HTTPStatus() != 503 || p.retryAfter <= 0 {
		t.Errorf("not reached: %+v", p)
	}
	broke := connect.NewError(connect.CodeUnavailable, "unexpected EOF").WithCause(io.ErrUnexpectedEOF)
	if p := a.problemOf(broke); p.Kind.HTTPStatus() != 503 || p.retryAfter != 0 || !strings.Contains(p.Detail, "not known") {
		t.Errorf("broke off: %+v", p)
	}
}

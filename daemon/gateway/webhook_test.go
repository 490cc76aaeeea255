package gateway

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// url is the path of a webhook of the task "hooked".
func (f *fixture) url(name string) string {
	f.t.Helper()
	people := client.Dial(f.dir + "/run/rtask.sock")
	defer people.Close()
	r, err := people.Jobs.ListWebhooks(f.t.Context(), &rtaskv1.ListWebhooksRequest{})
	if err != nil {
		f.t.Fatal(err)
	}
	for _, w := range r.Webhooks {
		if w.Name == name {
			return "/wh/" + w.Url[strings.LastIndex(w.Url, "/")+1:]
		}
	}
	f.t.Fatalf("no webhook %s", name)
	return ""
}

func signed(body string) string {
	mac := hmac.New(sha256.New, []byte("s3cret"))
	mac.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// The body gets to the job byte for byte, up to the bound of its webhook and not beyond, with a length or in chunks.
func TestWebhookBodies(t *testing.T) {
	f := newFixture(t)
	path := f.url("counts")
	const limit = 300 << 10
	for size, want := range map[int]int{0: 200, 1: 200, 16<<10 + 1: 200, limit: 200, limit + 1: 413, 2 << 20: 413} {
		body := strings.Repeat("x", size)
		for _, chunked := range []bool{false, true} {
			var r io.Reader = strings.NewReader(body)
			if chunked {
				r = struct{ io.Reader }{r}
			}
			got := f.do("POST", path, r, "X-Hub-Signature-256", signed(body))
			if got.status != want || want == 200 && got.json["stdout"] != fmt.Sprintf("%d\n", size) {
				t.Errorf("%d bytes, in chunks %v: %d %s", size, chunked, got.status, got.body)
			}
		}
	}
	// Any bytes are signed as they are.
	body := "\x00\xff\r\n \x80"
	if got := f.do("POST", path, strings.NewReader(body), "X-Hub-Signature-256", signed(body)); got.json["stdout"] != "6\n" {
		t.Errorf("%s", got.body)
	}
}

// Who comes to no webhook's URL is answered while the body is still being sent, or never is.
func TestWebhookStrangers(t *testing.T) {
	f := newFixture(t)
	for _, head := range []string{"Content-Length: 1000000000000", "Transfer-Encoding: chunked", "Content-Length: 1000\r\nExpect: 100-continue"} {
		if got := f.raw("POST /wh/none HTTP/1.1\r\nHost: x\r\n" + head + "\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 404") {
			t.Errorf("%s: %.60q", head, got)
		}
	}
	path := f.url("counts")
	if got := f.raw("POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 413") {
		t.Errorf("%.60q", got)
	}
	got := f.do("POST", path, strings.NewReader("x"), "X-Hub-Signature-256", signed("y"))
	if got.status != 401 || got.json["kind"] != "signature" || got.header.Get("WWW-Authenticate") != "" {
		t.Errorf("%d %v %s", got.status, got.header, got.body)
	}
	// Nor is a key of any use, or the query.
	if got := f.do("POST", path+"?signature="+signed("x"), strings.NewReader("x"), "Authorization", "Bearer "+f.key); got.status != 401 {
		t.Errorf("%d", got.status)
	}
}

// What is refused for want of a body is the engine's to know, too.
func TestRefusedBodies(t *testing.T) {
	f := newFixture(t)
	broken := "HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
	for _, head := range []string{"POST " + f.url("counts") + " " + broken, "POST /tasks/hello " + broken + "Authorization: Bearer " + f.key + "\r\n"} {
		if got := f.raw(head + "\r\nno chunk\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400") {
			t.Errorf("%.60q", got)
		}
	}
	m := f.scrape()
	for _, task := range []string{"hooked", "hello"} {
		if want := `task_rejection_total{reason="bad-request",task="` + task + `"} 1`; !strings.Contains(m, want) {
			t.Errorf("no %s in\n%s", want, m)
		}
	}
}

// A person sees what Slack gets: text for a command, nothing for a button. An event is answered as any other sender's.
func TestWebhookPerson(t *testing.T) {
	f := newFixture(t)
	path := f.url("slack")
	send := func(body string) reply {
		t.Helper()
		stamp := fmt.Sprint(time.Now().Unix())
		sum := strings.TrimPrefix(signed("v0:"+stamp+":"+body), "sha256=")
		return f.do("POST", path, strings.NewReader(body), "X-Slack-Request-Timestamp", stamp, "X-Slack-Signature", "v0="+sum)
	}
	got := send("command=%2Fdeploy&trigger_id=1")
	id := got.header.Get("Rtask-Job-Id")
	if got.status != 200 || got.json["response_type"] != "ephemeral" || got.json["text"] != "Accepted: job "+id+" of task hooked." || len(id) != 16 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := send("command=%2Fother"); got.status != 200 || got.json["text"] != "Nothing to do: the event /other is not among events." {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := send("payload=%7B%22type%22%3A%22block_actions%22%7D"); got.status != 200 || len(got.body) != 0 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := send(`{"type":"event_callback","event":{"type":"message"}}`); got.status != 200 || string(got.body) != `{"status":"ignored","reason":"the event message is not among events"}`+"\n" {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := f.do("POST", path, strings.NewReader("token=x&ssl_check=1")); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if m, want := f.scrape(), `rtask_requests_total{key="slack",result="accepted",task="hooked"} 2`; !strings.Contains(m, want) {
		t.Errorf("no %s in\n%s", want, m)
	}
}

// A URL takes the methods that the engine says, and a reply of the engine's goes out as it is.
func TestWebhookMethods(t *testing.T) {
	f := newFixture(t)
	counts := f.url("counts")
	for _, method := range []string{"GET", "PUT", "DELETE", "OPTIONS", "post", "X"} {
		got := f.do(method, counts, nil)
		if got.status != 405 || got.header.Get("Allow") != "HEAD, POST" || got.json["kind"] != "method-not-allowed" {
			t.Errorf("%s: %d %v %s", method, got.status, got.header, got.body)
		}
		if got := f.do(method, "/wh/none", nil); got.status != 404 {
			t.Errorf("%s of no webhook: %d", method, got.status)
		}
	}
	// Of what is refused for its method not a byte is read.
	if got := f.raw("PUT " + counts + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 405") || !strings.Contains(got, "Connection: close") {
		t.Errorf("%.80q", got)
	}
	if got := f.do("HEAD", counts, nil); got.status != 200 {
		t.Errorf("HEAD: %d", got.status)
	}
	// The engine knows of them.
	if m, want := f.scrape(), `task_rejection_total{reason="method-not-allowed",task="hooked"} 7`; !strings.Contains(m, want) {
		t.Errorf("no %s in\n%s", want, m)
	}
}

// What the engine is told of a request's head is what its sender sent.
func TestWebhookHead(t *testing.T) {
	s := &stub{methods: []string{"GET", "POST"}}
	a := newAPI(s, slog.New(slog.DiscardHandler))
	for target, want := range map[string]string{
		"/wh/x":                    "http://example.org:81/wh/x",
		"/wh/x?":                   "http://example.org:81/wh/x?",
		"/wh/x?b=%2f&a=1;c#f":      "http://example.org:81/wh/x?b=%2f&a=1;c",
		"https://other.test/wh/x?": "http://other.test/wh/x?",
	} {
		r := httptest.NewRequest("GET", "http://example.org:81/", nil)
		r.RequestURI = target
		var err error
		if r.URL, err = url.Parse(target); err != nil {
			t.Fatal(err)
		}
		if r.URL.Host != "" {
			r.Host = r.URL.Host // as net/http does it
		}
		a.ServeHTTP(httptest.NewRecorder(), r)
		_, query, _ := strings.Cut(want, "?")
		if s.hook.Method != "GET" || s.hook.Url != want || string(s.hook.Query) != query {
			t.Errorf("%s: %s %s %q", target, s.hook.Method, s.hook.Url, s.hook.Query)
		}
	}
	r := httptest.NewRequest("POST", "https://example.org/wh/x?\xff", nil)
	if a.ServeHTTP(httptest.NewRecorder(), r); s.hook.Url != "https://example.org/wh/x??" || string(s.hook.Query) != "\xff" {
		t.Errorf("%s %q", s.hook.Url, s.hook.Query)
	}
}

// A reply that the engine has made is sent as it is.
func TestWebhookReply(t *testing.T) {
	for _, c := range []struct {
		reply       *rtaskv1.WebhookReply
		status      int
		contentType []string
	}{
		{&rtaskv1.WebhookReply{Status: 200, ContentType: "text/plain", Body: []byte("<b>\x00\xff")}, 200, []string{"text/plain"}},
		{&rtaskv1.WebhookReply{Status: 503, Body: []byte("<b>")}, 503, nil},
		{&rtaskv1.WebhookReply{Status: 204}, 204, nil},
		{&rtaskv1.WebhookReply{Status: 100}, 500, nil},
		{&rtaskv1.WebhookReply{}, 500, nil},
	} {
		s := httptest.NewServer(newAPI(&stub{reply: c.reply}, slog.New(slog.DiscardHandler)))
		res, err := s.Client().Post(s.URL+"/wh/x", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		s.Close()
		h := res.Header
		if err != nil || res.StatusCode != c.status || !slices.Equal(h.Values("Content-Type"), c.contentType) || string(body) != string(c.reply.Body) {
			t.Errorf("%v: %d %v %q, %v", c.reply, res.StatusCode, h, body, err)
		}
		if h.Get("Rtask-Job-Id") != "aaaaaaaaaaaaaaaa" || h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%v: %v", c.reply, h)
		}
	}
}

// What a configuration says of a reply is what the sender reads, and a browser takes it for a page of nobody's.
func TestWebhookMessage(t *testing.T) {
	f := newFixture(t)
	for _, method := range []string{"GET", "POST"} {
		got := f.do(method, f.url("said"), nil)
		h := got.header
		if got.status != 200 || got.body != "<b>Thank you" || h.Get("Content-Type") != "text/html" || len(h.Get("Rtask-Job-Id")) != 16 {
			t.Errorf("%s: %d %v %q", method, got.status, h, got.body)
		}
		if h.Get("Content-Security-Policy") != "sandbox allow-scripts" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%v", h)
		}
		got = f.do(method, f.url("none"), nil)
		if got.status != 204 || got.body != "" || got.header.Get("Content-Type") != "" || len(got.header.Get("Rtask-Job-Id")) != 16 {
			t.Errorf("%s: %d %v %q", method, got.status, got.header, got.body)
		}
	}
	if got := f.do("POST", f.url("got"), nil); got.status != 405 || got.header.Get("Allow") != "HEAD, GET" {
		t.Errorf("%d %v", got.status, got.header)
	}
	// A key in a page's request from elsewhere is none, see presentedKey; that of a sandboxed page is from elsewhere.
	for _, head := range [][]string{{"Origin", "null"}, {"Sec-Fetch-Site", "cross-site"}} {
		basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("x:"+f.key))
		if got := f.do("POST", "/tasks/hello", nil, append(head, "Authorization", basic)...); got.status != 401 {
			t.Errorf("%v: %d", head, got.status)
		}
	}
}

// An engine that comes back is told that another one may have accepted the request, whose signature ages.
func TestWebhookAgain(t *testing.T) {
	s := &stub{goes: 2}
	w := httptest.NewRecorder()
	newAPI(s, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest("POST", "/wh/x", nil))
	if w.Code != 202 || !slices.Equal(s.again, []bool{false, true, true}) {
		t.Errorf("%d, %v", w.Code, s.again)
	}
}

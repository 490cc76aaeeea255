package gateway

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestPreferred(t *testing.T) {
	for accept, want := range map[string]string{
		"":                                   "application/json",
		"text/plain":                         "text/plain",
		"text/plain; charset=utf-8":          "text/plain",
		"TEXT/Plain":                         "text/plain",
		"text/*":                             "text/plain",
		"*/*":                                "application/json",
		"*":                                  "application/json",
		"application/json":                   "application/json",
		"application/json, text/plain":       "application/json",
		"application/json, text/plain, */*":  "application/json", // axios and Angular
		"text/plain, application/json":       "text/plain",       // of the same weight: the first
		"text/plain, */*; q=0.01":            "text/plain",
		"text/plain, */*":                    "text/plain", // it is named, JSON is not
		"*/*, text/plain":                    "text/plain",
		"text/plain;q=0.5, */*;q=0.4":        "text/plain",
		"text/plain;q=0.4, */*;q=0.5":        "application/json",
		"text/plain;q=0.5, application/json": "application/json",
		"application/json;q=0.9, text/plain": "text/plain",
		"text/plain;q=0":                     "application/json",
		"*/*, application/json;q=0":          "text/plain",
		"text/*;q=0.3, text/plain;q=0.9, */*;q=0.5":           "text/plain", // the weight of the most exact range, wherever it stands
		"text/*;q=0.9, text/plain;q=0.3, */*;q=0.5":           "application/json",
		"text/html, image/gif, image/jpeg, *; q=.2, */*;q=.2": "application/json",
		"text/html,application/xhtml+xml,*/*;q=0.8":           "application/json",
		"image/png":        "application/json",
		"text/plain;q=2":   "application/json", // no weight
		"text/plain;q=NaN": "application/json",
		"text/plain;q=":    "application/json",
		",,text/plain,":    "text/plain",
		"text/plain;;;":    "application/json", // not well-formed
	} {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("Accept", accept)
		if got := preferred(r, "application/json", "text/plain"); got != want {
			t.Errorf("%q: %s, want %s", accept, got, want)
		}
	}
	r := httptest.NewRequest("POST", "/", nil)
	r.Header["Accept"] = []string{"application/json", "text/plain"} // several lines are one list
	if got := preferred(r, "text/plain", "application/json"); got != "application/json" {
		t.Errorf("two lines: %s", got)
	}
}

func FuzzPreferred(f *testing.F) {
	f.Add("application/json, text/plain, */*;q=0.1")
	f.Fuzz(func(t *testing.T, accept string) {
		r := &http.Request{Header: http.Header{"Accept": {accept}}}
		got := preferred(r, "application/json", "text/plain")
		if got != "application/json" && !strings.Contains(accept, "*") && !strings.Contains(strings.ToLower(accept), "text/plain") {
			t.Errorf("%q: %s", accept, got)
		}
	})
}

// A task's output is only streamed to a client that learns from the trailers how it ended. To all others a failure is a 500.
func TestStreamsWhereTrailersArrive(t *testing.T) {
	f := newFixture(t)
	head := "POST /tasks/fails HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\nAuthorization: Bearer " + f.key + "\r\n"
	for name, c := range map[string]struct {
		lines  string
		stream bool
	}{
		"curl":               {"Accept: text/plain", true},
		"curl, any":          {"Accept: */*", false},
		"TE":                 {"Accept: text/plain\r\nTE: trailers", true},
		"axios":              {"Accept: application/json, text/plain, */*", false},
		"jQuery":             {"Accept: text/plain, */*; q=0.01\r\nOrigin: http://x", false},
		"a browser":          {"Accept: text/plain\r\nSec-Fetch-Mode: cors", false},
		"a browser, with TE": {"Accept: text/plain\r\nSec-Fetch-Mode: cors\r\nTE: trailers", false},
		"a proxy":            {"Accept: text/plain\r\nX-Forwarded-For: 192.0.2.1", false},
		"Via":                {"Accept: text/plain\r\nVia: 1.1 proxy", false},
		"a proxy, with TE":   {"Accept: text/plain\r\nX-Forwarded-For: 192.0.2.1\r\nTE: deflate;q=0.5, Trailers", true},
	} {
		got := whole(t, f.api, head+c.lines+"\r\n\r\n")
		if !c.stream && !strings.HasPrefix(got, "HTTP/1.1 500 ") || c.stream && !strings.Contains(got, "\r\nRtask-Status: failure\r\n") {
			t.Errorf("%s: %s", name, got)
		}
	}
	r := f.do("POST", "/tasks/fails", nil, "Authorization", "Bearer "+f.key, "Accept", "text/plain") // Go's client, which has trailers
	// Between the two outputs the order is that of reading.
	if r.status != 200 || r.body != "out\nerr\n" && r.body != "err\nout\n" || r.trailer.Get("Rtask-Status") != "failure" || r.trailer.Get("Rtask-Exit-Code") != "9" {
		t.Errorf("net/http: %d %q %v", r.status, r.body, r.trailer)
	}
	got := whole(t, f.api, strings.Replace(head, "HTTP/1.1", "HTTP/1.0", 1)+"Accept: text/plain\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.0 500 ") {
		t.Errorf("HTTP/1.0: %s", got)
	}
}

// whole sends a request as it is and returns all of the reply.
func whole(t *testing.T, address, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

package control

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/config"
)

// Senders that sign the URL sign the one that they called: that of public_url, if there is one.
func TestHookRequest(t *testing.T) {
	c := &call{snapshot: Snapshot{Config: &config.Config{}}}
	for _, test := range []struct{ public, url, query, want string }{
		{"", "http://127.0.0.1:8800/wh/x?a=%2f", "a=%2f", "http://127.0.0.1:8800/wh/x?a=%2f"},
		{"https://ci.example.org/hooks", "http://127.0.0.1:8800/wh/x?a=%2f", "a=%2f", "https://ci.example.org/hooks/wh/x?a=%2f"},
		{"https://ci.example.org", "http://127.0.0.1:8800/wh/x?", "", "https://ci.example.org/wh/x?"},
		{"https://ci.example.org", "http://127.0.0.1:8800/wh/x", "", "https://ci.example.org/wh/x"},
		{"https://ci.example.org", "", "", "https://ci.example.org/wh/x"},
	} {
		c.snapshot.Config.PublicURL = test.public
		r := hookRequest(c, &rtaskv1.WebhookRequest{Hash: "x", Url: test.url, Query: []byte(test.query)})
		if r.URL != test.want || r.Query != test.query || r.Method != "POST" {
			t.Errorf("%+v: %+v", test, r)
		}
	}
}

// A method that the URL does not take runs nothing, whatever the gateway hands in.
func TestWebhookMethods(t *testing.T) {
	f := newFixture(t, hooked+`
task "got" {
  command = ["/bin/true"]
  webhook "got" {
    token   = "token-that-may-be-got"
    methods = ["GET", "PUT"]
  }
}
`)
	gateway := f.net(nil, "")
	for _, test := range []struct {
		hook, takes string
		refused     []string
	}{
		{"token", "POST", []string{"GET", "HEAD", "post", "PUT"}},
		{"got", "GET PUT", []string{"POST", "HEAD", "get", ""}},
	} {
		task := map[string]string{"token": "hooked", "got": "got"}[test.hook]
		r := f.sent(task, test.hook, nil, time.Now())
		for _, method := range test.refused {
			framing, err := gateway.WebhookFraming(t.Context(), &rtaskv1.WebhookFramingRequest{Hash: r.Hash, Method: method})
			if err != nil || strings.Join(framing.Methods, " ") != test.takes {
				t.Errorf("%s: %v, %v", method, framing, err)
			}
			r.Method = method
			if _, err := gateway.Webhook(t.Context(), r); connect.CodeOf(err) != connect.CodeInvalidArgument || detail(err).GetKind() != "method-not-allowed" {
				t.Errorf("%s: %v", method, err)
			}
		}
		for method := range strings.SplitSeq(test.takes, " ") {
			r.Method = method
			if got, err := gateway.Webhook(t.Context(), r); err != nil || got.Run == nil {
				t.Errorf("%s: %v, %v", method, got, err)
			}
		}
	}
}

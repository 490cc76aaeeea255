package control

import (
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
	f := newFixture(t, hooked)
	gateway := f.net(nil, "")
	r := f.sent("hooked", "token", nil, time.Now())
	for _, method := range []string{"GET", "HEAD", "post", "PUT"} {
		framing, err := gateway.WebhookFraming(t.Context(), &rtaskv1.WebhookFramingRequest{Hash: r.Hash, Method: method})
		if err != nil || len(framing.Methods) != 1 || framing.Methods[0] != "POST" {
			t.Errorf("%s: %v, %v", method, framing, err)
		}
		r.Method = method
		if _, err := gateway.Webhook(t.Context(), r); connect.CodeOf(err) != connect.CodeInvalidArgument || detail(err).GetKind() != "method-not-allowed" {
			t.Errorf("%s: %v", method, err)
		}
	}
	r.Method = "POST"
	if got, err := gateway.Webhook(t.Context(), r); err != nil || got.Run == nil {
		t.Errorf("%v, %v", got, err)
	}
}

package webhook

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Of what is not signed, nothing but an answer comes.
func TestGreeting(t *testing.T) {
	get := func(query string) *Request { return &Request{Method: "GET", Query: query} }
	ping := Headers{{"X-Event-Key", "diagnostics:ping"}}
	for _, c := range []struct {
		kind    Kind
		request *Request
		want    string // the body, or the reason, "": it has to be signed, "!": it is refused
	}{
		{Dropbox, get("challenge=abc-_123"), "abc-_123"}, {Dropbox, get("challenge=%3Cscript%3E"), "!"}, {Dropbox, get("challenge=a&challenge=b"), "!"}, {Dropbox, get(""), "!"},
		{Dropbox, get("challenge=" + strings.Repeat("a", 257)), "!"}, {Dropbox, get("challenge="), "!"}, {Dropbox, get("challenge=%zz"), "!"},
		{Dropbox, &Request{Method: "POST", Query: "challenge=abc"}, ""},
		{Meta, get("hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=meatyhamhock"), "1158201444"},
		{Meta, get("hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=other"), "!"}, {Meta, get("hub.mode=subscribe&hub.challenge=1158201444"), "!"},
		{Meta, get("hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token="), "!"}, {Meta, get("hub.challenge=1&hub.verify_token=meatyhamhock"), "!"},
		{Meta, get("hub.mode=unsubscribe&hub.challenge=1&hub.verify_token=meatyhamhock"), "!"}, {Meta, get("hub.mode=subscribe&hub.verify_token=meatyhamhock"), "!"},
		{Meta, get("hub.mode=subscribe&hub.challenge=1&hub.verify_token=x&hub.verify_token=meatyhamhock"), "!"},
		{BitbucketServer, &Request{Method: "POST", Headers: ping, Body: []byte(`{"test":true}`)}, "it is a ping"},
		{BitbucketServer, &Request{Method: "POST", Headers: append(Headers{{"X-Hub-Signature", "sha256=00"}}, ping...)}, ""},
		{BitbucketServer, &Request{Method: "POST", Headers: append(Headers{{"Authorization", "Basic x"}}, ping...)}, ""}, {Bitbucket, &Request{Headers: ping}, ""},
		{Slack, &Request{Method: "POST", Body: []byte("ssl_check=1&token=x")}, "it is Slack's check of the certificate"}, {GitHub, get("challenge=abc"), ""},
		{Zoom, &Request{Method: "POST", Body: []byte(`{"event":"endpoint.url_validation","payload":{"plainToken":"x"}}`)}, ""}, {"none", get("challenge=a"), ""},
	} {
		h, ok, err := Greeting(c.kind, "meatyhamhock", c.request)
		got := h.Reason
		if h.Reply != nil {
			got = h.Reply.Body
		}
		if err != nil {
			got = "!"
		}
		if got != c.want || ok != (c.want != "" && c.want != "!") || err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("%s %+v: %+v, %v, %v; want %q", c.kind, c.request, h, ok, err, c.want)
		}
	}
	for _, token := range []string{"", "x"} { // no text is a token where there is none
		if _, ok, err := Greeting(Meta, "", get("hub.mode=subscribe&hub.challenge=1&hub.verify_token="+token)); ok || !errors.Is(err, ErrSignature) {
			t.Errorf("%q: %v, %v", token, ok, err)
		}
	}
	for _, k := range Kinds() {
		if k.AsksByGet() != (k == Dropbox || k == Meta) {
			t.Error(k)
		}
	}
}

// What Zoom wants to know is answered when it is signed, with the secret that it was signed with, and is never a signature.
func TestZoomValidation(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := Scheme{Kind: Zoom}
	ask := func(token string) *Reply {
		r := &Request{Method: "POST", Body: fmt.Appendf(nil, `{"event":"endpoint.url_validation","payload":{"plainToken":%q}}`, token)}
		Sign(s, "two", r, "", now)
		if _, err := Verify(s, []string{"one", "two"}, r, now); err != nil {
			t.Fatal(err)
		}
		d, err := Read(s, r)
		if err != nil || !d.Ping {
			t.Fatalf("%+v, %v", d, err)
		}
		return Answer(s, []string{"one", "two"}, r, d.WithEvent("what the configuration says"), now)
	}
	want := `{"encryptedToken":"` + hex.EncodeToString(SHA256.sum([]byte("two"), []byte("qgg8vlvZRS6UYooatFL8Aw"))) + `","plainToken":"qgg8vlvZRS6UYooatFL8Aw"}`
	if got := ask("qgg8vlvZRS6UYooatFL8Aw"); got == nil || got.Body != want || got.Status != 200 || got.ContentType != "application/json" {
		t.Errorf("%+v, want %s", got, want)
	}
	for _, token := range []string{"v0:1800000000:{}", "", strings.Repeat("a", 257), "a b"} {
		if got := ask(token); got != nil && got.Body != "" {
			t.Errorf("%q: %+v", token, got)
		}
	}
}

// Discord reads an answer of its own to each kind of request.
func TestDiscordReplies(t *testing.T) {
	for body, want := range map[string]string{
		`{"id":"1","type":1}`: `200 application/json {"type":1}`, `{"version":1,"type":0}`: "204 application/json", `{"id":"1","type":3,"data":{"custom_id":"x"}}`: `200 application/json {"type":6}`,
		`{"version":1,"type":1,"event":{"type":"X"}}`: "204 application/json", `{"id":"1","type":2,"data":{"name":"x"}}`: "", `{"id":"1","type":4}`: `200 application/json {"type":8,"data":{"choices":[]}}`,
	} {
		d := read(t, Discord, nil, body)
		got := ""
		if d.Reply != nil {
			got = d.Reply.String()
		}
		if got != want || (d.Person == Reads) != strings.Contains(body, `:2,`) {
			t.Errorf("%s: %q, %+v", body, got, d)
		}
	}
	if got := ToPerson(Discord, `a "b"`); got == nil || !strings.Contains(got.Body, `"content":"a \"b\""`) || !strings.Contains(got.Body, `"flags":64`) || !strings.Contains(got.Body, `"type":4`) {
		t.Errorf("%+v", got)
	}
	if got := ToPerson(Slack, "a"); got != nil {
		t.Errorf("%+v", got)
	}
}

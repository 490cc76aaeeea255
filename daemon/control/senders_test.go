package control

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/auth/webhook"
)

// seed is the private key of verifyKey, in hex: that of RFC 8032, section 7.1, test 1.
const (
	seed      = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
	verifyKey = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
)

// everySender is a task with a webhook for each sender, which is called as its kind.
func everySender() string {
	var b strings.Builder
	b.WriteString("task \"all\" {\n command = [\"/bin/cat\"]\n max_concurrent = 0\n")
	for _, k := range webhook.Kinds() {
		fmt.Fprintf(&b, " webhook %q {\n verify = %q\n", k, k)
		switch {
		case !k.Signed():
			fmt.Fprintf(&b, " token = \"token-of-%s-0123\"\n", k)
		case k == webhook.Discord:
			fmt.Fprintf(&b, " secrets = [%q]\n", verifyKey)
		default:
			fmt.Fprintf(&b, " secrets = [%q]\n", standardSecret)
		}
		if k == webhook.HMAC || k == webhook.HMACSHA256 {
			b.WriteString(" header = \"X-Sum\"\n")
		}
		b.WriteString(" }\n")
	}
	return b.String() + "}\n"
}

// sampled is a request to a webhook of everySender with a body, or as its sender makes one.
func (f *fixture) sampled(k webhook.Kind, body string, at time.Time) *rtaskv1.WebhookRequest {
	f.t.Helper()
	for _, w := range f.Snapshot().Config.Tasks["all"].Webhooks {
		if w.Scheme.Kind != k {
			continue
		}
		r := webhook.Sample(w.Scheme, "", "", at)
		if body != "" {
			r.Body = []byte(body)
		}
		hash := w.Hash(f.ReadSecret)
		r.URL = "http://127.0.0.1:8800/wh/" + hash
		secret := standardSecret
		if k == webhook.Discord {
			secret = seed
		}
		webhook.Sign(w.Scheme, secret, r, "msg-"+fmt.Sprint(at.UnixNano()), at)
		m := &rtaskv1.WebhookRequest{Hash: hash, Body: r.Body, Method: "POST", Url: r.URL}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, &rtaskv1.Header{Name: h.Name, Value: []byte(h.Value)})
		}
		return m
	}
	f.t.Fatalf("there is no webhook %s", k)
	return nil
}

// Each sender's request starts its task, and is tried without one. What is changed starts nothing.
func TestEverySender(t *testing.T) {
	f := newFixture(t, everySender())
	admin := f.as(peers()[auth.Admin])
	for _, k := range webhook.Kinds() {
		r := f.sampled(k, "", time.Now())
		reply, err := f.hook(r)
		if err != nil || !reply.Run.GetAccepted() {
			t.Errorf("%s: %v, %v", k, reply, err)
			continue
		}
		tried := must[rtaskv1.TestWebhookResponse](t)(admin.TestWebhook(t.Context(), &rtaskv1.TestWebhookRequest{Task: "all", Name: string(k)}))
		if row, _ := webhook.SenderOf(k); tried.Decision != "accepted" || len(row.Event) > 0 && tried.Event != row.Example {
			t.Errorf("%s: %v", k, tried)
		}
		if !k.Signed() {
			continue
		}
		r = f.sampled(k, "", time.Now())
		for i := range r.Headers {
			r.Headers[i].Value = append(r.Headers[i].Value, 'x')
		}
		if k == webhook.Mailgun {
			r.Body = []byte(strings.Replace(string(r.Body), `"token":"`, `"token":"x`, 1))
		}
		if _, err := f.hook(r); detail(err).GetKind() != "signature" {
			t.Errorf("%s: %v", k, err)
		}
		r.Method = "GET"
		if _, err := f.hook(r); err == nil {
			t.Errorf("%s: a GET starts it", k)
		}
	}
	if s := f.logs.String(); strings.Contains(s, standardSecret) || strings.Contains(s, seed) || strings.Contains(s, "token-of-") {
		t.Error("a secret is in the log")
	}
}

// Senders that want an answer of their own get it.
func TestSendersReplies(t *testing.T) {
	f := newFixture(t, everySender())
	text := func(m *rtaskv1.WebhookReply) string {
		return fmt.Sprintf("%d %s %s", m.GetStatus(), m.GetContentType(), m.GetBody())
	}
	for _, c := range []struct {
		kind webhook.Kind
		body string
		runs bool
		want string // of a reply of its own
	}{
		{webhook.Discord, `{"id":"1","type":1}`, false, `200 application/json {"type":1}`}, {webhook.Discord, `{"version":1,"type":0}`, false, "204 application/json "},
		{webhook.Discord, `{"id":"2","type":3,"data":{"custom_id":"x"}}`, true, `200 application/json {"type":6}`},
		{webhook.Discord, `{"version":1,"type":1,"event":{"type":"ENTITLEMENT_CREATE"}}`, true, "204 application/json "},
		{webhook.Discord, `{"id":"3","type":2,"data":{"name":"deploy"}}`, true, `"content":"Accepted: job `},
		{webhook.Zoom, `{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}`, false, `"plainToken":"qgg8vlvZRS6UYooatFL8Aw"`},
		{webhook.Zoom, `{"event":"meeting.started"}`, true, "0  "}, {webhook.Twilio, "Body=hi&MessageSid=SM1", true, "200 text/xml <Response/>"},
		{webhook.Slack, "command=%2Fdeploy&trigger_id=1", true, "0  "}, {webhook.PagerDuty, `{"event":{"id":"1","event_type":"pagey.ping"}}`, false, "0  "},
	} {
		reply, err := f.hook(f.sampled(c.kind, c.body, time.Now()))
		if err != nil || (reply.Run != nil) != c.runs || !strings.Contains(text(reply.GetReply()), c.want) {
			t.Errorf("%s %s: %v, %v", c.kind, c.body, reply, err)
		}
		if b := reply.GetReply().GetBody(); strings.HasPrefix(string(b), "{") && !json.Valid(b) {
			t.Errorf("%s", b)
		}
	}
	// Linear takes 202 for a failure, also where the user has a text for it.
	with := newFixture(t, strings.Replace(everySender(), ` verify = "linear"`, " verify = \"linear\"\n message = \"Deploying.\"", 1))
	if reply, err := with.hook(with.sampled(webhook.Linear, "", time.Now())); err != nil || text(reply.GetReply()) != "200 text/plain; charset=utf-8 Deploying." {
		t.Errorf("%v, %v", reply, err)
	}
	if reply, err := f.hook(f.sampled(webhook.Linear, "", time.Now())); err != nil || reply.Status != 200 {
		t.Errorf("%v, %v", reply, err)
	}
}

// What a sender asks by GET is answered, and starts nothing. Whoever does not know the token gets no answer.
func TestSendersChallenges(t *testing.T) {
	f := newFixture(t, strings.Replace(everySender(), ` verify = "meta"`, " verify = \"meta\"\n verify_token = \"meatyhamhock\"", 1))
	gateway := f.net(nil, "")
	get := func(k webhook.Kind, query string) (*rtaskv1.WebhookResponse, error) {
		r := f.sampled(k, "", time.Now())
		framing, err := gateway.WebhookFraming(t.Context(), &rtaskv1.WebhookFramingRequest{Hash: r.Hash, Method: "GET"})
		if err != nil || strings.Join(framing.Methods, " ") != "POST GET" {
			t.Errorf("%s: %v, %v", k, framing, err)
		}
		r.Method, r.Query, r.Body, r.Url = "GET", []byte(query), nil, r.Url+"?"+query
		return f.hook(r)
	}
	for query, want := range map[string]string{
		"hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=meatyhamhock": "1158201444", "hub.mode=subscribe&hub.challenge=1&hub.verify_token=x": "",
		"hub.mode=subscribe&hub.challenge=1&hub.verify_token=" + standardSecret: "", "": "",
	} {
		reply, err := get(webhook.Meta, query)
		if string(reply.GetReply().GetBody()) != want || (err == nil) != (want != "") || err != nil && connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("%s: %v, %v", query, reply, err)
		}
	}
	reply, err := get(webhook.Dropbox, "challenge=abc")
	if err != nil || string(reply.GetReply().GetBody()) != "abc" || reply.GetReply().GetContentType() != "text/plain; charset=utf-8" {
		t.Errorf("%v, %v", reply, err)
	}
	ping := f.sampled(webhook.BitbucketServer, "", time.Now())
	ping.Headers = []*rtaskv1.Header{{Name: "X-Event-Key", Value: []byte("diagnostics:ping")}}
	if reply, err := f.hook(ping); err != nil || reply.Run != nil || reply.Reason != "it is a ping" {
		t.Errorf("%v, %v", reply, err)
	}
	f.noJobs()
	if s := f.logs.String(); strings.Contains(s, "meatyhamhock") || strings.Contains(s, standardSecret) {
		t.Error("a token is in the log")
	}
}

// What is signed in the body under an id is one delivery, however often it comes. What is signed without one runs again.
func TestSendersIDs(t *testing.T) {
	f := newFixture(t, everySender())
	for k, same := range map[webhook.Kind]bool{webhook.PagerDuty: true, webhook.Trello: true, webhook.Mailgun: true, webhook.Discord: true, webhook.Shopify: false, webhook.AzureDevOps: false} {
		r := f.sampled(k, "", time.Now())
		first, err := f.hook(r)
		again, err2 := f.hook(r)
		if err != nil || err2 != nil || (first.Run.GetJob().GetId() == again.Run.GetJob().GetId()) != same {
			t.Errorf("%s: %v, %v; %v, %v", k, first, err, again, err2)
		}
	}
}

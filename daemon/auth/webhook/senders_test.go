package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

// sampleOf is a request of a kind as its sender makes and signs it, and a secret that it is verified by.
func sampleOf(s Scheme, now time.Time) (*Request, string) {
	r := Sample(s, "", "refs/heads/main", now)
	r.URL = "https://example.org/wh/x"
	signing, verifying, ok := SampleKeys(s.Kind)
	if !ok {
		signing, verifying = standardSecret, standardSecret
	}
	Sign(s, signing, r, SampleID(now), now)
	return r, verifying
}

// senderSchemes are those of the senders that the table alone describes.
func senderSchemes() []Scheme {
	var all []Scheme
	for _, k := range Kinds() {
		if k.Signed() && k != HMAC && k != HMACSHA256 {
			all = append(all, Scheme{Kind: k})
		}
	}
	return append(all, Scheme{Kind: Grafana, Time: &Time{Place: header("X-Grafana-Alerting-Timestamp")}})
}

// Each sender's sample passes and says what its row says, and nothing that differs in anything passes.
func TestSenders(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, s := range senderSchemes() {
		t.Run(string(s.Kind), func(t *testing.T) {
			row := s.sender()
			r, secret := sampleOf(s, now)
			good, err := Verify(s, []string{"x", secret, ""}, r, now)
			if err != nil || len(good.Key) != 64 || good.Fresh != s.Fresh() && s.Kind != GitLab {
				t.Fatalf("%+v, %v", good, err)
			}
			d, err := Read(s, r)
			if err != nil || d.Event != row.Example || d.Skip(Wanted{}) != "" || len(row.ID) > 0 && d.ID == "" {
				t.Errorf("%+v, %v", d, err)
			}
			if row.Refs != nil && (d.Ref != "refs/heads/main" || d.SHA != strings.Repeat("0", 39)+"1" || d.Skip(Wanted{Events: []string{d.Event}, Refs: []string{"refs/heads/*"}}) != "") {
				t.Errorf("%+v", d)
			}
			refused := func(what string, change func(*Request), now time.Time, secrets ...string) {
				t.Helper()
				other := *r
				other.Headers, other.Body = append(Headers{}, r.Headers...), bytes.Clone(r.Body)
				change(&other)
				if p, err := Verify(s, secrets, &other, now); !errors.Is(err, ErrSignature) || p != (Proof{}) {
					t.Errorf("%s: %+v, %v", what, p, err)
				} else if strings.Contains(err.Error(), secret) {
					t.Errorf("%s: the secret is in the error %v", what, err)
				}
			}
			nothing := func(*Request) {}
			signed := row.Signature != nil
			if signed && row.signs("{body}") {
				refused("a longer body", func(r *Request) { r.Body = append(r.Body, ' ') }, now, secret)
				refused("another body", func(r *Request) { r.Body[len(r.Body)-3] ^= 1 }, now, secret)
				refused("no body", func(r *Request) { r.Body = nil }, now, secret)
			}
			if signed && (row.signs("{url}")) {
				for _, u := range []string{"", "https://example.org/wh/y", "https://example.net/wh/x", "http://example.org/wh/x", "https://example.org/wh/x?a=b"} {
					refused("the URL "+u, func(r *Request) { r.URL = u }, now, secret)
				}
			}
			refused("a GET", func(r *Request) { r.Method = "GET" }, now, secret)
			refused("a HEAD", func(r *Request) { r.Method = "HEAD" }, now, secret)
			refused("another secret", nothing, now, "x", strings.Repeat("0", 64), standardSecret[:len(standardSecret)-1]+"A")
			refused("no secret", nothing, now)
			refused("an empty secret", nothing, now, "")
			refused("no headers", func(r *Request) {
				if r.Headers = nil; s.Kind == Mailgun {
					r.Body = nil
				}
			}, now, secret)
			proves := map[string]bool{row.Secret: row.Secret != ""}
			if signed {
				for _, p := range []Place{row.Signature.Place, row.Time.Place} {
					for _, name := range p.Header {
						proves[name] = true
					}
				}
			}
			for i, one := range r.Headers {
				if !proves[one.Name] {
					continue
				}
				refused("without "+one.Name, func(r *Request) { r.Headers = append(r.Headers[:i], r.Headers[i+1:]...) }, now, secret)
				refused("twice "+one.Name, func(r *Request) { r.Headers = append(r.Headers, Header{strings.ToUpper(one.Name), one.Value}) }, now, secret)
				for _, value := range []string{"", "x", one.Value[1:], one.Value + "0", "0" + one.Value, "sha256=", "v1=", "v0=", "Basic ", "Bearer", "Basic !", "Digest " + secret} {
					refused(one.Name+" is "+value, func(r *Request) { r.Headers[i].Value = value }, now, secret)
				}
			}
			if !s.Fresh() || s.Kind == GitLab && !good.Fresh {
				return
			}
			for off, ok := range map[time.Duration]bool{-Tolerance: true, Tolerance: true, -Tolerance - time.Second: false, Tolerance + time.Second: false} {
				if _, err := Verify(s, []string{secret}, r, now.Add(off)); (err == nil) != ok {
					t.Errorf("%v away: %v", off, err)
				}
			}
		})
	}
}

// What the senders publish to try a receiver with.
func TestSendersVectors(t *testing.T) {
	atlassian := Headers{{"X-Hub-Signature", "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"}}
	twilio := "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212"
	for _, c := range []struct {
		kind   Kind
		secret string
		head   Headers
		body   string
		url    string
	}{
		// developer.atlassian.com/cloud/jira/platform/webhooks, "Secure admin webhooks", and the same in Bitbucket Cloud's.
		{Jira, "It's a Secret to Everybody", atlassian, "Hello World!", ""},
		{Bitbucket, "It's a Secret to Everybody", atlassian, "Hello World!", ""},
		// github.com/PagerDuty/go-pagerduty, webhookv3/webhookv3_test.go
		{PagerDuty, "lDQHScfUeXUKaQRNF+8XIiDKZ7XX3itBAYzwU0TARw8lJqRnkKl2iB1anSb0Z+IK", Headers{
			{"X-PagerDuty-Signature", "v1=0c0b9495b893a39e70d1fea2fe11fbe0a825f88b9f67846f6cc07dd2bc5476cd"},
		}, pagerDutyBody, ""},
		// twilio.com/docs/usage/security, "Validating requests": with the fields of its example
		{Twilio, "12345", Headers{{"X-Twilio-Signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8="}}, twilio, "https://mycompany.com/myapp.php?foo=1&bar=2"},
	} {
		r := &Request{Method: "POST", URL: c.url, Headers: c.head, Body: []byte(c.body)}
		_, r.Query, _ = strings.Cut(c.url, "?")
		if _, err := Verify(Scheme{Kind: c.kind}, []string{"another", c.secret}, r, time.Now()); err != nil {
			t.Errorf("%s: %v", c.kind, err)
		}
		r.Body = []byte(c.body[:len(c.body)-1])
		if _, err := Verify(Scheme{Kind: c.kind}, []string{c.secret}, r, time.Now()); !errors.Is(err, ErrSignature) {
			t.Errorf("%s, changed: %v", c.kind, err)
		}
	}
}

const pagerDutyBody = `{"event":{"id":"01BWDWL3NYY7LUFPZCC28QUCMK","event_type":"incident.priority_updated","resource_type":"incident","occurred_at":"2021-04-26T17:36:27.458Z","agent":{"html_url":"https://acme.pagerduty.com/users/PLH1HKV","id":"PLH1HKV","self":"https://api.pagerduty.com/users/PLH1HKV","summary":"Tenex Engineer","type":"user_reference"},"client":null,"data":{"id":"PGR0VU2","type":"incident","self":"https://api.pagerduty.com/incidents/PGR0VU2","html_url":"https://acme.pagerduty.com/incidents/PGR0VU2","number":2,"status":"triggered","title":"A little bump in the road","service":{"html_url":"https://acme.pagerduty.com/services/PF9KMXH","id":"PF9KMXH","self":"https://api.pagerduty.com/services/PF9KMXH","summary":"API Service","type":"service_reference"},"assignees":[{"html_url":"https://acme.pagerduty.com/users/PTUXL6G","id":"PTUXL6G","self":"https://api.pagerduty.com/users/PTUXL6G","summary":"User 123","type":"user_reference"}],"escalation_policy":{"html_url":"https://acme.pagerduty.com/escalation_policies/PUS0KTE","id":"PUS0KTE","self":"https://api.pagerduty.com/escalation_policies/PUS0KTE","summary":"Default","type":"escalation_policy_reference"},"teams":[{"html_url":"https://acme.pagerduty.com/teams/PFCVPS0","id":"PFCVPS0","self":"https://api.pagerduty.com/teams/PFCVPS0","summary":"Engineering","type":"team_reference"}],"priority":{"html_url":"https://acme.pagerduty.com/account/incident_priorities","id":"PSO75BM","self":"https://api.pagerduty.com/priorities/PSO75BM","summary":"P1","type":"priority_reference"},"urgency":"high","conference_bridge":{"conference_number":1000,"conference_url":"https://example.com"},"resolve_reason":null}}}`

// Where the senders' own examples name event, id, ref and commit.
func TestReadSenders(t *testing.T) {
	change := func(name, kind string) string {
		return fmt.Sprintf(`{"old":null,"new":{"type":%q,"name":%q,"target":{"hash":%q}},"created":true,"closed":false}`, kind, name, sha)
	}
	gone := `{"old":{"type":"branch","name":"old","target":{"hash":"` + sha + `"}},"new":null,"closed":true}`
	for _, c := range []struct {
		kind   Kind
		head   Headers
		body   string
		wanted Wanted
		want   string // the environment, or why it is ignored
	}{
		{Bitbucket, Headers{{"X-Event-Key", "repo:push"}, {"X-Request-UUID", "u"}}, `{"push":{"changes":[` + change("main", "branch") + `]}}`, Wanted{},
			"RTASK_EVENT=repo:push RTASK_GIT_REF=refs/heads/main RTASK_GIT_SHA=" + sha + " RTASK_DELIVERY=u"},
		{Bitbucket, Headers{{"X-Event-Key", "repo:push"}}, `{"push":{"changes":[` + change("v1", "tag") + `]}}`, Wanted{Refs: []string{"refs/tags/*"}},
			"RTASK_EVENT=repo:push RTASK_GIT_REF=refs/tags/v1 RTASK_GIT_SHA=" + sha},
		{Bitbucket, Headers{{"X-Event-Key", "repo:push"}}, `{"push":{"changes":[` + change("v1", "other") + `]}}`, Wanted{Refs: []string{"refs/**"}}, "it names no ref"},
		{Bitbucket, Headers{{"X-Event-Key", "repo:push"}}, `{"push":{"changes":[` + gone + `]}}`, Wanted{}, "refs/heads/old was deleted (deletions = true takes it)"},
		{Bitbucket, Headers{{"X-Event-Key", "repo:push"}}, `{"push":{"changes":[` + gone + `]}}`, Wanted{Deletions: true}, "RTASK_EVENT=repo:push RTASK_GIT_REF=refs/heads/old"},
		{Bitbucket, Headers{{"X-Event-Key", "repo:push"}}, `{"push":{"changes":[` + gone + "," + change("a", "branch") + "," + change("main", "branch") + `]}}`,
			Wanted{Refs: []string{"refs/heads/main"}}, "RTASK_EVENT=repo:push RTASK_GIT_REF=refs/heads/main RTASK_GIT_SHA=" + sha},
		{Bitbucket, Headers{{"X-Event-Key", "repo:push"}}, `{"push":{"changes":[]}}`, Wanted{Refs: []string{"refs/heads/main"}}, "it names no ref"},
		{Bitbucket, Headers{{"X-Event-Key", "repo:push"}}, `{"pullrequest":{}}`, Wanted{}, "its header says repo:push, but the body is of pullrequest"},
		{BitbucketServer, Headers{{"X-Event-Key", "repo:refs_changed"}, {"X-Request-Id", "i"}},
			`{"changes":[{"ref":{"id":"refs/heads/master","displayId":"master","type":"BRANCH"},"refId":"refs/heads/master","fromHash":"x","toHash":"` + sha + `","type":"UPDATE"}]}`, Wanted{},
			"RTASK_EVENT=repo:refs_changed RTASK_GIT_REF=refs/heads/master RTASK_GIT_SHA=" + sha + " RTASK_DELIVERY=i"},
		{BitbucketServer, Headers{{"X-Event-Key", "repo:refs_changed"}}, `{"changes":[{"refId":"refs/heads/x","toHash":"` + strings.Repeat("0", 40) + `","type":"DELETE"}]}`, Wanted{},
			"refs/heads/x was deleted (deletions = true takes it)"},
		{BitbucketServer, Headers{{"X-Event-Key", "diagnostics:ping"}}, `{"test":true}`, Wanted{}, "it is a ping"},
		{Shopify, Headers{{"X-Shopify-Topic", "orders/create"}, {"X-Shopify-Webhook-Id", "w"}}, `{"id":820982911946154508}`, Wanted{}, "RTASK_EVENT=orders/create RTASK_DELIVERY=w"},
		{Sentry, Headers{{"Sentry-Hook-Resource", "issue"}, {"Request-ID", "r"}}, `{"action":"created"}`, Wanted{}, "RTASK_EVENT=issue RTASK_DELIVERY=r"},
		{Linear, Headers{{"Linear-Event", "Comment"}, {"Linear-Delivery", "d"}}, `{"action":"create","type":"Issue","webhookTimestamp":1676056940508}`, Wanted{}, "RTASK_EVENT=Issue RTASK_DELIVERY=d"},
		{Jira, Headers{{"X-Atlassian-Webhook-Identifier", "j"}}, `{"timestamp":1,"webhookEvent":"jira:issue_updated"}`, Wanted{}, "RTASK_EVENT=jira:issue_updated RTASK_DELIVERY=j"},
		{PagerDuty, nil, pagerDutyBody, Wanted{}, "RTASK_EVENT=incident.priority_updated RTASK_DELIVERY=01BWDWL3NYY7LUFPZCC28QUCMK"},
		{PagerDuty, nil, `{"event":{"event_type":"pagey.ping"}}`, Wanted{}, "it is a ping"},
		{Zoom, nil, `{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event_ts":1654503849680}`, Wanted{}, "it is a ping"},
		{Discord, nil, `{"id":"846462639134605312","type":2,"token":"t","data":{"id":"1","name":"deploy","type":1}}`, Wanted{Events: []string{"APPLICATION_COMMAND"}},
			"RTASK_EVENT=APPLICATION_COMMAND RTASK_DELIVERY=846462639134605312"},
		{Discord, nil, `{"id":"1","type":3,"data":{"custom_id":"yes","component_type":2}}`, Wanted{Events: []string{"yes"}}, "RTASK_EVENT=yes RTASK_DELIVERY=1"},
		{Discord, nil, `{"id":"1","type":4,"data":{"name":"deploy"}}`, Wanted{}, "it is a ping"}, {Discord, nil, `{"id":"1","type":1}`, Wanted{}, "it is a ping"},
		{Discord, nil, `{"version":1,"application_id":"1","type":0}`, Wanted{}, "it is a ping"},
		{Discord, nil, `{"version":1,"application_id":"1","type":1,"event":{"type":"APPLICATION_AUTHORIZED","timestamp":"2024-10-18T14:42:53.064834","data":{}}}`, Wanted{},
			"RTASK_EVENT=APPLICATION_AUTHORIZED"},
		{Mailgun, nil, `{"signature":{"timestamp":"1","token":"tok","signature":"x"},"event-data":{"event":"opened","id":"e"}}`, Wanted{}, "RTASK_EVENT=opened RTASK_DELIVERY=tok"},
		{Meta, nil, `{"entry":[],"object":"user"}`, Wanted{}, "RTASK_EVENT=user"},
		{Trello, nil, `{"action":{"id":"a","type":"updateCard"},"model":{}}`, Wanted{}, "RTASK_EVENT=updateCard RTASK_DELIVERY=a"},
		{AzureDevOps, nil, `{"id":"n","eventType":"git.push","resource":{"refUpdates":[{"name":"refs/heads/master","oldObjectId":"x","newObjectId":"` + sha + `"}]}}`, Wanted{},
			"RTASK_EVENT=git.push RTASK_GIT_REF=refs/heads/master RTASK_GIT_SHA=" + sha + " RTASK_DELIVERY=n"},
		{Alertmanager, nil, `{"version":"4","status":"resolved"}`, Wanted{}, "RTASK_EVENT=resolved"}, {Grafana, nil, `{"status":"firing"}`, Wanted{}, "RTASK_EVENT=firing"},
		{Dropbox, nil, `{"list_folder":{"accounts":["dbid:x"]}}`, Wanted{}, ""}, {DockerHub, nil, `{"push_data":{"tag":"latest"}}`, Wanted{}, ""},
		{Twilio, nil, "Body=hi&MessageSid=SM1", Wanted{}, ""},
	} {
		d, err := Read(Scheme{Kind: c.kind}, &Request{Headers: c.head, Body: []byte(c.body)})
		if err != nil {
			t.Errorf("%s %s: %v", c.kind, c.body, err)
		}
		d = d.Choose(c.wanted)
		got := d.Skip(c.wanted)
		if got == "" {
			got = strings.Join(d.Environment(c.wanted.Events), " ")
		}
		if got != c.want {
			t.Errorf("%s %s: %q, want %q", c.kind, c.body, got, c.want)
		}
	}
	for _, c := range []struct {
		kind Kind
		body string
	}{
		{Bitbucket, `{"push":{"changes":[],"changes":[]}}`}, {Bitbucket, `{"push":{"changes":[{"new":{"name":"a","name":"b"}}]}}`}, {Linear, `{"type":"a","type":"b"}`},
		{PagerDuty, `{"event":{"id":"a","id":"b"}}`}, {Trello, `{"action":{"type":"a","type":"b"}}`}, {Discord, `{"type":1,"type":2}`}, {Mailgun, `{"event-data":{},"event-data":{}}`},
		{AzureDevOps, `{"resource":{"refUpdates":[{"name":"a","name":"b"}]}}`},
	} {
		if _, err := Read(Scheme{Kind: c.kind}, &Request{Body: []byte(c.body)}); !errors.Is(err, ErrBody) {
			t.Errorf("%s %s: %v", c.kind, c.body, err)
		}
	}
}

// What is signed with the body and stays the same is known again; an id beside the body is not.
func TestSendersRepeats(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, s := range senderSchemes() {
		first, secret := sampleOf(s, now)
		d, err := Read(s, first)
		p, verr := Verify(s, []string{secret}, first, now)
		if err != nil || verr != nil {
			t.Fatal(err, verr)
		}
		p = p.WithID(d)
		known := p.Fresh && p.Until.IsZero()
		row := s.sender()
		inBody := len(row.ID) > 0 && len(row.ID[0].Body) > 0 && row.Signature != nil
		if want := inBody || row.signs("{id}") && row.Signature != nil; known != want {
			t.Errorf("%s: %+v", s.Kind, p)
		}
	}
	// Another event behind Mailgun's signature is a repeat.
	r, secret := sampleOf(Scheme{Kind: Mailgun}, now)
	changed := *r
	changed.Body = bytes.Replace(r.Body, []byte("delivered"), []byte("opened"), 1)
	a, err := Verify(Scheme{Kind: Mailgun}, []string{secret}, r, now)
	b, err2 := Verify(Scheme{Kind: Mailgun}, []string{secret}, &changed, now)
	if err != nil || err2 != nil || a.Key != b.Key || bytes.Equal(r.Body, changed.Body) {
		t.Errorf("%+v, %v; %+v, %v", a, err, b, err2)
	}
}

// Twilio's body of JSON is in the URL by its sum; of what is neither, nothing is signed.
func TestTwilio(t *testing.T) {
	s, k := Scheme{Kind: Twilio}, "12345"
	try := func(signed, sent string, body, other string) error {
		r := &Request{Method: "POST", URL: signed, Body: []byte(body)}
		_, r.Query, _ = strings.Cut(signed, "?")
		Sign(s, k, r, "", time.Now())
		r.URL, r.Body = sent, []byte(other)
		_, r.Query, _ = strings.Cut(sent, "?")
		_, err := Verify(s, []string{k}, r, time.Now())
		return err
	}
	const plain, json = "https://example.org/wh/x", `{"a":1}`
	sum := plain + "?bodySHA256=" + hex.EncodeToString(sha256Of(json))
	for _, c := range []struct {
		signed, sent, body, other string
		ok                        bool
	}{
		{plain, plain, "a=b&c=d", "c=d&a=b", true}, {plain, plain, "a=%2B", "a=%2b", true}, {plain, plain, "a=1&a=2", "a=2&a=1", true}, {plain, plain, "", "", true},
		{plain, plain, "a=b", "a=c", false}, {plain, plain, "a=b", "", false}, {plain, plain, "", "a=b", false}, {plain, plain, "a=b", "a=b&a=b", false},
		{plain, plain, "a=b", "a=b;c", false}, {sum, sum, json, json, true}, {sum, sum, json, `{"a":2}`, false}, {sum, sum, json, "", false},
		{sum, plain, json, json, false}, {sum, sum + "&bodySHA256=00", json, json, false},
		{sum + "&bodySHA256=00", sum + "&bodySHA256=00", json, json, false}, {"https://example.org:443/wh/x", plain, "a=b", "a=b", true},
		{plain, "https://example.org:8443/wh/x", "a=b", "a=b", true}, {plain, "https://example.org/wh/x?a=b", "a=b", "a=b", false},
		{plain, "https://example.com/wh/x", "a=b", "a=b", false},
	} {
		if err := try(c.signed, c.sent, c.body, c.other); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// A repeat is one however its client writes the host, and to verify a request leaves it as it is.
func TestTwilioRepeat(t *testing.T) {
	s, k := Scheme{Kind: Twilio}, []string{"12345"}
	r := &Request{Method: "POST", URL: "https://example.org/wh/x", Body: []byte("a=b")}
	Sign(s, k[0], r, "", time.Now())
	keys := map[string]bool{}
	for _, url := range []string{"https://example.org/wh/x", "https://example.org:443/wh/x"} {
		r.URL = url
		p, err := Verify(s, k, r, time.Now())
		if keys[p.Key] = true; err != nil || r.URL != url {
			t.Errorf("%s: %v, %s", url, err, r.URL)
		}
	}
	if len(keys) != 1 {
		t.Errorf("%d keys", len(keys))
	}
}

func sha256Of(s string) []byte {
	sum := Digests([]string{s})[0]
	return sum[:]
}

// A secret that is sent is the password of Basic, whoever the user is, or the token of Bearer.
func TestAuthorization(t *testing.T) {
	basic := func(pair string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)) }
	for value, ok := range map[string]bool{
		basic("user:s3cret"): true, basic(":s3cret"): true, "basic  " + basic("u:s3cret")[6:]: true, "Bearer s3cret": true, "BEARER s3cret": true,
		basic("s3cret"): false, basic("s3cret:"): false, basic("user:S3cret"): false, "Bearer": false, "Bearer ": false, "s3cret": false, "Basic s3cret": false,
		"Digest s3cret": false, basic("a:b:s3cret"): false, "Bearer s3cret ": false,
	} {
		for _, k := range []Kind{AzureDevOps, Alertmanager, Grafana, BitbucketServer} {
			r := &Request{Headers: Headers{{"authorization", value}}, Body: []byte("{}")}
			if _, err := Verify(Scheme{Kind: k}, []string{"s3cret", ""}, r, time.Now()); (err == nil) != ok {
				t.Errorf("%s, %q: %v", k, value, err)
			}
		}
	}
}

// What exactly each sender signs, and where it writes what, put together by hand.
func TestSignedBytes(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	const text, url, k = `{"a":[1,2]}`, "https://example.org/wh/x", "s3cret"
	hexed := func(h Hash, signed string) string { return hex.EncodeToString(h.sum([]byte(k), []byte(signed))) }
	based := func(h Hash, signed string) string {
		return base64.StdEncoding.EncodeToString(h.sum([]byte(k), []byte(signed)))
	}
	linear := `{"type":"Issue","webhookTimestamp":1800000000123}`
	mailgun := func(stamp string) string {
		return `{"signature":{"timestamp":"` + stamp + `","token":"tok","signature":"` + hexed(SHA256, "1800000000tok") + `"},"event-data":{}}`
	}
	for _, c := range []struct {
		scheme Scheme
		head   Headers
		body   string
		ok     bool
	}{
		{Scheme{Kind: Bitbucket}, Headers{{"X-Hub-Signature", "sha256=" + hexed(SHA256, text)}}, text, true},
		{Scheme{Kind: BitbucketServer}, Headers{{"X-Hub-Signature", "sha256=" + hexed(SHA256, text)}}, text, true},
		{Scheme{Kind: Bitbucket}, Headers{{"X-Hub-Signature", "sha1=" + hexed(SHA1, text)}}, text, false},
		{Scheme{Kind: Bitbucket}, Headers{{"X-Hub-Signature", "sha256=" + hexed(SHA256, text) + ",sha256=" + hexed(SHA256, "x")}}, text, false},
		{Scheme{Kind: Shopify}, Headers{{"X-Shopify-Hmac-Sha256", based(SHA256, text)}}, text, true},
		{Scheme{Kind: Sentry}, Headers{{"Sentry-Hook-Signature", hexed(SHA256, text)}}, text, true},
		{Scheme{Kind: Linear}, Headers{{"Linear-Signature", hexed(SHA256, linear)}}, linear, true},
		{Scheme{Kind: Linear}, Headers{{"Linear-Signature", hexed(SHA256, text)}}, text, false},
		{Scheme{Kind: Linear}, Headers{{"Linear-Signature", hexed(SHA256, `{"webhookTimestamp":1800000000}`)}}, `{"webhookTimestamp":1800000000}`, false},
		{Scheme{Kind: Jira}, Headers{{"X-Hub-Signature", "sha256=" + hexed(SHA256, text)}}, text, true},
		{Scheme{Kind: PagerDuty}, Headers{{"X-PagerDuty-Signature", "v1=" + hexed(SHA256, "x") + ",v1=" + hexed(SHA256, text)}}, text, true},
		{Scheme{Kind: PagerDuty}, Headers{{"X-PagerDuty-Signature", "v2=" + hexed(SHA256, text)}}, text, false},
		{Scheme{Kind: Zoom}, Headers{{"x-zm-request-timestamp", "1800000000"}, {"x-zm-signature", "v0=" + hexed(SHA256, "v0:1800000000:"+text)}}, text, true},
		{Scheme{Kind: Zoom}, Headers{{"x-zm-request-timestamp", "1800000001"}, {"x-zm-signature", "v0=" + hexed(SHA256, "v0:1800000000:"+text)}}, text, false},
		{Scheme{Kind: Mailgun}, nil, mailgun("1800000000"), true}, {Scheme{Kind: Mailgun}, nil, mailgun("1800000001"), false},
		{Scheme{Kind: Dropbox}, Headers{{"X-Dropbox-Signature", hexed(SHA256, text)}}, text, true},
		{Scheme{Kind: Meta}, Headers{{"X-Hub-Signature-256", "sha256=" + hexed(SHA256, text)}}, text, true},
		{Scheme{Kind: Meta}, Headers{{"X-Hub-Signature", "sha1=" + hexed(SHA1, text)}}, text, false},
		{Scheme{Kind: Trello}, Headers{{"X-Trello-Webhook", based(SHA1, text+url)}}, text, true},
		{Scheme{Kind: Trello}, Headers{{"X-Trello-Webhook", based(SHA1, text)}}, text, false},
		{Scheme{Kind: Twilio}, Headers{{"X-Twilio-Signature", based(SHA1, url+"A1B2")}}, "B=2&A=1", true},
		{Scheme{Kind: Grafana}, Headers{{"X-Grafana-Alerting-Signature", hexed(SHA256, text)}}, text, true},
		{Scheme{Kind: Grafana, Time: &Time{Place: header("X-Time")}}, Headers{{"X-Time", "1800000000"}, {"X-Grafana-Alerting-Signature", hexed(SHA256, "1800000000:"+text)}}, text, true},
		{Scheme{Kind: Grafana, Time: &Time{Place: header("X-Time")}}, Headers{{"X-Time", "1800000001"}, {"X-Grafana-Alerting-Signature", hexed(SHA256, "1800000000:"+text)}}, text, false},
	} {
		_, err := Verify(c.scheme, []string{k}, &Request{Method: "POST", URL: url, Headers: c.head, Body: []byte(c.body)}, now)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("%s %v: %v", c.scheme.Kind, c.head, err)
		}
	}
	// RFC 8032 has a key and no message that begins with a time: this signature is OpenSSL's.
	discord := Headers{{"X-Signature-Timestamp", "1800000000"}, {"X-Signature-Ed25519", "8cc73bc2d366cec98299af383f49fdaedfd137a151419861cda2eec781f51488b3e872ad6dca52085fc40a6ba128b061eb70e293b95ca85ea0c99b6f2f105c0f"}}
	const public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
	if _, err := Verify(Scheme{Kind: Discord}, []string{public}, &Request{Headers: discord, Body: []byte(text)}, now); err != nil {
		t.Error(err)
	}
	if _, err := Verify(Scheme{Kind: Discord}, []string{public}, &Request{Headers: discord, Body: []byte(text + " ")}, now); !errors.Is(err, ErrSignature) {
		t.Error(err)
	}
}

// Grafana's signature of a time and a body is not one of a body that begins with the time.
func TestGrafana(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	timed := Scheme{Kind: Grafana, Time: &Time{Place: header("X-Time")}}
	r := &Request{Body: []byte(`{"status":"firing"}`)}
	Sign(timed, "k", r, "", now)
	moved := &Request{Headers: r.Headers, Body: append([]byte("1800000000:"), r.Body...)}
	for _, one := range []*Request{moved, {Headers: r.Headers[1:], Body: moved.Body}} {
		if _, err := Verify(timed, []string{"k"}, one, now); !errors.Is(err, ErrSignature) {
			t.Error(err)
		}
	}
}

// FuzzSenders: whatever strangers send, nothing passes that was not signed, and nothing is read but by the rules.
func FuzzSenders(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	for i, s := range senderSchemes() {
		r, _ := sampleOf(s, now)
		f.Add(i, r.Headers[len(r.Headers)-1].Name, r.Headers[len(r.Headers)-1].Value, "hub.mode=subscribe&hub.challenge=1&challenge=x&bodySHA256=00", r.Body)
	}
	all := senderSchemes()
	f.Fuzz(func(t *testing.T, i int, name, value, query string, body []byte) {
		s := all[uint(i)%uint(len(all))]
		secret := "whsec_" + base64.StdEncoding.EncodeToString([]byte("of which the fuzzer cannot know, and which has 32 bytes or more"))
		r := &Request{Method: "POST", URL: "https://example.org/wh/x?" + url.PathEscape(query), Query: query, Headers: Headers{{name, value}}, Body: body}
		if _, err := Verify(s, []string{secret}, r, now); err == nil {
			t.Fatalf("%s %+v passes", s.Kind, r)
		}
		d, err := Read(s, r)
		if err != nil && !errors.Is(err, ErrBody) {
			t.Error(err)
		}
		d.Choose(Wanted{Refs: []string{"refs/heads/*"}}).Skip(Wanted{})
		Answer(s, []string{secret}, r, d, now)
		r.Method = "GET"
		if h, ok, _ := Greeting(s.Kind, secret, r); ok && h.Reply != nil && !plainWord(h.Reply.Body) {
			t.Errorf("%+v", h)
		}
	})
}

// What proves a request, and could be sent again with it, is known of every sender.
func TestProofs(t *testing.T) {
	for k, want := range map[Kind]string{
		Token: "", GitHub: "X-Hub-Signature-256", GitLab: "X-Gitlab-Token webhook-signature svix-signature", Trello: "X-Trello-Webhook", AzureDevOps: "Authorization",
		Mailgun: "", HMACSHA256: "X-Sum", HMAC: "X-Sum", "none": "",
	} {
		if got := strings.Join((Scheme{Kind: k, Header: "X-Sum"}).Proofs(), " "); got != want {
			t.Errorf("%s: %q", k, got)
		}
	}
}

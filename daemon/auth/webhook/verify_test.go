package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// What the senders publish to try a receiver with.
func TestPublishedVectors(t *testing.T) {
	slackBody := "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar" +
		"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands" +
		"%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
	for _, c := range []struct {
		name   string
		scheme Scheme
		secret string
		at     int64
		head   Headers
		body   string
	}{
		{
			// docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries, "Testing the webhook payload validation"
			"GitHub", Scheme{Kind: GitHub}, "It's a Secret to Everybody", 0,
			Headers{{"X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}}, "Hello, World!",
		},
		{
			// github.com/standard-webhooks/standard-webhooks, libraries/python/tests
			"Standard Webhooks", Scheme{Kind: Standard}, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 1614265330,
			Headers{
				{"webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"}, {"webhook-timestamp", "1614265330"},
				{"webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
			}, `{"test": 2432232314}`,
		},
		{
			// docs.slack.dev/authentication/verifying-requests-from-slack, "step-by-step walk-through"
			"Slack", Scheme{Kind: Slack}, "8f742231b10e8888abcd99yyyzzz85a5", 1531420618,
			Headers{
				{"X-Slack-Request-Timestamp", "1531420618"},
				{"X-Slack-Signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"},
			}, slackBody,
		},
		// RFC 4231, test cases 1, 2, 3, 4, 6 and 7; 5 is truncated, which nobody does.
		{"RFC 4231, 1", Scheme{Kind: HMACSHA256, Header: "X-Sum", Encoding: Hex}, strings.Repeat("\x0b", 20), 0, Headers{
			{"X-Sum", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		}, "Hi There"},
		{"RFC 4231, 2", Scheme{Kind: HMACSHA256, Header: "X-Sum", Encoding: Hex}, "Jefe", 0, Headers{
			{"x-sum", "5BDCC146BF60754E6A042426089575C75A003F089D2739839DEC58B964EC3843"},
		}, "what do ya want for nothing?"},
		{"RFC 4231, 3", Scheme{Kind: HMACSHA256, Header: "X-Sum", Encoding: Hex}, strings.Repeat("\xaa", 20), 0, Headers{
			{"X-Sum", "sha256=773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
		}, strings.Repeat("\xdd", 50)},
		{"RFC 4231, 4", Scheme{Kind: HMACSHA256, Header: "X-Sum", Encoding: Hex}, unhex("0102030405060708090a0b0c0d0e0f10111213141516171819"), 0, Headers{
			{"X-Sum", "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
		}, strings.Repeat("\xcd", 50)},
		{"RFC 4231, 6", Scheme{Kind: HMACSHA256, Header: "X-Sum", Encoding: Hex}, strings.Repeat("\xaa", 131), 0, Headers{
			{"X-Sum", "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
		}, "Test Using Larger Than Block-Size Key - Hash Key First"},
		{"RFC 4231, 7", Scheme{Kind: HMACSHA256, Header: "X-Sum", Encoding: Base64}, strings.Repeat("\xaa", 131), 0, Headers{
			{"X-Sum", base64.StdEncoding.EncodeToString([]byte(unhex("9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2")))},
		}, "This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm."},
		// RFC 2202, test case 2 of HMAC-SHA1, and RFC 4231, test case 2 of HMAC-SHA-512.
		{"RFC 2202, 2", Scheme{Kind: HMAC, Header: "X-Sum", Encoding: Hex, Hash: SHA1, Prefix: "sha1="}, "Jefe", 0, Headers{
			{"X-Sum", "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"},
		}, "what do ya want for nothing?"},
		{"RFC 2202, 2, the prefix is not said", Scheme{Kind: HMAC, Header: "X-Sum", Encoding: Hex, Hash: SHA1}, "Jefe", 0, Headers{
			{"X-Sum", "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"},
		}, "what do ya want for nothing?"},
		{"RFC 4231, 2, SHA-512", Scheme{Kind: HMAC, Header: "X-Sum", Encoding: Hex, Hash: SHA512}, "Jefe", 0, Headers{
			{"X-Sum", "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"},
		}, "what do ya want for nothing?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := time.Unix(c.at, 0)
			if _, err := Verify(c.scheme, []string{"another", c.secret}, &Request{Headers: c.head, Body: []byte(c.body)}, now); err != nil {
				t.Error(err)
			}
			for name, bad := range map[string]struct {
				secrets []string
				body    string
			}{
				"another body": {[]string{c.secret}, c.body + "x"}, "no body": {[]string{c.secret}, ""}, "another secret": {[]string{c.secret + "BBBB"}, c.body},
				"no secret": {nil, c.body}, "an empty secret": {[]string{""}, c.body},
			} {
				if _, err := Verify(c.scheme, bad.secrets, &Request{Headers: c.head, Body: []byte(bad.body)}, now); !errors.Is(err, ErrSignature) {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

// signed are the headers that Sign adds to a request with a body.
func signed(s Scheme, secret string, body []byte, id string, now time.Time) Headers {
	r := &Request{Body: body}
	Sign(s, secret, r, id, now)
	return r.Headers
}

func unhex(s string) string {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

const standardSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// schemes are all that verify a signature, with a secret.
func schemes() map[string]struct {
	Scheme
	secret string
} {
	return map[string]struct {
		Scheme
		secret string
	}{
		"github": {Scheme{Kind: GitHub}, "s3cret"}, "gitlab token": {Scheme{Kind: GitLab}, "s3cret"}, "gitlab signed": {Scheme{Kind: GitLab}, standardSecret},
		"gitea": {Scheme{Kind: Gitea}, "s3cret"}, "forgejo": {Scheme{Kind: Forgejo}, "s3cret"}, "standard": {Scheme{Kind: Standard}, standardSecret},
		"slack": {Scheme{Kind: Slack}, "s3cret"}, "stripe": {Scheme{Kind: Stripe}, "whsec_s3cret"},
		"hmac": {Scheme{Kind: HMAC, Header: "X-Sum", Encoding: Hex}, "s3cret"},
		"hmac, all": {Scheme{
			Kind: HMAC, Header: "X-Sum", Encoding: Hex, Hash: SHA512, Prefix: "v9=", Signed: "a {id}|{timestamp}|{body} b",
			Time: &Time{Place: header("X-Time"), Unit: SecondsOrMilliseconds}, ID: &Place{Header: []string{"X-ID"}},
		}, "s3cret"},
		"hmac, sha1": {Scheme{Kind: HMAC, Header: "X-Sum", Encoding: Hex, Hash: SHA1, Signed: "{timestamp}{body}", Time: &Time{Place: header("X-Time")}}, "s3cret"},
		"hex":        {Scheme{Kind: HMACSHA256, Header: "X-Sum", Encoding: Hex}, "s3cret"}, "base64": {Scheme{Kind: HMACSHA256, Header: "X-Sum", Encoding: Base64}, "s3cret"},
	}
}

// What Sign makes passes, and nothing that differs from it in anything does.
func TestVerify(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	body := []byte("{\"ref\":\"refs/heads/main\"}\x00\xff")
	for name, c := range schemes() {
		t.Run(name, func(t *testing.T) {
			h := signed(c.Scheme, c.secret, body, "msg_1", now)
			good, err := Verify(c.Scheme, []string{"x", c.secret, "y"}, &Request{Headers: h, Body: body}, now)
			if err != nil {
				t.Fatal(err)
			}
			refused := func(what string, h Headers, body []byte, now time.Time, secrets ...string) {
				t.Helper()
				if p, err := Verify(c.Scheme, secrets, &Request{Headers: h, Body: body}, now); !errors.Is(err, ErrSignature) || p != (Proof{}) {
					t.Errorf("%s: %+v, %v", what, p, err)
				} else if strings.Contains(err.Error(), c.secret) {
					t.Errorf("%s: the secret is in the error %v", what, err)
				}
			}
			if name != "gitlab token" {
				refused("another body", h, append(bytes.Clone(body), ' '), now, c.secret)
			}
			refused("another secret", h, body, now, "x", standardSecret[:len(standardSecret)-1]+"A")
			refused("no secrets", h, body, now)
			refused("an empty secret", signed(c.Scheme, "", body, "msg_1", now), body, now, "")
			refused("no headers", nil, body, now, c.secret)
			for i, one := range h {
				rest := append(append(Headers{}, h[:i]...), h[i+1:]...)
				refused("without "+one.Name, rest, body, now, c.secret)
				refused("twice "+one.Name, append(Headers{one}, h...), body, now, c.secret)
				refused("twice in other letters "+one.Name, append(Headers{{strings.ToUpper(one.Name), one.Value}}, h...), body, now, c.secret)
				for _, value := range []string{"", "x", one.Value[:len(one.Value)-2], strings.Replace(one.Value, "=", ":", 1) + "0", "sha256=", "v1,", "v0=", "t=,v1="} {
					changed := append(Headers{}, h...)
					changed[i].Value = value
					refused(one.Name+" is "+value, changed, body, now, c.secret)
				}
			}
			fresh := c.Scheme.Fresh() && name != "gitlab token"
			if good.Fresh != fresh || len(good.Key) != 64 {
				t.Errorf("%+v", good)
			}
			again := &Request{Headers: signed(c.Scheme, c.secret, body, "msg_1", now.Add(time.Second)), Body: body}
			later, err := Verify(c.Scheme, []string{c.secret}, again, now)
			byID := name == "standard" || name == "gitlab signed" || c.ID != nil
			if same := later.Key == good.Key; err != nil || same != (byID || !fresh) {
				t.Errorf("a second later: the same key is %v, %v", same, err)
			}
			other, err := Verify(c.Scheme, []string{c.secret}, &Request{Headers: signed(c.Scheme, c.secret, []byte("other"), "msg_2", now), Body: []byte("other")}, now)
			if err != nil || other.Key == good.Key {
				t.Errorf("another request has the same key, %v", err)
			}
			// The times are good to the second, both ways, and to no more.
			for off, ok := range map[time.Duration]bool{-Tolerance: true, Tolerance: true, -Tolerance - time.Second: false, Tolerance + time.Second: false} {
				p, err := Verify(c.Scheme, []string{c.secret}, &Request{Headers: h, Body: body}, now.Add(off))
				if want := ok || !fresh; (err == nil) != want {
					t.Errorf("%v away: %v", off, err)
				}
				if err == nil && !p.Until.IsZero() && p.Until.Before(now.Add(off)) {
					t.Errorf("%v away: it passes, and until is %v", off, p.Until)
				}
			}
		})
	}
}

// A time that is no plain number is none, however it was signed.
func TestStrangeTimes(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, stamp := range []string{"", "+1800000000", " 1800000000", "1800000000.0", "1.8e9", "0x6b49d200", "-1", "99999999999999999999", "١٨٠٠٠٠٠٠٠٠"} {
		head := Headers{{"X-Slack-Request-Timestamp", stamp}, {"X-Slack-Signature", "v0=" + hex.EncodeToString(SHA256.sum([]byte("k"), []byte("v0:"+stamp+":")))}}
		if _, err := Verify(Scheme{Kind: Slack}, []string{"k"}, &Request{Headers: head}, now); !errors.Is(err, ErrSignature) {
			t.Errorf("%q: %v", stamp, err)
		}
		head = Headers{{"Stripe-Signature", "t=" + stamp + ",v1=" + hex.EncodeToString(SHA256.sum([]byte("k"), []byte(stamp+".")))}}
		if _, err := Verify(Scheme{Kind: Stripe}, []string{"k"}, &Request{Headers: head}, now); !errors.Is(err, ErrSignature) {
			t.Errorf("%q: %v", stamp, err)
		}
	}
}

// While a secret is changed, a sender signs with both; one that is good is enough.
func TestSeveralSignatures(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	body := []byte("{}")
	h := signed(Scheme{Kind: Standard}, standardSecret, body, "m", now)
	h[2].Value = "v1a,AAAA v1,!! v1,AAAA " + h[2].Value + " v2,AAAA"
	if _, err := Verify(Scheme{Kind: Standard}, []string{standardSecret}, &Request{Headers: h, Body: body}, now); err != nil {
		t.Error(err)
	}
	h = signed(Scheme{Kind: Stripe}, "k", body, "", now)
	h[0].Value = strings.Replace(h[0].Value, ",", ",v1=00,v0=11, v1=zz,", 1)
	if _, err := Verify(Scheme{Kind: Stripe}, []string{"k"}, &Request{Headers: h, Body: body}, now); err != nil {
		t.Error(err)
	}
	h[0].Value += ",t=1"
	if _, err := Verify(Scheme{Kind: Stripe}, []string{"k"}, &Request{Headers: h, Body: body}, now); err == nil {
		t.Error("two times")
	}
	// Svix had the headers before they were a standard; a mixture is neither.
	h = signed(Scheme{Kind: Standard}, standardSecret, body, "m", now)
	for i := range h {
		h[i].Name = strings.Replace(h[i].Name, "webhook", "svix", 1)
	}
	if _, err := Verify(Scheme{Kind: Standard}, []string{standardSecret}, &Request{Headers: h, Body: body}, now); err != nil {
		t.Error(err)
	}
	h[0].Name = "webhook-id"
	if _, err := Verify(Scheme{Kind: Standard}, []string{standardSecret}, &Request{Headers: h, Body: body}, now); err == nil {
		t.Error("a mixture of headers passes")
	}
}

// Several signatures may be in one header, each with one of the prefixes that senders write.
func TestSignatureLists(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	body := []byte("{}")
	for name, c := range schemes() {
		h := signed(c.Scheme, c.secret, body, "m", now)
		last := &h[len(h)-1]
		if !c.Scheme.sender().Signature.Loose && c.Kind != Slack {
			continue // they have lists of their own
		}
		good := strings.TrimPrefix(strings.TrimPrefix(last.Value, "sha256="), "v0=")
		other := strings.Repeat("00", 32)
		formats := []string{"v0=%[2]s,v0=%[1]s", "v0=%[2]s v0=%[1]s", "v0=%[1]s, v0=%[2]s"}
		if c.Kind != Slack {
			formats = append(formats, "%[1]s", "v1=%[2]s,v1=%[1]s", "v1=%[1]s,v1=%[2]s", "sha256=%[2]s, sha256=%[1]s", "SHA256=%[1]s", "hmac-sha256=%[1]s", "sha1=ff,sha256=%[1]s", "%[2]s %[1]s", "v1,%[1]s")
		}
		for _, format := range formats {
			last.Value = fmt.Sprintf(format, good, other)
			if _, err := Verify(c.Scheme, []string{c.secret}, &Request{Headers: h, Body: body}, now); err != nil {
				t.Errorf("%s, %s: %v", name, last.Value, err)
			}
			last.Value = strings.ReplaceAll(last.Value, good, other)
			if _, err := Verify(c.Scheme, []string{c.secret}, &Request{Headers: h, Body: body}, now); !errors.Is(err, ErrSignature) {
				t.Errorf("%s, %s: %v", name, last.Value, err)
			}
		}
		for _, value := range []string{"v2=" + good, "sha1=" + good, good[:len(good)-2], good + "," + good[2:] + "x"} {
			last.Value = value
			if _, err := Verify(c.Scheme, []string{c.secret}, &Request{Headers: h, Body: body}, now); (err == nil) != (strings.HasPrefix(value, good+",") && c.Kind != Slack) {
				t.Errorf("%s, %s: %v", name, value, err)
			}
		}
	}
}

// Of what HMAC signs, nothing can be taken for another part of it.
func TestCheckSigned(t *testing.T) {
	for text, want := range map[string]string{
		"{body}": "", "{timestamp}.{body}": "", "{timestamp}{body}": "", "{id}.{timestamp}.{body}": "", "{url}{body}": "", "v0:{timestamp}:{body}": "",
		"{body}{timestamp}": "", "{body}1{url}": "", "{timestamp}": "leaves the body out", "": "leaves the body out", "body": "leaves the body out",
		"{id}{body}": "nothing stands between {id} and {body}", "{body}{id}": "nothing stands between", "{timestamp}1{body}": "only digits",
		"{body}{body}": "is there twice", "{time}{body}": "there is no {time}", "{body": "leaves the body out", "{body}{": "there is no {}", "{body}}": "a } has no {",
		"{timestamp}{id}.{body}": "", "{body}0{timestamp}": "only digits",
	} {
		err := CheckSigned(text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// What was signed once is not read in another way: with a digit of the time in the body, or a part of the body in the id.
func TestReframed(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	stamped := Scheme{Kind: HMAC, Header: "X-Sum", Encoding: Hex, Signed: "{timestamp}{body}", Time: &Time{Place: header("X-Time")}}
	named := Scheme{Kind: HMAC, Header: "X-Sum", Encoding: Hex, Signed: "{id}.{body}", ID: &Place{Header: []string{"X-ID"}}}
	behind := Scheme{Kind: HMAC, Header: "X-Sum", Encoding: Hex, Signed: "{body}{timestamp}", Time: &Time{Place: header("X-Time")}}
	for _, c := range []struct {
		scheme           Scheme
		name, value      string
		body, otherValue string
		otherBody        string
	}{
		{stamped, "X-Time", "1800000000", "1{}", "18000000001", "{}"}, {stamped, "X-Time", "1800000000", "{}", "180000000", "0{}"},
		{stamped, "X-Time", "1800000000", "000{}", "1800000000000", "{}"},
		{named, "X-ID", "msg", "a.b", "msg.a", "b"}, {behind, "X-Time", "1800000000", "{}0", "01800000000", "{}"},
	} {
		r := &Request{Headers: signed(c.scheme, "k", []byte(c.body), c.value, now), Body: []byte(c.body)}
		if _, err := Verify(c.scheme, []string{"k"}, r, now); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
		for i := range r.Headers {
			if r.Headers[i].Name == c.name {
				r.Headers[i].Value = c.otherValue
			}
		}
		r.Body = []byte(c.otherBody)
		if _, err := Verify(c.scheme, []string{"k"}, r, now); !errors.Is(err, ErrSignature) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// What is signed with its URL is good at that URL only.
func TestSignedURL(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := Scheme{Kind: HMAC, Header: "X-Sum", Encoding: Hex, Signed: "{body}{url}"}
	r := &Request{URL: "https://example.org/wh/x?a=b", Body: []byte("{}")}
	Sign(s, "k", r, "", now)
	if _, err := Verify(s, []string{"k"}, r, now); err != nil {
		t.Error(err)
	}
	for _, u := range []string{"", "https://example.org/wh/x", "https://example.org/wh/x?a=c", "http://example.org/wh/x?a=b", "https://example.net/wh/x?a=b"} {
		if _, err := Verify(s, []string{"k"}, &Request{URL: u, Headers: r.Headers, Body: r.Body}, now); !errors.Is(err, ErrSignature) {
			t.Errorf("%q: %v", u, err)
		}
	}
	// A URL of any bytes would take parts of the body.
	r = &Request{URL: `https://example.org/wh/x?{"a":1}`, Body: []byte("{}")}
	Sign(s, "k", r, "", now)
	if _, err := Verify(s, []string{"k"}, r, now); !errors.Is(err, ErrSignature) {
		t.Error(err)
	}
}

// Who captured a request moves nothing between the query of its URL and what is signed behind the URL.
func TestURLBlends(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	const at = "https://example.org/wh/x"
	for _, c := range []struct {
		signed, query, id, body string
		ok                      bool
	}{
		{"{url}{body}", "?k=v", "", `{"a":1}`, true}, {"{url}{body}", "?k=v", "", "", true}, {"{url}{body}", "", "", "a=1&b=2", true}, {"{body}{url}", "?k=v", "", "a=1", true},
		{"{url}{body}", "?k=v", "", "a=1&b=2", false}, {"{url}{body}", "?k=va=1", "", "&b=2", false}, {"{url}{body}", "", "", "?k=va=1&b=2", false},
		{"{url}{body}", "", "", `?k=v{"a":1}`, false}, {"{url}\n{body}", "?k=v", "", "a=1", true}, {"{url}{timestamp}{body}", "?k=v", "", "a=1800000001&b", false},
		{"{url}.{id}.{body}", "?k=v", "m1", `{"a":1.5}`, false}, {"{url}.{id}.{body}", "?k=v.m1", `{"a":1`, "5}", false}, {"{url}.{id}.{body}", "", "m1", `{"a":1.5}`, true},
	} {
		s := Scheme{Kind: HMAC, Header: "X-Sum", Encoding: Hex, Signed: c.signed}
		if strings.Contains(c.signed, "{id}") {
			s.ID = &Place{Header: []string{"X-ID"}}
		}
		if strings.Contains(c.signed, "{timestamp}") {
			s.Time = &Time{Place: header("X-Time")}
		}
		r := &Request{URL: at + c.query, Body: []byte(c.body)}
		Sign(s, "k", r, c.id, now)
		if _, err := Verify(s, []string{"k"}, r, now); (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "part of the URL's query") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// A time in the body is signed with it.
func TestTimeInBody(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := Scheme{Kind: HMAC, Header: "X-Sum", Encoding: Hex, Time: &Time{Place: body("meta", "at"), Unit: SecondsOrMilliseconds}}
	for text, ok := range map[string]bool{
		`{"meta":{"at":1800000000123}}`: true, `{"meta":{"at":"1800000299"}}`: true, `{"meta":{"at":1800000301}}`: false, `{"meta":{"at":1799999000000}}`: false,
		`{"meta":{"at":1800000000,"at":1800000000}}`: false, `{"meta":{}}`: false, `{"at":1800000000}`: false, "": false, `{"meta":{"at":1.8e9}}`: false,
		`{"meta":{"at":null}}`: false,
	} {
		r := &Request{Headers: Headers{{"X-Sum", hex.EncodeToString(SHA256.sum([]byte("k"), []byte(text)))}}, Body: []byte(text)}
		p, err := Verify(s, []string{"k"}, r, now)
		if (err == nil) != ok || err == nil && !p.Fresh || err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %+v, %v", text, p, err)
		}
	}
}

// GitLab with a signing token is held to the signature, also where its old token comes along.
func TestGitLab(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	body := []byte("{}")
	token := signed(Scheme{Kind: GitLab}, "token", body, "", now)
	signature := signed(Scheme{Kind: GitLab}, standardSecret, body, "m", now)
	both := append(append(Headers{}, token...), signature...)
	for _, c := range []struct {
		secrets []string
		head    Headers
		ok      bool
	}{
		{[]string{"token"}, token, true}, {[]string{"token"}, both, true}, {[]string{"token"}, signature, false},
		{[]string{standardSecret}, token, false}, {[]string{standardSecret}, both, true}, {[]string{standardSecret}, signature, true},
		{[]string{standardSecret, "token"}, token, true}, {[]string{standardSecret, "token"}, signature, true}, {[]string{standardSecret, "other"}, both, true},
		{[]string{standardSecret, "other"}, token, false},
		{[]string{standardSecret}, Headers{{"X-Gitlab-Token", standardSecret}}, false}, // it is no token
	} {
		if _, err := Verify(Scheme{Kind: GitLab}, c.secrets, &Request{Headers: c.head, Body: body}, now); (err == nil) != c.ok {
			t.Errorf("%q, %v: %v", c.secrets, c.head, err)
		}
	}
}

// A public key is one, and no text that would verify nothing.
func TestPublicKey(t *testing.T) {
	const key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
	for secret, ok := range map[string]bool{
		key: true, strings.ToUpper(key): true, key[2:]: false, strings.Repeat("xx", 32): false, "": false,
		// Points of the orders 4, 1, 2 and 8, under which a signature that is none verifies some messages.
		strings.Repeat("00", 32): false, "01" + strings.Repeat("00", 31): false, "ec" + strings.Repeat("ff", 30) + "7f": false,
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05": false,
	} {
		if err := CheckSecret(Discord, secret); (err == nil) != ok {
			t.Errorf("%s: %v", secret, err)
		}
	}
	now := time.Unix(1_800_000_000, 0)
	r := &Request{Headers: Headers{{"X-Signature-Timestamp", "1800000000"}, {"X-Signature-Ed25519", strings.Repeat("00", 64)}}}
	for _, secret := range []string{"", "0a", key[2:], key + "x"} {
		if _, err := Verify(Scheme{Kind: Discord}, []string{secret}, r, now); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", secret, err)
		}
	}
}

func TestCheckSecret(t *testing.T) {
	for _, k := range Kinds() {
		if err := CheckSecret(k, ""); !errors.Is(err, ErrSecret) {
			t.Errorf("%s, empty: %v", k, err)
		}
		if err := CheckSecret(k, standardSecret); (err != nil) != (k == Discord) {
			t.Errorf("%s: %v", k, err)
		}
	}
	for _, bad := range []string{"whsec_", "whsec_!", "whsec_====", "not base64"} {
		for _, k := range []Kind{Standard, GitLab} {
			if err := CheckSecret(k, bad); !errors.Is(err, ErrSecret) && (k == Standard || strings.HasPrefix(bad, "whsec_")) {
				t.Errorf("%s, %q: %v", k, bad, err)
			} else if err != nil && strings.Contains(err.Error(), "not base64") {
				t.Errorf("the secret is in %v", err)
			}
		}
	}
}

// Whatever strangers send, nothing but what was signed passes.
func FuzzVerify(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	for _, c := range schemes() {
		h := signed(c.Scheme, c.secret, []byte("body"), "id", now)
		f.Add(string(c.Kind), h[0].Name, h[0].Value, h[len(h)-1].Name, h[len(h)-1].Value, []byte("body"))
	}
	f.Fuzz(func(t *testing.T, kind, name1, value1, name2, value2 string, body []byte) {
		s := Scheme{Kind: Kind(kind), Header: "X-Sum", Encoding: Hex}
		const secret = "of which the fuzzer cannot know, and which has 32 bytes or more"
		h := Headers{{name1, value1}, {name2, value2}}
		if _, err := Verify(s, []string{secret, "whsec_" + base64.StdEncoding.EncodeToString([]byte(secret))}, &Request{Headers: h, Body: body}, now); err == nil && kind != "token" {
			t.Fatalf("%s %v passes", kind, h)
		}
		Read(s, &Request{Headers: h, Body: body})
	})
}

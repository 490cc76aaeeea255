package webhook

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Hello is a request that only asks whether somebody is there, and nothing of which is signed. Reply is nil for one that any answer
// is good for, and Reason says what it is.
type Hello struct {
	Reason string
	Reply  *Reply
}

// AsksByGet reports whether requests of a kind may come by GET, none of which is an event.
func (k Kind) AsksByGet() bool {
	row := rowOf(k)
	return row != nil && row.Challenge.Query != ""
}

// Greeting returns what a request asks that is not signed, false for one that has to pass Verify. Nothing may come of it but its
// answer. The token is what Challenge.Token has to be; "": it is good for nothing. An error is around ErrSignature.
func Greeting(k Kind, token string, r *Request) (Hello, bool, error) {
	row := rowOf(k)
	switch {
	case row == nil:
		return Hello{}, false, nil
	case k == Slack && SlackCheck(r.Body):
		return Hello{Reason: "it is Slack's check of the certificate"}, true, nil
	case row.OpenPing != "" && r.Headers.get(row.Event[0].Header...) == row.OpenPing && !r.Headers.has(row.Signature.Place.Header...) && !r.Headers.has(row.Secret):
		return Hello{Reason: "it is a ping"}, true, nil
	case r.Method == "GET" && row.Challenge.Query != "":
		return row.Challenge.answer(token, r)
	}
	return Hello{}, false, nil
}

// answer repeats what a sender asks to be repeated. That is a few plain characters, so nobody can make a page of it.
func (c Challenge) answer(token string, r *Request) (Hello, bool, error) {
	query, err := url.ParseQuery(r.Query)
	if err != nil {
		return Hello{}, false, refusal("the URL's query cannot be read")
	}
	for _, name := range []string{c.Query, c.Mode, c.Token} {
		if name != "" && len(query[name]) != 1 {
			return Hello{}, false, refusal("a GET has to have %s once", name)
		}
	}
	text := query.Get(c.Query)
	switch {
	case c.Mode != "" && query.Get(c.Mode) != c.ModeIs:
		return Hello{}, false, refusal("%s is not %s", c.Mode, c.ModeIs)
	case c.Token != "" && token == "":
		return Hello{}, false, refusal("the webhook has no %s", strings.TrimPrefix(c.Token, "hub."))
	case c.Token != "" && !IsToken(query.Get(c.Token), Digests([]string{token})):
		return Hello{}, false, refusal("%s is not the one of this webhook", c.Token)
	case !plainWord(text):
		return Hello{}, false, refusal("%s is not a word of letters, digits and ._~+/=-", c.Query)
	}
	return Hello{Reason: "it is a challenge", Reply: &Reply{Status: 200, ContentType: "text/plain; charset=utf-8", Body: text}}, true, nil
}

// plainWord reports whether a text is one that senders let repeat.
func plainWord(s string) bool {
	const longest = 256
	return s != "" && len(s) <= longest && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._~+/=-") == ""
}

// Answer returns what a ping that has passed Verify is answered with, nil: anything. Zoom wants the HMAC of a text. No text that is
// answered is one that Zoom signs, which has colons, so nobody gets a signature in this way.
func Answer(s Scheme, secrets []string, r *Request, d Delivery, now time.Time) *Reply {
	if s.Kind != Zoom || d.Event != zoomValidation {
		return d.Reply
	}
	token, err := bodyObject(r.Body).at("payload", "plainToken")
	text := token.text()
	if err != nil || !plainWord(text) {
		return d.Reply
	}
	i := slices.IndexFunc(secrets, func(one string) bool {
		_, err := Verify(s, []string{one}, r, now)
		return err == nil
	})
	if i < 0 {
		return d.Reply
	}
	sum := rowOf(Zoom).Signature.Hash.sum([]byte(secrets[i]), []byte(text))
	b, err := json.Marshal(map[string]string{"plainToken": text, "encryptedToken": (&Signature{Encoding: Hex}).encode(sum)})
	if err != nil {
		panic(err) // it is plain data
	}
	return jsonReply(string(b))
}

package webhook

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// signedRequest is a request while its signature is checked.
type signedRequest struct {
	*Request
	sender *Sender
	// variant is which names of headers the sender has used, where it has several sets.
	variant int
	// where is where the signatures stood, for errors.
	where      string
	signatures [][]byte
	// stamp and id are as they came, in places that Signature.Signed names.
	stamp, id string
	// json is the body, once something was looked for in it.
	json object
	// form is what a form says, as Twilio signs it.
	form string
}

// variant returns which of several names the headers have that belong together: the first of which any is there.
func (s *Sender) variant(h Headers) int {
	for i := range s.Signature.Place.Header {
		names := []string{nth(s.Signature.Place.Header, i)}
		if len(s.Time.Header) > 1 {
			names = append(names, nth(s.Time.Header, i))
		}
		if s.signs("{id}") && len(s.ID[0].Header) > 1 {
			names = append(names, nth(s.ID[0].Header, i))
		}
		if h.has(names...) {
			return i
		}
	}
	return 0
}

// nth is the name of a variant, the last where there are fewer.
func nth(names []string, i int) string { return names[min(i, len(names)-1)] }

// signs reports whether a part of the request is signed: "{body}".
func (s *Sender) signs(part string) bool {
	return s.Signature != nil && strings.Contains(s.Signature.Signed, part)
}

// read takes the signature, the time and the id out of a request. Each is there exactly once.
func (v *signedRequest) read() (err error) {
	s := v.sender
	if s.signs("{id}") {
		if v.id, err = v.one(s.ID[0]); err != nil {
			return err
		}
		if v.id == "" {
			return refusal("%s is empty", v.named(s.ID[0]))
		}
		if s.mixes(v.id) {
			return refusal("%s has in it what stands behind it where it is signed", v.named(s.ID[0]))
		}
	}
	if !s.Time.IsZero() {
		if v.stamp, err = v.one(s.Time.Place); err != nil {
			return err
		}
	}
	if s.signs("{url}") && !plainURL(v.URL) {
		return refusal("its URL has characters in it that no URL has")
	}
	if s.signs("{url}") && v.blends() {
		return refusal("what is signed behind its URL could be a part of the URL's query")
	}
	if s.signs("{form}") {
		if v.form, err = signedForm(v.Request); err != nil {
			return err
		}
	}
	text, err := v.one(s.Signature.Place)
	if err != nil {
		return err
	}
	v.where = v.named(s.Signature.Place)
	if v.signatures = s.Signature.list(text); len(v.signatures) == 0 {
		return refusal("%s is not %s", v.where, s.Signature.Form())
	}
	return nil
}

// plainURL reports whether a URL is http or https and has no character that RFC 3986 allows nowhere, so that its end is not a part
// of what stands behind it where it is signed.
func plainURL(u string) bool {
	return (strings.HasPrefix(u, "https://") || strings.HasPrefix(u, "http://")) && strings.Trim(u, urlCharacters) == ""
}

const urlCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/?[]@!$&'()*+,;=%"

// blends reports whether the URL's query could be longer or shorter, with what is signed behind the URL shorter or longer. The URL
// before the query is where the request came to.
func (v *signedRequest) blends() bool {
	if v.sender.Kind != HMAC { // others are what they are
		return false
	}
	_, behind, _ := strings.Cut(v.sender.Signature.Signed, "{url}")
	for _, part := range v.parts(behind) {
		if len(part) > 0 {
			return part[0] == '?' || strings.Contains(v.URL, "?") && strings.IndexByte(urlCharacters, part[0]) >= 0
		}
	}
	return false
}

// named is what a place is called in errors.
func (v *signedRequest) named(p Place) string {
	if len(p.Body) > 0 {
		return p.String()
	}
	return "the header " + nth(p.Header, v.variant)
}

// mixes reports whether an id could be read with more or less of what stands beside it: it has characters of the text between them.
func (s *Sender) mixes(id string) bool {
	if s.Kind != HMAC { // others are what they are
		return false
	}
	before, behind, _ := strings.Cut(s.Signature.Signed, "{id}")
	text := ""
	if i := strings.LastIndexByte(before, '}'); i >= 0 {
		text = before[i+1:]
	}
	if i := strings.IndexByte(behind, '{'); i >= 0 {
		text += behind[:i]
	}
	return strings.ContainsAny(id, text)
}

// one returns what stands at a place once.
func (v *signedRequest) one(p Place) (string, error) {
	if len(p.Body) > 0 {
		if v.json == nil {
			v.json = bodyObject(v.Body)
		}
		found, err := v.json.at(p.Body...)
		if err != nil {
			return "", refusal("%v", err)
		}
		if found.scalar() == "" {
			return "", refusal("there is no %s", p)
		}
		return found.scalar(), nil
	}
	name := nth(p.Header, v.variant)
	text, err := only(v.Headers, name)
	if err != nil || p.Field == "" {
		return text, err
	}
	found := ""
	for part := range strings.SplitSeq(text, ",") {
		field, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if field != p.Field {
			continue
		}
		if found != "" {
			return "", refusal("the header %s has %s= twice", name, p.Field)
		}
		found = value
	}
	if found == "" {
		return "", refusal("the header %s has no %s=", name, p.Field)
	}
	return found, nil
}

// signed are the bytes that are signed.
func (v *signedRequest) signed() [][]byte { return v.parts(v.sender.Signature.Signed) }

// parts are the bytes that a text stands for that says what is signed.
func (v *signedRequest) parts(text string) [][]byte {
	var parts [][]byte
	for text != "" {
		before, rest, found := strings.Cut(text, "{")
		if before != "" {
			parts = append(parts, []byte(before))
		}
		if !found {
			break
		}
		name, after, _ := strings.Cut(rest, "}")
		text = after
		switch name {
		case "body":
			parts = append(parts, v.Body)
		case "timestamp":
			parts = append(parts, []byte(v.stamp))
		case "id":
			parts = append(parts, []byte(v.id))
		case "url":
			parts = append(parts, []byte(v.URL))
		case "form":
			parts = append(parts, []byte(v.form))
		}
	}
	return parts
}

// CheckSigned returns what is wrong with a text that says what is signed, for HMAC: one that leaves out the body, or in which two
// parts of a request could be taken for each other.
func CheckSigned(text string) error {
	if !strings.Contains(text, "{body}") {
		return errors.New("it leaves the body out, so anybody could change it: {body} must be in it")
	}
	before := "" // the part that ends just before
	for rest := text; rest != ""; {
		literal, found, more := strings.Cut(rest, "{")
		if strings.Contains(literal, "}") {
			return errors.New("a } has no { before it")
		}
		if !more {
			break
		}
		name, after, closed := strings.Cut(found, "}")
		switch {
		case !closed || !slices.Contains([]string{"body", "timestamp", "id", "url"}, name):
			return fmt.Errorf("there is no {%s}: the parts are {body}, {timestamp}, {id} and {url}", name)
		case strings.Count(text, "{"+name+"}") > 1:
			return fmt.Errorf("{%s} is there twice", name)
		case literal == "" && before != "" && before != "timestamp" && name != "timestamp" && name != "url" && before != "url":
			return fmt.Errorf("nothing stands between {%s} and {%s}, so the end of one could be taken for the other's", before, name)
		case before != "" && literal != "" && strings.Trim(literal, "0123456789") == "" && (before == "timestamp" || name == "timestamp"):
			return fmt.Errorf("only digits stand between {%s} and {%s}, so they could be taken for the time's", before, name)
		}
		before, rest = name, after
	}
	return nil
}

// keys are what secrets stand for. A configuration with one that is none is an error.
func (s *Signature) keys(secrets []string) [][]byte {
	var all [][]byte
	for _, secret := range secrets {
		k := []byte(secret)
		var err error
		switch {
		case s.KeyPrefix != "":
			k, err = prefixedKey(s.KeyPrefix, secret)
		case s.Ed25519:
			k, err = hex.DecodeString(secret)
		}
		if err == nil && len(k) > 0 {
			all = append(all, k)
		}
	}
	return all
}

// list reads all signatures of a text: while a secret is changed, a sender signs with the old and the new one.
func (s *Signature) list(text string) [][]byte {
	var all [][]byte
	if s.Separators == "" {
		text, ok := s.unprefixed(text)
		if got, err := decode(s.Encoding, text); ok && err == nil && len(got) > 0 {
			all = append(all, got)
		}
		return all
	}
	for one := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(s.Separators, r) }) {
		one, ok := s.unprefixed(one)
		if !ok {
			continue
		}
		if got, err := decode(s.Encoding, one); err == nil && len(got) > 0 {
			all = append(all, got)
		}
	}
	return all
}

// unprefixed takes the prefix off one signature, and reports whether it may be one. Where there is none, it may be the name of the
// hash.
func (s *Signature) unprefixed(text string) (string, bool) {
	if hash := string(s.Hash) + "="; s.Prefix == "" && s.Hash != "" && len(text) >= len(hash) && strings.EqualFold(text[:len(hash)], hash) {
		return text[len(hash):], true
	}
	if !s.Loose {
		return strings.CutPrefix(text, s.Prefix)
	}
	for _, p := range []string{"sha256=", "sha-256=", "hmac-sha256=", "v1=", "v0="} {
		if len(text) >= len(p) && strings.EqualFold(text[:len(p)], p) {
			return text[len(p):], true
		}
	}
	return text, true
}

// decode reads a signature. Base64 may be that of RFC 4648's section 4 or 5, padded or not.
func decode(e Encoding, text string) ([]byte, error) {
	if e != Base64 {
		return hex.DecodeString(text)
	}
	return base64.RawStdEncoding.DecodeString(strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "=")))
}

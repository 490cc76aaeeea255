package webhook

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// signedForm is what Twilio signs of a body behind the URL: of a form, each field's name and value, in the order of names. The body
// of anything else has its SHA-256 in the URL, as bodySHA256, and is not signed itself.
func signedForm(r *Request) (string, error) {
	query, err := url.ParseQuery(r.Query)
	if err != nil {
		return "", refusal("the URL's query cannot be read")
	}
	if sums, ok := query["bodySHA256"]; ok {
		want, err := hex.DecodeString(sums[0])
		got := sha256.Sum256(r.Body)
		if len(sums) != 1 || err != nil || subtle.ConstantTimeCompare(want, got[:]) != 1 {
			return "", refusal("bodySHA256 in the URL is not that of this body")
		}
		return "", nil
	}
	form, err := url.ParseQuery(string(r.Body))
	if err != nil {
		return "", refusal("the body is no form, and there is no bodySHA256 in the URL")
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(form)) {
		values := form[name]
		slices.Sort(values)
		for _, value := range values {
			b.WriteString(name + value)
		}
	}
	return b.String(), nil
}

// urls are the URLs that a sender may have signed. Twilio signs them with and without the port.
func (v *signedRequest) urls() []string {
	u, err := url.Parse(v.URL)
	if err != nil || !v.sender.signs("{form}") {
		return []string{v.URL}
	}
	host, port := u.Hostname(), u.Port()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	begin, rest := u.Scheme+"://", strings.TrimPrefix(v.URL, u.Scheme+"://"+u.Host)
	return []string{begin + host + rest, begin + host + ":" + port + rest}
}

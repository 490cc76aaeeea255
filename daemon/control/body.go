package control

import (
	"bytes"
	"errors"
	"mime"
	"mime/multipart"
	"net/url"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/config"
)

const (
	// longestExample is how many bytes of query an error quotes.
	longestExample = 200
	// formFields is how many fields of a form are looked at. A task has fewer parameters.
	formFields = 1000
)

// encoded returns an error for a body with a content coding (RFC 9110, section 8.4): a job reads the bytes that were sent, and
// the sender of a webhook signs these. values are those of Content-Encoding.
func encoded(values []string) error {
	for coding := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
			return fail(connect.CodeInvalidArgument, rtaskv1.KindUnsupportedMediaType, errors.New("a body with a Content-Encoding is not accepted: send it without compression"))
		}
	}
	return nil
}

// valuesOf returns what a request's head says under a name.
func valuesOf(headers []*rtaskv1.Header, name string) []string {
	var values []string
	for _, h := range headers {
		if strings.EqualFold(h.GetName(), name) {
			values = append(values, string(h.GetValue()))
		}
	}
	return values
}

// misplaced returns an error for a body that is a form with fields which are parameters of the task, unless the query has these:
// `curl -d env=prod` means the parameter, and the job would run with the default.
func misplaced(t *config.Task, r *rtaskv1.RunRequest) error {
	if len(t.Params) == 0 {
		return nil
	}
	query, err := url.ParseQuery(string(r.Query))
	if err != nil {
		return nil // which is an error of its own
	}
	fields := url.Values{}
	for name, values := range form(r) {
		isParam := slices.ContainsFunc(t.Params, func(p *config.Param) bool { return p.Name == name })
		if isParam && !query.Has(name) {
			fields[name] = values[:1]
		}
	}
	if len(fields) == 0 {
		return nil
	}
	example := "?" + fields.Encode()
	if len(example) > longestExample {
		example = "?NAME=VALUE"
	}
	return badRequest("the body is a form with parameters of the task, which belong in the query: %s; to send this body as input, give it another Content-Type", example)
}

// errMisplaced is misplaced for the log. It leaves the values out: they may be secrets.
var errMisplaced = errors.New("the body is a form with parameters of the task, which belong in the query")

// form returns the fields of a body that is a form, as curl -d and curl -F send it; nil if it is none. A field without a value is
// more likely to be text, and so is a body with line ends in it.
func form(r *rtaskv1.RunRequest) url.Values {
	kind, params, err := mime.ParseMediaType(strings.Join(valuesOf(r.Headers, "Content-Type"), ", "))
	if err != nil {
		return nil
	}
	fields := url.Values{}
	switch kind {
	case "application/x-www-form-urlencoded":
		if bytes.ContainsAny(r.Input, "\r\n\x00") {
			return nil
		}
		seen := 0
		for field := range strings.SplitSeq(string(r.Input), "&") {
			if seen++; seen > formFields {
				break
			}
			name, value, ok := strings.Cut(field, "=")
			name, nameErr := url.QueryUnescape(name)
			value, valueErr := url.QueryUnescape(value)
			if !ok || nameErr != nil || valueErr != nil {
				continue
			}
			fields.Add(name, value)
		}
	case "multipart/form-data":
		parts := multipart.NewReader(bytes.NewReader(r.Input), params["boundary"])
		for range formFields {
			part, err := parts.NextPart()
			if err != nil {
				break
			}
			if part.FileName() == "" {
				value := make([]byte, longestExample)
				n, _ := part.Read(value)
				fields.Add(part.FormName(), string(value[:n]))
			}
		}
	}
	return fields
}

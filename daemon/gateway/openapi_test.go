package gateway

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

type object = map[string]any

// document is openapi.json, and what was looked up in it.
type document struct {
	root object
	seen map[string]bool
}

// at follows names, and references on the way.
func (d *document) at(v any, names ...string) any {
	for {
		m, _ := v.(object)
		if ref, ok := m["$ref"].(string); ok {
			v = d.at(d.root, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
			continue
		}
		if len(names) == 0 {
			return v
		}
		v, names = m[names[0]], names[1:]
	}
}

// holds returns why v is not what a schema says; of schemas it knows what openapi.json uses.
func (d *document) holds(v, schema any) error {
	s, ok := d.at(schema).(object)
	if !ok {
		return fmt.Errorf("there is no schema")
	}
	if any, ok := s["oneOf"].([]any); ok {
		var fits int
		for _, one := range any {
			if d.holds(v, one) == nil {
				fits++
			}
		}
		if fits != 1 {
			return fmt.Errorf("%v fits %d of oneOf", v, fits)
		}
		return nil
	}
	kind := ""
	switch v := v.(type) {
	case object:
		kind = "object"
		properties, _ := s["properties"].(object)
		for name, value := range v {
			if properties[name] == nil {
				if s["additionalProperties"] == false {
					return fmt.Errorf("%s is not in the schema", name)
				}
				continue
			}
			if err := d.holds(value, properties[name]); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		required, _ := s["required"].([]any)
		for _, name := range required {
			if _, ok := v[name.(string)]; !ok {
				return fmt.Errorf("%s is missing", name)
			}
		}
	case string:
		kind = "string"
		if p, ok := s["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(v) {
			return fmt.Errorf("%q does not match %s", v, p)
		}
		if s["format"] == "date-time" {
			if _, err := time.Parse(time.RFC3339, v); err != nil || !strings.HasSuffix(v, "Z") {
				return fmt.Errorf("%q is no time in UTC", v)
			}
		}
	case float64:
		if kind = "number"; v == float64(int64(v)) && s["type"] != "number" {
			kind = "integer"
		}
	case bool:
		kind = "boolean"
	case []any:
		kind = "array"
		for i, item := range v {
			if err := d.holds(item, s["items"]); err != nil {
				return fmt.Errorf("%d: %w", i, err)
			}
		}
	}
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, v) {
		return fmt.Errorf("%v is not one of %v", v, enum)
	}
	if s["type"] != kind {
		return fmt.Errorf("%v is no %v", v, s["type"])
	}
	return nil
}

// check holds a reply against what the document says of it.
func (d *document) check(t *testing.T, method, template string, r reply) {
	t.Helper()
	where := fmt.Sprintf("%s %s: %d", method, template, r.status)
	var response object
	ok := false
	for _, status := range []string{strconv.Itoa(r.status), strconv.Itoa(r.status/100) + "XX", "default"} {
		if response, ok = d.at(d.root, "paths", template, strings.ToLower(method), "responses", status).(object); ok {
			d.seen[method+" "+template+" "+status] = true
			break
		}
	}
	if !ok {
		t.Errorf("%s is not documented: %s", where, r.body)
		return
	}
	kind, _, _ := strings.Cut(r.header.Get("Content-Type"), ";")
	content, ok := d.at(response, "content", kind).(object)
	if _, any := d.at(response, "content", "*/*").(object); !ok && any {
		ok = true
	}
	if empty := response["content"] == nil && r.body == ""; !ok && !empty {
		t.Errorf("%s: %s is not documented", where, kind)
		return
	}
	headers, _ := response["headers"].(object)
	for name := range headers {
		if r.header.Get(name) == "" && name != "Trailer" && !(name == "Retry-After" && r.json["kind"] != "rate-limited") {
			t.Errorf("%s has no %s", where, name)
		}
	}
	if strings.HasPrefix(kind, "text/") || content == nil {
		return
	}
	if err := d.holds(r.json, content["schema"]); err != nil {
		t.Errorf("%s: %v in %s", where, err, r.body)
	}
}

// broken sends a request whose body cannot be read.
func (f *fixture) broken(path string) reply {
	f.t.Helper()
	got := f.raw("POST " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(got)), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close()
	r := reply{status: res.StatusCode, header: res.Header}
	if err := json.NewDecoder(res.Body).Decode(&r.json); err != nil {
		f.t.Fatal(err)
	}
	return r
}

// Each reply that there is, is as openapi.json says; each that openapi.json has, there is.
func TestOpenAPI(t *testing.T) {
	f := newFixture(t)
	got := f.do("GET", "/openapi.json", nil)
	d := &document{seen: map[string]bool{}}
	if err := json.Unmarshal([]byte(got.body), &d.root); err != nil {
		t.Fatal(err)
	}
	key := []string{"Authorization", "Bearer " + f.key}
	with := func(header ...string) []string { return slices.Concat(key, header) }
	const task, one, logs = "/tasks/{task}", "/tasks/{task}/{id}", "/tasks/{task}/{id}/logs"
	post := func(name, body string, header ...string) reply {
		t.Helper()
		r := f.do("POST", "/tasks/"+name, strings.NewReader(body), header...)
		d.check(t, "POST", task, r)
		return r
	}
	get := func(template, path string, header ...string) {
		t.Helper()
		d.check(t, "GET", template, f.do("GET", path, nil, header...))
	}
	post("hello", "x", key...)
	post("hello", "x", with("Accept", "text/plain")...)
	for _, name := range []string{"fails", "killed", "slow", "missing", "binary", "cut"} {
		post(name, "", key...)
	}
	post("hello?x=y", "x", key...)
	post("deploy", "env=prod", with("Content-Type", "application/x-www-form-urlencoded")...)
	post("hello", "x", with("Content-Encoding", "gzip")...)
	post("hello", "x")
	post("others", "x", key...)
	post("off", "x", key...)
	post("hello", strings.Repeat("x", 20<<10), key...)
	post("hello", "x", with("Idempotency-Key", "k")...)
	post("hello", "y", with("Idempotency-Key", "k")...)
	post("rare", "", key...)
	post("rare", "", key...)
	id, _ := post("async", "", key...).json["task_id"].(string)
	get(one, "/tasks/async/"+id, key...)
	get(one, "/tasks/async/"+id+"?wait=1min", key...)
	for _, template := range []string{one, logs} {
		path := strings.Replace(strings.Replace(template, "{task}", "async", 1), "{id}", id, 1)
		get(template, path, key...)
		get(template, path)
		get(template, strings.Replace(path, "async", "others", 1), key...)
		get(template, strings.Replace(path, id, "aaaaaaaaaaaaaaaa", 1), key...)
		get(template, strings.Replace(path, id, "%2e", 1), key...)
	}
	get("/tasks", "/tasks", key...)
	get("/tasks", "/tasks")
	get(task, "/tasks/async", key...)
	get(task, "/tasks/others", key...)
	get(task, "/tasks/async")
	long, _ := post("long", "", key...).json["task_id"].(string)
	get(one, "/tasks/long/"+long+"?wait=x", key...)
	get(logs, "/tasks/async/"+id+"/logs?follow=x", key...)
	get(logs, "/tasks/async/"+id+"/logs?follow=1", with("Accept", "text/event-stream")...)
	get(logs, "/tasks/async/"+id+"/logs?follow=1", with("Accept", "text/event-stream", "Last-Event-ID", "end")...)
	var followers []io.Closer
	for range 128 { // as many as a key has
		r, err := http.NewRequest("GET", "http://"+f.api+"/tasks/long/"+long+"/logs?follow=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(key[0], key[1])
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		followers = append(followers, res.Body)
	}
	get(one, "/tasks/long/"+long+"?wait=1s", key...)
	get(logs, "/tasks/long/"+long+"/logs", key...)
	for _, follower := range followers {
		follower.Close()
	}
	d.check(t, "DELETE", one, f.do("DELETE", "/tasks/long/"+long, nil))
	d.check(t, "DELETE", one, f.do("DELETE", "/tasks/others/"+long, nil, key...))
	d.check(t, "DELETE", one, f.do("DELETE", "/tasks/async/"+long, nil, key...))
	d.check(t, "DELETE", one, f.do("DELETE", "/tasks/long/"+long, nil, key...))
	for _, path := range []string{"/healthz", "/readyz", "/openapi.json"} {
		get(path, path)
	}
	const wh = "/wh/{hash}"
	call := func(path, body string, header ...string) {
		t.Helper()
		header = append([]string{"X-Hub-Signature-256", signed(body), "X-GitHub-Event", "push"}, header...)
		d.check(t, "POST", wh, f.do("POST", path, strings.NewReader(body), header...))
	}
	exits, seldom := f.url("exits"), f.url("seldom")
	for _, body := range []string{"0", "0", "3", strings.Repeat("x", 26<<20)} {
		call(exits, body)
	}
	call(exits, "0 ", "Content-Encoding", "gzip")
	call(f.url("later"), "0")
	d.check(t, "POST", wh, f.do("POST", exits, strings.NewReader("{}"), "X-Hub-Signature-256", signed("{}"), "X-GitHub-Event", "release"))
	d.check(t, "POST", wh, f.do("POST", exits, strings.NewReader("0"), "X-GitHub-Event", "push"))
	d.check(t, "POST", wh, f.broken(exits))
	call("/wh/none", "0")
	for _, name := range []string{"said", "none"} {
		path := f.url(name)
		d.check(t, "POST", wh, f.do("POST", path, nil))
		d.check(t, "GET", wh, f.do("GET", path, nil))
	}
	for _, path := range []string{f.url("plain"), exits, "/wh/none"} {
		d.check(t, "GET", wh, f.do("GET", path, nil))
	}
	d.check(t, "POST", wh, f.do("POST", f.url("got"), nil))
	for _, script := range []string{"echo well", "echo no; exit 3", "exit 3"} {
		d.check(t, "POST", wh, f.do("POST", f.url("prints"), strings.NewReader(script)))
	}
	for _, path := range []string{exits, "/wh/none"} {
		d.check(t, "HEAD", wh, f.do("HEAD", path, nil))
	}
	call(seldom, "0")
	call(seldom, "1")
	f.stopEngine()
	d.check(t, "HEAD", wh, f.do("HEAD", exits, nil))
	post("hello", "x", key...)
	call(exits, "4")
	get("/tasks", "/tasks", key...)
	get(task, "/tasks/async", key...)
	get(one, "/tasks/async/"+id, key...)
	get(logs, "/tasks/async/"+id+"/logs", key...)
	d.check(t, "DELETE", one, f.do("DELETE", "/tasks/long/"+long, nil, key...))
	a := f.do("GET", "/readyz", nil)
	for a.status == 200 { // the engine's word holds for a moment
		a = f.do("GET", "/readyz", nil)
	}
	d.check(t, "GET", "/readyz", a)
	f.stopEngine = func() {}

	for template, path := range d.root["paths"].(object) {
		for method, operation := range path.(object) {
			if method == "parameters" {
				continue
			}
			for status := range operation.(object)["responses"].(object) {
				if status == "429" && (template == one || template == logs) {
					continue // it takes 512 requests at a time, see TestCallsAreBounded in daemon/control
				}
				if key := strings.ToUpper(method) + " " + template + " " + status; !d.seen[key] {
					t.Errorf("%s is documented, and never came", key)
				}
			}
		}
	}
}

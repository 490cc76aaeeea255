package control

import (
	"strings"
	"testing"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

const formTasks = `
task "deploy" {
  command  = ["/bin/sh", "-c", "cat; echo \" to $RTASK_PARAM_ENV\""]
  blocking = true
  api_keys = ["demo"]
  param "env" {
    values  = ["staging", "prod"]
    default = "staging"
  }
  param "note" {
    default = ""
  }
}
task "plain" {
  command  = ["/bin/cat"]
  blocking = true
  api_keys = ["demo"]
}
`

// Parameters that were sent as a form are not left out silently; every other body is input, whatever its type says.
func TestFormOfParameters(t *testing.T) {
	const (
		urlencoded = "application/x-www-form-urlencoded"
		multipart  = "multipart/form-data; boundary=b"
		part       = "--b\r\nContent-Disposition: form-data; name=\"env\"\r\n\r\nprod\r\n--b--\r\n"
	)
	f := newFixture(t, formTasks)
	key := f.key("demo")
	for _, c := range []struct{ task, kind, query, body, refused string }{
		{"deploy", urlencoded, "", "env=prod", "?env=prod;"},
		{"deploy", "Application/X-WWW-Form-Urlencoded; charset=UTF-8", "", "env=prod", "?env=prod;"},
		{"deploy", urlencoded, "", "x=1&env=prod", "?env=prod;"},
		{"deploy", urlencoded, "", "%65nv=a+b%26&note=n", "?env=a+b%26&note=n;"},
		{"deploy", urlencoded, "note=n", "env=prod", "?env=prod;"},
		{"deploy", urlencoded, "", "note=" + strings.Repeat("x", 500), "?NAME=VALUE;"},
		{"deploy", multipart, "", part, "?env=prod;"},
		{"deploy", urlencoded, "env=prod", "env=prod", ""}, // it is not left out
		{"deploy", urlencoded, "", "alice", ""},
		{"deploy", urlencoded, "", "env", ""},
		{"deploy", urlencoded, "", "", ""},
		{"deploy", urlencoded, "", `{"env":"prod"}`, ""},
		{"deploy", urlencoded, "", "x=1&y=env", ""},
		{"deploy", urlencoded, "", "env=prod\nx=1\n", ""}, // a file of variables
		{"deploy", urlencoded, "", "%zz=1&&=&%", ""},
		{"deploy", urlencoded, "", strings.Repeat("x=&", formFields) + "env=prod", ""}, // so many are looked at, not so many names
		{"deploy", "application/octet-stream", "", "env=prod", ""},
		{"deploy", "", "", "env=prod", ""},
		{"deploy", multipart, "", "--b\r\nContent-Disposition: form-data; name=\"env\"; filename=\"x\"\r\n\r\nprod\r\n--b--\r\n", ""},
		{"deploy", "multipart/form-data", "", part, ""},
		{"deploy", multipart, "", "env=prod", ""},
		{"plain", urlencoded, "", "env=prod", ""},
	} {
		r := &rtaskv1.RunRequest{
			Input: []byte(c.body), Query: []byte(c.query),
			Headers: []*rtaskv1.Header{{Name: "content-type", Value: []byte(c.kind)}},
		}
		reply, err := f.net(key, c.task).Run(t.Context(), r)
		if c.refused != "" {
			if detail(err).GetKind() != "bad-request" || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s %q: %v, want %s", c.kind, c.body, err, c.refused)
			}
			continue
		}
		if err != nil || !strings.HasPrefix(string(reply.Stdout), c.body) {
			t.Errorf("%s %q: %v, %v", c.kind, c.body, reply, err)
		}
	}
	if s := f.logs.String(); strings.Contains(s, "env=prod") || !strings.Contains(s, errMisplaced.Error()) {
		t.Errorf("the log: %s", s)
	}
}

// A body is what its sender sent: no content coding is undone, and none is handed to a job unseen.
func TestContentCodings(t *testing.T) {
	f := newFixture(t, formTasks)
	key := f.key("demo")
	for coding, refused := range map[string]bool{
		"gzip": true, "GZip": true, "deflate": true, "br": true, "identity, gzip": true, "x": true, "": false, "identity": false, "Identity ,": false,
	} {
		_, err := f.net(key, "plain").Run(t.Context(), &rtaskv1.RunRequest{
			Input: []byte("x"), Headers: []*rtaskv1.Header{{Name: "Content-Encoding", Value: []byte(coding)}},
		})
		if kind := detail(err).GetKind(); (kind == "unsupported-media-type") != refused || !refused && err != nil {
			t.Errorf("%q: %v", coding, err)
		}
	}
}

package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// hookOf loads a task whose webhook has these lines.
func hookOf(t *testing.T, lines string) (*Webhook, Diagnostics) {
	t.Helper()
	cfg, diags := loadTasks(t, "task \"a\" {\n command = [\"true\"]\n webhook \"w\" {\n"+lines+"\n }\n}\n")
	if cfg == nil {
		return nil, diags
	}
	return cfg.Tasks["a"].Webhooks[0], diags
}

func TestWebhookReply(t *testing.T) {
	const token, signed = "token = \"0123456789abcdef\"\n", "verify = \"github\"\nsecrets = [\"s3cret\"]\n"
	w, diags := hookOf(t, token)
	if len(diags) != 0 || !slices.Equal(w.Methods, []string{"POST"}) || w.Respond != RespondAccepted || w.Status != 0 || w.Message != nil || w.Respond.Waits() {
		t.Errorf("%+v, %v", w, diags)
	}
	w, diags = hookOf(t, token+`methods = ["GET", "PATCH"]
status = 201
content_type = "text/html; charset=utf-8"
message = "<b>\u2603</b>\n"`)
	if len(diags) != 0 || !slices.Equal(w.Methods, []string{"GET", "PATCH"}) || w.Status != 201 || w.ContentType != "text/html; charset=utf-8" || *w.Message != "<b>☃</b>\n" {
		t.Errorf("%+v, %v", w, diags)
	}
	w, diags = hookOf(t, signed+"methods = [\"PUT\"]\nrespond = \"output\"\ncontent_type = \"application/json\"")
	if len(diags) != 0 || w.Respond != RespondOutput || !w.Respond.Waits() || w.ContentType != "application/json" {
		t.Errorf("%+v, %v", w, diags)
	}
	for lines, want := range map[string]string{
		token + `message = ""`: "", token + "status = 204": "", token + "status = 204\nmessage = \"\"": "", signed + "status = 204\nrespond = \"result\"": "",
		token + `methods = []`:                                                 `webhook "w" takes no method`,
		token + `methods = ["get"]`:                                            `cannot take the method "get"`,
		token + `methods = ["HEAD"]`:                                           "HEAD is always answered",
		token + `methods = ["TRACE"]`:                                          "There are GET, POST",
		token + `methods = ["GET", "GET"]`:                                     "a second time",
		signed + `methods = ["GET"]`:                                           `GET means nothing with verify = "github"`,
		token + `status = 199`:                                                 "199",
		token + `status = 302`:                                                 "302",
		token + "status = 204\nrespond = \"output\"":                           "the status 204 has no body",
		token + "status = 205\nmessage = \"x\"":                                "the status 205 has no body",
		token + `content_type = "text/html"`:                                   "content_type means nothing here",
		token + "message = \"x\"\ncontent_type = \"\"":                         "content_type is empty",
		token + "message = \"x\"\ncontent_type = \"x\"":                        "is not a media type",
		token + "message = \"x\"\ncontent_type = \"a/b;\\nX: y\"":              "is not a media type",
		token + "message = \"x\"\ncontent_type = \"a/b\\r\\nX: y\"":            "is not a media type",
		token + "message = \"x\"\ncontent_type = \"a/b; c=\\\"ä\\\"\"":         "is not a media type",
		token + "message = \"x\"\nrespond = \"output\"":                        "message means nothing with respond",
		token + `respond = "later"`:                                            `respond must be accepted or result or output, not "later"`,
		token + fmt.Sprintf("message = %q", strings.Repeat("x", maxMessage)):   "",
		token + fmt.Sprintf("message = %q", strings.Repeat("x", maxMessage+1)): "16384 at most",
	} {
		_, diags := hookOf(t, lines)
		if text := diags.Error(); (want == "") != (len(diags) == 0) || !strings.Contains(text, want) {
			t.Errorf("%.200s: %.300s; want %q", lines, text, want)
		}
	}
}

package control

import (
	"testing"
	"time"

	"github.com/rtask/rtask/daemon/auth/webhook"
)

// replying has a webhook for each kind of reply.
const replying = `
task "replying" {
  command        = ["/bin/sh", "-c", "exit $(head -c 1)"]
  max_concurrent = 0
  webhook "said" {
    token   = "token-of-a-message"
    message = "Thank you.\n"
  }
  webhook "ended" {
    token        = "token-of-a-result"
    respond      = "result"
    status       = 201
    message      = "<b>well"
    content_type = "text/html"
  }
  webhook "silent" {
    token   = "token-of-an-empty-text"
    message = ""
    status  = 200
  }
  webhook "numbered" {
    token  = "token-of-a-status"
    status = 204
  }
}
task "slack" {
  command        = ["/bin/true"]
  max_concurrent = 0
  webhook "slack" {
    verify  = "slack"
    secrets = ["s3cret"]
    message = "Deploying."
  }
}
`

// A message and a status are what the sender reads of what is accepted, or has succeeded, and of nothing else.
func TestWebhookReply(t *testing.T) {
	f := newFixture(t, replying)
	for _, test := range []struct {
		name, input, reply string
		status             int32 // of the reply; without one, of what else is answered
		contentType        string
	}{
		{"said", "0", "Thank you.\n", 202, "text/plain; charset=utf-8"},
		{"said", "1", "Thank you.\n", 202, "text/plain; charset=utf-8"}, // it is not known
		{"ended", "0", "<b>well", 201, "text/html"},
		{"ended", "1", "-", 201, ""},
		{"silent", "0", "", 200, "text/plain; charset=utf-8"},
		{"numbered", "0", "-", 204, ""},
	} {
		got, err := f.hook(f.sent("replying", test.name, []byte(test.input), time.Now()))
		switch {
		case err != nil || got.GetRun().GetJob().GetId() == "":
			t.Errorf("%+v: %v, %v", test, got, err)
		case test.reply == "-":
			if got.Reply != nil || got.Status != test.status {
				t.Errorf("%+v: %v", test, got)
			}
		case string(got.Reply.GetBody()) != test.reply || got.Reply.GetStatus() != test.status || got.Reply.GetContentType() != test.contentType:
			t.Errorf("%+v: %v", test, got)
		}
	}
	// What is ignored or refused is answered as ever. A person reads the message, and an interaction gets nothing.
	command := []byte("command=%2Fdeploy&trigger_id=1")
	if got, err := f.hook(f.sent("slack", "slack", command, time.Now())); err != nil || string(got.Reply.GetBody()) != "Deploying." || got.Reply.Status != 200 {
		t.Errorf("%v, %v", got, err)
	}
	interaction := []byte("payload=%7B%22type%22%3A%22block_actions%22%2C%22trigger_id%22%3A%222%22%7D")
	if got, err := f.hook(f.sent("slack", "slack", interaction, time.Now())); err != nil || got.Reply != nil || !got.Person || got.Text != "" {
		t.Errorf("%v, %v", got, err)
	}
	refused := f.sent("slack", "slack", command, time.Now(), webhook.Header{Name: "X-Slack-Signature", Value: "v0=00"})
	if got, err := f.hook(refused); detail(err).GetKind() != "signature" {
		t.Errorf("%v, %v", got, err)
	}
}

package view

import (
	"encoding/json"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// Every state and reason of the API has a word and a status.
func TestStatus(t *testing.T) {
	for n, name := range rtaskv1.State_name {
		s := rtaskv1.State(n)
		if known := s != rtaskv1.State_STATE_UNSPECIFIED; known == (s.Word() == "unknown") {
			t.Errorf("%s: %s", name, s.Word())
		}
		for m, reason := range rtaskv1.Reason_name {
			want := "running"
			switch {
			case s == rtaskv1.State_STATE_QUEUED:
				want = "queued"
			case s == rtaskv1.State_STATE_ENDED && m == 0:
				want = "success"
			case s == rtaskv1.State_STATE_ENDED:
				want = "failure"
			}
			if got := Status(&rtaskv1.Job{State: s, Reason: rtaskv1.Reason(m)}); got != want {
				t.Errorf("%s, %s: %s, want %s", name, reason, got, want)
			}
		}
	}
}

// What is unknown is left out, lists are never null, and bytes that JSON cannot carry are base64.
func TestJSON(t *testing.T) {
	at := timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.FixedZone("", 3600)))
	for _, test := range []struct {
		view any
		want string
	}{
		{JobOf(nil), `{"id":"","task":"","command":[],"user":"","state":"unknown","status":"running","unit":"","owner":"","trigger":""}`},
		{RunOf(&rtaskv1.Job{Id: "a", State: rtaskv1.State_STATE_QUEUED, QueuedAt: at}), `{"status":"queued","task_id":"a","queued_at":"2026-01-02T02:04:05.6Z"}`},
		{
			RunOf(&rtaskv1.Job{Id: "a", State: rtaskv1.State_STATE_ENDED, Reason: rtaskv1.Reason_REASON_SIGNAL, Signal: "SIGKILL", StartedAt: at, EndedAt: at}),
			`{"status":"failure","reason":"signal","signal":"SIGKILL","task_id":"a","started_at":"2026-01-02T02:04:05.6Z","ended_at":"2026-01-02T02:04:05.6Z","duration":0}`,
		},
		{
			TaskOf(&rtaskv1.Task{Name: "a", Command: []string{"echo", "\xff"}, WorkingDirectory: "/"}),
			`{"name":"a","command":["ZWNobw==","/w=="],"workdir":"Lw==","encoding":"base64","blocking":false,"api_keys":[],"enabled":false}`,
		},
		{Each([]*rtaskv1.Key(nil), KeyOf), `[]`},
	} {
		if b, err := json.Marshal(test.view); err != nil || string(b) != test.want {
			t.Errorf("%s, %v\nwant %s", b, err, test.want)
		}
	}
}

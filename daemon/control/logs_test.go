package control

import (
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
)

// TestLogFilters: what a follower does not want is not sent, and it goes on at the right byte with every filter.
func TestLogFilters(t *testing.T) {
	f := newFixture(t, `task "a" {
		command = ["/bin/sh", "-c", "echo one; echo two >&2; sleep 0.3; echo three; printf four"]
		redirect_stderr = false
		user = "root"
	}`)
	jobs := f.as(peers()[auth.Operator])
	j := must[rtaskv1.StartResponse](t)(jobs.Start(t.Context(), &rtaskv1.StartRequest{Name: "a"})).Job
	j = must[rtaskv1.WaitResponse](t)(jobs.Wait(t.Context(), &rtaskv1.WaitRequest{Job: j.Id})).Job
	between := timestamppb.New(j.StartedAt.AsTime().Add(200 * time.Millisecond))
	tail := func(n int64) *int64 { return &n }
	for name, c := range map[string]struct {
		r    *rtaskv1.StreamLogsRequest
		want string
	}{
		"stdout": {&rtaskv1.StreamLogsRequest{Stream: rtaskv1.Stream_STREAM_STDOUT, Times: true}, "one\nthree\nfour"},
		"stderr": {&rtaskv1.StreamLogsRequest{Stream: rtaskv1.Stream_STREAM_STDERR}, "two\n"},
		"tail":   {&rtaskv1.StreamLogsRequest{Tail: tail(2)}, "three\nfour"},
		"none":   {&rtaskv1.StreamLogsRequest{Tail: tail(0)}, ""},
		"since":  {&rtaskv1.StreamLogsRequest{Since: between}, "three\nfour"},
		"until":  {&rtaskv1.StreamLogsRequest{Until: between, Stream: rtaskv1.Stream_STREAM_STDOUT, Follow: true}, "one\n"},
		"all":    {&rtaskv1.StreamLogsRequest{Tail: tail(1), Since: between, Stream: rtaskv1.Stream_STREAM_STDOUT}, "four"},
	} {
		// Read in one go, and with a break after each piece.
		for _, breaks := range []bool{false, true} {
			got := ""
			c.r.Job, c.r.Offset = j.Id, 0
			for more := true; more; {
				s, err := jobs.StreamLogs(t.Context(), c.r)
				if err != nil {
					t.Fatal(err)
				}
				more = false
				for m, err := range client.Messages(s) {
					if err != nil {
						t.Error(err)
						break
					}
					got += string(m.Data)
					c.r.Offset = m.Offset
					if more = breaks; more {
						break
					}
				}
				s.Close()
			}
			if got != c.want {
				t.Errorf("%s, breaks %v: %q, want %q", name, breaks, got, c.want)
			}
		}
	}
	for name, r := range map[string]*rtaskv1.StreamLogsRequest{
		"tail": {Tail: tail(-1)}, "stream": {Stream: 7}, "since": {Since: &timestamppb.Timestamp{Nanos: -1}},
	} {
		r.Job = j.Id
		s, err := jobs.StreamLogs(t.Context(), r)
		if err == nil {
			_, err = s.Receive()
		}
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("a wrong %s: %v", name, err)
		}
	}
}

func TestListFilters(t *testing.T) {
	f := newFixture(t, `task "a" {
		command = ["/bin/sh", "-c", "exit 3"]
		user = "root"
	}
	task "b" {
		command = ["true"]
		user = "root"
	}`)
	client := f.as(peers()[auth.Operator])
	for _, name := range []string{"a", "b"} {
		j := must[rtaskv1.StartResponse](t)(client.Start(t.Context(), &rtaskv1.StartRequest{Name: name})).Job
		must[rtaskv1.WaitResponse](t)(client.Wait(t.Context(), &rtaskv1.WaitRequest{Job: j.Id}))
	}
	now := timestamppb.Now()
	for name, c := range map[string]struct {
		r    *rtaskv1.ListRequest
		want string
	}{
		"running": {&rtaskv1.ListRequest{}, ""},
		"all":     {&rtaskv1.ListRequest{All: true}, "ba"},
		"limit":   {&rtaskv1.ListRequest{All: true, Limit: 1}, "b"},
		"states":  {&rtaskv1.ListRequest{States: []rtaskv1.State{rtaskv1.State_STATE_QUEUED, rtaskv1.State_STATE_ENDED}}, "ba"},
		"success": {&rtaskv1.ListRequest{Status: rtaskv1.Status_STATUS_SUCCESS}, "b"},
		"failure": {&rtaskv1.ListRequest{Status: rtaskv1.Status_STATUS_FAILURE}, "a"},
		"reason":  {&rtaskv1.ListRequest{Reasons: []rtaskv1.Reason{rtaskv1.Reason_REASON_EXIT_CODE, rtaskv1.Reason_REASON_OOM}}, "a"},
		"user":    {&rtaskv1.ListRequest{All: true, User: "nobody"}, ""},
		"owner":   {&rtaskv1.ListRequest{All: true, Owner: "olga", User: "root"}, "ba"},
		"since":   {&rtaskv1.ListRequest{All: true, Since: now}, ""},
		"until":   {&rtaskv1.ListRequest{All: true, Until: now}, "ba"},
	} {
		got := ""
		for _, j := range must[rtaskv1.ListResponse](t)(client.List(t.Context(), c.r)).Jobs {
			got += j.Task
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	for name, r := range map[string]*rtaskv1.ListRequest{
		"state": {States: []rtaskv1.State{0}}, "reason": {Reasons: []rtaskv1.Reason{99}}, "status": {Status: 3}, "limit": {Limit: -1},
		"until": {Until: &timestamppb.Timestamp{Seconds: 1 << 60}},
	} {
		if _, err := client.List(t.Context(), r); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("a wrong %s: %v", name, err)
		}
	}
}

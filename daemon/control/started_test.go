package control

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/config"
)

const scheduled = `
	task "nightly" {
		command = ["true"]
		allow_users = ["ada"]
		schedule {
			on_calendar = ["daily"]
		}
	}
	task "off" {
		command = ["true"]
		enabled = false
		path {
			path_changed = ["/srv"]
		}
	}`

// Only root and administrators say that systemd starts a task; what they name is a task, never a command; and they bring nothing else.
func TestStartedBySystemd(t *testing.T) {
	f := newFixture(t, scheduled)
	start := func(who auth.Kind, r *rtaskv1.StartRequest) (*rtaskv1.Job, error) {
		m, err := f.as(peers()[who]).Start(t.Context(), r)
		if err != nil {
			return nil, err
		}
		return m.Job, nil
	}
	for _, trigger := range []string{"schedule", "path"} {
		j, err := start(auth.Admin, &rtaskv1.StartRequest{Name: "nightly", Trigger: trigger})
		if err != nil || j.Trigger != trigger || j.Owner != "olga" {
			t.Errorf("%s: %v, %v", trigger, j, err)
		}
	}
	for _, who := range []auth.Kind{auth.User, auth.Operator, auth.Nobody} {
		if _, err := start(who, &rtaskv1.StartRequest{Name: "nightly", Trigger: "schedule"}); connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("%v may say so: %v", who, err)
		}
	}
	for kind, r := range map[string]*rtaskv1.StartRequest{
		"not-found":   {Name: "true", Path: "/bin/true", WorkingDirectory: "/", Trigger: "schedule"},
		"disabled":    {Name: "off", Trigger: "path"},
		"bad-request": {Name: "nightly", Trigger: "webhook"},
	} {
		if _, err := start(auth.Admin, r); detail(err).GetKind() != kind {
			t.Errorf("%v: %v, want %s", r, err, kind)
		}
	}
	if _, err := start(auth.Admin, &rtaskv1.StartRequest{Name: "nightly", Arguments: []string{"x"}, Trigger: "schedule"}); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("%v", err)
	}
}

// Where systemd cannot start tasks, those that it should start are refused with the reason, whoever starts them.
func TestUnscheduled(t *testing.T) {
	f := newFixture(t, scheduled)
	f.Unscheduled = func() string { return "there is no systemd" }
	_, err := f.as(peers()[auth.Admin]).Start(t.Context(), &rtaskv1.StartRequest{Name: "nightly"})
	if detail(err).GetKind() != "configuration" || !strings.Contains(err.Error(), "there is no systemd") {
		t.Errorf("%v", err)
	}
}

// When a task runs next is shown to those who may see the task.
func TestNextRun(t *testing.T) {
	f := newFixture(t, scheduled)
	next := time.Date(2100, 1, 1, 3, 0, 0, 999, time.UTC)
	f.NextRuns = func(_ context.Context, tasks []*config.Task) map[string]time.Time {
		for _, task := range tasks {
			if task.Name == "nightly" {
				return map[string]time.Time{"nightly": next}
			}
		}
		return nil
	}
	r := must[rtaskv1.TasksResponse](t)(f.as(peers()[auth.User]).Tasks(t.Context(), &rtaskv1.TasksRequest{}))
	if len(r.Tasks) != 1 || !r.Tasks[0].NextRun.AsTime().Equal(next.Truncate(time.Second)) {
		t.Errorf("%v", r.Tasks)
	}
}

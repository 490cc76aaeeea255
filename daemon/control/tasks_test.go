package control

import (
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
)

const switched = `
	task "on" {
		command = ["true"]
		api_keys = ["demo"]
		allow_users = ["ada"]
		environment = { SECRET = "hidden" }
	}
	task "off" {
		command = ["true"]
		enabled = false
	}`

// The last word of SwitchTask holds, not the file's; enabling what the file enables leaves nothing behind.
func TestSwitchTask(t *testing.T) {
	f := newFixture(t, switched)
	admin, demo := f.as(peers()[auth.Admin]), f.key("demo")
	change := func(task string, enabled bool) *rtaskv1.Task {
		t.Helper()
		return must[rtaskv1.SwitchTaskResponse](t)(admin.SwitchTask(t.Context(), &rtaskv1.SwitchTaskRequest{Task: task, Enabled: enabled})).Task
	}
	starts := func(task, why string) {
		t.Helper()
		_, err := admin.Start(t.Context(), &rtaskv1.StartRequest{Name: task})
		if got := detail(err).GetKind(); got != why {
			t.Errorf("%s: %q %v, want %q", task, got, err, why)
		}
	}
	starts("on", "")
	starts("off", "disabled")
	m := change("on", false)
	if m.Enabled || m.Problem != `task "on" is disabled` || m.Switch.GetBy() != "olga" || m.Switch.GetAt() == nil {
		t.Errorf("%v", m)
	}
	starts("on", "disabled")
	_, err := f.net(demo, "on").Run(t.Context(), &rtaskv1.RunRequest{})
	if detail(err).GetKind() != "disabled" {
		t.Errorf("%v", err)
	}
	info := must[rtaskv1.InfoResponse](t)(admin.Info(t.Context(), &rtaskv1.InfoRequest{}))
	if len(info.Switches) != 1 || info.Switches[0].Task != "on" {
		t.Errorf("%v", info.Switches)
	}
	if m = change("on", true); !m.Enabled || m.Switch != nil {
		t.Errorf("%v", m)
	}
	starts("on", "")
	if m = change("off", true); !m.Enabled || !m.Switch.GetEnabled() {
		t.Errorf("%v", m)
	}
	starts("off", "")
	if m = change("off", false); m.Enabled || m.Switch == nil {
		t.Errorf("%v", m)
	}
	// Kept, whatever the file comes to say.
	f.mu.Lock()
	switches := f.snapshot.Switches
	f.mu.Unlock()
	f.configure(strings.Replace(switched, "enabled = false", "enabled = true", 1))
	f.mu.Lock()
	f.snapshot.Switches = switches
	f.mu.Unlock()
	starts("off", "disabled")
	_, err = admin.SwitchTask(t.Context(), &rtaskv1.SwitchTaskRequest{Task: "of"})
	if connect.CodeOf(err) != connect.CodeNotFound || !strings.Contains(err.Error(), `no task "of"`) {
		t.Errorf("%v", err)
	}
}

// Who may start a task may see what it is, but not the values of its environment.
func TestShowTask(t *testing.T) {
	f := newFixture(t, switched)
	show := func(p auth.Peer, task string) (*rtaskv1.ShowTaskResponse, error) {
		r, err := f.as(p).ShowTask(t.Context(), &rtaskv1.ShowTaskRequest{Task: task})
		if err != nil {
			return nil, err
		}
		return r, nil
	}
	for kind, sees := range map[auth.Kind]bool{auth.User: false, auth.Operator: false, auth.Admin: true} {
		r, err := show(peers()[kind], "on")
		if err != nil {
			t.Fatal(err)
		}
		if r.Line != 2 || !strings.HasSuffix(r.File, "tasks.hcl") || r.Task.GetName() != "on" || !strings.Contains(r.Hcl, "SECRET") {
			t.Errorf("%v: %v", kind, r)
		}
		if r.Exposure <= 0 || r.ExposureWord == "" || len(r.Exposures) < 20 || r.Exposures[0].Name != "user" || !slices.Contains(r.Missing, "private_tmp") {
			t.Errorf("%v: %v %v %v", kind, r.Exposure, r.ExposureWord, r.Missing)
		}
		if got := strings.Contains(r.Hcl+r.Json, "hidden"); got != sees {
			t.Errorf("%v sees the environment: %v", kind, got)
		}
	}
	for _, task := range []string{"off", "there-is-none"} {
		if _, err := show(peers()[auth.User], task); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("a user sees %s: %v", task, err)
		}
	}
	if r, err := show(peers()[auth.Operator], "off"); err != nil || r.Task.Enabled || r.Task.Problem == "" {
		t.Errorf("%v, %v", r, err)
	}
}

// While the engine drains nobody starts anything, and everybody is told when to come back.
func TestDrain(t *testing.T) {
	f := newFixture(t, switched)
	admin, demo := f.as(peers()[auth.Admin]), f.key("demo")
	told := 0
	f.StatusChanged = func() { told++ }
	drain := func(r *rtaskv1.DrainRequest) *rtaskv1.DrainResponse {
		t.Helper()
		return must[rtaskv1.DrainResponse](t)(admin.Drain(t.Context(), r))
	}
	watch, err := f.net(nil, "").Watch(t.Context(), &rtaskv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	// hears waits until the gateway has heard it.
	hears := func(draining bool) bool {
		for must[rtaskv1.WatchResponse](t)(watch.Receive()).Draining != draining {
		}
		return true
	}
	hears(false)
	j := must[rtaskv1.StartResponse](t)(f.as(self()).Start(t.Context(), &rtaskv1.StartRequest{
		Name: "sleep", Path: "/bin/sleep", Arguments: []string{"1000"}, WorkingDirectory: "/",
	})).Job
	if r := drain(&rtaskv1.DrainRequest{Wait: true}); r.Draining {
		t.Errorf("waiting has changed something: %v", r)
	}
	if r := drain(&rtaskv1.DrainRequest{}); !r.Draining || r.Jobs != 1 || told != 1 || !hears(true) {
		t.Errorf("%v, told %d", r, told)
	}
	_, local := admin.Start(t.Context(), &rtaskv1.StartRequest{Name: "on"})
	_, http := f.net(demo, "on").Run(t.Context(), &rtaskv1.RunRequest{})
	for _, err := range []error{local, http} {
		if d := detail(err); d.GetKind() != "unavailable" || d.GetRetryAfter().AsDuration() <= 0 || !strings.Contains(err.Error(), "draining") {
			t.Errorf("%v %v", err, d)
		}
	}
	waits := make(chan *rtaskv1.DrainResponse)
	go func() {
		r, err := admin.Drain(t.Context(), &rtaskv1.DrainRequest{Wait: true})
		if err != nil {
			t.Error(err)
			r = &rtaskv1.DrainResponse{}
		}
		waits <- r
	}()
	must[rtaskv1.StopResponse](t)(admin.Stop(t.Context(), &rtaskv1.StopRequest{Job: j.Id, Kill: true}))
	if r := <-waits; !r.Draining || r.Jobs != 0 {
		t.Errorf("%v", r)
	}
	if r := drain(&rtaskv1.DrainRequest{Cancel: true}); r.Draining || told != 2 || !hears(false) {
		t.Errorf("%v, told %d", r, told)
	}
	must[rtaskv1.StartResponse](t)(admin.Start(t.Context(), &rtaskv1.StartRequest{Name: "on"}))
}

// A triggered task is what it is configured as, or is not started.
func TestTriggered(t *testing.T) {
	f := newFixture(t, switched+`
		task "main" {
			command = ["false"]
			on_failure = ["on"]
			on_success = ["off"]
		}`)
	s, err := f.Triggered("on")
	if err != nil || s.Task != "on" || s.Volatile {
		t.Errorf("%+v, %v", s, err)
	}
	for _, task := range []string{"off", "there-is-none"} {
		if _, err := f.Triggered(task); err == nil {
			t.Errorf("%s is started", task)
		}
	}
	f.Jobs.StartTriggered(f.Triggered)
	operator := f.as(peers()[auth.Operator])
	j := must[rtaskv1.StartResponse](t)(operator.Start(t.Context(), &rtaskv1.StartRequest{Name: "main"})).Job
	must[rtaskv1.WaitResponse](t)(operator.Wait(t.Context(), &rtaskv1.WaitRequest{Job: j.Id}))
	j = must[rtaskv1.StatusResponse](t)(operator.Status(t.Context(), &rtaskv1.StatusRequest{Job: j.Id})).Job
	if len(j.Triggered) != 1 || j.Triggered[0].Task != "on" {
		t.Fatalf("%v", j)
	}
	// It belongs to nobody who may not see everything: ada may start "on", and does not see this run.
	must[rtaskv1.DrainResponse](t)(f.as(peers()[auth.Admin]).Drain(t.Context(), &rtaskv1.DrainRequest{}))
	must[rtaskv1.DrainResponse](t)(f.as(peers()[auth.Admin]).Drain(t.Context(), &rtaskv1.DrainRequest{Wait: true}))
	if _, err := f.as(peers()[auth.User]).Status(t.Context(), &rtaskv1.StatusRequest{Job: j.Triggered[0].Job}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("a user sees it: %v", err)
	}
	by := must[rtaskv1.StatusResponse](t)(operator.Status(t.Context(), &rtaskv1.StatusRequest{Job: j.Triggered[0].Job})).Job
	if by.TriggerJob != j.Id || by.Trigger != "on_failure" || by.Owner != "rtask" || !slices.Equal(by.Command, []string{"true"}) {
		t.Errorf("%v", by)
	}
	f.configure("task")
	if _, err := f.Triggered("on"); err == nil || !strings.Contains(err.Error(), "now") {
		t.Errorf("without a configuration: %v", err)
	}
}

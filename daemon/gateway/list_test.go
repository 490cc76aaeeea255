package gateway

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/rtask/rtask/daemon/api/view"
)

// A key sees the tasks that it may start, with what a request needs to know of them, and no other.
func TestTasksOfKey(t *testing.T) {
	f := newFixture(t)
	var got struct {
		Tasks []view.KeyTask `json:"tasks"`
	}
	list := func(key string) []string {
		t.Helper()
		r := f.do("GET", "/tasks", nil, "Authorization", "Bearer "+key)
		if err := json.Unmarshal([]byte(r.body), &got); r.status != 200 || err != nil {
			t.Fatalf("%d %s", r.status, r.body)
		}
		var names []string
		for _, task := range got.Tasks {
			names = append(names, task.Name)
		}
		return names
	}
	names := list(f.key)
	if !slices.IsSorted(names) || !slices.Contains(names, "hello") || slices.Contains(names, "others") || slices.Contains(names, "hooked") {
		t.Errorf("demo: %v", names)
	}
	if names := list(f.addKey("other")); !slices.Equal(names, []string{"deploy", "others"}) {
		t.Errorf("other: %v", names)
	}
	want := `{"name":"deploy","blocking":true,"enabled":true,"max_input_bytes":16384,"params":[` +
		`{"name":"env","required":false,"default":"staging","values":["staging","prod"]},` +
		`{"name":"ref","required":false,"default":"0","pattern":"[0-9a-f]+","max_length":40}]}`
	if b, _ := json.Marshal(got.Tasks[0]); string(b) != want {
		t.Errorf("%s\nwant %s", b, want)
	}
	if r := f.do("GET", "/tasks", nil, "Authorization", "Bearer "+f.addKey("useless")); strings.TrimSpace(r.body) != `{"tasks":[]}` {
		t.Errorf("%s", r.body)
	}
	if r := f.do("GET", "/tasks", nil); r.status != 401 {
		t.Errorf("without a key: %d", r.status)
	}
}

// A key sees its own newest jobs of a task, a hundred at most.
func TestJobsOfKey(t *testing.T) {
	f := newFixture(t)
	type entry struct {
		Status string `json:"status"`
		TaskID string `json:"task_id"`
		view.Span
	}
	list := func(task, key string) []entry {
		t.Helper()
		var got struct {
			Jobs []entry `json:"jobs"`
		}
		r := f.do("GET", "/tasks/"+task, nil, "Authorization", "Bearer "+key)
		if err := json.Unmarshal([]byte(r.body), &got); r.status != 200 || err != nil {
			t.Fatalf("%d %s", r.status, r.body)
		}
		return got.Jobs
	}
	if jobs := list("deploy", f.key); len(jobs) != 0 {
		t.Errorf("before the first: %v", jobs)
	}
	other := f.addKey("other")
	if r := f.do("POST", "/tasks/deploy", nil, "Authorization", "Bearer "+other); r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	var ids []string
	for range 103 {
		r := f.run("deploy", "")
		id, _ := r.json["task_id"].(string)
		ids = append(ids, id)
	}
	jobs := list("deploy", f.key)
	if len(jobs) != 100 {
		t.Fatalf("%d jobs", len(jobs))
	}
	for i, j := range jobs {
		if j.TaskID != ids[len(ids)-1-i] || j.Status != "success" || j.QueuedAt == "" || j.EndedAt == "" || j.Duration == nil {
			t.Errorf("%d: %+v, want %s", i, j, ids[len(ids)-1-i])
		}
	}
	if jobs := list("deploy", other); len(jobs) != 1 {
		t.Errorf("the other key's: %v", jobs)
	}
	long, _ := f.run("long", "").json["task_id"].(string)
	if jobs := list("long", f.key); len(jobs) != 1 || jobs[0].Status != "running" || jobs[0].TaskID != long || jobs[0].EndedAt != "" {
		t.Errorf("%+v", jobs)
	}
	f.do("DELETE", "/tasks/long/"+long, nil, "Authorization", "Bearer "+f.key)
	// A task that the key may not use, and none, are the same as for a POST.
	post := f.run("none", "")
	for _, task := range []string{"others", "none"} {
		if r := f.do("GET", "/tasks/"+task, nil, "Authorization", "Bearer "+f.key); r.status != 403 || r.body != post.body {
			t.Errorf("%s: %d %s", task, r.status, r.body)
		}
	}
}

package job

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/rtask/rtask/sandbox/spec"
)

// records are those of testdata/records, which an engine of before wrote.
func records(t *testing.T, m *Manager) map[string]Job {
	t.Helper()
	all := map[string]Job{}
	for _, name := range []string{"ended", "promised", "running", "queued", "alias"} {
		b, err := os.ReadFile(filepath.Join("testdata/records", name))
		if err != nil {
			t.Fatal(err)
		}
		j, err := m.records.Decode(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[name] = j
	}
	return all
}

// TestDowngrade: a record of today, also of an alias or a promise, has its id, task and command where the first engines look for them.
func TestDowngrade(t *testing.T) {
	m := open(t)
	for name, j := range records(t, m) {
		b, err := m.records.Encode(j)
		if err != nil {
			t.Fatal(err)
		}
		const head = 12 + 1 // see package store
		var old struct {
			ID      string `cbor:"id"`
			Task    string `cbor:"task,omitempty"`
			Command string `cbor:"command"`
		}
		if err := cbor.Unmarshal(b[head:], &old); err != nil || old.ID != j.ID || old.Task != j.Task || old.Command != "/bin/sh" {
			t.Errorf("%s: %+v, %v", name, old, err)
		}
		if again, err := m.records.Decode(b); err != nil || again.first != (first{}) || again.ID != j.ID {
			t.Errorf("%s again: %+v, %v", name, again.first, err)
		}
	}
}

// TestUpgrade: an engine knows the jobs that one of before left, and runs those that waited.
func TestUpgrade(t *testing.T) {
	dir := shared(t)
	m := openIn(t, dir)
	all := records(t, m)
	for name, want := range map[string]string{
		"ended":    `endedaaaaaaaaaaa t ["/bin/sh" "-c" "echo x; exit 3"] key:ci http ended exit-code 3 ["notify"] d true webhook/t/1 {0 0  0 0s 0 }`,
		"promised": `promisedaaaaaaaa t ["/bin/sh"] key:ci http promised exit-code 3 [] d false  {0 0  0 0s 0 }`,
		"running":  `runningaaaaaaaaa one ["/bin/sh" "-c" "exec sleep 1000"] hook webhook running   [] digest of runningaaaaaaaaa true  {0 1  0 10s 0 c0ffee}`,
		"queued":   `queuedaaaaaaaaaa one ["/bin/sh" "-c" "cat; exit 4"] hook webhook queued   [] digest of queuedaaaaaaaaaa true  {0 1  0 10s 0 c0ffee}`,
		"alias":    `aliasaaaaaaaaaaa one ["/bin/sh"] hook webhook queued   [] digest of aliasaaaaaaaaaaa false  {0 0  0 0s 0 }`,
	} {
		j := all[name]
		end := " "
		if j.Exit != nil {
			end = fmt.Sprint(j.Exit.Reason, " ", j.Exit.Code)
		}
		got := fmt.Sprintf("%s %s %q %s %s %s %s %q %s %v %s %v", j.ID, j.Task, j.Args, j.Owner, j.Trigger, j.State, end, j.OnFailure, j.Digest, j.Dynamic, j.Once.Key, j.Policy)
		if got != want {
			t.Errorf("%s is\n%s, not\n%s", name, got, want)
		}
	}
	if j := all["running"]; j.PID == 0 || j.Slot == "" || j.Boot == "" || j.Credentials.UID != 70000 && j.Credentials.UID != 70001 || j.KillSignal != 15 || j.TimeoutStop != 5*time.Second {
		t.Errorf("running is %+v", j)
	}
	if j := all["queued"]; string(j.Input) != "new input\n" || j.Same == "" || j.Sandbox.Profile != "default" || j.Identifier() != "one" {
		t.Errorf("queued is %+v", j)
	}
	if a := all["alias"]; a.Into != all["queued"].ID {
		t.Errorf("alias is of %q", a.Into)
	}
	if p := all["promised"]; p.Reply == nil || string(p.Reply.Stdout) != "x\n" {
		t.Errorf("promised is %+v", p.Reply)
	}
	var list []Job
	for _, j := range all {
		j.Record = m.opts.recordPath(j.ID)
		j.Sandbox.RuntimeDirectory = m.opts.Host.RuntimeDirectory()
		if os.Geteuid() != 0 {
			j.Credentials = nil
		}
		list = append(list, j)
	}
	if err := m.records.PutAll(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = openIn(t, dir)
	defer end(t, m)
	if j := wait(t, m, all["running"].ID); j.Exit.Reason != spec.Lost {
		t.Errorf("what ran at another boot ended with %+v", j.Exit)
	}
	if j := wait(t, m, all["alias"].ID); j.ID != all["queued"].ID || j.Exit.Code != 4 {
		t.Errorf("what waited: %s %+v", j.ID, j.Exit)
	}
	if got := output(t, m, all["queued"].ID); got != "new input\n" {
		t.Errorf("what waited wrote %q", got)
	}
	again := all["promised"].Spec
	again.MaxReply = 100
	if r, err := m.Run(t.Context(), again, nil); err != nil || r.Exit.Code != 3 || string(r.Stdout) != "x\n" {
		t.Errorf("what was promised: %+v %q, %v", r.Exit, r.Stdout, err)
	}
}

package job

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rtask/rtask/sandbox/spec"
)

func TestDuplicates(t *testing.T) {
	m := open(t)
	s := sh("exec sleep 1000")
	s.Unique = true
	first := start(t, m, s)
	var duplicate *DuplicateError
	if _, err := m.Start(t.Context(), s); !errors.As(err, &duplicate) || duplicate.ID != first.ID {
		t.Fatalf("a duplicate: %v", err)
	}
	other := s
	other.Owner = Owner{UID: 1001, Name: "ben"}
	start(t, m, other) // judged per user
	other = s
	other.Args = []string{"/bin/sh", "-c", "exec sleep  1000"}
	start(t, m, other)
	other = s
	other.Unique = false
	start(t, m, other)
	if _, err := m.Stop(t.Context(), first.ID, StopOptions{Kill: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Start(t.Context(), s); !errors.As(err, &duplicate) || duplicate.ID == first.ID {
		t.Errorf("the one that was allowed is still running: %v", err)
	}
	for _, j := range m.jobs.those(func(j Job) bool { return sameCommand(j, first) }) {
		if _, err := m.Stop(t.Context(), j.ID, StopOptions{Kill: true}); err != nil {
			t.Fatal(err)
		}
	}
	start(t, m, s)
}

// 200 at once, and room for 5.
func TestMaxJobs(t *testing.T) {
	m := open(t, func(o *Options) { o.MaxJobs = 5 })
	var started, refused atomic.Int32
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			s := sh("exec sleep 1000")
			s.Volatile = i%2 == 0
			_, err := m.Start(t.Context(), s)
			switch {
			case err == nil:
				started.Add(1)
			case errors.Is(err, ErrTooMany):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if started.Load() != 5 || refused.Load() != 195 || m.Running() != 5 {
		t.Errorf("%d started, %d refused, %d run", started.Load(), refused.Load(), m.Running())
	}
	if jobs, err := m.List(Filter{Ended: true}); err != nil || len(jobs) != 5 {
		t.Errorf("%d jobs on record, %v", len(jobs), err)
	}
	m.SetLimits(6, m.pool.uids.r)
	start(t, m, sh("exec sleep 1000"))
	if _, err := m.Start(t.Context(), sh("true")); !errors.Is(err, ErrTooMany) {
		t.Errorf("after SetLimits: %v", err)
	}
}

func TestInvalid(t *testing.T) {
	m := open(t)
	with := func(change func(*Spec)) Spec {
		s := sh("true")
		change(&s)
		return s
	}
	for name, s := range map[string]Spec{
		"no command":     with(func(s *Spec) { s.Args[0] = "" }),
		"relative dir":   with(func(s *Spec) { s.Dir = "tmp" }),
		"NUL":            with(func(s *Spec) { s.Args[2] = "a\x00b" }),
		"NUL in path":    with(func(s *Spec) { s.Path = "/bin/sh\x00" }),
		"environment":    with(func(s *Spec) { s.Env = []string{"hunter2"} }),
		"empty name":     with(func(s *Spec) { s.Env = []string{"=hunter2"} }),
		"NUL in value":   with(func(s *Spec) { s.Env = []string{"A=hunter2\x00"} }),
		"long argument":  with(func(s *Spec) { s.Args[2] = strings.Repeat("x", 128<<10) }),
		"long arguments": with(func(s *Spec) { s.Args = slices.Repeat([]string{strings.Repeat("x", 1<<10)}, 7<<10) }),
		"limits":         with(func(s *Spec) { one := uint64(1 << 30); s.Limits.MemoryMax = &one }),
	} {
		_, err := m.Start(t.Context(), s)
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || len(err.Error()) > 1000) {
			t.Errorf("%s: the error repeats what it was given: %.200v", name, err)
		}
	}
	if jobs, err := m.List(Filter{Ended: true}); len(jobs) != 0 || err != nil {
		t.Errorf("a request that is wrong left %v, %v", jobs, err)
	}
	if os.Geteuid() != 0 {
		if _, err := m.Start(t.Context(), with(func(s *Spec) { s.As = UserOf(spec.Credentials{UID: 1}) })); !errors.Is(err, ErrInvalid) {
			t.Errorf("another user's job: %v", err)
		}
	}
}

// What cannot be set up is a job that has ended, as soon as Start returns and ever after.
func TestSetup(t *testing.T) {
	dir := t.TempDir()
	m := openIn(t, dir)
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	ended := map[string]int{}
	for range 5 {
		for _, c := range []struct {
			run  spec.Run
			code int
		}{
			{spec.Run{Args: []string{"/no/such/program"}}, 127},
			{spec.Run{Args: []string{"no-such-program"}}, 127},
			{spec.Run{Args: []string{"/etc"}}, 126},
			{spec.Run{Args: []string{"true"}, Dir: "/no/such/folder"}, -1},
		} {
			j := start(t, m, Spec{Run: c.run})
			if j.State != Ended || j.Exit.Reason != spec.Setup || j.Exit.Code != c.code || j.Exit.Detail == "" || j.PID != 0 || j.EndedAt.IsZero() {
				t.Errorf("%s: %s %+v", c.run.Args[0], j.State, j.Exit)
			}
			ended[j.ID] = c.code
		}
	}
	// And where the machinery itself fails.
	if err := os.RemoveAll(m.opts.LogDir); err != nil {
		t.Fatal(err)
	}
	j := start(t, m, sh("true"))
	if j.State != Ended || j.Exit.Reason != spec.Setup {
		t.Errorf("no folder for logs: %s %+v", j.State, j.Exit)
	}
	ended[j.ID] = -1
	if r, err := m.Run(t.Context(), sh("true"), nil); err != nil || r.Exit.Reason != spec.Setup {
		t.Errorf("Run: %v, %v", r.Exit, err)
	}
	noneInUse(t, m)
	end(t, m)
	m = openIn(t, dir)
	defer end(t, m)
	for id, code := range ended {
		if j, err := m.Status(id); err != nil || j.State != Ended || j.Exit.Reason != spec.Setup || j.Exit.Code != code {
			t.Errorf("%s: %+v, %v", id, j.Exit, err)
		}
	}
}

// The reply of a job that ends at once is not lost, which it would be to a Wait that comes too late.
func TestRun(t *testing.T) {
	m := open(t)
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			s := sh(fmt.Sprintf("echo %d; exit %d", i, i))
			s.Volatile = i%2 == 0
			told := 0
			r, err := m.Run(t.Context(), s, func(j Job) { told++ })
			if err != nil || string(r.Stdout) != fmt.Sprintln(i) || r.Exit.Code != i || r.State != Ended || told != 1 {
				t.Errorf("%d: %q %+v, %v", i, r.Stdout, r.Exit, err)
			}
			if j, err := m.Status(r.ID); err != nil || j.State != Ended || j.Exit.Code != i {
				t.Errorf("%d: Status %+v, %v", i, j.Exit, err)
			}
			if r, err := m.Wait(t.Context(), r.ID); err != nil || r.Exit.Code != i {
				t.Errorf("%d: Wait %+v, %v", i, r.Exit, err)
			}
		})
	}
	all.Wait()
	// Who waits goes, and the job does not.
	ctx, cancel := context.WithCancel(t.Context())
	var id string
	_, err := m.Run(ctx, sh("exec sleep 1000"), func(j Job) { id = j.ID; cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if j, err := m.Status(id); err != nil || j.State != Running {
		t.Errorf("%v, %v", j.State, err)
	}
	if _, err := m.Wait(t.Context(), "aaaaaaaaaaaaaaaa"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Wait for no job: %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("SECRET_OF_THE_ENGINE", "hunter2")
	m := open(t)
	s := Spec{
		Run: spec.Run{
			Task: "deploy", Args: []string{"/usr/bin/env"}, Env: []string{"LOG_LEVEL=info", "LANG=de_DE", "RTASK_JOB_ID=forged"}, LogMax: 1 << 20, MaxReply: 1 << 16,
		},
		Trigger: "http",
	}
	r, err := m.Run(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	u := dynamic(0)
	if os.Geteuid() != 0 {
		u = UserOf(spec.Credentials{UID: uint32(os.Geteuid())})
	}
	want := []string{
		"HOME=" + u.Home, "LANG=de_DE", "LOGNAME=" + u.Name, "LOG_LEVEL=info", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"RTASK_JOB_ID=" + r.ID, "RTASK_TASK=deploy", "RTASK_TRIGGER=http", "SHELL=" + u.Shell, "USER=" + u.Name,
	}
	got := strings.Split(strings.TrimSuffix(string(r.Stdout), "\n"), "\n")
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%v, want\n%v", got, want)
	}
	// A command has no task, and no other descriptors than its three either.
	r, err = m.Run(t.Context(), Spec{Run: spec.Run{Args: []string{"/bin/ls", "/proc/self/fd"}, MaxReply: 1 << 16}, Trigger: "local"}, nil)
	if err != nil || len(strings.Fields(string(r.Stdout))) != 4 { // and the folder itself
		t.Errorf("descriptors: %q, %v", r.Stdout, err)
	}
}

func TestInput(t *testing.T) {
	m := open(t)
	big := strings.Repeat("0123456789abcdef", 64<<10)
	for _, in := range []string{"", "x", "two\nlines", big} {
		s := Spec{Run: spec.Run{Args: []string{"/bin/cat"}, MaxReply: 2 << 20, LogMax: 2 << 20}, Terms: Terms{Input: []byte(in)}}
		if r, err := m.Run(t.Context(), s, nil); err != nil || string(r.Stdout) != in {
			t.Errorf("%d bytes in, %d out, %v", len(in), len(r.Stdout), err)
		}
	}
}

func TestNumbers(t *testing.T) {
	needRoot(t)
	m := open(t, func(o *Options) { o.UIDs = spec.UIDRange{First: 70000, Last: 70001} })
	jobs := []Job{start(t, m, sh("id -u; exec sleep 1000")), start(t, m, sh("id -u; exec sleep 1000"))}
	for i, want := range []string{"70000\n", "70001\n"} {
		if until(t, m, jobs[i].ID, "\n"); output(t, m, jobs[i].ID) != want {
			t.Errorf("job %d has uid %q", i, output(t, m, jobs[i].ID))
		}
	}
	if _, err := m.Start(t.Context(), sh("true")); !errors.Is(err, ErrTooMany) {
		t.Errorf("a third: %v", err)
	}
	if _, err := m.Stop(t.Context(), jobs[0].ID, StopOptions{Kill: true}); err != nil {
		t.Fatal(err)
	}
	if r, err := m.Run(t.Context(), sh("id -u; id -G"), nil); err != nil || string(r.Stdout) != "70000\n70000\n" {
		t.Errorf("after one was given back: %q, %v", r.Stdout, err)
	}
	group := uint32(4243)
	s := sh("id -u; id -g; id -G")
	s.As, s.Group, s.Groups = &User{Name: "x", Home: "/", Shell: "/bin/sh", Credentials: spec.Credentials{UID: 4242, GID: 4242, Groups: []uint32{4245}}}, &group, []uint32{4244}
	if r, err := m.Run(t.Context(), s, nil); err != nil || string(r.Stdout) != "4242\n4243\n4243 4245 4244\n" && string(r.Stdout) != "4242\n4243\n4243 4244 4245\n" {
		t.Errorf("named: %q, %v", r.Stdout, err)
	}
}

// TestLeftProcess: a slot in which a process of its job may be left gets no other job, and no job gets root's number for its own.
func TestLeftProcess(t *testing.T) {
	needRoot(t)
	m := open(t)
	s := sh("id -u; exec sleep 1000")
	s.Task, s.Keep = "t", time.Minute
	first := start(t, m, s)
	until(t, m, first.ID, "\n")
	m.jobs.mu.Lock()
	l := m.jobs.live[first.ID]
	m.jobs.mu.Unlock()
	m.pool.keepNumber(l.slot) // as if what is left of it could not be killed
	if _, err := m.Stop(t.Context(), first.ID, StopOptions{Kill: true}); err != nil {
		t.Fatal(err)
	}
	second := start(t, m, s)
	until(t, m, second.ID, "\n")
	if second.Slot == first.Slot || output(t, m, second.ID) != "70001\n" {
		t.Errorf("slot %s, then %s; uid %q", first.Slot, second.Slot, output(t, m, second.ID))
	}
	if err := (&slot{id: first.Slot}).lend(&second); err == nil {
		t.Errorf("a slot without a number was lent, with %+v", second.Credentials)
	}
}

// TestNoNumberNoWrite: a start that is refused since every number is taken writes nothing, neither a record nor its input.
func TestNoNumberNoWrite(t *testing.T) {
	needRoot(t)
	m := open(t, func(o *Options) { o.UIDs = spec.UIDRange{First: 70000, Last: 70000} })
	j := start(t, m, sh("echo x; exec sleep 1000"))
	until(t, m, j.ID, "x")
	onDisk := func() [sha256.Size]byte {
		if _, err := m.records.Oldest("", 1); err != nil { // waits for what is being committed
			t.Fatal(err)
		}
		b, err := os.ReadFile(recordsPath(m.opts.StateDir))
		if err != nil {
			t.Fatal(err)
		}
		return sha256.Sum256(b)
	}
	before := onDisk()
	if err := os.Remove(m.opts.inputsDir()); err != nil { // so that no input could be written
		t.Fatal(err)
	}
	s := sh("true")
	s.Input = make([]byte, maxInline+1)
	if _, err := m.Start(t.Context(), s); !errors.Is(err, ErrTooMany) {
		t.Errorf("%v", err)
	}
	if onDisk() != before {
		t.Error("the records were written")
	}
	if n := m.Running(); n != 1 {
		t.Errorf("%d run", n)
	}
}

// BenchmarkRun is the whole way of a job that nobody waits behind: admitted, placed in a slot that is ready, launched, and ended.
func BenchmarkRun(b *testing.B) {
	m := open(b)
	s := Spec{Run: spec.Run{Task: "t", Args: []string{"/bin/true"}}}
	s.Volatile, s.Keep = true, time.Minute
	for b.Loop() {
		if r, err := m.Run(b.Context(), s, nil); err != nil || !r.Succeeded() {
			b.Fatalf("%v, %+v", err, r.Exit)
		}
	}
}

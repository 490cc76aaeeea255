package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

// storm KILLS KEY FOLDER puts jobs of all kinds through rtask and kills the engine KILLS times (or a part of them, see count) with SIGKILL, stops
// it with SIGSTOP now and then, restarts dbus and has PID 1 execute itself anew and read its units again. At the end every
// job that was accepted must have run once, and ended as its number says it should, with the output that its number says.
//
// The tasks storm-blocking, storm-queued, storm-long and storm-one, and the command FOLDER/job, do what job says below.
func storm(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: storm KILLS KEY FOLDER")
	}
	kills, err := strconv.Atoi(args[0])
	ts.Check(err)
	kills = count(kills)
	s := &tempest{
		number: 1000, // so that all are unlike those of a script
		key:    args[1], dir: args[2], quit: make(chan struct{}), engine: jobService(),
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}},
	}
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() { s.repeat(5*time.Millisecond, s.blocking) })
	}
	for range 2 {
		load.Go(func() { s.repeat(100*time.Millisecond, func() { s.accepted("storm-queued") }) })
	}
	load.Go(func() { s.repeat(150*time.Millisecond, func() { s.accepted("storm-one") }) })
	load.Go(func() { s.repeat(150*time.Millisecond, s.command) })
	load.Go(func() { s.repeat(50*time.Millisecond, s.patient) })
	for range 2 {
		load.Go(func() { s.repeat(100*time.Millisecond, s.followed) })
	}
	var bad sync.WaitGroup
	bad.Go(func() { s.repeat(5*time.Second, s.system) })
	begin := time.Now()
	err = s.kill(kills)
	close(s.quit)
	load.Wait()
	bad.Wait()
	took := time.Since(begin)
	ts.Check(err)
	s.settle()
	ts.Logf("%d kills and %d stops in %v; %s", kills, s.stops, took.Round(time.Second), s.count())
	if len(s.wrong) > 0 {
		ts.Fatalf("%d wrong:\n%s", len(s.wrong), strings.Join(s.wrong[:min(50, len(s.wrong))], "\n"))
	}
	s.http.CloseIdleConnections()
}

// tempest is the state of storm.
type tempest struct {
	key, dir string
	quit     chan struct{}
	http     *http.Client
	engine   rtaskv1connect.JobServiceClient
	stops    int // of the engine by SIGSTOP

	mu     sync.Mutex // guards what follows
	number int
	jobs   []ranJob
	wrong  []string
}

// ranJob is one attempt to have a job run.
type ranJob struct {
	number int
	kind   string
	// id, "" if it was not accepted as far as its caller was told.
	id string
}

// repeat calls do again and again until the storm is over.
func (s *tempest) repeat(pause time.Duration, do func()) {
	for {
		select {
		case <-s.quit:
			return
		case <-time.After(pause):
			do()
		}
	}
}

// next returns the number of a new job.
func (s *tempest) next() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++
	return s.number
}

func (s *tempest) started(number int, kind, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs = append(s.jobs, ranJob{number: number, kind: kind, id: id})
}

func (s *tempest) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// What the job of a number writes and how it ends; the script FOLDER/job does the same.
func stormOutput(number int, kind string) (stdout, stderr string, code int) {
	var b strings.Builder
	lines := number%40 + 1
	if kind == "storm-long" {
		lines = 100
	}
	for i := range lines {
		fmt.Fprintf(&b, "job %d line %d\n", number, i+1)
	}
	return b.String(), fmt.Sprintf("end of %d\n", number), number % 5
}

// request makes an HTTP request of the API.
func (s *tempest) request(method, path, body string) (*http.Response, []byte, error) {
	r, err := http.NewRequest(method, "http://127.0.0.1:8800"+path, strings.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("Authorization", "Bearer "+s.key)
	reply, err := s.http.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer reply.Body.Close()
	b, err := io.ReadAll(reply.Body)
	return reply, b, err
}

// result is the reply of the HTTP API about a job.
type result struct {
	Status, Reason, Stdout, Stderr string
	ExitCode                       int    `json:"exit_code"`
	TaskID                         string `json:"task_id"`
}

// blocking makes a request that waits for its job.
func (s *tempest) blocking() {
	n := s.next()
	reply, b, err := s.request(http.MethodPost, "/tasks/storm-blocking", strconv.Itoa(n))
	if err != nil {
		s.started(n, "storm-blocking", "")
		s.fail("the blocking request of job %d: %v", n, err)
		return
	}
	s.started(n, "storm-blocking", s.checkReply(n, "storm-blocking", reply, b))
}

// checkReply checks what the HTTP API said of a job that has ended, and returns its id.
func (s *tempest) checkReply(n int, kind string, reply *http.Response, b []byte) string {
	var r result
	if reply.Header.Get("Content-Type") != "application/json" || json.Unmarshal(b, &r) != nil {
		s.fail("the request of job %d (%s) got %s %s: %s", n, kind, reply.Status, reply.Header.Get("Rtask-Job-Id"), b)
		return ""
	}
	status, reason := "success", ""
	stdout, stderr, code := stormOutput(n, kind)
	if code != 0 {
		status, reason = "failure", "exit-code"
	}
	if r.Status != status || r.Reason != reason || r.ExitCode != code || r.Stdout != stdout || r.Stderr != stderr {
		s.fail("job %d (%s, %s) was to end with %d, the reply is %s", n, kind, r.TaskID, code, b)
	}
	return r.TaskID
}

// accepted makes a request that does not wait for its job.
func (s *tempest) accepted(task string) {
	n := s.next()
	input := strconv.Itoa(n)
	if n%4 == 0 { // one that is kept in a file of its own
		input += "\n" + strings.Repeat("-", 100<<10)
	}
	reply, b, err := s.request(http.MethodPost, "/tasks/"+task, input)
	var r result
	switch {
	case err != nil:
		s.fail("the request of job %d (%s): %v", n, task, err)
	case reply.StatusCode != http.StatusAccepted || json.Unmarshal(b, &r) != nil:
		s.fail("the request of job %d (%s) got %s: %s", n, task, reply.Status, b)
	}
	s.started(n, task, r.TaskID)
}

// command starts a command. One that could not be started may run all the same: the engine may have been killed before it
// could tell.
func (s *tempest) command() {
	n := s.next()
	out, err := exec.Command("rtaskctl", "start", filepath.Join(s.dir, "job"), strconv.Itoa(n)).CombinedOutput()
	id := ""
	if err == nil {
		id = strings.TrimSpace(strings.TrimPrefix(string(out), "Job: "))
	}
	s.started(n, "command", id)
}

// patient starts a command and waits for its end, once for its id and once as `rtaskctl run` does.
func (s *tempest) patient() {
	n := s.next()
	out, err := exec.Command("rtaskctl", "start", filepath.Join(s.dir, "job"), strconv.Itoa(n)).CombinedOutput()
	if err != nil {
		s.started(n, "command", "")
		return
	}
	id := strings.TrimSpace(strings.TrimPrefix(string(out), "Job: "))
	s.started(n, "command", id)
	wait := exec.Command("rtaskctl", "wait", id)
	out, _ = wait.CombinedOutput()
	if _, _, code := stormOutput(n, "command"); wait.ProcessState.ExitCode() != code {
		s.fail("rtaskctl wait of job %d (%s) was to end with %d, and ended with %d: %s", n, id, code, wait.ProcessState.ExitCode(), out)
	}
}

// followed starts a job that writes for some seconds, and follows it from its start to its end.
func (s *tempest) followed() {
	n := s.next()
	out, err := exec.Command("rtaskctl", "start", filepath.Join(s.dir, "job"), strconv.Itoa(n), "storm-long").CombinedOutput()
	if err != nil {
		s.started(n, "storm-long", "")
		return
	}
	id := strings.TrimSpace(strings.TrimPrefix(string(out), "Job: "))
	s.started(n, "storm-long", id)
	var stdout, stderr bytes.Buffer
	follow := exec.Command("rtaskctl", "logs", "-f", id)
	follow.Stdout, follow.Stderr = &stdout, &stderr
	err = follow.Run()
	if o, e, _ := stormOutput(n, "storm-long"); err != nil || stdout.String() != o || stderr.String() != e {
		s.fail("the follower of job %d (%s) ended with %v and got %q, %q", n, id, err, stdout.String(), stderr.String())
	}
}

// system does to the rest of the system what an upgrade of it would.
func (s *tempest) system() {
	what := [][]string{{"restart", "dbus.service"}, {"daemon-reload"}, {"daemon-reexec"}}[rand.IntN(3)]
	// Who waits for it is cut off, so nobody does; when it is done shows.
	_ = exec.Command("systemctl", append([]string{"--no-block"}, what...)...).Run()
}

// kill kills the engine as often as asked for, each time another one, at any moment of its life.
func (s *tempest) kill(times int) error {
	last := 0
	for n := 0; n < times; {
		pid, err := nextEngine(last)
		if err != nil {
			return fmt.Errorf("after %d kills: %w", n, err)
		}
		last = pid
		life := time.Duration(rand.IntN(800)) * time.Millisecond
		if n%4 == 0 {
			life = time.Duration(rand.IntN(50)) * time.Millisecond // while it takes up what the last one left
		}
		time.Sleep(life)
		if n%25 == 12 {
			s.stops++
			_ = syscall.Kill(pid, syscall.SIGSTOP)
			time.Sleep(time.Second + time.Duration(rand.IntN(6000))*time.Millisecond)
			if s.stops%2 == 0 { // else it is killed as it is
				_ = syscall.Kill(pid, syscall.SIGCONT)
				time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
			}
		}
		switch err := syscall.Kill(pid, syscall.SIGKILL); {
		case err == nil:
			n++
		case errors.Is(err, syscall.ESRCH): // it was about to become a shim; whether an engine ended by itself the journal says
		default:
			return fmt.Errorf("cannot kill the engine: %w", err)
		}
	}
	return nil
}

// nextEngine waits for an engine that is not the process last.
func nextEngine(last int) (int, error) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		procs, err := os.ReadFile("/sys/fs/cgroup/system.slice/rtask.service/cgroup.procs")
		if err != nil {
			continue // it is not started yet
		}
		for _, p := range strings.Fields(string(procs)) {
			exe, err := os.Readlink("/proc/" + p + "/exe")
			if err != nil || exe != "/usr/bin/rtaskd" {
				continue
			}
			stat, err := os.ReadFile("/proc/" + p + "/stat") // proc_pid_stat(5)
			if err != nil {
				continue
			}
			_, rest, _ := strings.Cut(string(stat), ") ")
			pid, err := strconv.Atoi(p)
			if fields := strings.Fields(rest); err == nil && pid != last && len(fields) > 1 && fields[1] == "1" {
				return pid, nil
			}
		}
	}
	return 0, errors.New("no engine comes back within a minute")
}

// jobService is a client of the engine's.
func jobService() rtaskv1connect.JobServiceClient {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	t := &http.Transport{Protocols: &p, DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", "/run/rtask/rtask.sock")
	}}
	return rtaskv1connect.NewJobServiceClient(connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: t}, "http://rtask")))
}

// settle waits until every job has ended, and compares what became of each with what should have.
func (s *tempest) settle() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		list, err := s.engine.List(ctx, &rtaskv1.ListRequest{})
		if err == nil && len(list.Jobs) == 0 {
			break
		}
		if ctx.Err() != nil {
			s.fail("jobs run on: %v, %v", list, err)
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, j := range s.jobs {
		s.checkRuns(j)
		if j.id != "" {
			s.checkRecord(ctx, j)
		}
		if j.id != "" && (j.kind == "storm-queued" || j.kind == "storm-one") {
			reply, b, err := s.request(http.MethodGet, "/tasks/"+j.kind+"/"+j.id, "")
			if err != nil {
				s.fail("cannot ask for job %d: %v", j.number, err)
			} else {
				s.checkReply(j.number, j.kind, reply, b)
			}
		}
	}
}

// checkRuns checks how often a job ran: it wrote its id into a file of its own each time.
func (s *tempest) checkRuns(j ranJob) {
	b, err := os.ReadFile(filepath.Join(s.dir, "ran", strconv.Itoa(j.number)))
	ran := strings.Fields(string(b))
	switch {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		s.fail("%v", err)
	case len(ran) > 1, j.id != "" && !slices.Equal(ran, []string{j.id}):
		s.fail("job %d (%s, %q) ran as %q", j.number, j.kind, j.id, ran)
	}
}

// checkRecord checks what is on record of a job that was accepted, and its log.
func (s *tempest) checkRecord(ctx context.Context, j ranJob) {
	stdout, stderr, code := stormOutput(j.number, j.kind)
	reply, err := s.engine.Status(ctx, &rtaskv1.StatusRequest{Job: j.id})
	if err != nil {
		s.fail("job %d (%s, %s) is not known: %v", j.number, j.kind, j.id, err)
		return
	}
	r, reason := reply.Job, rtaskv1.Reason_REASON_UNSPECIFIED
	if code != 0 {
		reason = rtaskv1.Reason_REASON_EXIT_CODE
	}
	if r.State != rtaskv1.State_STATE_ENDED || r.Reason != reason || r.ExitCode == nil || int(*r.ExitCode) != code {
		s.fail("job %d (%s) was to end with %d, its record is %v", j.number, j.kind, code, r)
	}
	log, err := s.engine.StreamLogs(ctx, &rtaskv1.StreamLogsRequest{Job: j.id})
	if err != nil {
		s.fail("the log of job %d (%s): %v", j.number, j.id, err)
		return
	}
	defer log.Close()
	var out, errs bytes.Buffer
	for m, e := range client.Messages(log) {
		switch err = e; {
		case err != nil:
		case m.Stream == rtaskv1.Stream_STREAM_STDERR:
			errs.Write(m.Data)
		default:
			out.Write(m.Data)
		}
	}
	if err != nil || out.String() != stdout || errs.String() != stderr {
		s.fail("the log of job %d (%s, %s) is %q, %q, %v", j.number, j.kind, j.id, out.String(), errs.String(), err)
	}
}

// count says how many jobs of each kind were accepted.
func (s *tempest) count() string {
	n, refused := map[string]int{}, 0
	for _, j := range s.jobs {
		if j.id == "" {
			refused++
		} else {
			n[j.kind]++
		}
	}
	return fmt.Sprintf("accepted %v, not acknowledged %d", n, refused)
}

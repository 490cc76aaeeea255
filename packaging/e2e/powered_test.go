//go:build testbed

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/jobid"
)

const (
	// poweredDir has what the machine of TestPower needs; testdata/power/prepare puts it there.
	poweredDir = "/opt/power"
	// longJobs run until the power goes.
	longJobs = "long"
	// hookTask is the task whose webhook keeps deliveries, and hookToken the webhook's.
	hookTask, hookToken = "power-hook", "token-of-the-power-cuts"
	// unaskedTime is when the test gives up on jobs that are to run by themselves.
	unaskedTime = 5 * time.Minute
)

// TestPowered is the half of TestPower that runs in the machine, once in each boot: it looks at what became of the jobs that
// were accepted in earlier boots, and then has others run until the power is cut or the machine shut down.
func TestPowered(t *testing.T) {
	key, err := os.ReadFile(filepath.Join(poweredDir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	boot, err := strconv.Atoi(os.Getenv(powerBoot))
	if err != nil {
		t.Fatal(err)
	}
	known, err := readFacts(powerFacts)
	if err != nil {
		t.Fatal(err)
	}
	p := &powered{
		tempest: tempest{
			number: boot * 1000, key: strings.TrimSpace(string(key)), dir: poweredDir, quit: make(chan struct{}), engine: jobService(),
			http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}},
		},
		gateway: client.Dial("/run/rtask/gateway.sock").Gateway,
		boot:    boot, overHTTP: boot%5 == 1 && os.Getenv(powerHTTP) == "true", shutDown: os.Getenv(powerLast) == powerDown, known: known,
	}
	if p.boots, err = knownBoots(boot); err != nil {
		t.Fatal(err)
	}
	p.say(saidUp, "")
	p.unasked()
	end := os.Getenv(powerEnd)
	p.check(end == "")
	if len(p.wrong) > 0 {
		out, _ := exec.Command("journalctl", "--no-pager", "-n", "300", "-o", "short-precise", "-u", "rtask*").CombinedOutput()
		fmt.Printf("%s\n", out)
		p.say(saidWrong, strings.Join(p.wrong, "\n"+saidWrong+" "))
	}
	p.say(saidChecked, fmt.Sprintf("of %d jobs %d ended by themselves, %d are lost, %d were stopped", len(p.known), p.own, p.lost, p.stopped))
	if end == "" {
		return
	}
	var load sync.WaitGroup
	accept := p.start
	if p.overHTTP {
		accept = p.accept
		load.Go(func() { p.repeat(200*time.Millisecond, p.wait) })
	}
	for range 3 {
		p.command(&load, longJobs, "3600")
	}
	for range 6 {
		accept(&load, "power-one")
	}
	for range 3 {
		p.deliver(&load)
	}
	load.Go(func() { p.repeat(200*time.Millisecond, func() { accept(&load, "power-free") }) })
	load.Go(func() { p.repeat(300*time.Millisecond, func() { accept(&load, "power-one") }) })
	load.Go(func() { p.repeat(300*time.Millisecond, func() { p.command(&load, "command") }) })
	load.Go(func() { p.repeat(300*time.Millisecond, func() { p.deliver(&load) }) })
	p.say(saidLoaded, "")
	if end == powerCut {
		select {} // it comes
	}
	time.Sleep(2 * time.Second)
	close(p.quit)
	load.Wait()
}

// powered is the state of TestPowered. The load and the checks are those of storm, where they are the same.
type powered struct {
	tempest
	gateway  rtaskv1connect.GatewayServiceClient
	boot     int
	overHTTP bool // is the load of this boot: the gateway's start and a key's first hash take seconds there
	shutDown bool // was how the last boot ended, and not a cut
	known    []fact
	boots    boots

	out                sync.Mutex // makes lines whole
	own, lost, stopped int
}

// say tells TestPower something, at once and as one line.
func (p *powered) say(word, what string) {
	p.out.Lock()
	defer p.out.Unlock()
	fmt.Println(word, what)
}

// accepted tells TestPower of a job whose id was handed out, and later that its end was.
func (p *powered) accepted(load *sync.WaitGroup, f fact) {
	p.say(saidAccepted, f.String())
	ctx, cancel := context.WithCancel(context.Background())
	load.Go(func() {
		defer cancel()
		if _, err := p.engine.Wait(ctx, &rtaskv1.WaitRequest{Job: f.id}); err == nil {
			f.ended = true
			p.say(saidEnded, f.String())
		}
	})
	load.Go(func() {
		select {
		case <-ctx.Done():
		case <-p.quit:
			cancel()
		}
	})
}

// input is what the job of a number, of a task, reads.
func (p *powered) input(n int) string {
	if n%4 == 0 { // one that is kept in a file of its own
		return strconv.Itoa(n) + "\n" + strings.Repeat("-", 100<<10)
	}
	return strconv.Itoa(n)
}

// accept has a task run by a request over HTTP that does not wait for it.
func (p *powered) accept(load *sync.WaitGroup, task string) {
	n := p.next()
	reply, b, err := p.request(http.MethodPost, "/tasks/"+task, p.input(n))
	var r result
	if err != nil || reply.StatusCode != http.StatusAccepted || json.Unmarshal(b, &r) != nil {
		return // it was not accepted, as far as anybody knows
	}
	p.accepted(load, fact{number: n, kind: task, id: r.TaskID, boot: p.boot, http: true})
}

// start has a task run as `rtaskctl start` does.
func (p *powered) start(load *sync.WaitGroup, task string) {
	n := p.next()
	reply, err := p.engine.Start(context.Background(), &rtaskv1.StartRequest{Name: task, Input: []byte(p.input(n))})
	if err == nil {
		p.accepted(load, fact{number: n, kind: task, id: reply.Job.Id, boot: p.boot})
	}
}

// deliver has a task run by its webhook, as the gateway hands in a request.
func (p *powered) deliver(load *sync.WaitGroup) {
	n := p.next()
	reply, err := p.gateway.Webhook(context.Background(), &rtaskv1.WebhookRequest{
		Hash: hookToken, Method: http.MethodPost, Id: jobid.New(), Body: []byte(p.input(n)),
	})
	if err == nil && reply.Run != nil {
		p.accepted(load, fact{number: n, kind: hookTask, id: reply.Run.Job.Id, boot: p.boot})
	}
}

// command has a command run.
func (p *powered) command(load *sync.WaitGroup, kind string, args ...string) {
	n, job := p.next(), filepath.Join(poweredDir, "job")
	reply, err := p.engine.Start(context.Background(), &rtaskv1.StartRequest{
		Name: job, Path: job, Arguments: append([]string{strconv.Itoa(n)}, args...), WorkingDirectory: "/", SearchPath: "/usr/bin:/bin",
	})
	if err == nil {
		p.accepted(load, fact{number: n, kind: kind, id: reply.Job.Id, boot: p.boot})
	}
}

// wait makes a request that waits for its job. Nobody hands out its id.
func (p *powered) wait() {
	_, _, _ = p.request(http.MethodPost, "/tasks/power-blocking", strconv.Itoa(p.next()))
}

// unasked waits until what was queued when the machine went down has run, without a word to rtask. A job of power-one syncs a mark
// before it does anything else. One without a mark must run, unless the machine went down between its dispatch and its mark, which
// is on record: it is lost, or stopped. The records are looked at once the engine runs, so that this does not start it.
func (p *powered) unasked() {
	hit := map[string]bool{} // by id
	for deadline, step := time.Now().Add(unaskedTime), 50*time.Millisecond; ; time.Sleep(step) {
		var missing []fact
		for _, f := range p.known {
			if f.kind == "power-one" && !f.checked && !hit[f.id] && p.ranIn(f) == 0 {
				missing = append(missing, f)
			}
		}
		switch {
		case len(missing) == 0:
			return
		case time.Now().After(deadline):
			p.fail("these jobs were queued and do not run in boot %d without anybody's asking: %v", p.boot, missing)
			return
		case exec.Command("systemctl", "is-active", "--quiet", "rtask.service").Run() != nil:
			continue
		}
		step = time.Second // what is asked now takes longer
		for _, f := range missing {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			reply, err := p.engine.Status(ctx, &rtaskv1.StatusRequest{Job: f.id})
			cancel()
			hit[f.id] = err == nil && (reply.Job.Reason == rtaskv1.Reason_REASON_LOST || reply.Job.Reason == rtaskv1.Reason_REASON_STOPPED)
		}
	}
}

// ranIn returns the boot in which a job synced its mark; 0: it did not come to that.
func (p *powered) ranIn(f fact) int {
	if _, err := os.Stat(filepath.Join(p.dir, "ran", strconv.Itoa(f.number))); err != nil {
		return 0
	}
	text, err := os.ReadFile(filepath.Join(p.dir, "in", strconv.Itoa(f.number)))
	if err != nil {
		p.fail("job %v ran, and did not say in which boot: %v", f, err)
	}
	boot := p.boots[strings.TrimSpace(string(text))]
	if boot < f.boot {
		p.fail("job %v ran in boot %q, which is number %d", f, text, boot)
	}
	return boot
}

// boots has the number of each boot by the kernel's id of it (random(4)), which jobs put in their marks.
type boots map[string]int

// knownBoots adds this boot to those that are known on disk, and returns them.
func knownBoots(number int) (boots, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(poweredDir, "boots"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := fmt.Fprintln(f, strings.TrimSpace(string(id)), number); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(f.Name())
	if err != nil {
		return nil, err
	}
	all := boots{}
	for line := range strings.Lines(string(text)) {
		var id string
		var n int
		if _, err := fmt.Sscan(line, &id, &n); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", f.Name(), line, err)
		}
		all[id] = n
	}
	return all, nil
}

// checkHits checks that the machine's going down can have hit these jobs of power-one. One of them runs at a time, so each end of
// the machine hit one at most: that of the boot in which the job synced its mark, or for one without a mark, that of any boot since
// the job was accepted.
func (p *powered) checkHits(jobs []fact) {
	type span struct{ first, last int } // boots
	var spans []span
	for _, f := range jobs {
		s := span{f.boot, p.boot - 1}
		if boot := p.ranIn(f); boot != 0 {
			s = span{boot, boot}
		}
		spans = append(spans, s)
	}
	slices.SortFunc(spans, func(a, b span) int { return a.last - b.last })
	taken := map[int]bool{}
	for _, s := range spans {
		for s.first <= s.last && taken[s.first] {
			s.first++
		}
		if s.first > s.last || s.last >= p.boot {
			p.fail("more jobs of power-one are lost or stopped than ends of the machine can have hit: %v", jobs)
			return
		}
		taken[s.first] = true
	}
}

// check compares what became of the jobs that were accepted before with what may have; those that were looked at in an earlier
// boot are only to be known, unless all is to be looked at.
func (p *powered) check(all bool) {
	ctx, cancel := context.WithTimeout(context.Background(), unaskedTime)
	defer cancel()
	var jobs map[string]*rtaskv1.Job
	for {
		reply, err := p.engine.List(ctx, &rtaskv1.ListRequest{All: true, Limit: 100000})
		if err != nil {
			p.fail("cannot list the jobs: %v", err)
			return
		}
		jobs = map[string]*rtaskv1.Job{}
		for _, j := range reply.Jobs {
			jobs[j.Id] = j
		}
		i := slices.IndexFunc(p.known, func(f fact) bool { return jobs[f.id] != nil && jobs[f.id].State != rtaskv1.State_STATE_ENDED })
		if i < 0 {
			break
		}
		if ctx.Err() != nil {
			p.fail("job %v runs on: %v", p.known[i], jobs[p.known[i].id])
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	var hits []fact
	for _, f := range p.known {
		j := jobs[f.id]
		if j == nil {
			p.fail("job %v is not known", f)
			continue
		}
		if f.kind == "power-one" && !f.checked && (j.Reason == rtaskv1.Reason_REASON_LOST || j.Reason == rtaskv1.Reason_REASON_STOPPED) {
			hits = append(hits, f)
		}
		switch {
		case f.checked && !all:
			continue
		case j.Reason == rtaskv1.Reason_REASON_LOST:
			p.lost++
			p.checkHit(ctx, f, j, "lost", "the machine went down while it ran")
			if p.shutDown && f.boot == p.boot-1 {
				p.fail("job %v is lost, though the machine was shut down: %v", f, j)
			}
		case j.Reason == rtaskv1.Reason_REASON_STOPPED:
			p.stopped++
			p.checkHit(ctx, f, j, "stopped", "stopped by a signal from outside rtask (systemctl stop?)")
		case f.kind == longJobs && !f.ended:
			p.fail("job %v cannot have come to its end: %v", f, j)
		default:
			p.own++
			p.checkOwn(ctx, f)
		}
	}
	p.checkHits(hits)
	p.checkRan()
	p.checkKept(ctx)
}

// checkKept checks that each delivery that was accepted is kept, and is what was delivered.
func (p *powered) checkKept(ctx context.Context) {
	reply, err := p.engine.ListDeliveries(ctx, &rtaskv1.ListDeliveriesRequest{Task: hookTask})
	if err != nil {
		p.fail("cannot list the deliveries: %v", err)
		return
	}
	kept := map[string]*rtaskv1.Delivery{}
	for _, d := range reply.Deliveries {
		kept[d.Id] = d
	}
	for _, f := range p.known {
		if d := kept[f.id]; f.kind == hookTask && (d.GetDecision() != "accepted" || d.GetBodyBytes() != int64(len(p.input(f.number)))) {
			p.fail("of the delivery of job %v there is kept: %v", f, d)
		}
	}
}

// checkOwn checks a job that came to its own end.
func (p *powered) checkOwn(ctx context.Context, f fact) {
	j := ranJob{number: f.number, kind: f.kind, id: f.id}
	p.checkRuns(j)
	p.checkRecord(ctx, j)
	if !f.http {
		return
	}
	if reply, b, err := p.request(http.MethodGet, "/tasks/"+f.kind+"/"+f.id, ""); err != nil {
		p.fail("cannot ask for job %v: %v", f, err)
	} else {
		p.checkReply(f.number, f.kind, reply, b)
	}
}

// checkHit checks a job that was running when the machine went down.
func (p *powered) checkHit(ctx context.Context, f fact, j *rtaskv1.Job, reason, detail string) {
	if f.ended {
		p.fail("the end of job %v was told, and now it is %s", f, reason)
	}
	if !strings.Contains(j.Detail, detail) || reason == "lost" && (j.ExitCode != nil || j.Signal != "") {
		p.fail("job %v is %s: %v", f, reason, j)
	}
	ran, err := os.ReadFile(filepath.Join(p.dir, "ran", strconv.Itoa(f.number)))
	if err != nil && !errors.Is(err, os.ErrNotExist) || len(ran) > 0 && string(ran) != f.id+"\n" { // it may not have come to that
		p.fail("job %v, which is %s, ran as %q, %v", f, reason, ran, err)
	}
	stdout, stderr, _ := stormOutput(f.number, f.kind)
	o, e, err := p.log(ctx, f.id)
	if reason == "lost" && connect.CodeOf(err) == connect.CodeNotFound {
		err = nil // the power was cut before the name of its log was on the disk
	}
	if err != nil || !strings.HasPrefix(stdout, o) || !strings.HasPrefix(stderr, e) {
		p.fail("the log of job %v, which is %s, is %q, %q, %v", f, reason, o, e, err)
	}
	if !f.http {
		return
	}
	reply, b, err := p.request(http.MethodGet, "/tasks/"+f.kind+"/"+f.id, "")
	var r result
	if err != nil || reply.StatusCode != http.StatusOK || json.Unmarshal(b, &r) != nil || r.Status != "failure" || r.Reason != reason {
		p.fail("the reply about job %v, which is %s, is %s, %v", f, reason, b, err)
	}
}

// log returns what is in the log of a job.
func (p *powered) log(ctx context.Context, id string) (stdout, stderr string, err error) {
	log, err := p.engine.StreamLogs(ctx, &rtaskv1.StreamLogsRequest{Job: id})
	if err != nil {
		return "", "", err
	}
	defer log.Close()
	var o, e bytes.Buffer
	for m, err := range client.Messages(log) {
		switch {
		case err != nil:
			return o.String(), e.String(), err
		case m.Stream == rtaskv1.Stream_STREAM_STDERR:
			e.Write(m.Data)
		default:
			o.Write(m.Data)
		}
	}
	return o.String(), e.String(), nil
}

// checkRan checks that no job at all ran twice, also of those whose ids nobody got to know.
func (p *powered) checkRan() {
	ran, err := os.ReadDir(filepath.Join(p.dir, "ran"))
	if err != nil {
		p.fail("%v", err)
	}
	for _, e := range ran {
		b, err := os.ReadFile(filepath.Join(p.dir, "ran", e.Name()))
		if err != nil || bytes.Count(b, []byte("\n")) > 1 {
			p.fail("job %s ran as %q, %v", e.Name(), b, err)
		}
	}
}

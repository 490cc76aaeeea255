package e2e

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

const (
	// floodTime is how long the floods last, where RTASK_FLOOD_TIME does not say it.
	floodTime = 25 * time.Second
	// settleTime is how long the daemons may take to be as they were: idle connections between them stay for 90 seconds.
	settleTime = 5 * time.Minute
	// slack is how many descriptors and goroutines more than before are none too many, and memorySlack how many bytes: Go gives memory
	// back late.
	slack       = 32
	memorySlack = 256 << 20
)

// flood puts all floods at once on the daemons, beside one client that has a key, sends signed webhooks and runs rtaskctl: each of its requests must be
// served, and be known to `rtaskctl audit`; afterwards the daemons must hold what they held before. How long it takes that client is
// logged beside what it takes without floods.
//
// What it needs is in the script's environment: KEY and the tasks "normal" and "signed"; GREEDY, another key, and JOB, which is a
// job of its task "silent" that runs; BAD, a key that is not good any more; URL and REPLAY, the paths of webhooks with the
// secret "s3cret". HTTP is served at 127.0.0.1:8800 and :9090, HTTPS at 192.0.2.8:8443, and 192.0.2.10 to 192.0.2.13 are addresses
// of this machine.
func flood(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: flood")
	}
	length := floodTime
	if v := os.Getenv("RTASK_FLOOD_TIME"); v != "" {
		var err error
		length, err = time.ParseDuration(v)
		ts.Check(err)
	}
	n := newNormal(ts)
	n.requests(20, 0)
	before := median(n.took)
	ts.Check(errors.Join(n.failed...))
	held := holds(ts)
	ts.Logf("before: a request takes %v; %v", before, held)

	// The floods come from processes of their own, which have of the processors what the daemons and their client leave: strangers are on
	// other machines. Two users of this machine flood what is local.
	floods := []*flooder{startFlooder(ts, nil, "URL", "REPLAY", "JOB", "BAD", "GREEDY")}
	for _, user := range []string{"alice", "bob"} {
		floods = append(floods, startFlooder(ts, []string{"setpriv", "--reuid=" + user, "--regid=" + user, "--init-groups"}))
	}
	defer func() {
		for _, f := range floods {
			_ = f.command.Process.Kill() // an error means that it has ended
		}
	}()
	n.took = nil
	began, third := time.Now(), false
	for time.Since(began) < length {
		n.requests(1, 100*time.Millisecond)
		if !third && time.Since(began) > length/3 {
			third = true
			ts.Logf("after a third: a request takes %v; %v", median(n.took), holds(ts))
		}
	}
	during := median(n.took)
	ts.Logf("at the end: a request takes %v, %.1f times as long as without floods; %d requests; %v", during, float64(during)/float64(before), len(n.ids), holds(ts))
	for _, f := range floods {
		ts.Check(f.stop.Close())
		err := f.command.Wait()
		ts.Logf("floods: %s", f.output.String())
		ts.Check(err)
	}
	if len(n.failed) > 0 {
		ts.Fatalf("%d of %d requests failed: %v", len(n.failed), len(n.failed)+len(n.ids), errors.Join(n.failed[:min(10, len(n.failed))]...))
	}
	n.audit(ts)
	n.close()
	settle(ts, held, memorySlack, func() error { return nil })
}

// settle waits until the daemons hold little more than before, of memory at most so many bytes, and until what else must be right is.
func settle(ts *testscript.TestScript, held holding, memory int, right func() error) {
	for deadline := time.Now().Add(settleTime); ; time.Sleep(2 * time.Second) {
		now, err := holds(ts), right()
		if err == nil && held.covers(now, memory) {
			ts.Logf("afterwards: %v", now)
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("afterwards the daemons hold %v, before they held %v; %v", now, held, err)
		}
	}
}

func median(took []time.Duration) time.Duration {
	all := slices.Sorted(slices.Values(took))
	return all[len(all)/2].Round(10 * time.Microsecond)
}

// flooder is a process that floods until its standard input ends.
type flooder struct {
	command *exec.Cmd
	stop    io.Closer
	output  bytes.Buffer
}

// startFlooder starts TestFlooder below the command as, with these variables of the script. Without variables it floods as a user of
// this machine can.
func startFlooder(ts *testscript.TestScript, as []string, variables ...string) *flooder {
	self, err := os.Executable()
	ts.Check(err)
	args := append(as, "nice", "-n", "19", self, "-test.run", "^TestFlooder$", "-test.timeout", "0")
	f := &flooder{command: exec.Command(args[0], args[1:]...)}
	f.command.Dir = "/"
	f.command.Env = []string{"PATH=" + os.Getenv("PATH"), flooderVariable + "KIND=local"}
	if len(variables) > 0 {
		f.command.Env[1] = flooderVariable + "KIND=remote"
	}
	for _, name := range variables {
		f.command.Env = append(f.command.Env, flooderVariable+name+"="+ts.Getenv(name))
	}
	f.stop, err = f.command.StdinPipe()
	ts.Check(err)
	f.command.Stdout, f.command.Stderr = &f.output, &f.output
	ts.Check(f.command.Start())
	return f
}

// holding is what the two daemons hold, the engine first. Pages of files, which the kernel takes back when it needs them, are not
// memory: the engine maps its records.
type holding struct{ memory, files, descriptors, goroutines [2]int }

func (h holding) String() string {
	of := func(i int) string {
		return fmt.Sprintf("%d MiB (and %d of files), %d descriptors, %d goroutines", h.memory[i]>>20, h.files[i]>>20, h.descriptors[i], h.goroutines[i])
	}
	return "engine " + of(0) + "; gateway " + of(1)
}

// covers reports whether another holding is not much more, of memory at most so many bytes.
func (h holding) covers(o holding, memory int) bool {
	for i := range h.memory {
		if o.memory[i] > h.memory[i]+memory || o.descriptors[i] > h.descriptors[i]+slack || o.goroutines[i] > h.goroutines[i]+slack {
			return false
		}
	}
	return true
}

// metrics are what the gateway serves at :9090.
func metrics(ts *testscript.TestScript) []byte {
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://127.0.0.1:9090/metrics")
	ts.Check(err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	ts.Check(err)
	return text
}

func holds(ts *testscript.TestScript) holding {
	var h holding
	metrics := metrics(ts)
	for i, unit := range []string{"rtask", "rtask-gateway"} {
		out, err := exec.Command("systemctl", "show", "-P", "MainPID", unit+".service").Output()
		ts.Check(err)
		pid := strings.TrimSpace(string(out))
		h.memory[i], h.files[i] = memory(ts, pid, "RssAnon"), memory(ts, pid, "RssFile")+memory(ts, pid, "RssShmem") // of a tmpfs
		files, err := os.ReadDir("/proc/" + pid + "/fd")
		ts.Check(err)
		h.descriptors[i] = len(files)
		name := []string{"rtask_engine_goroutines", "rtask_gateway_goroutines"}[i]
		m := regexp.MustCompile(`(?m)^` + name + ` (\d+)$`).FindSubmatch(metrics)
		if m == nil {
			ts.Fatalf("no metric %s", name)
		}
		h.goroutines[i], err = strconv.Atoi(string(m[1]))
		ts.Check(err)
	}
	return h
}

// normal is the client that is to be served.
type normal struct {
	key, hook string
	client    *http.Client
	number    int
	took      []time.Duration
	ids       []string
	failed    []error
}

func newNormal(ts *testscript.TestScript) *normal {
	return &normal{key: ts.Getenv("KEY"), hook: ts.Getenv("URL"), client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}}
}

func (n *normal) close() { n.client.CloseIdleConnections() }

// requests makes rounds of requests of all kinds, each on a connection of its own, and of one job by rtaskctl.
func (n *normal) requests(rounds int, pause time.Duration) {
	for range rounds {
		for _, base := range []string{"http://127.0.0.1:8800", "https://192.0.2.8:8443"} {
			for _, size := range []int{10, 100_000} {
				n.number++
				body := fmt.Sprintf("%*d", size, n.number)
				n.request(base+"/tasks/normal", body, 200, "Authorization", "Bearer "+n.key)
				n.request(base+n.hook, body, 202, "X-Hub-Signature-256", signed(body))
				time.Sleep(pause)
			}
		}
		if out, err := exec.Command("rtaskctl", "run", "normal").CombinedOutput(); err != nil || string(out) != "0\n" {
			n.failed = append(n.failed, fmt.Errorf("rtaskctl run normal: %q, %v", out, err))
		}
	}
}

// signed is the signature of a body, as GitHub makes it.
func signed(body string) string {
	mac := hmac.New(sha256.New, []byte("s3cret"))
	mac.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func (n *normal) request(url, body string, want int, header, value string) {
	began := time.Now()
	r, err := http.NewRequest("POST", url, strings.NewReader(body))
	if err != nil {
		n.failed = append(n.failed, err)
		return
	}
	r.Header.Set(header, value)
	res, err := n.client.Do(r)
	if err != nil {
		n.failed = append(n.failed, err)
		return
	}
	defer res.Body.Close()
	reply, err := io.ReadAll(res.Body)
	id := res.Header.Get("Rtask-Job-Id")
	if err != nil || res.StatusCode != want || id == "" {
		n.failed = append(n.failed, fmt.Errorf("%s with %d bytes: %d, %.200s, %v", url, len(body), res.StatusCode, reply, err))
		return
	}
	n.took = append(n.took, time.Since(began))
	n.ids = append(n.ids, id)
}

// audit checks that each request is known.
func (n *normal) audit(ts *testscript.TestScript) {
	known := map[string]bool{}
	for _, which := range [][]string{{"--key", "normal"}, {"--webhook", "signed"}} {
		out, err := exec.Command("rtaskctl", append([]string{"audit", "--json", "-n", "10000000"}, which...)...).Output()
		ts.Check(err)
		var entries []struct{ Decision, Job string }
		ts.Check(json.Unmarshal(out, &entries))
		for _, e := range entries {
			if e.Decision == "accepted" {
				known[e.Job] = true
			}
		}
	}
	missing := 0
	for _, id := range n.ids {
		if !known[id] {
			missing++
		}
	}
	if missing > 0 {
		ts.Fatalf("rtaskctl audit does not know %d of %d requests", missing, len(n.ids))
	}
}

// flooderVariable begins the names of the variables that flood gives TestFlooder.
const flooderVariable = "RTASK_FLOODER_"

// TestFlooder is the process that flood starts: it floods until its standard input ends. In others it is no test.
func TestFlooder(t *testing.T) {
	d := &deluge{stop: make(chan struct{}), counts: map[string]int{}}
	switch os.Getenv(flooderVariable + "KIND") {
	case "remote":
		d.begin(func(name string) string { return os.Getenv(flooderVariable + name) })
	case "local":
		d.beginLocal()
	default:
		return
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	close(d.stop)
	d.all.Wait()
	fmt.Println(d.count())
}

// deluge is all floods.
type deluge struct {
	stop chan struct{}
	all  sync.WaitGroup

	mu     sync.Mutex // guards counts
	counts map[string]int
}

// begin starts them.
func (d *deluge) begin(getenv func(string) string) {
	hook, replay, job, bad, greedy := getenv("URL"), getenv("REPLAY"), getenv("JOB"), getenv("BAD"), getenv("GREEDY")
	api, https, metrics := "127.0.0.1:8800", "192.0.2.8:8443", "127.0.0.1:9090"
	head := func(path, key string, length int) string {
		text := "POST " + path + " HTTP/1.1\r\nHost: x\r\n"
		if key != "" {
			text += "Authorization: Bearer " + key + "\r\n"
		}
		return text + "Content-Length: " + strconv.Itoa(length) + "\r\n\r\nx"
	}
	// Connections that are kept, with what is sent on them first, and a letter now and then.
	for _, f := range []struct {
		name    string
		n       int
		to      string
		encrypt bool
		text    string
	}{
		{"idle", 3000, api, false, ""}, {"idle, metrics", 300, metrics, false, ""}, {"idle, HTTPS", 300, https, false, ""},
		{"slow head", 500, api, false, "POST /tasks/normal HTTP/1.1\r\nA: "}, {"slow handshake", 200, https, false, "\x16\x03\x01\x02\x00\x01"},
		{"slow head, HTTPS", 200, https, true, "POST /tasks/normal HTTP/1.1\r\nA: "},
		{"unsigned webhook", 400, api, false, head(hook, "", 262144)}, {"unsigned large webhook", 200, api, false, head(hook, "", 25<<20)},
		{"unsigned webhook, HTTPS", 200, https, true, head(hook, "", 262144)},
		{"nonsense key", 400, api, false, head("/tasks/normal", "nonsense", 262144)}, {"nonsense key, short", 400, api, false, head("/tasks/normal", "nonsense", 9000)},
		{"bad key", 100, api, false, head("/tasks/normal", bad, 9000)},
	} {
		for i := range f.n {
			d.repeat(f.name, 3*time.Second, func() error { return d.hold(f.to, i%4, f.encrypt, f.text) })
		}
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	post := func(name string, n int, pause time.Duration, path, body, header, value string) {
		for range n {
			d.repeat(name, pause, func() error {
				r, err := http.NewRequest("POST", "http://"+api+path, strings.NewReader(body))
				if err != nil {
					return err
				}
				r.Header.Set(header, value)
				return d.answer(name, client, r)
			})
		}
	}
	large := strings.Repeat("x", 100_000)
	post("nonsense keys", 4, 20*time.Millisecond, "/tasks/normal", large, "Authorization", "Bearer nonsense")
	post("bad keys", 4, 20*time.Millisecond, "/tasks/normal", "x", "Authorization", "Bearer "+bad)
	post("wrong signatures", 4, 20*time.Millisecond, hook, large, "X-Hub-Signature-256", signed("other"))
	post("no webhook", 2, 20*time.Millisecond, "/wh/none", "x", "X-None", "x")
	post("replays", 2, 20*time.Millisecond, replay, "once", "X-Hub-Signature-256", signed("once"))
	for name, path := range map[string]string{"followers": "/logs?follow=1", "waits": "?wait=5min"} {
		for range 200 {
			d.repeat(name, 2*time.Second, func() error {
				r, err := http.NewRequest("GET", "http://"+api+"/tasks/silent/"+job+path, nil)
				if err != nil {
					return err
				}
				r.Header.Set("Authorization", "Bearer "+greedy)
				return d.answer(name, client, r)
			})
		}
	}
}

// repeat calls do again and again, with a pause between, until the floods end. What goes wrong is what floods are for.
func (d *deluge) repeat(name string, pause time.Duration, do func() error) {
	d.all.Go(func() {
		for {
			_ = do()
			d.add(name)
			select {
			case <-d.stop:
				return
			case <-time.After(pause):
			}
		}
	})
}

func (d *deluge) add(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts[name]++
}

// count is how often what was done, by name.
func (d *deluge) count() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for name, n := range d.counts {
		all = append(all, fmt.Sprintf("%s %d", name, n))
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Compare(a, b) })
	return strings.Join(all, "; ")
}

// hold keeps a connection until the server closes it, or the floods end.
func (d *deluge) hold(to string, address int, encrypt bool, text string) error {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	if !strings.HasPrefix(to, "127.") {
		dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(10+address))}
	}
	c, err := dialer.Dial("tcp", to)
	if err != nil {
		return err
	}
	if encrypt {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true}) // it is after no answer
	}
	return d.keep(c, text)
}

// answer makes a request and reads the answer to its end, or that of the floods.
func (d *deluge) answer(name string, client *http.Client, r *http.Request) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d.all.Go(func() {
		select {
		case <-d.stop:
			cancel()
		case <-ctx.Done():
		}
	})
	res, err := client.Do(r.WithContext(ctx))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	d.add(name + " " + strconv.Itoa(res.StatusCode))
	var b bytes.Buffer
	_, err = b.ReadFrom(res.Body)
	return err
}

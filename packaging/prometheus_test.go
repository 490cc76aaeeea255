package packaging

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rtask/rtask/packaging/testkit"
)

const prometheusTasks = `
task "works" {
  command        = ["/bin/true"]
  blocking       = true
  api_keys       = ["demo"]
  max_concurrent = 1
  overflow       = "queue"
  queue          = 5
}
task "fails" {
  command  = ["/bin/false"]
  blocking = true
  api_keys = ["demo"]
}
task "waits" {
  command        = ["/bin/sleep", "1000"]
  timeout        = "infinity"
  api_keys       = ["demo"]
  max_concurrent = 1
  overflow       = "queue"
  queue          = 5
}
`

// mayBeEmpty are the queries that have nothing to show where there are no control groups.
func mayBeEmpty(query string) bool {
	return slices.ContainsFunc([]string{"rtask_oom_kills_total", "rtask_memory_peak_bytes"}, func(name string) bool {
		return strings.Contains(query, name)
	})
}

// TestDashboard runs each query of the dashboard, and each alert rule, in a Prometheus that scrapes a gateway, after some jobs.
func TestDashboard(t *testing.T) {
	prometheus := tool(t, "prometheus")
	api, metrics, key := engineWithJobs(t)
	rules, err := filepath.Abs("../contrib/prometheus/rtask.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 200ms, evaluation_interval: 200ms}\nrule_files: [%q]\nscrape_configs:\n- job_name: rtask\n  static_configs: [{targets: [%q]}]\n", rules, metrics)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	address := serve(t, prometheus, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--log.level=warn")
	// What there is from the start, and what comes with each task, is there when it was scraped twice.
	ask := func(path string, query url.Values, into any) error {
		r, err := http.Get("http://" + address + path + "?" + query.Encode())
		if err != nil {
			return err
		}
		defer r.Body.Close()
		var reply struct {
			Status, Error string
			Data          json.RawMessage
		}
		if err := json.NewDecoder(r.Body).Decode(&reply); err != nil {
			return err
		}
		if reply.Status != "success" {
			return fmt.Errorf("%s: %s", reply.Status, reply.Error)
		}
		return json.Unmarshal(reply.Data, into)
	}
	until := func(what string, done func() error) {
		t.Helper()
		var err error
		for range 600 {
			if err = done(); err == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Errorf("%s: %v", what, err)
	}
	var rows struct{ Result []json.RawMessage }
	until("Prometheus does not see the gateway", func() error {
		if err := ask("/api/v1/query", url.Values{"query": {"rtask_engine_up == 1"}}, &rows); err != nil {
			return err
		}
		if len(rows.Result) != 1 {
			return fmt.Errorf("%s", rows.Result)
		}
		return nil
	})

	// Once more, so that there is a rate of everything.
	someJobs(t, api, key)
	replace := strings.NewReplacer("$__rate_interval", "1m", "$instance", ".+", "$task", ".*")
	queries := dashboardQueries(t)
	if len(queries) < 10 {
		t.Fatalf("found %d queries only", len(queries))
	}
	for _, q := range queries {
		query := replace.Replace(q)
		if mayBeEmpty(query) {
			if err := ask("/api/v1/query", url.Values{"query": {query}}, &rows); err != nil {
				t.Errorf("%s: %v", query, err)
			}
			t.Logf("%d series, which may be none: %s", len(rows.Result), query)
			continue
		}
		until(query, func() error {
			if err := ask("/api/v1/query", url.Values{"query": {query}}, &rows); err != nil {
				return err
			}
			if len(rows.Result) == 0 {
				return fmt.Errorf("no data")
			}
			return nil
		})
	}
	// What its variables are filled with.
	for label, series := range map[string]string{"instance": "rtask_engine_up", "task": `rtask_jobs_ended_total{instance=~".+"}`} {
		var values []string
		if err := ask("/api/v1/label/"+label+"/values", url.Values{"match[]": {series}}, &values); err != nil || len(values) == 0 {
			t.Errorf("%s of %s: %v, %v", label, series, values, err)
		}
	}
	until("the rules", func() error {
		var all struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
		if err := ask("/api/v1/rules", nil, &all); err != nil {
			return err
		}
		n := 0
		for _, g := range all.Groups {
			for _, r := range g.Rules {
				if n++; r.Health != "ok" {
					return fmt.Errorf("%s: %s %s", r.Name, r.Health, r.LastError)
				}
			}
		}
		if n < 5 {
			return fmt.Errorf("%d rules only", n)
		}
		return nil
	})
}

// dashboardQueries are those of its panels.
func dashboardQueries(t *testing.T) []string {
	t.Helper()
	var dashboard struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal([]byte(read(t, "../contrib/grafana/rtask.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			all = append(all, target.Expr)
		}
	}
	return all
}

// engineWithJobs runs rtaskd as `make run` does, and some jobs.
func engineWithJobs(t *testing.T) (api, metrics, key string) {
	t.Helper()
	bin, dir := testkit.Programs(t), t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "tasks.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tasks.d", "tasks.hcl"), []byte(prometheusTasks), 0o644); err != nil {
		t.Fatal(err)
	}
	// The gateway runs as a user of its own where this is root.
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// A path of a socket is short.
	run, err := os.MkdirTemp("", "rtask")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	if err := os.Chmod(run, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "rtaskd"), "run", "--no-systemd", "--config", filepath.Join(dir, "rtask.hcl"),
		"--state-dir", filepath.Join(dir, "state"), "--log-dir", filepath.Join(dir, "log"), "--runtime-dir", run,
		"--api-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, cmd)
	serving := regexp.MustCompile(`serving what=(\w+) address=(\S+)`)
	addresses := map[string]string{}
	in := bufio.NewScanner(stderr)
	for len(addresses) < 2 && in.Scan() {
		if m := serving.FindStringSubmatch(in.Text()); m != nil {
			addresses[m[1]] = m[2]
		}
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }() // until it ends
	out, err := exec.Command(filepath.Join(bin, "rtaskctl"), "--socket", filepath.Join(run, "rtask.sock"), "key", "add", "demo").Output()
	if err != nil || len(addresses) < 2 {
		t.Fatalf("rtaskd did not come up: %v, %v", addresses, err)
	}
	api, metrics, key = addresses["api"], addresses["metrics"], strings.TrimSpace(string(out))
	someJobs(t, api, key)
	return api, metrics, key
}

// someJobs makes requests of each kind of result.
func someJobs(t *testing.T, api, key string) {
	t.Helper()
	for _, c := range []struct {
		task, key string
		status    int
	}{
		{"works", key, 200}, {"fails", key, 500}, {"waits", key, 202}, {"waits", key, 202}, {"works", "none", 401},
		{"nothing", key, 403},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+api+"/tasks/"+c.task, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+c.key)
		reply, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = reply.Body.Close()
		if reply.StatusCode != c.status {
			t.Errorf("%s: %d", c.task, reply.StatusCode)
		}
	}
}

// start starts a process that ends with the test.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Logf("%s: %v", filepath.Base(cmd.Path), err)
		}
	})
}

// serve starts a Prometheus that ends with the test, and returns its address. It cannot be asked which one it has chosen, so it is
// told one that is free; where somebody took that in the meantime, it is told another.
func serve(t *testing.T, prometheus string, args ...string) string {
	t.Helper()
	for range 10 {
		address := freeAddress(t)
		cmd := exec.Command(prometheus, append(args, "--web.listen-address="+address)...)
		var errs strings.Builder
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			ended <- cmd.Wait()
			close(ended)
		}()
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			if err := <-ended; err != nil {
				t.Logf("prometheus: %v", err)
			}
		})
		if ready(address, ended) {
			return address
		}
		if !strings.Contains(errs.String(), "address already in use") {
			t.Fatalf("prometheus ended:\n%s", errs.String())
		}
	}
	t.Fatal("prometheus found each of 10 free addresses in use")
	return ""
}

// ready waits until a Prometheus answers at an address, or reports that it ended.
func ready(address string, ended <-chan error) bool {
	client := &http.Client{Timeout: 5 * time.Second} // whoever listens there may say nothing
	for {
		select {
		case <-ended:
			return false
		case <-time.After(50 * time.Millisecond):
		}
		if r, err := client.Get("http://" + address + "/-/ready"); err == nil {
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return true
			}
		}
	}
}

// freeAddress returns an address of this machine that nobody listens on now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

package packaging

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// ownMetrics are the names of rtask's metrics in the sources, those of a histogram with what Prometheus adds to them.
func ownMetrics(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	name := regexp.MustCompile(`"(r?task_[a-z_]+)"`)
	for _, file := range []string{"../daemon/metrics.go", "../daemon/gateway/metrics.go"} {
		for _, m := range name.FindAllStringSubmatch(read(t, file), -1) {
			names[m[1]] = true
		}
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		names["task_duration_seconds"+suffix] = true
	}
	return names
}

// TestAlerts: Prometheus takes the rules, and they say what they should of series that are written out.
func TestAlerts(t *testing.T) {
	promtool := tool(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "rtask.rules.yml"}, {"test", "rules", "rtask.rules.test.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = "../contrib/prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestContribMetrics: alerts and dashboard ask for metrics that there are.
func TestContribMetrics(t *testing.T) {
	known := ownMetrics(t)
	asked := regexp.MustCompile(`\br?task_[a-z_]+\b`)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "../contrib/grafana/rtask.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	queries := map[string]string{}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			queries[p.Title] += target.Expr + "\n"
		}
	}
	for _, m := range regexp.MustCompile(`(?s)- alert: (\w+)\n\s+expr: (.*?)\n\s+(?:for|labels):`).FindAllStringSubmatch(read(t, "../contrib/prometheus/rtask.rules.yml"), -1) {
		queries[m[1]] = m[2]
	}
	if len(queries) < 15 {
		t.Fatalf("found %d queries only", len(queries))
	}
	seen := map[string]bool{}
	for where, query := range queries {
		names := asked.FindAllString(query, -1)
		if len(names) == 0 {
			t.Errorf("%s asks for none of rtask's metrics: %s", where, query)
		}
		for _, name := range names {
			if seen[name] = true; !known[name] {
				t.Errorf("%s asks for %s, which there is not", where, name)
			}
		}
	}
	for _, name := range []string{"rtask_queue_depth", "task_duration_seconds_bucket", "rtask_oom_kills_total", "rtask_key_failures_total"} {
		if !seen[name] {
			t.Errorf("nobody asks for %s", name)
		}
	}
}

// TestRenewUnits: systemd takes the units of contrib/renew.
func TestRenewUnits(t *testing.T) {
	dir := t.TempDir()
	for _, file := range []string{"rtask-renew@.service", "rtask-renew@.timer"} {
		text := strings.ReplaceAll(read(t, "../contrib/renew/"+file), "ExecStart=rtaskctl", "ExecStart=/bin/true")
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := analyze(t, dir, "verify", "--man=no", dir+"/rtask-renew@.service", dir+"/rtask-renew@.timer")
	if err != nil || out != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

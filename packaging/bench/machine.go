package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/rtask/rtask/ctl/client"
)

const (
	tasksFile   = "/etc/rtask/tasks.d/bench.hcl"
	webhookFile = "/etc/webhook.conf" // its service starts when there is one
	rtaskURL    = "http://127.0.0.1:8800/tasks/"
	webhookURL  = "http://127.0.0.1:9000/hooks/true"
	keyName     = "bench"
	// readyTime is how long a service may take to answer.
	readyTime = 10 * time.Second
)

// machine is the container with both sides set up in it.
type machine struct {
	engine *client.Client
	// key is the API key of the tasks, and webhook's secret.
	key string
	// pools: this rtask keeps slots warm, and there are the tasks "warm" and, under the profile "off", "warm-off".
	pools bool
}

// notes say what the figures were measured on.
func (m *machine) notes() []string {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		kernel = []byte("unknown")
	}
	notes := []string{
		fmt.Sprintf("rtask %s beside Debian 12's webhook and systemd, in a container on Linux %s with %d processors.",
			version(), bytes.TrimSpace(kernel), runtime.NumCPU()),
		"Load generator, peers and rtask share these; log and state are in memory. Both sides took turns; medians of the rounds.",
		"A ratio above 1 means that rtask does better than the peer. Every reply was 200, every job ended with 0.",
	}
	if !m.pools {
		notes = append(notes, "This rtask keeps no slots warm: every start is a cold one.")
	}
	return notes
}

func version() string {
	out, err := exec.Command("rtaskctl", "version").Output()
	if err != nil {
		return "of unknown version"
	}
	_, v, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	return v
}

// setUp configures both sides as a user would, and waits until they answer.
func setUp(ctx context.Context) (*machine, error) {
	if _, err := os.Stat("/testbed/io"); err != nil {
		return nil, errors.New("this is for the container of packaging/testbed, whose configuration it may overwrite: run make bench")
	}
	m := &machine{engine: client.Dial(client.DefaultPath)}
	// Jobs run as users of their own, who need not see the folder that the programs are in.
	if err := install(sibling("probe"), probe); err != nil {
		return nil, err
	}
	if err := writeLines(linesFile); err != nil {
		return nil, err
	}
	if err := command(ctx, "systemctl", "start", "rtask.socket", "rtask-gateway.socket"); err != nil {
		return nil, err
	}
	if err := m.tasks(ctx); err != nil {
		return nil, err
	}
	key, err := output(ctx, "rtaskctl", "key", "add", keyName)
	if err != nil {
		return nil, err
	}
	m.key = strings.TrimSpace(key)
	hooks := fmt.Sprintf(`[{"id": "true", "execute-command": "/bin/true", "include-command-output-in-response": true,
  "trigger-rule": {"match": {"type": "value", "value": "Bearer %s", "parameter": {"source": "header", "name": "Authorization"}}}},
 %s]
`, m.key, hook())
	if err := os.WriteFile(webhookFile, []byte(hooks), 0o600); err != nil {
		return nil, fmt.Errorf("cannot configure webhook: %w", err)
	}
	if err := command(ctx, "systemctl", "start", "webhook.service"); err != nil {
		return nil, err
	}
	for _, url := range []string{webhookURL, rtaskURL + "true"} {
		if err := m.ready(ctx, url); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// tasks configures the tasks: with pools, where this rtask has them.
func (m *machine) tasks(ctx context.Context) error {
	base := fmt.Sprintf(`
task "true" {
  command  = ["/bin/true"]
  blocking = true
  api_keys = [%[1]q]
}
task "sleep" {
  command  = ["/bin/sleep", "1000"]
  timeout  = "20min"
  blocking = true
  api_keys = [%[1]q]
}
task "talk" {
  command = ["/bin/sh", "-c", "echo begun; exec sleep 1000"]
  timeout = "20min"
}
task "lines" {
  command       = ["/bin/cat", %[2]q]
  timeout       = "5min"
  log_max_bytes = "1G"
}
task "lines-no-journal" {
  command       = ["/bin/cat", %[2]q]
  timeout       = "5min"
  log_max_bytes = "1G"
  journal       = false
}
task "numbers-no-journal" {
  command       = [%[3]s]
  timeout       = "5min"
  log_max_bytes = "1G"
  journal       = false
}
`, keyName, linesFile, `"`+strings.Join(numbers(), `", "`)+`"`)
	pools := base + task("cold", `pool { keep = "0s" }`) + task("warm", `pool { keep = "1min" }`) +
		task("warm-off", "pool { keep = \"1min\" }\n  sandbox { profile = \"off\" }")
	for _, text := range []string{pools, base + task("cold", "")} {
		if err := os.WriteFile(tasksFile, []byte(text), 0o644); err != nil {
			return fmt.Errorf("cannot configure rtask: %w", err)
		}
		err := command(ctx, "rtaskctl", "config", "check")
		if err == nil {
			m.pools = strings.Contains(text, "pool")
			return command(ctx, "rtaskctl", "reload")
		}
		if text != pools {
			return err
		}
	}
	return nil
}

// task is one that tells when it began.
func task(name, pool string) string {
	return fmt.Sprintf("task %q {\n  command = [%q]\n  %s\n}\n", name, probe, pool)
}

// ready waits until a request of one side succeeds.
func (m *machine) ready(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for {
		err := m.post(ctx, url)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", url, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// install copies a program of ours to where everybody can execute it.
func install(from, to string) error {
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		return fmt.Errorf("cannot install %s: %w", to, err)
	}
	return nil
}

// sibling is a program that lies beside this one.
func sibling(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}

// command runs a program and wants it to succeed.
func command(ctx context.Context, name string, args ...string) error {
	_, err := output(ctx, name, args...)
	return err
}

// output returns what a program prints.
func output(ctx context.Context, name string, args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("cannot run %s: %w: %s", cmd, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

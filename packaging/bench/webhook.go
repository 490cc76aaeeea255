package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

const (
	pushTask = "/etc/rtask/tasks.d/bench-push.hcl"
	pushHook = "http://127.0.0.1:9000/hooks/push"
	// pushSize is about how large a push is, and pushClients how many send one at a time.
	pushSize, pushClients = 20 << 10, 4
	pushSecret            = "of-the-bench"
)

// push is what GitHub sends, in a file for hey, with its headers.
type push struct {
	file    string
	headers []string
}

// measureWebhook compares a signed push of GitHub, of which a rule wants branch, repository and author: one that fits, after which
// /bin/true runs before the reply, and one that does not.
func measureWebhook(ctx context.Context, m *machine, rounds int) ([]row, error) {
	url, err := pushURL(ctx)
	if err != nil {
		return nil, err
	}
	const section = "Webhook, signed push of 20 KB with a condition, 4 clients"
	var rows, costs []row
	for _, which := range []struct{ what, author, ours, theirs string }{
		{"it runs /bin/true", "alice", `"exit_code":0`, ""},
		{"the condition is false", "bot", `"status":"ignored"`, "not satisfied"},
	} {
		p, err := writePush(which.author)
		if err != nil {
			return nil, err
		}
		ours := &side{url: url, groups: rtaskGroups(), push: p}
		theirs := &side{url: pushHook, groups: webhookGroups(), push: p}
		// Both decide as they should, or a figure would say nothing.
		for _, check := range []struct {
			s    *side
			want string
		}{{ours, which.ours}, {theirs, which.theirs}} {
			if err := check.s.decides(ctx, check.want); err != nil {
				return nil, err
			}
		}
		if err := m.alternate(ctx, ours, theirs, pushClients, rounds); err != nil {
			return nil, err
		}
		rows = append(rows, rate(section, which.what, "requests/s", ours.median(load.perSecond), theirs.median(load.perSecond), "webhook").aiming("≥ 1.0"))
		costs = append(costs, cpuRows("CPU for a webhook's request", which.what, ours, theirs)...)
	}
	return append(rows, costs...), nil
}

// pushURL configures the task, and returns the URL of its webhook.
func pushURL(ctx context.Context) (string, error) {
	text := fmt.Sprintf(`
task "push" {
  command        = ["/bin/true"]
  max_concurrent = 100
  overflow       = "queue"
  webhook "push" {
    verify  = "github"
    secrets = [%q]
    when    = body.ref == "refs/heads/main" && body.repository.full_name == "acme/site" && body.head_commit.author.name != "bot"
    respond = "result"
  }
}
`, pushSecret)
	if err := os.WriteFile(pushTask, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("cannot configure rtask: %w", err)
	}
	if err := command(ctx, "rtaskctl", "reload"); err != nil {
		return "", err
	}
	out, err := output(ctx, "rtaskctl", "webhook", "list", "--json")
	if err != nil {
		return "", err
	}
	var hooks []struct{ Task, URL string }
	if err := json.Unmarshal([]byte(out), &hooks); err != nil {
		return "", fmt.Errorf("cannot read the list of webhooks: %w", err)
	}
	for _, h := range hooks {
		if h.Task == "push" {
			return h.URL, nil
		}
	}
	return "", fmt.Errorf("there is no webhook of the task push in %s", out)
}

// hook is the same rule for webhook.
func hook() string {
	match := func(kind, key, value, source, name string) string {
		return fmt.Sprintf(`{"match": {"type": %q, %q: %q, "parameter": {"source": %q, "name": %q}}}`, kind, key, value, source, name)
	}
	return fmt.Sprintf(`{"id": "push", "execute-command": "/bin/true", "include-command-output-in-response": true, "trigger-rule": {"and": [%s]}}`,
		strings.Join([]string{
			match("payload-hmac-sha256", "secret", pushSecret, "header", "X-Hub-Signature-256"),
			match("value", "value", "refs/heads/main", "payload", "ref"),
			match("value", "value", "acme/site", "payload", "repository.full_name"),
			`{"not": ` + match("value", "value", "bot", "payload", "head_commit.author.name") + `}`,
		}, ", "))
}

// writePush makes a push whose last commit is somebody's.
func writePush(author string) (*push, error) {
	body, err := json.Marshal(pushOf(author))
	if err != nil {
		return nil, fmt.Errorf("cannot make a push: %w", err)
	}
	mac := hmac.New(sha256.New, []byte(pushSecret))
	mac.Write(body)
	p := &push{file: "/var/tmp/bench-push-" + author + ".json", headers: []string{
		"Content-Type: application/json", "X-GitHub-Event: push", "X-Hub-Signature-256: sha256=" + hex.EncodeToString(mac.Sum(nil)),
	}}
	if err := os.WriteFile(p.file, body, 0o644); err != nil {
		return nil, fmt.Errorf("cannot write a push: %w", err)
	}
	return p, nil
}

// pushOf has what GitHub's pushes have: the repository with its many URLs, and as many commits as make it pushSize
// (docs.github.com/en/webhooks/webhook-events-and-payloads#push).
func pushOf(author string) map[string]any {
	const repository = "https://api.github.com/repos/acme/site"
	id := func(n int) string { return fmt.Sprintf("%040x", n) }
	repo := map[string]any{
		"id": 35129377, "name": "site", "full_name": "acme/site", "private": true, "default_branch": "main", "pushed_at": 1700000000,
		"owner": map[string]any{"name": "acme", "login": "acme", "id": 6752317, "type": "Organization", "site_admin": false},
	}
	for _, name := range strings.Fields("archive assignees blobs branches collaborators comments commits compare contents contributors " +
		"deployments downloads events forks git_commits git_refs git_tags hooks issue_comment issue_events issues keys labels languages " +
		"merges milestones notifications pulls releases stargazers statuses subscribers subscription tags teams trees") {
		repo[name+"_url"] = repository + "/" + name + "{/name}"
	}
	who := func(name string) map[string]any {
		return map[string]any{"name": name, "email": name + "@example.org", "username": name}
	}
	commit := func(n int, name string) map[string]any {
		return map[string]any{
			"id": id(n), "tree_id": id(n + 1000), "distinct": true, "message": fmt.Sprintf("site: change number %d\n\nIt says what and why.", n),
			"timestamp": "2026-11-30T12:00:00+01:00", "url": "https://github.com/acme/site/commit/" + id(n), "author": who(name), "committer": who(name),
			"added": []string{fmt.Sprintf("pages/%d.html", n)}, "removed": []string{}, "modified": []string{"README.md", "pages/index.html"},
		}
	}
	var commits []any
	p := map[string]any{
		"ref": "refs/heads/main", "before": id(0), "after": id(1), "created": false, "deleted": false, "forced": false, "base_ref": nil,
		"compare": "https://github.com/acme/site/compare/main", "repository": repo, "pusher": who(author), "sender": who(author),
		"head_commit": commit(1, author),
	}
	for n := 2; ; n++ {
		p["commits"] = commits
		if b, err := json.Marshal(p); err != nil || len(b) >= pushSize {
			return p
		}
		commits = append(commits, commit(n, author))
	}
}

// decides sends one push, whose reply must say what is wanted, or nothing.
func (s *side) decides(ctx context.Context, want string) error {
	body, err := os.ReadFile(s.push.file)
	if err != nil {
		return fmt.Errorf("cannot read a push: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("cannot make a request: %w", err)
	}
	for _, h := range s.push.headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("cannot request: %w", err)
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("cannot read the reply: %w", err)
	}
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(reply), want) || want == "" && len(reply) > 0 {
		return fmt.Errorf("%s: the reply is %s: %s, and should say %q", s.url, resp.Status, reply, want)
	}
	return nil
}

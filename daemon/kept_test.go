package daemon

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

func (r *running) info(t testing.TB) *rtaskv1.InfoResponse {
	t.Helper()
	info, err := r.Jobs.Info(t.Context(), &rtaskv1.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// shows reports whether the diagnostics that doctor shows have a text, as an error.
func shows(i *rtaskv1.InfoResponse, text string) bool {
	for _, d := range i.Diagnostics {
		if d.Error && strings.Contains(d.Text, text) {
			return true
		}
	}
	return false
}

// The last configuration that was good serves at a start while the one on disk has errors.
func TestLastGoodConfiguration(t *testing.T) {
	dir := t.TempDir()
	file, kept := filepath.Join(dir, "tasks.d", "a.hcl"), filepath.Join(dir, "state", keptName)
	secret := filepath.Join(dir, "secret")
	hook := "task \"two\" {\n  command = [\"/bin/true\"]\n  webhook \"w\" {\n    verify = \"github\"\n    secret_files = [\"" + secret + "\"]\n  }\n}\n"
	write(t, secret, "0123456789abcdef\n")
	write(t, filepath.Join(dir, "rtask.hcl"), "max_jobs = 7\n")
	write(t, file, one+hook)
	r := run(t, dir)
	at := r.info(t).ConfigurationReadAt
	if at == nil {
		t.Error("a good configuration was not read at any time")
	}
	if fi, err := os.Stat(kept); err != nil || fi.Mode() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	r.stop(t)

	write(t, file, wrong)
	write(t, secret, "\n\n") // and what the good one names is wrong now
	r = run(t, dir)
	if got := r.tasks(t); got != "one two" {
		t.Errorf("the tasks are %q", got)
	}
	i := r.info(t)
	if !shows(i, "comand") || !i.ConfigurationReadAt.AsTime().Equal(at.AsTime()) {
		t.Errorf("%v", i)
	}
	if log := r.logs.String(); !strings.Contains(log, "the last good one is in force") {
		t.Errorf("the journal does not say so: %s", log)
	}
	if _, err := r.Jobs.Reload(t.Context(), &rtaskv1.ReloadRequest{}); err != nil || r.tasks(t) != "one two" {
		t.Errorf("%v, %s", err, r.tasks(t))
	}
	before, err := os.ReadFile(kept)
	if err != nil || !bytes.Contains(before, []byte(`"read_at"`)) {
		t.Errorf("%s, %v", before, err)
	}
	write(t, file, one)
	if _, err := r.Jobs.Reload(t.Context(), &rtaskv1.ReloadRequest{}); err != nil || r.tasks(t) != "one" || len(r.info(t).Diagnostics) != 0 {
		t.Errorf("%v, %s", err, r.tasks(t))
	}
	r.stop(t)
	write(t, file, wrong)
	r = run(t, dir)
	if got := r.tasks(t); got != "one" {
		t.Errorf("the tasks are %q", got)
	}
}

// What cannot be trusted or read is no configuration, and keeps no engine from starting.
func TestLastGoodConfigurationIsProtected(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"cut off":             func(p string) error { return os.Truncate(p, 20) },
		"others can read it":  func(p string) error { return os.Chmod(p, 0o604) },
		"others can write it": func(p string) error { return os.Chmod(p, 0o620) },
		"a link":              func(p string) error { return firstOf(os.Rename(p, p+"2"), os.Symlink(p+"2", p)) },
		"of another version": func(p string) error {
			return os.WriteFile(p, []byte(`{"files":[{"path":"a.hcl","data":"dGFzaw=="}]}`), 0o600)
		},
		"somebody else's": func(p string) error { return os.Chown(p, 54321, 0) },
		"too long":        func(p string) error { return os.Truncate(p, maxKept+1) },
	} {
		t.Run(name, func(t *testing.T) {
			if name == "somebody else's" && os.Geteuid() != 0 {
				t.Skip("only root can give a file away")
			}
			dir := t.TempDir()
			file := filepath.Join(dir, "tasks.d", "a.hcl")
			write(t, file, one)
			run(t, dir).stop(t)
			write(t, file, wrong)
			if err := spoil(filepath.Join(dir, "state", keptName)); err != nil {
				t.Fatal(err)
			}
			r := run(t, dir)
			if got := r.tasks(t); got != "unavailable" {
				t.Errorf("the tasks are %q", got)
			}
			if r.info(t).ConfigurationReadAt != nil || !strings.Contains(r.logs.String(), "the last configuration that was good") {
				t.Errorf("%s", r.logs)
			}
		})
	}
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// A keys file with an error keeps no engine from starting, and is never overwritten; a reload finds it.
func TestBrokenKeysFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "tasks.d", "a.hcl")
	keys := filepath.Join(dir, "state", "keys.toml")
	write(t, file, one)
	r := run(t, dir)
	added, err := r.Jobs.AddKey(t.Context(), &rtaskv1.AddKeyRequest{Name: "ci"})
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	broken := append([]byte("[[key]]\nnme = \"x\"\n"), good...)
	write(t, keys, string(broken))
	write(t, file, "task \"two\" {\n  command  = [\"/bin/true\"]\n  api_keys = [\"ci\", \"none\"]\n}\n")
	reply, err := r.Jobs.Reload(t.Context(), &rtaskv1.ReloadRequest{})
	if err != nil || len(reply.Diagnostics) == 0 || !strings.Contains(reply.Diagnostics[0].Text, keys+":2:1: error: ") {
		t.Errorf("%v, %v", reply, err)
	}
	if got := r.tasks(t); got != "one" {
		t.Errorf("a reload with an error changed something: %s", got)
	}
	r.stop(t)

	r = run(t, dir)
	if got := r.tasks(t); got != "two" {
		t.Errorf("the tasks are %q", got)
	}
	if i := r.info(t); !shows(i, keys+":2:1") || len(i.Diagnostics) != 1 { // and not that no key of the task is there
		t.Errorf("%v", i)
	}
	if _, err := r.Jobs.AddKey(t.Context(), &rtaskv1.AddKeyRequest{Name: "other"}); err == nil {
		t.Error("a key was added")
	}
	if _, err := r.Jobs.RevokeKey(t.Context(), &rtaskv1.RevokeKeyRequest{Key: "ci"}); err == nil {
		t.Error("a key was revoked")
	}
	if now, err := os.ReadFile(keys); err != nil || !bytes.Equal(now, broken) {
		t.Errorf("the file was written: %s, %v", now, err)
	}
	write(t, keys, string(good))
	if _, err := r.Jobs.Reload(t.Context(), &rtaskv1.ReloadRequest{}); err != nil {
		t.Error(err)
	}
	if i := r.info(t); len(i.Diagnostics) != 1 || i.Diagnostics[0].Error || !strings.Contains(i.Diagnostics[0].Text, file+":3:14: warning: api_keys: there is no API key \"none\"") {
		t.Errorf("%v", i)
	}
	list, err := r.Jobs.ListKeys(t.Context(), &rtaskv1.ListKeysRequest{})
	if err != nil || len(list.Keys) != 1 || list.Keys[0].Id != added.Key.Id {
		t.Errorf("%v, %v", list, err)
	}
}

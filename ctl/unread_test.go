package ctl

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestChangedSince(t *testing.T) {
	folder, read := t.TempDir(), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	if got := changedSince(folder, read); got != "" {
		t.Errorf("without files: %q", got)
	}
	if err := os.Mkdir(filepath.Join(folder, "tasks.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name string, at time.Time) string {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("rtask.hcl", read.Add(-time.Second))
	write("tasks.d/old.hcl", read)
	for _, other := range []string{"tasks.d/notes.txt", "tasks.d/.deploy.hcl.swp", "tasks.d/.deploy.hcl", "tasks.d/deploy.hcl~"} {
		write(other, read.Add(time.Hour))
	}
	if got := changedSince(folder, read); got != "" {
		t.Errorf("with files that are no configuration: %q", got)
	}
	for _, name := range []string{"tasks.d/z.toml", "tasks.d/y.hcl.json", "tasks.d/deploy.hcl", "rtask.hcl"} {
		if path := write(name, read.Add(time.Second)); changedSince(folder, read) != path {
			t.Errorf("%s is not seen: %q", path, changedSince(folder, read))
		}
	}
}

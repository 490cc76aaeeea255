package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// variable names the folder of the programs, where packaging/check and packaging/test built them once for all packages. Without it each
// package builds what it needs.
const variable = "RTASK_PROGRAMS"

// Main is what TestMain of a package does whose tests start rtask-shim: it runs them, and exits.
func Main(m *testing.M) {
	if os.Getenv(variable) != "" {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "rtask-shim-")
	if err == nil {
		err = build(dir, "rtask-shim")
	}
	if err == nil {
		err = os.Setenv(variable, dir)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// Shim returns where rtask-shim is, in a test of a package that calls Main.
func Shim() string { return filepath.Join(os.Getenv(variable), "rtask-shim") }

// Programs returns a folder with all programs, which other users can reach.
func Programs(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv(variable); dir != "" {
		return dir
	}
	dir := t.TempDir()
	if err := build(dir, "..."); err != nil {
		t.Fatal(err)
	}
	return dir
}

// build builds programs into dir and lets other users into that: jobs and the gateway run as such.
func build(dir, programs string) error {
	cmd := exec.Command("go", "build", "-o", dir+"/", "github.com/rtask/rtask/cmd/"+programs)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build %s: %w\n%s", programs, err, out)
	}
	for ; len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

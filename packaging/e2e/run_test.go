package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestMakeRun is what a newcomer does first: `make run`, and then the curl line that it prints, and those for a client of the remote API.
func TestMakeRun(t *testing.T) {
	path := interop(t) + string(filepath.ListSeparator) + os.Getenv("PATH")
	var cmd *exec.Cmd
	var lines []string
	for tries := 0; ; tries++ {
		cmd = makeRun(t, "../..", freeAddress(t), "RTASK_RUN_DIR="+t.TempDir(), "RTASK_METRICS_ADDRESS="+freeAddress(t),
			"RTASK_REMOTE_ADDRESS="+freeAddress(t), "PATH="+path)
		var out, errs strings.Builder
		cmd.Stderr = io.MultiWriter(os.Stderr, &errs)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines = nil
		for in := bufio.NewScanner(io.TeeReader(stdout, &out)); in.Scan() && in.Text() != "Ctrl-C ends it; jobs run on."; {
			for _, begin := range []string{"  curl ", "  token=", "  grpcurl "} {
				if strings.HasPrefix(in.Text(), begin) {
					lines = append(lines, in.Text())
				}
			}
		}
		if len(lines) == 3 {
			break
		}
		// Others may have taken an address since it was found free. Where it is that of the remote API, the rest runs.
		interrupt(t, cmd)
		if !strings.Contains(out.String()+errs.String(), "already in use") || tries == 10 {
			t.Fatalf("make run printed %q", lines)
		}
	}
	for _, line := range []struct{ command, want string }{{lines[0], `"stdout":"Hello, you!\n"`}, {lines[1] + "\n" + lines[2], `"task": "hello"`}} {
		try := exec.Command("sh", "-c", line.command)
		try.Env = append(os.Environ(), "PATH="+path)
		if out, err := try.CombinedOutput(); err != nil || !strings.Contains(string(out), line.want) {
			t.Errorf("%q printed %q, %v", line.command, out, err)
		}
	}
	interrupt(t, cmd)
}

// interrupt ends what makeRun made as a terminal does at Ctrl-C.
func interrupt(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // make reports the interruption
}

// interop builds what packaging/interop has, and returns the folder.
func interop(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../bin/interop")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "-C", "../interop", "build", "-ldflags=-s -w", "-o", dir+"/", "./...", "github.com/fullstorydev/grpcurl/cmd/grpcurl")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// makeRun is `make run` in a folder, with a state of its own.
func makeRun(t *testing.T, dir, api string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("make", "--no-print-directory", "-C", dir, "run")
	cmd.Env = append(os.Environ(), "RTASK_API_ADDRESS="+api, "RTASK_METRICS_ADDRESS=127.0.0.1:0", "RTASK_REMOTE_ADDRESS=")
	cmd.Env = append(cmd.Env, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// `make run` on a port that is taken says so in one line: which port, who has it, and what to do.
func TestMakeRunPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := makeRun(t, "../..", l.Addr().String(), "RTASK_RUN_DIR="+t.TempDir()).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	want := l.Addr().String() + " is already in use, by "
	if err == nil || !strings.HasPrefix(lines[0], want) || !strings.Contains(lines[0], "RTASK_API_ADDRESS=") || len(lines) != 2 { // make adds the second
		t.Errorf("%v: %s", err, out)
	}
	if _, err := exec.LookPath("ss"); err == nil && !strings.Contains(lines[0], "(process "+strconv.Itoa(os.Getpid())+")") {
		t.Errorf("who has it is missing: %s", lines[0])
	}
}

// `make run` in a tree that belongs to somebody else works, or says why it does not.
func TestMakeRunInOthersTree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to have a tree of somebody else's")
	}
	const nobody = 65534
	tree := filepath.Join(t.TempDir(), "tree")
	copied := exec.Command("sh", "-c", `mkdir "$1" && tar -C ../.. --exclude=./.git --exclude=./dist --exclude=./bin --exclude=./.run -cf - . | tar -C "$1" -xf - && chmod -R go+rX "$1"`, "sh", tree)
	if out, err := copied.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := open(tree); err != nil {
		t.Fatal(err)
	}
	chown := func(owner int, names ...string) {
		t.Helper()
		args := append([]string{"-R", fmt.Sprint(owner)}, names...)
		if out, err := exec.Command("chown", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}

	chown(nobody, tree)
	answers(t, makeRun(t, tree, freeAddress(t), "RTASK_RUN_DIR="+t.TempDir()), "root, in the tree of nobody")

	chown(0, tree)
	home := t.TempDir()
	chown(nobody, home)
	if err := open(home); err != nil {
		t.Fatal(err)
	}
	asNobody := func() *exec.Cmd {
		cmd := makeRun(t, tree, freeAddress(t), "HOME="+home, "XDG_STATE_HOME=", "XDG_RUNTIME_DIR=", "TMPDIR="+home)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		return cmd
	}
	answers(t, asNobody(), "nobody, in the tree of root, which is built")
	if err := os.RemoveAll(filepath.Join(tree, "bin")); err != nil {
		t.Fatal(err)
	}
	out, err := asNobody().CombinedOutput()
	if want := tree + " belongs to root, and you may not build there. Make a copy of your own: git clone " + tree; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("nobody, in the tree of root, which is not built: %v: %s", err, out)
	}
}

// answers starts cmd, tries the curl line that it prints, and ends it.
func answers(t *testing.T, cmd *exec.Cmd, about string) {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := ""
	for in := bufio.NewScanner(io.TeeReader(stdout, &all)); line == "" && in.Scan(); {
		if strings.HasPrefix(in.Text(), "  curl ") {
			line = in.Text()
		}
	}
	if line == "" {
		t.Errorf("%s: %v: %s", about, cmd.Wait(), all.String())
		return
	}
	if warnings := strings.Count(all.String(), " WARN "); warnings > 1 {
		t.Errorf("%s: %d warnings: %s", about, warnings, all.String())
	}
	out, err := exec.Command("sh", "-c", line).Output()
	if err != nil || !strings.Contains(string(out), `"stdout":"Hello, you!\n"`) {
		t.Errorf("%s: %q printed %q, %v", about, line, out, err)
	}
	interrupt(t, cmd)
}

// Package e2e tests what users see, through the programs themselves: the scripts of testdata/foreground run against
// `rtaskd run` on this machine, those of testdata/installed against the installed package on real systemd, in the
// container that packaging/testbed boots.
package e2e

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rtask/rtask/packaging/testkit"
)

// commands are what scripts can do beside testscript's own.
func commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"capture": capture, "cursor": cursor, "retry": retry, "prefix": prefix, "followers": followers, "storm": storm, "deaf": deaf, "in-turn": inTurn,
		"hold": hold, "held-closed": heldClosed, "held-to": heldTo, "serve-while": serveWhile, "reloads": reloads,
		"relay": startRelay, "cut": cut, "broke": broke, "ends": testkit.Ends,
		"flood": flood, "strangers": strangers,
	}
}

// capture VAR REGEXP sets VAR to the first group, or the whole, of what REGEXP finds in the last standard output.
func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture VAR REGEXP")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	m := re.FindStringSubmatch(ts.ReadFile("stdout"))
	if m == nil {
		ts.Fatalf("no match for %q in stdout", args[1])
	}
	ts.Setenv(args[0], m[len(m)-1])
}

// cursor VAR sets VAR to where the journal ends now, for journalctl --cursor: two entries of one second can be on different
// sides of it, which --since cannot tell. It is the place of an entry that this command makes, which no filter of a script
// matches: journalctl 252 takes one entry too few with --after-cursor where the entry at the cursor does not match the filter.
// A script runs journalctl --sync before it reads.
func cursor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: cursor VAR")
	}
	mark := "cursor-" + rand.Text()
	ts.Check(ts.Exec("logger", "-p", "debug", "-t", mark, "the script has come here"))
	ts.Check(ts.Exec("journalctl", "--sync"))
	ts.Check(ts.Exec("journalctl", "--quiet", "--no-pager", "--output=json", "SYSLOG_IDENTIFIER="+mark))
	var entry struct {
		Cursor string `json:"__CURSOR"`
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &entry))
	if entry.Cursor == "" {
		ts.Fatalf("the entry has no cursor")
	}
	ts.Setenv(args[0], entry.Cursor)
}

// prefix VAR N TEXT sets VAR to the first N characters of TEXT.
func prefix(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: prefix VAR N TEXT")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Setenv(args[0], args[2][:n])
}

// retry SECONDS COMMAND… runs a command until it succeeds, and with ! until it fails. What is waited for comes by itself,
// so the time is only the point at which the test gives up. Between two tries it pauses for three times as long as the command
// took, or a second: who asks all the time holds up what is asked for, most of all where the processor is emulated.
func retry(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: [!] retry SECONDS COMMAND…")
	}
	seconds, err := strconv.Atoi(args[0])
	ts.Check(err)
	for deadline := time.Now().Add(time.Duration(seconds) * time.Second); ; {
		begin := time.Now()
		err = ts.Exec(args[1], args[2:]...)
		if (err == nil) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q did not come about in %d s", args[1:], seconds)
		}
		time.Sleep(min(time.Second, max(50*time.Millisecond, 3*time.Since(begin))))
	}
}

// TestForeground runs rtaskd as `make run` does, without systemd, anew for each script. A script finds KEY, SOCKET, API and
// METRICS in its environment, its tasks.d in $TASKS, and rtaskctl set up to use it.
func TestForeground(t *testing.T) {
	bin := testkit.Programs(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/foreground", Cmds: commands(), RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error { return startForeground(e, bin) },
	})
}

// freeAddress returns an address of this machine that nobody listens on now. Somebody may as soon as it returns.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// open lets other users into a temporary folder: the gateway and some commands run as such.
func open(dir string) error {
	for ; len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func startForeground(e *testscript.Env, bin string) error {
	holdings(e)
	e.Values[relaysKey{}] = &relays{all: map[string]*relay{}}
	tasks := filepath.Join(e.WorkDir, "tasks.d")
	run := filepath.Join(e.WorkDir, "r")
	for _, dir := range []string{tasks, run} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := open(e.WorkDir); err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(bin, "rtaskd"), "run", "--no-systemd", "--config", filepath.Join(e.WorkDir, "rtask.hcl"),
		"--state-dir", filepath.Join(e.WorkDir, "state"), "--log-dir", filepath.Join(e.WorkDir, "log"), "--runtime-dir", run,
		"--api-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0")
	// A file that whoever starts it left open: descriptors.txtar looks for it.
	left, err := os.Create(filepath.Join(e.WorkDir, "left-open"))
	if err != nil {
		return err
	}
	defer left.Close()
	cmd.ExtraFiles = []*os.File{left}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	e.Setenv("RTASKD", strconv.Itoa(cmd.Process.Pid))
	log, err := os.Create(filepath.Join(e.WorkDir, "rtaskd.log"))
	if err != nil {
		return err
	}
	e.Defer(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = log.Close()
	})
	addresses := map[string]string{}
	in := bufio.NewScanner(stderr)
	for len(addresses) < 2 && in.Scan() {
		fmt.Fprintln(log, in.Text())
		if m := regexp.MustCompile(`serving what=(\w+) address=(\S+)`).FindStringSubmatch(in.Text()); m != nil {
			addresses[m[1]] = m[2]
		}
	}
	if len(addresses) < 2 {
		return fmt.Errorf("rtaskd did not come up")
	}
	go func() { _, _ = io.Copy(log, stderr) }()
	e.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	e.Setenv("RTASK_SOCKET", filepath.Join(run, "rtask.sock"))
	e.Setenv("API", "http://"+addresses["api"])
	e.Setenv("METRICS", "http://"+addresses["metrics"])
	e.Setenv("TASKS", tasks)
	out, err := exec.Command(filepath.Join(bin, "rtaskctl"), "--socket", filepath.Join(run, "rtask.sock"), "key", "add", "demo").Output()
	if err != nil {
		return fmt.Errorf("cannot add a key: %w", err)
	}
	e.Setenv("KEY", strings.TrimSpace(string(out)))
	return nil
}
